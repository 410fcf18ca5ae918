"""Decoding pictures, building a store, extracting features; docs/performance/pictures.md.

    python benchmarks/pictures.py --data_path=DIR [--what=decode,store,extract] [--rounds=5]
        [--out=benchmarks/runs/pictures.jsonl]

``DIR/photos-SIZE`` is generated if missing: JPEGs of quality 85 from a seed, noise whose amplitude
falls with the frequency as in photographs (45 kB at 500 pixels, 290 kB at 1,500). The ways of one
table take turns in one process with one torch thread; a row has the least processor and the least
wall seconds of ``--rounds``. The error is that against a full decode by Pillow and one
antialiased resize, in steps of 255.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import PIL
import torch
from PIL import Image
from torch import nn
from torchvision import models

from recbole_cierec.vision.features import extract_features
from recbole_cierec.vision.picture_store import PictureStore, open_store
from recbole_cierec.vision.pictures import PictureSpec, decode_picture
from recbole_cierec.vision.visual_encoder import VisualEncoder

SIZE, QUALITY, BLOCK = 224, 85, 64
DISTINCT = 40  # pictures that are drawn; more are copies with another comment
SPECS = {decode: PictureSpec(SIZE, decode=decode) for decode in ("exact", "fast")}


def photo(side: int, seed: int) -> Image.Image:
    """Noise like a photograph's; its channels correlate."""
    noise = np.random.default_rng(seed).standard_normal((3, side, side))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    frequency[0, 0] = 1
    values = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.5, s=(side, side))
    values = (values - values.mean()) / values.std()
    values[1:] = 0.7 * values[0] + 0.3 * values[1:]
    pixels = (128 + 50 * values).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def make(into: Path, side: int, count: int) -> list[Path]:
    """The files ``photos-SIDE/K.jpg``, written if missing."""
    folder = into / f"photos-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{k}.jpg" for k in range(count)]
    for k, file in enumerate(files):
        if not file.exists():
            photo(side, k % DISTINCT).save(file, quality=QUALITY, comment=str(k).encode())
    return files


# ------------------------------------------------------------------------------- ways to decode


def by_pillow(file: Path, draft: bool) -> np.ndarray:
    """What a short script does: no limits, no orientation, no checks."""
    with Image.open(file) as picture:
        if draft:
            picture.draft("RGB", (SIZE, SIZE))
        return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


DECODERS: dict[str, Callable[[Path], np.ndarray]] = {
    "Pillow, full": partial(by_pillow, draft=False),
    "Pillow with draft": partial(by_pillow, draft=True),
    "exact": partial(decode_picture, spec=SPECS["exact"]),
    "fast": partial(decode_picture, spec=SPECS["fast"]),
}


def decode(arguments: argparse.Namespace) -> Iterable[dict]:
    for side in (500, 1500):
        files = make(arguments.data_path, side, DISTINCT)

        def all_of(way: Callable[[Path], np.ndarray], files: list[Path] = files) -> None:
            for file in files:
                way(file)

        work = {name: partial(all_of, way) for name, way in DECODERS.items()}
        wanted = np.stack([DECODERS["Pillow, full"](file) for file in files]).astype(int)
        for name, row in in_turns(work, arguments.rounds, len(files)).items():
            found = np.stack([DECODERS[name](file) for file in files])
            error = np.abs(found - wanted)
            yield {
                "what": "decode", "way": name, "side": side, **row,
                "mean_error": round(float(error.mean()), 3), "max_error": int(error.max()),
            }  # fmt: skip


# ------------------------------------------------------------------------------- stores, features


def built(files: list[Path], decode: str, workers: int, cache: Path) -> PictureStore:
    return open_store(
        files[0].parent, [file.name for file in files], SPECS[decode], bad_image="error",
        cache_dir=cache, workers=workers, progress=False,
    )  # fmt: skip


def store(arguments: argparse.Namespace) -> Iterable[dict]:
    files = make(arguments.data_path, 500, arguments.count)

    def build(decode: str, workers: int) -> None:
        with tempfile.TemporaryDirectory(dir=arguments.data_path) as folder:
            built(files, decode, workers, Path(folder))

    build("fast", 1)  # torch and Pillow load their parts
    peak = peak_mib()
    work = {
        f"{decode}, {workers} thread(s)": partial(build, decode, workers)
        for decode in SPECS
        for workers in (1, 2, 4)
    }
    for name, row in in_turns(work, arguments.rounds, len(files)).items():
        yield {"what": "store", "way": name, "side": 500, **row}
    yield {"what": "store", "way": "growth of the peak", "mib": round(peak_mib() - peak, 1)}


def extract(arguments: argparse.Namespace) -> Iterable[dict]:
    files = make(arguments.data_path, 500, arguments.extracted)
    with tempfile.TemporaryDirectory(dir=arguments.data_path) as folder:
        pictures = built(files, "fast", 2, Path(folder))
        encoder = VisualEncoder("resnet18", "random")
        network = models.resnet18(weights=None).eval().to(memory_format=torch.channels_last)
        network.fc = nn.Identity()
        inputs = torch.randn(len(files), 3, SIZE, SIZE)
        blocks = inputs.to(memory_format=torch.channels_last).split(BLOCK)

        def bare() -> None:
            with torch.inference_mode():
                for block in blocks:
                    network(block)

        def ours() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                extract_features(
                    pictures, encoder, cache_dir=Path(cache), batch_size=BLOCK, device="cpu",
                    progress=False,
                )  # fmt: skip

        work = {"bare resnet18": bare, "extract_features": ours}
        for name, row in in_turns(work, arguments.rounds, len(files)).items():
            yield {"what": "extract", "way": name, "side": SIZE, **row}


# ------------------------------------------------------------------------------- timing


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_turns(work: dict[str, Callable[[], None]], rounds: int, count: int) -> dict[str, dict]:
    """The least processor and wall time of each, in pictures per second."""
    best = {name: [float("inf")] * 2 for name in work}
    for _ in range(rounds):
        for name, job in work.items():
            wall, processor = perf_counter(), process_time()
            job()
            took = process_time() - processor, perf_counter() - wall
            best[name] = [min(pair) for pair in zip(best[name], took, strict=True)]
    return {
        name: {
            "pictures": count, "cpu_s": round(cpu, 3), "wall_s": round(wall, 3),
            "per_cpu_s": round(count / cpu, 1), "per_wall_s": round(count / wall, 1),
        }
        for name, (cpu, wall) in best.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--what", default="decode,store,extract")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=400, help="pictures of a store")
    parser.add_argument("--extracted", type=int, default=192, help="pictures to extract")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    common = {"torch": torch.__version__, "pillow": PIL.__version__, "machine": platform.machine()}
    jobs = {"decode": decode, "store": store, "extract": extract}
    for what in arguments.what.split(","):
        for row in jobs[what](arguments):
            print(row)
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(json.dumps({**row, **common}) + "\n")


if __name__ == "__main__":
    main()
