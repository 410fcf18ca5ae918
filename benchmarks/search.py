"""Equal random search over the ranges in properties/search/, on validation only.

    python benchmarks/search.py --data_path=DIR --dataset=hm-week --models=MF,VBPR --trials=6 \
        --config_files=benchmarks/hm-week.yaml --out=benchmarks/runs/hm-week-search.jsonl

Trial k of a model draws from a separate seeded generator, so that an interrupted run can be
resumed, trials can run in several processes, and every model gets the same number. The test part is
never read here. ``NAME:key=value`` searches a model with a key fixed, as in CIERec:backbone=VBPR;
``:loss=softmax`` uses the ranges for that loss. ``python -m recbole_cierec tune`` searches the
same ranges for one model, with different draws; here one file has the rows of many models.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from time import perf_counter

import torch
from recbole.utils import init_seed

from recbole_cierec.config.config import Config
from recbole_cierec.config.yaml import parse_value, read_yaml
from recbole_cierec.quick_start import prepare
from recbole_cierec.tuning.ranges import range_files

REDRAWS = 100


def draw(name: str, trials: int) -> list[dict]:
    """The settings of so many trials; the first is the defaults of the model's yaml.

    What an earlier trial had is drawn again, as long as the ranges may hold something else.
    """
    model, fixed = split_name(name)
    ranges = {}
    for file in range_files(Config(model, config_dict=fixed)):
        ranges |= read_yaml(file)
    drawn: list[dict] = [{}]
    for trial in range(1, trials):
        chance = random.Random(f"{name}/{trial}")  # noqa: S311 (no secret)
        for _ in range(REDRAWS):
            settings = {key: chance.choice(values) for key, values in ranges.items()}
            if settings not in drawn:
                break
        drawn.append(settings)
    return drawn[:trials]


def split_name(name: str) -> tuple[str, dict]:
    """``CIERec:backbone=VBPR`` -> ("CIERec", {"backbone": "VBPR"})."""
    model, *fixed = name.split(":")
    pairs = (pair.split("=", 1) for pair in fixed)
    return model, {key: parse_value(value) for key, value in pairs}


def trial_result(name: str, settings: dict, arguments: argparse.Namespace) -> dict:
    """Train with the settings; returns the validation result."""
    model, fixed = split_name(name)
    keys = {"data_path": arguments.data_path, "show_progress": False, "state": "error"}
    config = Config(
        model, arguments.dataset, [arguments.config_files], {**keys, **fixed, **settings}, {}
    )
    init_seed(config["seed"], True)
    start = perf_counter()
    job = prepare(config)
    score, result = job.trainer.fit(*job.loaders[:2], saved=False)
    epochs = len(job.trainer.train_loss_dict)
    return {
        "valid": float(score),
        "metrics": {k: float(v) for k, v in result.items()},
        "epochs": epochs,
        "best_epoch": epochs - job.trainer.cur_step * job.trainer.eval_step,
        "seconds": round(perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--config_files", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    known = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {(row["model"], row["trial"]) for row in map(json.loads, known)}
    drawn = {name: draw(name, arguments.trials) for name in arguments.models.split(",")}
    for trial in range(arguments.first, arguments.trials):
        for name in drawn:
            if (name, trial) in done:
                print(f"{name}, trial {trial}: already in {arguments.out} and kept")
                continue
            settings = drawn[name][trial]
            row = {"model": name, "dataset": arguments.dataset, "trial": trial}
            row |= {"settings": settings, **trial_result(name, settings, arguments)}
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
