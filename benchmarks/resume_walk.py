"""Check that every model resumes exactly: two epochs and two more equal four, bit for bit.

    python benchmarks/resume_walk.py [--models=BPR,DiffRec] [--out=FILE.jsonl]

Trains all models of the package and of RecBole on small synthetic data with item features and a
knowledge graph, so that as many as possible can train, and compares parameters, optimizers, plain
state, random states, losses and metrics of both runs. One row per model: ``equal``, ``differs``
(and where), or why it does not train here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from recbole.utils import ModelType
from recbole.utils.utils import get_model

from recbole_cierec import run
from recbole_cierec.errors import UserError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.registry import MODELS, recbole_model_names

USERS, ITEMS, EACH = 40, 50, 14
COMMON = {
    "show_progress": False,
    "use_gpu": False,
    "state": "critical",
    "train_batch_size": 128,
    "valid_metric": "Recall@5",
    "topk": [5],
    "eval_step": 1,
    "stopping_step": 50,
}
SEQUENCE = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]}
}
GRAPH = {
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
}
_FEW = {"reranker_CAN_NUM": 20}
SMALL = {  # for models whose defaults need more items or time than available
    "GRU4RecCPR": _FEW,
    "SASRecCPR": _FEW,
    "LDiffRec": {"n_cate": 1, "in_dims": [8], "out_dims": [], "dims_dnn": [8]},
    "NCL": {"num_clusters": 5},
    # Their first stage, whose length does not depend on `epochs`.
    "RaCT": {"metrics_k": 10, "pretrain_epochs": 1},
    "S3Rec": {"pretrain_epochs": 1},
}


def make(folder: Path, seed: int = 0) -> None:
    """Data set ``walk`` with ratings, times, item features, a small graph and its links."""
    rng = np.random.default_rng(seed)
    home = folder / "walk"
    home.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(USERS):
        for when, item in enumerate(rng.choice(ITEMS, EACH, replace=False)):
            rows.append(f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{when}")
    (home / "walk.inter").write_text("\n".join(rows) + "\n")
    items = ["item_id:token\tgenre:token_seq\tclass:token\timage_path:token\tannotations:token_seq"]
    for item in range(ITEMS):
        tokens = " ".join(f"t{t}" for t in rng.choice(7, 2, replace=False))
        items.append(f"i{item}\tg{item % 5} g{item % 3}\tc{item % 4}\timages/{item}.png\t{tokens}")
    (home / "walk.item").write_text("\n".join(items) + "\n")
    triples = [f"e{h}\tr{h % 3}\te{(h * 7 + 3) % (ITEMS + 10)}" for h in range(ITEMS + 10)]
    header = "head_id:token\trelation_id:token\ttail_id:token"
    (home / "walk.kg").write_text("\n".join([header, *triples]) + "\n")
    links = [f"i{k}\te{k}" for k in range(ITEMS)]
    (home / "walk.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")
    np.save(home / "features.npy", rng.standard_normal((ITEMS, 6)).astype("float32"))
    np.save(home / "regions.npy", rng.standard_normal((ITEMS, 4, 6)).astype("float16"))


def keys_of(name: str, folder: Path) -> dict:
    """Keys with which a model can probably train on ``walk``."""
    keys = {**COMMON, "data_path": str(folder), "checkpoint_dir": "saved"}
    keys["keep_last_checkpoint"] = True
    if name in MODELS:
        kind = "regions.npy" if name == "VECF" else "features.npy"
        keys |= {"embedding_size": 8, "features_file": str(folder / "walk" / kind)}
        keys |= {"pretrain_epochs": 1} if name in ("PiNet", "AlignRec") else {}
        # `epochs` applies to the stage as well, and both runs must have the same stage.
        return keys | ({"pretrain": {"epochs": 2}} if MODELS[name].stages else {})
    kind = get_model(name).type
    if kind == ModelType.KNOWLEDGE:
        keys |= GRAPH
    elif kind == ModelType.SEQUENTIAL:
        keys |= {**SEQUENCE, "selected_features": ["genre"], "item_attribute": "genre"}
        keys |= {"MAX_ITEM_LIST_LENGTH": 10}
    return keys | SMALL.get(name, {})


def differences(one: object, other: object, where: str = "") -> Iterator[str]:
    """Paths at which two nested structures of dicts, lists, tensors and numbers differ in a bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{where}/{key}" for key in one.keys() ^ other.keys())
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{where}/{k}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            yield where
    elif one != other and not (one != one and other != other):
        yield where


def last_state(result: dict) -> dict:
    """The state after the last epoch, without the names of the run and the keys it was given."""
    best = Path(result["checkpoint"])
    last = best.with_suffix(".last.pth")
    state = read_checkpoint(last if last.is_file() else best)
    return {k: v for k, v in state.items() if k not in ("config", "given", "provenance")}


def walk_one(name: str, folder: Path) -> dict:
    """The row of one model."""
    try:
        keys = keys_of(name, folder)
        whole = run(name, "walk", config_dict={**keys, "epochs": 4})
        half = run(name, "walk", config_dict={**keys, "epochs": 2})
        file = Path(half["checkpoint"]).with_suffix(".last.pth")
        rest = run(name, "walk", config_dict={**keys, "epochs": 4, "resume": str(file)})
    except (UserError, ImportError) as error:
        return {"model": name, "result": "does not train here", "why": str(error)[:200]}
    except Exception as error:  # the row reports it, and the next model follows
        return {
            "model": name,
            "result": "traceback",
            "why": f"{type(error).__name__}: {error}"[:200],
        }
    found = [*differences(last_state(whole), last_state(rest))]
    found += differences(dict(whole["test_result"]), dict(rest["test_result"]), "test")
    return {"model": name, "result": "differs" if found else "equal", "why": ", ".join(found[:5])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    names = [n for n in arguments.models.split(",") if n] or [*MODELS, *recbole_model_names()]
    logging.getLogger().addHandler(logging.NullHandler())
    torch.set_num_threads(1)
    out = arguments.out and arguments.out.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        make(Path(place) / "data")
        os.chdir(place)
        for name in names:
            row = walk_one(name, Path(place) / "data")
            rows.append({**row, "why": row["why"].replace(place, "DIR")})
            print(json.dumps(rows[-1]), flush=True)
    if out:
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = {
        kind: sum(row["result"] == kind for row in rows)
        for kind in dict.fromkeys(row["result"] for row in rows)
    }
    print(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return int(any(row["result"] in ("differs", "traceback") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
