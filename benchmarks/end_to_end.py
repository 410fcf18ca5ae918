"""Training on pictures against a bare ResNet18; figures in docs/performance/pictures.md.

    python benchmarks/end_to_end.py --data_path=DIR [--size=64 --model=MF_Image --device=cpu]
        [--only=finetune,bfloat16] [--out=benchmarks/runs/end-to-end.jsonl]

``DIR/pictures-SIZE`` is generated if missing: 2,000 random pictures from a seed, as PNG files,
with 2,000 users and 20,000 pairs. One step is a training batch as in a run: sampled pairs, their
distinct pictures through the network, loss, backward pass and optimizer. The reference is
torchvision's resnet18 without its classifier, forward and backward over the same number of
normalised float pictures in memory, in the best of its forms: whole batch or blocks, both memory
layouts, BatchNorm in training or not. All take turns in one process; each time is the minimum over
``--runs``, processor time on a CPU with one thread and wall time on a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from platform import python_version
from time import perf_counter, process_time

import numpy as np
import torch
from PIL import Image
from synthetic import draw_pairs
from torch import nn
from torchvision import models

from recbole_cierec.config.config import Config
from recbole_cierec.quick_start import prepare

PICTURES, USERS, PAIRS, GRID = 2000, 2000, 20000, 8
FINETUNE = {"encoder_training": "finetune"}
WAYS: dict[str, dict] = {
    "finetune": {},
    "flip": {"augmentation": "flip"},
    "crop_flip": {"augmentation": "crop_flip"},
    "every picture twice": {"encoder_memory": 0},
    "bfloat16": {"encoder_precision": "bfloat16"},
    "layer2 frozen": {"encoder_freeze_until": "layer2", "encoder_stage_cache": "none"},
    "layer2 frozen and cached": {"encoder_freeze_until": "layer2"},
    "layer3 frozen and cached": {"encoder_freeze_until": "layer3"},
    "compiled": {"encoder_compile": True},
}


def make(into: Path, size: int, count: int = PICTURES, seed: int = 0) -> str:
    """Write the data set of ``count`` pictures unless it exists; returns its name."""
    name = f"pictures-{size}"
    home = into / name
    if (home / f"{name}.inter").is_file():
        return name
    (home / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(USERS, count, PAIRS, rng)
    lines = [f"i{k}\timages/{k}.png\tt{k % 50} t{50 + k % 7}\n" for k in range(count)]
    for k in range(count):
        coarse = rng.integers(0, 256, (GRID, GRID, 3), dtype=np.uint8)
        pixels = coarse.repeat(size // GRID, 0).repeat(size // GRID, 1)
        Image.fromarray(pixels).save(home / "images" / f"{k}.png")
    header = "item_id:token\timage_path:token\tannotations:token_seq\n"
    (home / f"{name}.item").write_text(header + "".join(lines))
    rows = "".join(f"u{u}\ti{i}\t{k}\n" for k, (u, i) in enumerate(pairs))
    (home / f"{name}.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    return name


# ------------------------------------------------------------------------------- what is timed


class First:
    """The first batches of a loader, sampled again in each pass."""

    def __init__(self, loader, count: int) -> None:
        self.loader, self.count, self.shuffle = loader, count, False

    def __iter__(self):
        return islice(iter(self.loader), self.count)

    def __len__(self) -> int:
        return self.count


def ours(arguments: argparse.Namespace, name: str, keys: dict) -> tuple[Callable, Callable]:
    """A training step on one batch, and a function that returns its distinct pictures."""
    settings = {
        "data_path": str(arguments.data_path), "cache_dir": str(arguments.data_path / "cache"),
        "visual_encoder": "resnet18", "encoder_weights": "random", "image_size": arguments.size,
        "train_batch_size": arguments.batch, "encoder_batch_size": arguments.block,
        "embedding_size": 64, "show_progress": False, "state": "error",
        "use_gpu": arguments.device != "cpu", **FINETUNE, **keys,
    }  # fmt: skip
    # `reproducibility` keeps its default, True: else cuDNN would benchmark its kernels again for
    # each size of a batch's last block, while the blocks of the bare network have one size.
    config = Config(arguments.model, name, None, settings, {})
    job = prepare(config, saved=False)
    counts: list[int] = []
    inner = job.model.encoder.forward

    def counted(items):
        counts.append(len(torch.unique(items)))
        return inner(items)

    job.model.encoder.forward = counted
    batch = First(job.loaders[0], 1)
    return partial(job.trainer._train_epoch, batch, 0), lambda: counts[-1]


def floors(arguments: argparse.Namespace, count: int) -> dict[str, Callable]:
    """The bare network in its forms, by name."""
    found: dict[str, Callable] = {}
    for training in (True, False):
        for layout in (torch.contiguous_format, torch.channels_last):
            for block in (arguments.block, count):
                network = models.resnet18(weights=None)
                network.fc = nn.Identity()
                network.train(training).to(arguments.device, memory_format=layout)
                pictures = torch.randn(count, 3, arguments.size, arguments.size)
                pictures = pictures.to(arguments.device, memory_format=layout)
                norm = "training" if training else "stored"
                title = f"bare, {str(layout).removeprefix('torch.')}, {norm} BatchNorm, by {block}"
                found[title] = partial(bare_step, network, pictures, block)
    return found


def bare_step(network: nn.Module, pictures: torch.Tensor, block: int) -> None:
    network.zero_grad()
    for part in pictures.split(block):
        network(part).sum().backward()


def seconds(work: Callable, device: str) -> float:
    clock = process_time if device == "cpu" else perf_counter
    start = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--model", default="MF_Image")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for key, default in (("size", 64), ("batch", 192), ("block", 64), ("runs", 3)):
        parser.add_argument(f"--{key}", type=int, default=default)
    parser.add_argument(
        "--only", default="", help="ways, separated by commas; default: all except compiled"
    )
    parser.add_argument(
        "--floors", default="", help="only bare forms whose name contains this text"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = make(arguments.data_path, arguments.size)
    names = arguments.only.split(",") if arguments.only else [w for w in WAYS if w != "compiled"]
    steps = {way: ours(arguments, name, WAYS[way]) for way in names}
    for step, _ in steps.values():
        step()  # opens stores, compiles, measures
    count = next(iter(steps.values()))[1]()
    bare = floors(arguments, count).items()
    work = {title: step for title, step in bare if arguments.floors in title}
    work |= {way: step for way, (step, _) in steps.items()}
    pictures = {way: number for way, (_, number) in steps.items()}
    speeds = {title: 0.0 for title in work}
    for _ in range(arguments.runs):
        for title, step in work.items():
            took = seconds(step, arguments.device)
            done = pictures[title]() if title in pictures else count
            speeds[title] = max(speeds[title], done / took)
    report(arguments, speeds, count)


def report(arguments: argparse.Namespace, speeds: dict[str, float], count: int) -> None:
    """Print the table, and append its rows to ``--out``."""
    floor = max(speed for title, speed in speeds.items() if title.startswith("bare"))
    print(f"{arguments.model}, {arguments.size} px, about {count} distinct pictures per batch")
    print("| | pictures/s | of the best bare form |\n|---|---|---|")
    common = {
        "model": arguments.model, "size": arguments.size, "device": arguments.device,
        "pictures": count, "block": arguments.block, "threads": 1,
        "python": python_version(), "torch": torch.__version__,
    }  # fmt: skip
    rows = []
    for title, speed in speeds.items():
        print(f"| {title} | {speed:.1f} | {speed / floor:.2f} |")
        figures = {"pictures_per_s": round(speed, 2), "of_bare": round(speed / floor, 3)}
        rows.append(json.dumps({"what": title, **figures, **common}))
    if arguments.out:
        with arguments.out.open("a") as file:
            file.writelines(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()
