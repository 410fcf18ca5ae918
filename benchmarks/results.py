"""The tables of docs/results/: the best settings of a search, trained again and tested once.

    python benchmarks/results.py --data_path=DIR --dataset=hm-week \
        --config_files=benchmarks/hm-week.yaml --search=benchmarks/runs/hm-week-search.jsonl \
        --models=Pop,BPR,MF,VBPR --out=benchmarks/runs/hm-week-results.jsonl

For each model the trial with the best validation score is written to
properties/tuned/DATASET/MODEL.yaml and run with its checkpoint, in a separate process, so that the
peak memory is that of the model. A model that was not searched runs with the settings of
``--like=MODEL`` or its defaults. Rows already in ``--out`` are kept; the table is printed at the
end. ``--users=DIR`` writes each run's results by user to DIR/NAME.users.npz, for
``python -m recbole_cierec compare``. Seconds are processor time, so that other work on the machine
has little effect; "s an epoch" is the whole fit, validations included, divided by its epochs.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from search import split_name
from tables import results

from recbole_cierec import run
from recbole_cierec.errors import UserError

TUNED = Path(__file__).resolve().parents[1] / "properties" / "tuned"


def best_settings(search: Path, name: str) -> dict:
    """Settings of the trial of ``name`` with the best validation score."""
    rows = [json.loads(line) for line in search.read_text().splitlines()]
    rows = [row for row in rows if row["model"] == name and row["valid"] is not None]
    return max(rows, key=lambda row: row["valid"])["settings"] if rows else {}


def tuned_file(dataset: str, name: str, settings: dict) -> Path:
    """Write the settings to a YAML file for --config_files."""
    model, fixed = split_name(name)
    stem = file_stem("_".join([model, *(str(value) for value in fixed.values())]))
    path = TUNED / dataset / f"{stem}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {name} on {dataset}: best of the search in benchmarks/runs, by validation."]
    for how, keys in (("Given.", fixed), ("Found.", settings)):
        lines += [f"{k}: {v}  # ({type(v).__name__}) {how}" for k, v in keys.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def file_stem(text: str) -> str:
    """``MultiVAE_[128]`` -> ``MultiVAE_128``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def one(arguments: argparse.Namespace) -> None:
    """Run one model in this process and append its row."""
    torch.set_num_threads(1)
    name = arguments.one
    model, _ = split_name(name)
    settings = best_settings(arguments.search, arguments.like or name)
    files = arguments.config_files.split(",")
    files.append(str(tuned_file(arguments.dataset, name, settings)))
    keys = {"data_path": arguments.data_path, "show_progress": False, "state": "warning"}
    result = run(model, arguments.dataset, files, {**keys, "seed": arguments.seed})
    row = {
        "model": name,
        "seed": arguments.seed,
        "settings": settings,
        "valid": float(result["best_valid_score"]),
        "test": {k: float(v) for k, v in result["test_result"].items()},
        "epochs": result["epochs"],
        "fit_seconds": round(result["seconds"]["fit_cpu"], 2),
        "evaluate_seconds": round(result["seconds"]["evaluate_cpu"], 2),
        "parameters": result["parameters"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if arguments.users:
        arguments.users.mkdir(parents=True, exist_ok=True)
        kept = Path(result["checkpoint"]).with_suffix(".users.npz")
        stem = file_stem(name.replace("=", "-"))
        shutil.copyfile(kept, arguments.users / f"{stem}-{arguments.seed}.users.npz")
    with arguments.out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--config_files", required=True)
    parser.add_argument("--models", default="")
    parser.add_argument("--like", default="")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--search", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        try:
            return one(arguments)
        except UserError as error:
            sys.exit(f"error: {error}")
    known = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {(row["model"], row["seed"]) for row in map(json.loads, known)}
    for name in filter(None, arguments.models.split(",")):
        if (name, arguments.seed) in done:
            print(
                f"{name}: already in {arguments.out} and kept; give another --out to train it again"
            )
        elif code := subprocess.run([sys.executable, *sys.argv, f"--one={name}"]).returncode:
            sys.exit(code)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    print(results(rows))


if __name__ == "__main__":
    main()
