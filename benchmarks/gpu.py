"""Everything that a GPU should do, in under ten minutes; results in docs/gpu.md.

    python benchmarks/gpu.py --data_path=DIR [--device=cuda] [--what=contract,models,finetune]
    python benchmarks/gpu.py --data_path=DIR --device=cpu --quick    # the same code, small

- ``contract``: tests/model/test_model_contract.py on the device: every model against equations
  written out in float64, gradients, candidate lists, saved weights.
- ``models``: MF, VBPR and CIERec on the synthetic set of synthetic.py: pairs per second of
  training, seconds of ranking all users by ``user500`` and by full ranking, peak memory.
- ``finetune``: ResNet18 trained with MF_Image, in float32 and bfloat16, against the bare network
  in the best of its forms (end_to_end.py), at 224 pixels.

Rows are appended to ``--out`` as they are measured, and docs/gpu.md's table is written from that
file; ``--page`` does only this. All times are wall times up to the end of the device's work.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from end_to_end import First, floors, ours
from end_to_end import make as make_pictures
from evaluation import evaluate
from synthetic import make
from training import BATCH, job_of, versions

from recbole_cierec.files.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RUNS, PAGE = ROOT / "benchmarks" / "runs" / "gpu.jsonl", ROOT / "docs" / "gpu.md"
CONTRACT = ROOT / "tests" / "model" / "test_model_contract.py"
CONTRACT_SECONDS = 300
QUICK_TESTS = "MF_Content and (equations or hand_computed or candidate)"
_PLACE = re.compile(r"(?<=<!-- gpu: begin -->\n).*?(?=<!-- gpu: end -->)", re.DOTALL)
NO_FIGURES = (
    "No figures of a CUDA device exist yet. The rows below show only that the script runs; they\n"
    "come from small data on a CPU.\n\n"
)


def timed(work, device: str) -> float:
    """Wall seconds of a call, the device's work included."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return perf_counter() - start


def peak(device: str) -> int | None:
    """MiB that torch has taken of the GPU at most since the last call."""
    if device == "cpu":
        return None
    most = torch.cuda.max_memory_allocated() // 2**20
    torch.cuda.reset_peak_memory_stats()
    return most


# ------------------------------------------------------------------------------- parts


def contract(arguments: argparse.Namespace) -> Iterator[dict]:
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=line", "-p", "no:cacheprovider"]
    command += [str(CONTRACT), f"--device={arguments.device}"]
    command += ["-k", QUICK_TESTS] if arguments.quick else []
    start = perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=CONTRACT_SECONDS, check=False
        )
        out = done.stdout
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode() if error.stdout else ""
        out += f"\n1 failed: stopped after {CONTRACT_SECONDS} s"
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]
    if failed:
        print("\n".join(failed))
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", out)}
    took = round(perf_counter() - start, 1)
    text = ", ".join(f"{n} {word}" for word, n in counts.items()) or "no test ran"
    yield {"part": "contract", "name": "tests of all models", "result": text, "seconds": took}


def trained(arguments: argparse.Namespace, model: str) -> Iterator[dict]:
    """Rows of one model."""
    on_gpu = arguments.device != "cpu"
    keys = {"use_gpu": on_gpu, "train_batch_size": 256 if arguments.quick else BATCH}
    for mode in ("user500", "full"):
        if mode == "user500" and arguments.quick:
            mode = "user50"
        modes = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": mode}
        job = job_of(arguments.data_path, model, {**keys, "eval_args": modes})
        row = {"part": "models", "name": model}
        if mode != "full":
            loader = job.loaders[0]
            few = min(len(loader), 5 if arguments.quick else 100)
            epoch = partial(job.trainer._train_epoch, First(loader, few), 0)
            epoch()  # kernels are chosen and loaded
            peak(arguments.device)
            took = min(timed(epoch, arguments.device) for _ in range(2))
            pairs = round(few * keys["train_batch_size"] / took)
            result = f"{pairs:,} pairs/s"
            yield {**row, "what": "training", "result": result, "mib": peak(arguments.device)}
        evaluate(job)
        took = timed(partial(evaluate, job), arguments.device)
        result = f"{took:.2f} s"
        yield {**row, "what": f"ranking, {mode}", "result": result, "mib": peak(arguments.device)}


def all_models(arguments: argparse.Namespace) -> Iterator[dict]:
    sizes = (300, 200, 3000, 32) if arguments.quick else (20000, 10000, 500000, 512)
    make(arguments.data_path, *sizes)
    for model in ("MF", "VBPR", "CIERec"):
        yield from trained(arguments, model)


def finetune(arguments: argparse.Namespace) -> Iterator[dict]:
    count = 60 if arguments.quick else 2000
    arguments.size, arguments.model = (64 if arguments.quick else 224), "MF_Image"
    arguments.batch, arguments.block = (8, 4) if arguments.quick else (192, 64)
    name = make_pictures(arguments.data_path, arguments.size, count)
    ways = {"float32": {}, "bfloat16": {"encoder_precision": "bfloat16"}}
    steps = {way: ours(arguments, name, keys) for way, keys in ways.items()}
    for step, _ in steps.values():
        step()
    pictures = next(iter(steps.values()))[1]()
    bare = floors(arguments, pictures)
    if arguments.quick:
        bare = dict(islice(bare.items(), 2))
    work = bare | {way: step for way, (step, _) in steps.items()}
    speeds = dict.fromkeys(work, 0.0)
    for _ in range(2 if arguments.quick else 5):
        for title, step in work.items():
            took = timed(step, arguments.device)
            done = steps[title][1]() if title in steps else pictures
            speeds[title] = max(speeds[title], done / took)
    best = max(speeds[title] for title in bare)
    row = {"part": "finetune", "name": f"ResNet18, {arguments.size} px"}
    yield {**row, "what": "bare network, best form", "result": f"{best:.1f} pictures/s"}
    for way in ways:
        text = f"{speeds[way]:.1f} pictures/s, {speeds[way] / best:.2f} of the bare network"
        yield {**row, "what": way, "result": text}


# ------------------------------------------------------------------------------- page


def section(rows: list[dict]) -> str:
    """The tables of docs/gpu.md: those of GPUs if there are any."""
    on_gpu = [row for row in rows if row["device"] != "cpu" and not row["quick"]]
    chosen = on_gpu or rows
    latest = {(r["device"], r["part"], r["name"], r.get("what")): r for r in chosen}
    body = [
        [row["device"], row["name"], row.get("what", ""), row["result"], str(row.get("mib") or "-")]
        for row in latest.values()
    ]
    table = markdown_table([["device", "", "", "result", "peak MiB"], *body]) + "\n"
    last = chosen[-1] if chosen else {}
    note = f"\ntorch {last['torch']}, recbole {last['recbole']}.\n" if last else ""
    return ("" if on_gpu else NO_FIGURES) + table + note


def write_page(runs: Path, page: Path = PAGE) -> None:
    rows = [json.loads(line) for line in runs.read_text("utf-8").splitlines()]
    text = page.read_text("utf-8")
    page.write_text(_PLACE.sub(lambda _: section(rows), text), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required="--page" not in sys.argv)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--what", default="contract,models,finetune")
    parser.add_argument("--quick", action="store_true", help="small data, few tests")
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--page", action="store_true", help="only write docs/gpu.md")
    arguments = parser.parse_args()
    if not arguments.page:
        if arguments.device == "cuda" and not torch.cuda.is_available():
            parser.error("torch finds no CUDA device; see python -m recbole_cierec doctor")
        measure(arguments)
    if arguments.out == RUNS:
        write_page(RUNS)
    return 0


def measure(arguments: argparse.Namespace) -> None:
    gpu = arguments.device != "cpu"
    if arguments.quick:  # names of data sets do not tell their sizes
        arguments.data_path = arguments.data_path / "quick"
    arguments.data_path.mkdir(parents=True, exist_ok=True)
    common = {"device": torch.cuda.get_device_name() if gpu else "cpu", "quick": arguments.quick}
    parts = {"contract": contract, "models": all_models, "finetune": finetune}
    for part in arguments.what.split(","):
        for row in parts[part](arguments):
            line = {**row, **common, **versions()}
            print({k: v for k, v in row.items() if k != "part"}, flush=True)
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
