"""Training, evaluation and memory on the synthetic set, one thread; docs/performance/training.md.

    python benchmarks/training.py --data_path=DIR [--rounds=3 --what=MF,VBPR,...]
        [--out=benchmarks/runs/training.jsonl]

``DIR/synthetic`` is generated if missing. Each row of the table is a separate process, and
the rows take turns ``--rounds`` times, so that other work on the machine affects all equally. A
process loads the data, warms up, and then times training through the trainer's own epoch: whole
epochs, or for slow models some batches; samples/s are pairs per second of processor time (best and
median of all rounds) and of wall time (best). Memory is the process's peak until then. Evaluation
is a pass over all users with ``user500``, which RecBole alone does not have; evaluation.py measures
its parts. ``RecBole alone`` does not import this package. The reference, in the row ``floor``, is
bare torch: VBPR's tensors, torch's dense Adagrad, uniform negatives drawn without checking the
user's items, the distinct items of a batch projected once, BPR, no L2. FLOPs are from torch's
counter for one step, matrix products only. ``--what=steps`` times steps of CIERec by backbone and
number of features instead, and bare products of the shapes of its D x D maps.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from itertools import islice
from pathlib import Path
from platform import python_version
from time import perf_counter, process_time

import numpy as np
import torch
from scipy.sparse import dok_matrix
from synthetic import make
from torch.nn import functional as F

BATCH, D = 2048, 64
WARM_UP, EPOCHS = 20, 2  # batches, epochs
# Number of batches from which an epoch is extrapolated.
FEW = {"CIERec": 6, "AlignRec": 20, "LightGCN": 20, "HAFR": 20, "HAFR_non_i": 20, "PiNet": 20}
PLAIN = {"optimizer_kernel": "plain"}
ROWS: dict[str, tuple[str, dict]] = {
    "RecBole alone: BPR": ("recbole", {"model": "BPR"}),
    "BPR": ("BPR", {}),
    "BPR, plain kernel": ("BPR", PLAIN),
    "MF": ("MF", {}),
    "floor: VBPR in bare torch": ("floor", {}),
    "VBPR": ("VBPR", {}),
    "MF_Image": ("MF_Image", {}),
    "MF_Semantics": ("MF_Semantics", {}),
    "CIERec": ("CIERec", {}),
    "CIERec, backbone VBPR": ("CIERec", {"backbone": "VBPR"}),
}
USUAL = list(ROWS)
STEPS = {  # of CIERec, batches of 1,024; features by their number
    f"CIERec({backbone}), D = {size}{', bfloat16' if half else ''}": {
        "backbone": backbone, "size": size, "train_batch_size": 1024,
        **({"encoder_precision": "bfloat16"} if half else {}),
    }
    for half in (False, True) for size in (128, 512, 1280) for backbone in ("MF", "VBPR")
}  # fmt: skip
OTHERS = (
    "MF_Content", "DeepStyle", "AMF", "AMR", "CLCRec", "PiNet", "HAFR", "HAFR_non_i", "AlignRec",
    "NeuMF", "LightGCN",
)  # fmt: skip
ROWS |= {name: (name, {}) for name in OTHERS}
ROWS |= {name: (name, {"pretrain_epochs": 0}) for name in ("PiNet", "AlignRec")}  # their phase 2
ROWS |= {f"RecBole alone: {name}": ("recbole", {"model": name}) for name in ("NeuMF", "LightGCN")}
SETTINGS = {
    "embedding_size": D, "train_batch_size": BATCH, "show_progress": False, "use_gpu": False,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user",
                  "mode": "full"},
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
}  # fmt: skip


class First:
    """The first batches of a loader as an epoch."""

    def __init__(self, loader, count: int) -> None:
        self.loader, self.count, self.shuffle = loader, count, loader.shuffle

    def __iter__(self):
        return islice(iter(self.loader), self.count)

    def __len__(self) -> int:
        return self.count


def recbole_alone(data: Path, model: str):
    """RecBole's trainer and loader for one of its models, by RecBole's own functions."""
    # RecBole reads three names that numpy 2 dropped, and one that scipy did.
    for old, new in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if not hasattr(np, old):
            setattr(np, old, new)
    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, entries: self._dict.update(entries)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    sys.argv = sys.argv[:1]  # it reads the command line
    settings = {**SETTINGS, "data_path": str(data), "state": "ERROR", "gpu_id": ""}
    config = Config(model=model, dataset="synthetic", config_dict=settings)
    init_seed(0, True)
    train = data_preparation(config, create_dataset(config))[0]
    made = get_model(model)(config, train._dataset)
    return get_trainer(config["MODEL_TYPE"], model)(config, made), train


def job_of(data: Path, model: str, keys: dict):
    """A job of this package: trainer, model, loaders."""
    from recbole.utils import init_seed

    from recbole_cierec.config.config import Config
    from recbole_cierec.quick_start import prepare

    keys = dict(keys)
    features = data / "synthetic" / "features.npy"
    if size := keys.pop("size", None):
        features = data / "synthetic" / f"features-{size}.npy"
        if not features.is_file():
            rng = np.random.default_rng(1)
            np.save(features, rng.standard_normal((10000, size), dtype=np.float32))
    settings = {**SETTINGS, "data_path": str(data), "state": "error", "feature_norm": "l2"}
    settings |= {"features_file": str(features), **keys}
    config = Config(model, "synthetic", None, settings, {})
    init_seed(0, True)
    return prepare(config, saved=False)


def ours(data: Path, model: str, keys: dict):
    """Its trainer and loader."""
    job = job_of(data, model, keys)
    return job.trainer, job.loaders[0]


def floor_epoch(pairs: np.ndarray, features: torch.Tensor, users: int):
    """A function that trains some or all batches of an epoch, without RecBole and this package."""
    items, size = features.shape
    generator = torch.Generator().manual_seed(0)
    shapes = [(users, D), (items, D), (users, D), (items, 1), (D, size), (1, size)]
    parameters = [(torch.randn(s, generator=generator) * 0.01).requires_grad_() for s in shapes]
    gamma_u, gamma_i, theta, beta, e, beta_visual = parameters
    optimizer = torch.optim.Adagrad(parameters, lr=0.1)
    user_ids, item_ids = (torch.from_numpy(pairs[:, k].copy()) for k in (0, 1))

    def epoch(count: int | None = None) -> int:
        order = torch.randperm(len(user_ids), generator=generator)
        for rows in order.split(BATCH)[:count]:
            u, i = user_ids[rows], item_ids[rows]
            j = torch.randint(items, (len(rows),), generator=generator)
            met, where = torch.unique(torch.cat([i, j]), return_inverse=True)
            content = features.index_select(0, met)
            vectors = torch.cat([F.embedding(met, gamma_i), content @ e.T], 1)
            bias = F.embedding(met, beta) + content @ beta_visual.T
            user = torch.cat([F.embedding(u, gamma_u), F.embedding(u, theta)], 1)
            first, second = where.split(len(rows))
            between = F.embedding(first, vectors) - F.embedding(second, vectors)
            more = F.embedding(first, bias) - F.embedding(second, bias)
            loss = F.softplus(-(user * between).sum(1) - more.squeeze(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(user_ids)

    return epoch


def floor(data: Path):
    """The reference on 400,000 of the pairs."""
    lines = (data / "synthetic" / "synthetic.inter").read_text().splitlines()[1:]
    rows = [line.split("\t")[:2] for line in lines]
    pairs = np.array([[int(u[1:]), int(i[1:])] for u, i in rows])
    pairs = np.random.default_rng(0).permutation(pairs)[: len(pairs) * 4 // 5]
    features = F.normalize(torch.from_numpy(np.load(data / "synthetic" / "features.npy")))
    return floor_epoch(pairs, features, int(pairs[:, 0].max()) + 1)


def measure(name: str, data: Path) -> dict:
    """Samples per second of one row, in this process."""
    kind, keys = ROWS[name]
    job = None
    if kind == "floor":
        epoch = floor(data)
        epoch(WARM_UP)
    else:
        if kind == "recbole":
            trainer, whole = recbole_alone(data, keys["model"])
        else:
            modes = {"eval_args": {**SETTINGS["eval_args"], "mode": "user500"}}
            job = job_of(data, kind, {**keys, **modes})
            trainer, whole = job.trainer, job.loaders[0]
        few = FEW.get(keys.get("model", kind), 0)

        def epoch() -> int:
            # Always epoch 0: after it a checkpoint is written, which is not training.
            trainer._train_epoch(First(whole, few) if few else whole, 0)
            return few * BATCH if few else len(whole._dataset)

        trainer._train_epoch(First(whole, 2 if few else WARM_UP), 0)
    runs = []
    for _ in range(EPOCHS):
        processor, clock = process_time(), perf_counter()
        count = epoch()
        runs.append((count / (process_time() - processor), count / (perf_counter() - clock)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    done = {"cpu": [r[0] for r in runs], "wall": [r[1] for r in runs], "mib": peak}
    return {**done, "evaluate": evaluation_pass(job) if job else None}


def evaluation_pass(job) -> float:
    """Seconds of the better of two passes."""
    from evaluation import best, evaluate  # here, as it imports this package

    return best(2, lambda: evaluate(job))


def flops(name: str, data: Path) -> dict:
    """Floating-point operations of the matrix products of one step."""
    return flops_of(*ours(data, *ROWS[name]))


def flops_of(trainer, loader) -> dict:
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = trainer.model.train(), next(iter(loader))
    with FlopCounterMode(display=False) as counter:
        model.calculate_loss(batch).backward()
    return {"flops": counter.get_total_flops()}


def step(name: str, data: Path) -> dict:
    """Processor time of one of the STEPS, next to bare products of the same shapes."""
    keys = STEPS[name]
    trainer, loader = ours(data, "CIERec", keys)
    count = {128: 60, 512: 15, 1280: 5}[keys["size"]]
    trainer._train_epoch(First(loader, 3), 0)
    batch = next(iter(loader))
    items = len(torch.unique(torch.cat([batch["item_id"], batch["neg_item_id"]])))
    x, w = torch.randn(items, keys["size"]), torch.randn(keys["size"], keys["size"])
    work = 2 * items * keys["size"] ** 2
    times, walls, bare = [], [], []
    for _ in range(4):
        processor, clock = process_time(), perf_counter()
        trainer._train_epoch(First(loader, count), 0)
        times.append((process_time() - processor) / count)
        walls.append((perf_counter() - clock) / count)
        for product in (lambda: x @ w.T, lambda: x @ w, lambda: x.T @ x):
            processor = process_time()
            for _ in range(5):
                product()
            bare.append((process_time() - processor) / 5)
    ratio = sum(walls) / sum(times)
    return {"ms": 1e3 * min(times), "ms_median": 1e3 * statistics.median(times),
            "wall_by_cpu": ratio, "items": items, "bare_gflops": work / min(bare) / 1e9,
            **flops_of(trainer, loader)}  # fmt: skip


def steps(names: list[str], rounds: int, data: Path, code: str) -> list[dict]:
    """The STEPS, in turns; prints the table and returns its rows."""
    runs: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, results in runs.items():
            results.append(child("step", name, data))
    print("| a step of 1,024 pairs | processor ms | GFLOP | share of bare products | wall / cpu |")
    print("|---|---|---|---|---|")
    rows = []
    for name, results in runs.items():
        best = min(results, key=lambda r: r["ms"])
        speed = best["flops"] / best["ms"] / 1e6
        row = {"row": name, "code": code, "rounds": rounds, **best}
        row["share"] = speed / max(r["bare_gflops"] for r in results)
        rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
        print(
            f"| {name} | {best['ms']:.1f} | {best['flops'] / 1e9:.1f} | {row['share']:.2f} | "
            f"{best['wall_by_cpu']:.2f} |"
        )
    return rows


def child(what: str, name: str, data: Path, script: str = __file__) -> dict:
    """The same in a separate process."""
    command = [sys.executable, "-W", "ignore", script, f"--data_path={data}"]
    command += [f"--child={what}", f"--what={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def versions() -> dict:
    import recbole

    return {
        "python": python_version(), "torch": torch.__version__, "numpy": np.__version__,
        "recbole": recbole.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip


def keep(out: Path, rows: list[dict]) -> None:
    """Append rows to a file, each with the versions it was measured with."""
    with out.open("a") as file:
        file.writelines(json.dumps({**row, **versions()}) + "\n" for row in rows)


def table(names: list[str], rounds: int, data: Path) -> list[dict]:
    """All rows, in turns; prints the table and returns its rows."""
    results = {name: {"cpu": [], "wall": [], "mib": 0, "evaluate": []} for name in names}
    for _ in range(rounds):
        for name in names:
            got = child("speed", name, data)
            results[name]["cpu"] += got["cpu"]
            results[name]["wall"] += got["wall"]
            results[name]["mib"] = max(results[name]["mib"], got["mib"])
            results[name]["evaluate"] += [got["evaluate"]] if got["evaluate"] else []
    print(
        "| | samples/s, processor time: best | median | wall time: best | peak MiB | user500, s |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for name, r in results.items():
        row = {"row": name, "cpu_best": round(max(r["cpu"])), "rounds": rounds, "mib": r["mib"]}
        row |= {"cpu_median": round(statistics.median(r["cpu"])), "wall": round(max(r["wall"]))}
        numbers = (row["cpu_best"], row["cpu_median"], row["wall"], row["mib"])
        cells = [f"{n:,}" for n in numbers]
        row["evaluate"] = round(min(r["evaluate"]), 2) if r["evaluate"] else None
        print(f"| {name} | {' | '.join(cells)} | {row['evaluate'] or '-'} |")
        rows.append(row)
    return rows


def mark(rows: list[dict], data: Path) -> list[dict]:
    """CIERec's step and VBPR's reference, and the ratio of their FLOPs; prints and returns them."""
    speed = {row["row"]: row["cpu_best"] for row in rows}
    base = "floor: VBPR in bare torch"
    marks = []
    for name in ("CIERec", "CIERec, backbone VBPR"):
        if not {base, name} <= speed.keys():
            continue
        work = [child("flops", n, data)["flops"] for n in (name, "VBPR")]
        step, least = BATCH / speed[name], BATCH / speed[base]
        ratio = work[0] / work[1]
        marks.append({"mark": name, "flops": work, "ratio": ratio, "step": step, "floor": least})
        print(
            f"{name}: {work[0] / 1e9:.2f} GFLOP a step, VBPR {work[1] / 1e9:.3f}, "
            f"ratio {ratio:.1f}; step {1e3 * step:.0f} ms, reference {1e3 * least:.1f} ms, "
            f"step / (reference x ratio) = {step / (least * ratio):.2f}"
        )
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument(
        "--what", default=";".join(USUAL), help="rows, separated by semicolons; or steps"
    )
    parser.add_argument("--code", default="now", help="the name of the code in rows of steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=("speed", "flops", "step"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.child:
        work = {"speed": measure, "flops": flops, "step": step}[a.child]
        print(json.dumps(work(a.what, a.data_path)))
        return
    make(a.data_path, 20000, 10000, 500000, 512)
    print(json.dumps(versions()))
    if a.what == "steps" or a.what in STEPS:
        names = list(STEPS) if a.what == "steps" else [a.what]
        rows = steps(names, a.rounds, a.data_path, a.code)
    else:
        rows = table(a.what.split(";"), a.rounds, a.data_path)
        rows += mark(rows, a.data_path)
    if a.out:
        keep(a.out, rows)


if __name__ == "__main__":
    main()
