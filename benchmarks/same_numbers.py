"""Check that a refactoring changes no number: a digest of each trained model.

    python benchmarks/same_numbers.py --out=before.jsonl
    python benchmarks/same_numbers.py --like=before.jsonl        # after the change
    python benchmarks/same_numbers.py --dataset=hm-week --data_path=DIR --out=before.jsonl

Trains every model of the package and five of RecBole's for two epochs, one thread, on the demo data
or on a data set with random features (64 numbers per item, seed 0). One row per model: a digest of
all parameters, independent of their names and order, and the metrics. Bits are equal only on the
same machine. Exit code 1 if a row differs from ``--like``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from recbole_cierec import load, run
from recbole_cierec.registry import MODELS

RECBOLE = ("BPR", "LightGCN", "MultiVAE", "NeuMF", "SASRec")
KEYS = {
    "epochs": 2,
    "seed": 2020,
    "use_gpu": False,
    "show_progress": False,
    "state": "critical",
    "valid_metric": "Recall@10",
    "encoder_weights": "random",
    "eval_args": {"mode": "user500"},
}
FIRST_PHASE = ("AlignRec", "PiNet")
BOTH_LOSSES = ("VBPR", "CIERec")  # with softmax too


def drawn_features(folder: Path, name: str, regions: bool) -> Path:
    """Features of every data line of NAME.item, as [n, 64], or [n, 4, 64] for region maps."""
    lines = (folder / name / f"{name}.item").read_text(encoding="utf-8").splitlines()
    shape = (len(lines) - 1, 4, 64) if regions else (len(lines) - 1, 64)
    path = Path(f"{'regions' if regions else 'features'}-{name}.npy").resolve()
    np.save(path, np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return path


def settings(model: str, dataset: str, data_path: Path | None) -> dict:
    """The keys of one run."""
    keys: dict = {**KEYS, "checkpoint_dir": "saved"}
    if model in MODELS:
        keys |= {"pretrain_epochs": 1} if model in FIRST_PHASE else {}
        keys |= {"pretrain": {"epochs": 2}} if MODELS[model].stages else {}
    if data_path:
        keys["data_path"] = str(data_path)
        if model in MODELS:
            keys["features_file"] = str(drawn_features(data_path, dataset, model == "VECF"))
    return keys


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """Digest of shapes and bytes, independent of the names."""
    parts = sorted(
        f"{tuple(value.shape)} {hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()}"
        for value in tensors.values()
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def row_of(model: str, dataset: str, data_path: Path | None, loss: str) -> dict:
    """Train one model and describe the result."""
    keys = {**settings(model, dataset, data_path)}
    if loss != "bpr":
        keys["loss"] = loss
    result = run(model, dataset, config_dict=keys)
    trained = load(result["checkpoint"], config_dict=keys).model
    return {
        "model": model,
        "loss": loss,
        "dataset": dataset,
        "parameters": digest_of(dict(trained.named_parameters())),
        "valid": dict(result["best_valid_result"]),
        "test": dict(result["test_result"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--data_path", type=Path)
    parser.add_argument("--models", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--like", type=Path, help="rows to compare with")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().addHandler(logging.NullHandler())
    out, like = (path and path.resolve() for path in (arguments.out, arguments.like))
    data_path = arguments.data_path and arguments.data_path.resolve()
    before = {}
    for line in like.read_text().splitlines() if like else ():
        row = json.loads(line)
        before[row["model"], row["loss"], row["dataset"]] = row
    names = [name for name in arguments.models.split(",") if name] or [*MODELS, *RECBOLE]
    kinds = [(name, "bpr") for name in names]
    kinds += [(name, "softmax") for name in names if name in BOTH_LOSSES]
    differing = 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name, loss in kinds:
            row = row_of(name, arguments.dataset, data_path, loss)
            then = before.get((name, loss, arguments.dataset))
            said = "" if then is None else ("same" if then == row else "DIFFERS")
            differing += said == "DIFFERS"
            print(name, loss, row["parameters"], said, flush=True)
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
