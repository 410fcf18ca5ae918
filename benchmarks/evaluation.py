"""Speed of evaluation on the synthetic set, one thread; figures in docs/performance/ranking.md.

    python benchmarks/evaluation.py --data_path=DIR [--what=user500,full,cierec,rank] [--runs=3]
        [--out=benchmarks/runs/rank-cierec.jsonl --code=now]

``DIR/synthetic`` is generated if missing. Models are not trained, since training does not affect
the speed. Each time is the processor time of the best of ``--runs`` passes, of scoring, ranking and
metrics; candidate lists are drawn once, before the first pass, and their time is printed
separately. The reference is bare torch with the same users, items and candidates: matrix product,
gather, ranks and Recall, nothing stored. CIERec's direct form evaluates Eq. 3 with the gate's whole
linear map for every pair.
"""

from __future__ import annotations

import argparse
import resource
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from synthetic import make
from torch.nn import functional as F
from training import keep

from recbole_cierec.config.config import Config
from recbole_cierec.evaluation.collector import batch_candidates, ranks_of
from recbole_cierec.quick_start import prepare


def job_of(model: str, data: Path, mode: str, **keys):
    """A model, untrained, with its loaders."""
    size = keys.pop("size", None)
    features = data / "synthetic" / "features.npy"
    if size:
        features = data / "synthetic" / f"features-{size}.npy"
        if not features.is_file():
            rng = np.random.default_rng(1)
            np.save(features, rng.standard_normal((10000, size), dtype=np.float32))
    settings = {
        "data_path": str(data), "features_file": str(features), "embedding_size": 64,
        "feature_norm": "l2", "show_progress": False, "state": "error", "use_gpu": False,
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": mode}, **keys,
    }  # fmt: skip
    start = perf_counter()
    config = Config(model, "synthetic", None, settings, {})
    init_seed(0, True)
    job = prepare(config)
    job.model.eval()
    return job, perf_counter() - start


def best(runs: int, work) -> float:
    """Processor seconds of the fastest of ``runs`` calls."""
    times = []
    for _ in range(runs):
        start = process_time()
        work()
        times.append(process_time() - start)
    return min(times)


def evaluate(job) -> None:
    job.model.train()
    job.model.eval()  # drop the cached parts of the items
    job.trainer.evaluate(job.loaders[2], load_best_model=False)


def floor(job) -> None:
    """The least that an evaluation of MF over these candidates must compute."""
    plan, model = job.loaders[2].plan, job.model
    p, q = model.user_embedding.weight.detach(), model.item_embedding.weight.detach()
    recalls = []
    for rows in np.array_split(np.arange(len(plan.users)), len(plan.users) // 48):
        items, segments = batch_candidates(plan, rows)
        scores = (p[plan.users[rows]] @ q.T).gather(1, torch.from_numpy(items))
        where, columns = (
            torch.from_numpy(x) for x in segments[0].lists.columns.take(np.arange(len(rows)))
        )
        hits = ranks_of(scores, where, columns) < 10
        found = torch.zeros(len(rows)).index_add_(0, where, hits.float())
        recalls.append(found / torch.bincount(where, minlength=len(rows)))
    torch.cat(recalls).mean().item()


def user500(data: Path, runs: int) -> None:
    job, seconds = job_of("MF", data, "user500")
    drawing = best(1, job.loaders[2].plan.lists)
    users = len(job.loaders[2].plan.users)
    print(f"users {users}; loading, splitting, drawing {seconds:.2f} s, merging {drawing:.2f} s")
    print(f"| bare torch, user500 | {best(runs, lambda: floor(job)):.2f} |")
    print(f"| MF user500, all and groups | {best(runs, lambda: evaluate(job)):.2f} |")
    job.loaders[2].plan.user_groups = None
    print(f"| MF user500, all users only | {best(runs, lambda: evaluate(job)):.2f} |")
    memory()
    job, seconds = job_of("MF", data, "user500", eval_repeats=5)
    drawing = best(1, job.loaders[2].plan.lists)
    print(f"five sets: loading, splitting, drawing {seconds:.2f} s, merging {drawing:.2f} s")
    print(f"| MF user500, five repeats | {best(runs, lambda: evaluate(job)):.2f} |")
    job, _ = job_of("BPR", data, "user500")
    print(f"| RecBole's BPR, user500 | {best(runs, lambda: evaluate(job)):.2f} |")
    memory()
    job, _ = job_of("BPR", data, "uni500")
    print(f"| RecBole's BPR, RecBole's uni500 | {best(runs, lambda: evaluate(job)):.2f} |")


def memory() -> None:
    print(f"peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def full(data: Path, runs: int) -> None:
    for name in ("VBPR", "BPR"):
        job, _ = job_of(name, data, "full")
        users = len(job.loaders[2].uid_list)
        seconds = best(runs, partial(evaluate, job))
        print(f"| {name}, full ranking of {users} users | {seconds:.2f} |")


def rank(data: Path, runs: int) -> list[dict]:
    return [rank_by(model, data, runs) for model in ("MF", "VBPR")]


def rank_by(model: str, data: Path, runs: int) -> dict:
    """Full ranking of all users next to a product and topk of the same size, in turns; processor
    time of a score. An evaluation also prepares the items' vectors, once whatever the number of
    users: that time is reported, and not counted in ``ours_ns``."""
    job, _ = job_of(model, data, "full", item_vocabulary="all")
    users, n_items = job.loaders[2].uid_list, job.model.n_items

    @torch.no_grad()
    def prepare_items() -> None:
        job.model.forget_items()
        job.model.all_items()

    preparing = best(runs, prepare_items)

    @torch.no_grad()
    def bare() -> None:
        side = job.model.all_items()
        for block in users.split(64):
            vectors = job.model.serving_side(block).vector
            torch.addmm(side.bias, vectors, side.vector.T).topk(20, dim=1)

    works = {"bare": bare, "ours": partial(job.trainer.evaluate, job.loaders[2], False)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            wall, start = perf_counter(), process_time()
            work()
            cpu = process_time() - start
            times[name].append((cpu, (perf_counter() - wall) / cpu))
    scores = len(users) * n_items
    row = {
        "model": model,
        "users": len(users),
        "items": n_items,
        "preparing_s": round(preparing, 2),
    }
    for name, pairs in times.items():
        seconds, ratio = min(pairs)
        seconds -= preparing if name == "ours" else 0
        row |= {
            f"{name}_ns": round(seconds / scores * 1e9, 2),
            f"{name}_wall_by_cpu": round(ratio, 2),
        }
    row["ratio"] = round(row["ours_ns"] / row["bare_ns"], 2)
    print("| " + " | ".join(f"{name} {value}" for name, value in row.items()) + " |")
    return row


def literal(model, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Scores of aligned pairs directly by Eq. 3 and 7; s and e are given."""
    side = model.all_items()
    p, e = model.user_embedding(users), side["e"][items]
    gate = model.visual_gate
    g = gate.gate_vector.expand(len(p), -1)
    weight = torch.cat([gate.user_map.weight, gate.content_map.weight, gate.gate_map.weight], 1)
    delta = F.linear(torch.cat([p, e, g], 1), weight, gate.content_map.bias)
    v = F.leaky_relu(gate.mlp(F.normalize(e * delta, eps=1e-12)), 0.01)
    f = model.fusion(side.vector[items], v, side["s"][items])
    return model.user_biases(users) + side.bias[items] + (p * f).sum(1)


def cierec(data: Path, runs: int) -> list[dict]:
    jobs = {size: job_of("CIERec", data, "user500", size=size)[0] for size in (512, 1280)}
    return [row for job in jobs.values() for row in cierec_of(job, runs)]


@torch.no_grad()
def cierec_of(job, runs: int) -> list[dict]:
    """Times of one batch of users, scaled to all users; of the direct form for 16 users."""
    rows = []
    model, plan = job.model, job.loaders[2].plan
    size, everyone = model.encoder.out_size, len(plan.users)
    at_once = getattr(type(model), "users_at_once", 64)
    for what, batch_size in (("user500", job.loaders[2].step), ("full", at_once)):
        places = np.arange(batch_size)
        users = torch.from_numpy(plan.users[places])
        batch = Interaction({"user_id": users})
        items = torch.arange(model.n_items).expand(batch_size, -1)
        if what == "user500":
            items = torch.from_numpy(batch_candidates(plan, places)[0])
            ours = partial(model.candidate_scores, batch, items)
        else:
            ours = partial(model.full_sort_predict, batch)
        preparing = best(1, ours)  # computes the cached parts of the items
        fast, wall = best(runs, ours), perf_counter()
        processor = process_time()
        ours()
        wall, processor = perf_counter() - wall, process_time() - processor
        got = ours().reshape(-1)
        repeated = users[:16].repeat_interleave(items.shape[1])
        pairs = zip(repeated.split(4096), items[:16].reshape(-1).split(4096), strict=True)
        pairs = list(pairs)
        naive = best(1, lambda: [literal(model, u, i) for u, i in pairs])  # noqa: B023
        model.double().forget_items()
        double = torch.cat([literal(model, u, i) for u, i in pairs[:2]])
        model.float().forget_items()
        error = (got[: len(double)] - double).abs().max()
        fast, naive = fast * everyone / batch_size, naive * everyone / 16
        print(
            f"| CIERec {what}, D = {size} | {fast:.0f} | direct {naive:.0f} | "
            f"{naive / fast:.1f} times | items prepared in {preparing:.1f} s | error {error:.1e} |"
        )
        row = {"row": f"CIERec {what}, D = {size}", "users": batch_size, "s": fast, "direct": naive}
        row |= {"preparation": preparing, "error": float(error), "wall_by_cpu": wall / processor}
        rows.append({k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--what", default="user500,full,cierec")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to append the rows of cierec and rank")
    parser.add_argument("--code", default="now", help="the name of the code in these rows")
    for name, default in (("users", 20000), ("items", 10000), ("pairs", 500000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make(arguments.data_path, arguments.users, arguments.items, arguments.pairs, 512)
    work = {"user500": user500, "full": full, "cierec": cierec, "rank": rank}
    for name in arguments.what.split(","):
        rows = work[name](arguments.data_path, arguments.runs)
        memory()
        if arguments.out and rows:
            keep(arguments.out, [{**row, "code": arguments.code} for row in rows])


if __name__ == "__main__":
    main()
