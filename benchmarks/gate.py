"""What the gradient gates of CIERec learn, on the demo data; figures in docs/concepts/gates.md.

    python benchmarks/gate.py [--seeds=60 --batches=400 --rate=0.001 --out=FILE]

``paper`` and ``reinforce``: a run of CIERec for each seed, which records the actions of both gates
at every batch. They are compared with the actions of the same gates without training (``paper``),
and with the losses that followed (``reinforce``). ``scales``: an epoch under ``gr_mode: fixed``,
which shows the effect of a common factor and of a ratio of the two scales on the adapter.

Takes eight minutes, or one with ``--seeds=6``. Seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from time import process_time

import numpy as np
import torch

from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.config.config import Config
from recbole_cierec.quick_start import prepare
from recbole_cierec.trainer.gated_trainer import BRANCHES

SETTLED = 10  # batches after which an action may count as final
FIXED = {"as they are": [1.0, 1.0], "common factor": [0.2, 0.2], "ratio": [1.0, 0.2]}


def trained(batches: int, **keys):
    """A job trained for at least ``batches`` batches, and the history of each gate."""
    common = {"train_batch_size": 128, "show_progress": False, "state": "error", **keys}
    with quiet_recbole():
        job = prepare(Config("CIERec", "demo", None, common, {}), saved=False)
        history = {name: watch(gate) for name, gate in job.trainer.gates.items()}
        job.trainer.epochs = -(-batches // len(job.loaders[0]))
        job.trainer.fit(job.loaders[0], saved=False)
    for seen in history.values():
        seen["actions"] = seen["actions"][:batches]
    return job, history


def chances(gate) -> np.ndarray:
    """Probability [state, action] of each action after each one."""
    layer = gate.network
    with torch.no_grad():
        return torch.softmax(layer.weight.T + layer.bias, 1).numpy()


def watch(gate) -> dict:
    """Records the gate's untrained network, and from now on its actions and losses by batch."""
    seen = {"first": gate.action, "untrained": chances(gate), "actions": [], "losses": []}
    choose, learn = gate.choose, gate.learn

    def chosen() -> float:
        scale = choose()
        seen["actions"].append(gate.action)
        return scale

    def learned(loss: float) -> dict:
        seen["losses"].append(loss)
        return learn(loss)

    gate.choose, gate.learn = chosen, learned
    return seen


def untrained_actions(seen: dict) -> list[int]:
    """The actions of the untrained gate, each the most likely after the previous one."""
    action, actions = seen["first"], []
    for _ in seen["actions"]:
        action = int(seen["untrained"][action].argmax())
        actions.append(action)
    return actions


def paper(seeds: range, batches: int, rate: float) -> dict:
    """How far the actions of the gates of Eq. 6 differ from those of untrained gates."""
    equal, constant, ratios = 0, 0, Counter()
    for seed in seeds:
        job, history = trained(batches, seed=seed, gr_mode="paper", gr_learning_rate=rate)
        gates = history.values()
        equal += all(seen["actions"] == untrained_actions(seen) for seen in gates)
        constant += all(len(set(seen["actions"][SETTLED:])) == 1 for seen in gates)
        scales = [job.config["gr_scales"][history[name]["actions"][-1]] for name in BRANCHES]
        ratios[round(scales[0] / scales[1], 2)] += 1
    return {
        "equal_to_untrained": equal,
        "one_action_for_good": constant,
        "last_ratio": dict(sorted(ratios.items())),
    }


def reinforce(seeds: range, batches: int, rate: float) -> dict:
    """Mean loss of the batch after each action, without the trend, and the most likely scales."""
    residuals: dict[int, list[float]] = {}
    likeliest = Counter()
    for seed in seeds:
        job, history = trained(batches, seed=seed, gr_mode="reinforce", gr_learning_rate=rate)
        for name, seen in history.items():
            losses = np.array(seen["losses"][1:])
            trend = np.convolve(np.pad(losses, 10, "edge"), np.full(21, 1 / 21), "valid")
            for action, left in zip(seen["actions"], losses - trend, strict=False):
                residuals.setdefault(action, []).append(float(left))
            gate = job.trainer.gates[name]
            likeliest[gate.scales[chances(gate)[gate.action].argmax()]] += 1
    means = {action: float(np.mean(values)) for action, values in sorted(residuals.items())}
    every = np.concatenate([np.array(values) for values in residuals.values()])
    error = max(float(np.std(v) / len(v) ** 0.5) for v in residuals.values())
    return {
        "loss_by_action": {str(a): round(m, 5) for a, m in means.items()},
        "range_of_means": round(max(means.values()) - min(means.values()), 5),
        "standard_error_of_a_mean": round(error, 5),
        "deviation_of_a_loss": round(float(every.std()), 4),
        "likeliest_at_the_end": dict(sorted(likeliest.items())),
    }


def scales() -> dict:
    """Change of the adapter in an epoch, compared with the run with both scales at 1."""
    adapters = {}
    for name, pair in FIXED.items():
        job, _ = trained(1, seed=2020, gr_mode="fixed", gr_fixed_scales=pair)
        adapters[name] = job.model.encoder.adapter.weight.detach()
    plain = adapters.pop("as they are")
    move = (plain - torch.eye(len(plain))).norm()
    return {name: round(float((one - plain).norm() / move), 4) for name, one in adapters.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rate", type=float, default=0.001, help="gr_learning_rate")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    # Every second seed: the second gate of a seed starts as the first gate of the next seed.
    seeds = range(0, 2 * a.seeds, 2)
    work = {
        "paper": lambda: paper(seeds, a.batches, a.rate),
        "reinforce": lambda: reinforce(seeds, a.batches, a.rate),
        "scales": scales,
    }
    for what, measure in work.items():
        start = process_time()
        size = {} if measure is scales else {"seeds": a.seeds, "batches": a.batches, "rate": a.rate}
        row = {"what": what, **size, **measure()}
        row["seconds"] = round(process_time() - start, 1)
        print(json.dumps(row))
        if a.out:
            with a.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
