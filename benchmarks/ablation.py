"""Where the training speed comes from, one thread; figures in docs/performance/training.md.

    python benchmarks/ablation.py --data_path=DIR [--models=BPR,MF,VBPR --rounds=3]
        [--what=parts,steps,shares] [--out=benchmarks/runs/ablation.jsonl]

On the data of benchmarks/training.py (generated if missing). ``parts``: pairs per second through
the trainer's own epoch, with the package unchanged and with one part at a time replaced by that of
RecBole or torch, each in a separate process, taking turns; ``all`` replaces every part at once.
``steps``: look-up, backward pass and optimizer step of one id table [rows, 64] and a batch of 2,048
ids, by kind of optimizer. ``shares``: where an epoch spends its time. Processor seconds, best of
all rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import process_time

import torch
from synthetic import make
from torch import nn
from torch.optim import Adagrad, Adam
from training import BATCH, FEW, PLAIN, ROWS, WARM_UP, D, First, child, keep, ours

PARTS = {
    "BPR": ("loader", "sampler", "fused"),
    "MF": ("loader", "sampler", "distinct", "rows"),
    "VBPR": ("loader", "sampler", "distinct", "rows"),
}
TABLES = (20_000, 200_000, 2_000_000)
STEPS = 12
SHARED = ("BPR", "BPR, plain kernel", "MF", "VBPR", "CIERec")  # of training.py


# ---------------------------------------------------------------------- parts that are replaced


def give_back(part: str) -> dict:
    """Replace a part by RecBole's or torch's; returns the keys that this needs."""
    from recbole.data.dataloader import TrainDataLoader
    from recbole.data.interaction import Interaction
    from recbole.data.utils import create_samplers

    from recbole_cierec.data import dataset, sampling
    from recbole_cierec.model.base import visual_recommender
    from recbole_cierec.trainer import trainer

    if part == "loader":
        sampling.TrainLoader, dataset.Table = TrainDataLoader, Interaction
    elif part == "sampler":  # every item of this set is in its training part
        sampling._samplers = create_samplers
        sampling.quick_sampler = lambda sampler, seen=None: sampler
    elif part == "distinct":
        visual_recommender.distinct = lambda ids: (ids, torch.arange(len(ids)))
    elif part == "rows":
        trainer.quick = lambda optimizer, kernel: optimizer
    return PLAIN if part == "fused" else {}


def speed(name: str, data: Path) -> dict:
    """Pairs per second of ``MODEL`` or ``MODEL-PART``, in this process."""
    model, _, part = name.partition("-")
    keys: dict = {}
    for one in PARTS[model] if part == "all" else [part] if part else []:
        keys |= give_back(one)
    trainer, loader = ours(data, model, keys)
    trainer._train_epoch(First(loader, WARM_UP), 0)
    start = process_time()
    trainer._train_epoch(loader, 0)
    return {"pairs_per_s": len(loader._dataset) / (process_time() - start)}


def parts(models: list[str], rounds: int, data: Path) -> list[dict]:
    best: dict[str, float] = {}
    for model in models:
        names = [model, *(f"{model}-{part}" for part in (*PARTS[model], "all"))]
        for name in names * rounds:
            got = child("speed", name, data, __file__)["pairs_per_s"]
            best[name] = max(best.get(name, 0), got)
    print("| | replaced part | pairs/s | of the whole |\n|---|---|---|---|")
    rows = []
    for name, pairs in best.items():
        model, _, part = name.partition("-")
        share = pairs / best[model]
        print(f"| {model} | {part or 'nothing'} | {pairs:,.0f} | {share:.2f} |")
        row = {"what": "parts", "model": model, "given_back": part, "rounds": rounds}
        rows.append(row | {"pairs_per_s": round(pairs), "of_whole": round(share, 3)})
    return rows


# ---------------------------------------------------------------------- one step on one table


def step_seconds(rows: int, sparse: bool, optimizer_of: Callable) -> float:
    """Least processor time of a batch's look-up, backward pass and step."""
    generator = torch.Generator().manual_seed(0)
    table = nn.Embedding(rows, D, sparse=sparse)
    optimizer = optimizer_of([table.weight])
    took = []
    for _ in range(STEPS):
        ids = torch.randint(rows, (BATCH,), generator=generator).unique()
        start = process_time()
        optimizer.zero_grad()
        table(ids).square().sum().backward()
        optimizer.step()
        took.append(process_time() - start)
    return min(took)


def steps() -> list[dict]:
    from recbole_cierec.trainer.optimizers import RowAdagrad

    # As in a run: after freeing this much memory, the C library keeps what smaller tensors free.
    torch.zeros(7 << 20)
    kinds = {
        "RowAdagrad": (True, RowAdagrad),
        "torch's Adagrad": (False, Adagrad),
        "Adam, fused": (False, lambda p: Adam(p, fused=True)),
        "Adam, plain": (False, Adam),
    }
    print("| ms per step, by rows | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    found = []
    for rows in TABLES:
        took = {kind: 1e3 * step_seconds(rows, *how) for kind, how in kinds.items()}
        print(f"| {rows:,} | " + " | ".join(f"{ms:.2f}" for ms in took.values()) + " |")
        ms = {kind: round(value, 3) for kind, value in took.items()}
        found.append({"what": "steps", "rows": rows, "ms": ms})
    return found


# -------------------------------------------------------------------------- shares of an epoch


class Clock:
    """Processor seconds by name, of the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable) -> Callable:
        self.seconds[name] = 0.0

        @wraps(function)
        def run(*arguments, **keys):
            start = process_time()
            try:
                return function(*arguments, **keys)
            finally:
                self.seconds[name] += process_time() - start

        return run


class Counted(First):
    """Batches of an epoch; times how long it takes to create them."""

    def __init__(self, loader, count: int, clock: Clock) -> None:
        super().__init__(loader, count)
        self.clock = clock

    def __iter__(self):
        batches = super().__iter__()
        following = self.clock.timed("batches", lambda: next(batches, None))
        return iter(following, None)


def share(name: str, data: Path) -> dict:
    """Seconds of each kind of work, in this process."""
    trainer, loader = ours(data, *ROWS[name])
    count = FEW["CIERec"] if name == "CIERec" else len(loader)
    trainer._train_epoch(First(loader, min(count, WARM_UP)), 0)
    clock, sampler = Clock(), loader._sampler
    sampler.sample_by_key_ids = clock.timed("sampling", sampler.sample_by_key_ids)
    trainer.model.calculate_loss = clock.timed("forward", trainer.model.calculate_loss)
    torch.Tensor.backward = clock.timed("backward", torch.Tensor.backward)
    trainer.optimizer.step = clock.timed("optimizer", trainer.optimizer.step)
    start = process_time()
    trainer._train_epoch(Counted(loader, count, clock), 0)
    total = process_time() - start
    seconds = clock.seconds
    seconds["batches"] -= seconds["sampling"]
    seconds["rest"] = total - sum(seconds.values())
    return {k: v / total for k, v in seconds.items()} | {"ms_per_batch": 1e3 * total / count}


def shares(rounds: int, data: Path) -> list[dict]:
    rows = []
    for name in SHARED:
        runs = [child("share", name, data, __file__) for _ in range(rounds)]
        best = min(runs, key=lambda run: run["ms_per_batch"])
        found = {k: round(v, 3) for k, v in best.items()}
        text = ", ".join(f"{k} {v:.0%}" for k, v in found.items() if k != "ms_per_batch")
        print(f"{name}: {best['ms_per_batch']:.2f} ms per batch: {text}")
        rows.append({"what": "shares", "row": name, "rounds": rounds, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--what", default="parts,steps,shares")
    parser.add_argument("--models", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=("speed", "share"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.child:
        print(json.dumps((speed if a.child == "speed" else share)(a.what, a.data_path)))
        return
    make(a.data_path, 20000, 10000, 500000, 512)
    wanted, rows = a.what.split(","), []
    if "parts" in wanted:
        rows += parts(a.models.split(","), a.rounds, a.data_path)
    if "steps" in wanted:
        rows += steps()
    if "shares" in wanted:
        rows += shares(a.rounds, a.data_path)
    if a.out:
        keep(a.out, rows)


if __name__ == "__main__":
    main()
