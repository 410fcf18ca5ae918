"""Training by one process and by two, one thread each; figures in docs/performance/processes.md.

    python benchmarks/distributed.py --data_path=DIR [--rounds=3 --what=VBPR;CIERec]
        [--out=benchmarks/runs/distributed.jsonl]

``DIR/synthetic`` is generated if missing. One and two processes take turns ``--rounds`` times
on batches of the same size, which two processes share (gloo). The trainer's own epoch is timed:
whole epochs, or some batches of CIERec. ``wall`` is wall time and ``cpu`` the first process's
processor time, both of the fastest epoch; ``waiting`` is the difference: gradient exchange, and
waiting for the other process.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

import torch
from synthetic import make
from training import BATCH, EPOCHS, First, keep, ours, versions

WARM_UP = 5  # batches
ROWS = {  # model, keys, batches of an epoch (0: all)
    "VBPR": ("VBPR", {}, 0),
    "CIERec": ("CIERec", {}, 10),
}


class FirstShared(First):
    """The first batches of a loader, which several processes may share."""

    @property
    def share(self):
        return self.loader.share


def measure(name: str, data: Path, rank: int, world: int, port: int) -> dict:
    """Seconds of a row's epoch, measured in this process."""
    model, keys, count = ROWS[name]
    if world > 1:
        keys = keys | {"local_rank": rank, "offset": 0, "nproc": world, "world_size": world}
        keys |= {"ip": "127.0.0.1", "port": port}
    trainer, loader = ours(data, model, keys)
    batches = -(-len(loader._dataset) // BATCH)
    trainer._train_epoch(FirstShared(loader, WARM_UP), 0)
    runs = []
    for _ in range(EPOCHS):
        wall, cpu = perf_counter(), process_time()
        # Always epoch 0: after it a checkpoint is written, which is not training.
        trainer._train_epoch(FirstShared(loader, count or batches), 0)
        runs.append((perf_counter() - wall, process_time() - cpu))
    wall, cpu = min(runs)
    return {"wall": wall, "cpu": cpu, "batches": count or batches}


def timed(name: str, data: Path, world: int) -> dict:
    """The row of ``world`` new processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", __file__, f"--data_path={data}", f"--what={name}"]
    command += [f"--world={world}", f"--port={port}"]
    processes = [
        subprocess.Popen(
            [*command, f"--rank={rank}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    ends = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{name}, {world} processes: {ends[0][1].strip().splitlines()[-1]}")
    return json.loads(ends[0][0].splitlines()[-1])


def table(names: list[str], data: Path, rounds: int) -> list[dict]:
    """All rows, in turns; prints the table and returns its rows."""
    print("| | processes | wall, s | cpu, s | waiting, s | samples/s |\n|---|---|---|---|---|---|")
    rows = []
    for name in names:
        runs: dict[int, list[dict]] = {1: [], 2: []}
        for _ in range(rounds):
            for world, results in runs.items():
                results.append(timed(name, data, world))
        for world, results in runs.items():
            best = min(results, key=lambda r: r["wall"])
            speed = round(best["batches"] * BATCH / best["wall"])
            wall, cpu = best["wall"], best["cpu"]
            print(f"| {name} | {world} | {wall:.2f} | {cpu:.2f} | {wall - cpu:.2f} | {speed:,} |")
            rows.append({"row": name, "processes": world, "rounds": rounds, "seed": 0, **best})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--what", default=";".join(ROWS), help="rows, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    for name in ("rank", "world", "port"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.world:
        print(json.dumps(measure(a.what, a.data_path, a.rank, a.world, a.port)))
        return
    make(a.data_path, 20000, 10000, 500000, 512)
    print(json.dumps(versions()))
    rows = table(a.what.split(";"), a.data_path, a.rounds)
    if a.out:
        keep(a.out, rows)


if __name__ == "__main__":
    main()
