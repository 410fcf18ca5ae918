"""The commands that a cluster would run, tried with two workers; the table in docs/growth.md.

    python benchmarks/cluster.py --folder=DIR [--only=train,tune] [--rows=20000000]
        [--img2dataset=PATH] [--out=benchmarks/runs/cluster.jsonl]

Each trial writes a row: its command, wall and processor seconds with one and with two workers, the
peak memory of the largest process, and whether both gave the same result. The two workers share the
cores of one machine, so the seconds show what the division costs, not what it saves.
``img2dataset`` has many dependencies: install it in a separate environment.
"""

from __future__ import annotations

import argparse
import filecmp
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

CHECKOUT = Path(__file__).parents[1]
RUN = str(CHECKOUT / "run_recbole.py")
PYTHON = [sys.executable, "-W", "ignore"]
PACKAGE = [*PYTHON, "-m", "recbole_cierec"]
TORCHRUN = [*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
USERS, ITEMS, PAIRS, FEW, PICTURES, URLS = 20_000, 10_000, 500_000, 50_000, 400, 200


def timed(folder: Path, *commands: list[str]) -> dict:
    """Run commands at the same time in ``folder``; seconds, and the peak of the largest process.
    Raises RuntimeError with the last lines of output if one fails."""
    before, start, peak = os.times(), perf_counter(), 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    logs = [folder / f"output-{k}.txt" for k in range(len(commands))]
    running = []
    for command, path in zip(commands, logs, strict=True):
        with path.open("w") as log:
            keys = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
            running.append(subprocess.Popen(command, **keys))
    for process, path in zip(running, logs, strict=True):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode, peak = os.waitstatus_to_exitcode(status), max(peak, usage.ru_maxrss)
        if process.returncode:
            raise RuntimeError("\n".join([str(process.args), *path.read_text().splitlines()[-5:]]))
    cpu = sum(os.times()[2:4]) - sum(before[2:4])
    seconds = {"wall_s": round(perf_counter() - start, 1), "cpu_s": round(cpu, 1)}
    return seconds | {"mib": peak // 1024}


def synthetic(folder: Path, pairs: int = PAIRS) -> list[str]:
    """Options of a run on a synthetic data set, which is made if missing."""
    from synthetic import make

    home = make(folder, USERS, ITEMS, pairs, 64)
    keys = {
        "data_path": folder, "features_file": home / "features.npy", "epochs": 2, "eval_step": 1,
        "eval_args": "{split: {RS: [0.8, 0.1, 0.1]}, order: RO, mode: user500}", "use_gpu": False,
        "show_progress": False,
    }  # fmt: skip
    return ["--dataset=synthetic", *(f"--{name}={value}" for name, value in keys.items())]


def newest(folder: Path, suffix: str) -> Path:
    return max((folder / "saved").glob(f"*{suffix}"), key=lambda path: path.stat().st_mtime)


def results(folder: Path) -> dict[str, np.ndarray]:
    """The results by user of the newest run in ``folder``."""
    with np.load(newest(folder, ".users.npz")) as file:
        return {name: file[name] for name in file if name not in ("about", "users")}


def train(folder: Path, model: str, pairs: int) -> dict:
    """A run in one process, and the same under torchrun."""
    command = [f"--model={model}", *synthetic(folder, pairs)]
    one, first = timed(folder, [*PYTHON, RUN, *command]), results(folder)
    two, second = timed(folder, [*TORCHRUN, RUN, *command]), results(folder)
    gap = max(abs(first[name].mean() - second[name].mean()) for name in first)
    changed = np.mean(first["recall@10"] != second["recall@10"])
    equal = f"means of all metrics to {gap:.0e}; recall@10 of {changed:.2%} of the users differs"
    return {"one": one, "two": two, "equal": equal}


def tune(folder: Path) -> dict:
    """Six trials by one command, and by two on one storage."""
    ranges = folder / "ranges.yaml"
    ranges.write_text("learning_rate: [0.02, 0.05, 0.1]\nreg_weight: [0.001, 0.01]\n")

    def command(name: str) -> list[str]:
        words = ["tune", "--model=MF", "--trials=6", f"--search={ranges}", f"--out={folder / name}"]
        return [*PACKAGE, *words, f"--storage={folder / name}.journal", *synthetic(folder)]

    one, two = timed(folder, command("one")), timed(folder, command("two"), command("two"))
    found = []
    for path in (folder / name / "synthetic-MF.jsonl" for name in ("one", "two")):
        rows = map(json.loads, path.open())
        found.append(sorted(json.dumps([row["settings"], row["valid"]]) for row in rows))
    equal = f"{len(found[1])} trials, {'equal' if found[0] == found[1] else 'DIFFERENT'}"
    return {"one": one, "two": two, "equal": equal}


def experiment(folder: Path) -> dict:
    """Two models with two seeds by one command, and by two on one folder."""
    options = dict(word[2:].split("=", 1) for word in synthetic(folder))
    name, path, _ = map(options.pop, ("dataset", "data_path", "show_progress"))
    plan = folder / "plan.yaml"
    overrides = "\n".join(f"  {key}: {value}" for key, value in options.items())
    plan.write_text(
        f"models: [MF, Pop]\nseeds: [1, 2]\ndatasets: [{{name: {name}, data_path: {path}}}]\n"
        f"overrides:\n{overrides}\n"
    )

    def command(out: str) -> list[str]:
        return [*PACKAGE, "experiment", str(plan), f"--out={folder / out}"]

    one, two = timed(folder, command("alone")), timed(folder, *[command("shared")] * 2)
    rows = []
    for out in ("alone", "shared"):
        lines = map(json.loads, (folder / out / "rows.jsonl").open())
        rows.append(sorted((r["model"], r["seed"], json.dumps(r["test"])) for r in lines))
    equal = f"{len(rows[1])} rows, {'equal' if rows[0] == rows[1] else 'DIFFERENT'}"
    return {"one": one, "two": two, "equal": equal}


def convert(folder: Path, n: int) -> dict:
    """A generated table by DuckDB with little memory: by one thread, and by two."""
    import duckdb

    table = folder / "table.parquet"
    if not table.is_file():
        ids = "hash(i) % 5000000 AS user_id, hash(i * 7 + 1) % 1000000 AS item_id"
        numbers = duckdb.from_query("SELECT i FROM range(?) AS r(i)", params=[n])
        numbers.project(f"{ids}, i AS timestamp").write_parquet(str(table))

    def command(threads: int) -> list[str]:
        words = "--user-column=user_id --item-column=item_id --time-column=timestamp --user-core=3 "
        words += f"--overwrite --memory=1200MB --threads={threads} --name=t{threads}"
        places = [f"--interactions={table}", f"--output={folder}"]
        return [*PACKAGE, "convert", "table", *places, *words.split()]

    one, two = (timed(folder, command(threads)) for threads in (1, 2))
    files = [folder / f"t{k}" / f"t{k}.inter" for k in (1, 2)]
    rows, same = sum(1 for _ in files[0].open("rb")) - 1, filecmp.cmp(*files, shallow=False)
    equal = f"{n:,} rows to {rows:,}, {'the same file' if same else 'DIFFERENT files'}"
    return {"one": one, "two": two, "equal": equal}


def extract(folder: Path) -> dict:
    """Features of pictures by one command, and in two shards at once."""
    import end_to_end

    name = end_to_end.make(folder, 64, PICTURES)
    keys = ["--encoder_weights=random", "--visual_encoder=resnet18", "--image_size=64"]
    common = [*PACKAGE, "extract", f"--dataset={name}", f"--data_path={folder}", *keys]
    common += ["--item_vocabulary=all", "--use_gpu=False"]
    one = timed(folder, [*common, f"--cache_dir={folder / 'whole'}"])
    cache = f"--cache_dir={folder / 'shards'}"
    shutil.copytree(folder / "whole", folder / "shards", dirs_exist_ok=True)
    for path in (folder / "shards").glob("features-*"):  # the picture store is shared
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    two = timed(folder, *([*common, cache, f"--shard={k}/2"] for k in (1, 2)))
    files = [next((folder / c).glob("features-*/*.npy")) for c in ("whole", "shards")]
    same = filecmp.cmp(*files, shallow=False)
    return {"one": one, "two": two, "equal": "the same file" if same else "DIFFERENT files"}


def serve(folder: Path) -> dict:
    """Exported vectors in FAISS, next to a product and a sort by numpy."""
    import faiss

    one = timed(folder, [*PYTHON, RUN, "--model=VBPR", *synthetic(folder)])
    saved = str(newest(folder, ".pth"))
    timed(folder, [*PACKAGE, "export", saved, f"--out={folder / 'vectors'}"])
    with np.load(folder / "vectors" / "vectors.npz") as file:
        items = np.concatenate([file["items"], file["item_bias"].reshape(-1, 1)], axis=1)
        users = np.pad(file["users"], ((0, 0), (0, 1)), constant_values=1)[:2000]
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items.astype(np.float32))
    start, (_, found) = perf_counter(), index.search(users.astype(np.float32), 10)
    two = {"wall_s": round(perf_counter() - start, 2)}
    best = np.argsort(-(users @ items.T), axis=1, kind="stable")[:, :10]
    same = np.mean([set(a) == set(b) for a, b in zip(found.tolist(), best.tolist(), strict=True)])
    equal = f"{same:.2%} of {len(users):,} users have the 10 items of a full sort"
    return {"one": one, "two": two, "equal": equal}


def download(folder: Path, program: str) -> dict:
    """Pictures of a local server by img2dataset with one and with two processes."""
    import end_to_end

    pictures = folder / end_to_end.make(folder, 64, PICTURES)
    names = sorted(path.relative_to(pictures) for path in pictures.rglob("*.png"))[:URLS]
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(pictures))
    handler.func.log_message = lambda *_: None  # type: ignore[method-assign]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in names]
    (folder / "urls.tsv").write_text("\n".join(["url", *urls]) + "\n")
    words = "--url_list=urls.tsv --input_format=tsv --url_col=url --output_format=files "
    words += "--resize_mode=no --skip_reencode=True --number_sample_per_shard=50 "
    words += "--encode_format=png --encode_quality=9"
    for old in folder.glob("fetched-*"):
        shutil.rmtree(old)
    one, two = (
        timed(folder, [program, *words.split(), f"--output_folder=fetched-{k}", *more])
        for k, more in ((1, ["--processes_count=1"]), (2, ["--processes_count=2"]))
    )
    server.shutdown()
    found = [path.read_bytes() for path in folder.glob("fetched-2/*/*.[jp][pn]g")]
    same = sorted(found) == sorted((pictures / name).read_bytes() for name in names)
    equal = f"{len(found)} of {URLS} pictures, {'the same bytes' if same else 'DIFFERENT'}"
    return {"one": one, "two": two, "equal": equal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="train,tune,experiment,convert,extract,serve,download")
    parser.add_argument("--rows", type=int, default=20_000_000, help="of the converted table")
    parser.add_argument("--img2dataset", default="img2dataset", help="the program")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "benchmarks/runs/cluster.jsonl")
    a = parser.parse_args()
    trials: dict[str, Callable[[Path], dict]] = {
        "train MF": partial(train, model="MF", pairs=PAIRS),
        "train CIERec": partial(train, model="CIERec", pairs=FEW),
        "tune": tune, "experiment": experiment, "convert": partial(convert, n=a.rows),
        "extract": extract, "serve": serve, "download": partial(download, program=a.img2dataset),
    }  # fmt: skip
    for name, trial in trials.items():
        if not any(name.startswith(word) for word in a.only.split(",")):
            continue
        folder = (a.folder / name.replace(" ", "-")).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        row = {"trial": name, **trial(folder), "load": round(os.getloadavg()[0], 1)}
        with a.out.open("a") as file:
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
