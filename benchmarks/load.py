"""Reading and splitting large data sets; docs/performance/loading.md.

    python benchmarks/load.py --data_path=DIR [--interactions=1000000,5000000] [--rounds=2]
        [--modes=full,user500] [--out=benchmarks/runs/load.jsonl]

Writes synthetic data sets of 200,000 users and 100,000 items from a seed, and reads, numbers and
splits each by time in a separate process with one thread, as a run of BPR does. A row has the
processor seconds and the peak of resident memory of the steps, less that of the imports. Where
cores are shared with other work, ``wall_by_cpu`` says how busy they were.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

MIB = 2**20


def make(into: Path, interactions: int, users: int, items: int, seed: int = 0) -> str:
    """Write one data set unless it exists; returns its name.

    Users have weight rank^-0.5, items rank^-0.8; pairs may repeat. Lines are in random order.
    """
    name = f"load-{interactions}"
    path = into / name / f"{name}.inter"
    if path.is_file():
        return name
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    columns = []
    for n, power in ((users, 0.5), (items, 0.8)):
        weights = np.cumsum(np.arange(1, n + 1) ** -power)
        drawn = np.searchsorted(weights, rng.random(interactions) * weights[-1])
        columns.append(rng.permutation(n)[np.minimum(drawn, n - 1)])
    columns.append(rng.integers(1_500_000_000, 1_600_000_000, interactions))
    with path.open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        np.savetxt(file, np.stack(columns, 1), fmt="u%d\ti%d\t%d")
    return name


def peak() -> float:
    """The highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()  # ru_maxrss is inherited from the parent
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(data_path: str, dataset: str, mode: str) -> dict:
    """Read and split a data set in this process."""
    import torch

    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.data.sampling import make_loaders

    torch.set_num_threads(1)
    keys = {"data_path": data_path, "eval_args": {"mode": mode}, "use_gpu": False}
    config = Config("BPR", dataset, None, {**keys, "state": "critical"})
    row: dict = {"dataset": dataset, "mode": mode, "imports_mib": round(peak())}
    start = perf_counter(), process_time()
    data = create_dataset(config)
    row |= {"load_cpu_s": round(process_time() - start[1], 2), "load_mib": round(peak())}
    between = process_time()
    loaders = make_loaders(config, data)
    row["split_cpu_s"] = round(process_time() - between, 2)
    row["peak_mib"] = round(peak())
    ratio = (perf_counter() - start[0]) / (process_time() - start[1])
    return row | {"wall_by_cpu": round(ratio, 2), "digest": digest(data, loaders)}


def digest(data: object, loaders: tuple) -> str:
    """Of the numbering, the three parts, and the candidates."""
    state = hashlib.sha256(data.digest().encode())  # type: ignore[attr-defined]
    for loader in loaders:
        feat = loader._dataset.inter_feat
        for name in sorted(feat.columns):
            state.update(feat[name].numpy().tobytes())
        for lists in getattr(getattr(loader, "plan", None), "negatives", {}).values():
            state.update(lists.select().values.tobytes())
    return state.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--interactions", default="1000000,5000000")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--modes", default="full,user500")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        print(json.dumps(measure(str(a.data_path), *a.one)))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    for _ in range(a.rounds):
        for count in map(int, a.interactions.split(",")):
            name = make(a.data_path, count, a.users, a.items)
            size = (a.data_path / name / f"{name}.inter").stat().st_size / MIB
            for mode in a.modes.split(","):
                words = [sys.executable, __file__, f"--data_path={a.data_path}", "--one"]
                done = subprocess.run(
                    [*words, name, mode], stdout=subprocess.PIPE, text=True, check=True
                )
                row = json.loads(done.stdout.splitlines()[-1])
                row |= {"interactions": count, "file_mib": round(size), "machine": machine}
                row["load"] = round(os.getloadavg()[0], 1)
                print(json.dumps(row), flush=True)
                if a.out:
                    with a.out.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
