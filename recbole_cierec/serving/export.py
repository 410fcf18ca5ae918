"""Vectors and biases of a trained model for an index such as FAISS, and its weights.

Where the model is an inner product, ``scores = users @ items.T + user_bias[:, None] + item_bias``.
An index of inner products takes the item bias as one more coordinate: ``[items, item_bias]``
against ``[users, 1]``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from recbole_cierec.config.paths import given_path
from recbole_cierec.errors import OutputError
from recbole_cierec.files.atomic_write import check_folder
from recbole_cierec.files.cache_folder import build_folder
from recbole_cierec.model.base.side import Side
from recbole_cierec.serving.tables import writing
from recbole_cierec.serving.trained import TrainedModel, load_trained

FORMULA = "users @ items.T + user_bias[:, None] + item_bias"
MARKER = "export.json"
# Of a folder that is replaced, all that may be in it.
FILES = frozenset({MARKER, "model.safetensors", "vectors.npz", "users.parquet", "items.parquet"})
_ROWS = 65536  # of a Parquet file, written at a time
_TESTED = 8  # users whose scores are compared before vectors of RecBole's models are trusted
# Where RecBole's models keep the vectors of users and items.
_RECBOLES = (("restore_user_e", "restore_item_e"), ("user_embedding", "item_embedding"))


@dataclass
class Vectors:
    """Row k belongs to internal number k + 1.

    Attributes:
        users: float32 [n_users, k].
        items: float32 [n_items, k].
        user_bias: float32 [n_users].
        item_bias: float32 [n_items].
    """

    users: np.ndarray
    items: np.ndarray
    user_bias: np.ndarray
    item_bias: np.ndarray


def export(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config_dict: Mapping[str, Any] | None = None,
    cmd_line: Mapping[str, str] | None = None,
) -> Path:
    """Write a folder with ``model.safetensors`` and ``export.json``, and, where the model is an
    inner product, ``vectors.npz``, ``users.parquet`` and ``items.parquet``.

    Args:
        checkpoint: The model.
        out: The folder; an earlier export there is replaced.
        config_dict: Keys over those of the run.
        cmd_line: Flags over these, as texts.

    Returns:
        The folder.

    Raises:
        UserError: The checkpoint cannot be used, or the folder cannot be written or holds
            something else.
    """
    folder = Path(out)
    _refuse_other(folder)
    trained = load_trained(given_path("checkpoint", checkpoint), config_dict, cmd_line)
    vectors = vectors_of(trained)
    with build_folder(folder, key="--out") as work:
        weights = {k: v.detach().cpu().contiguous().clone() for k, v in _weights(trained).items()}
        save_file(weights, work / "model.safetensors")
        if vectors is not None:
            _write_vectors(work, trained, vectors)
        text = json.dumps(_described(trained, vectors), indent=2, ensure_ascii=False)
        (work / MARKER).write_text(text + "\n", encoding="utf-8")
        shutil.copymode(work / MARKER, work / "model.safetensors")  # which only its owner may read
    if vectors is None:
        getLogger().warning(
            f"{trained.name} is no inner product of a user's and an item's vector, so no vectors "
            "are exported; recommend ranks with it exactly"
        )
    return folder


def vectors_of(trained: TrainedModel) -> Vectors | None:
    """The vectors of a model; None where its scores are no inner products."""
    found = trained.model.vectors() if hasattr(trained.model, "vectors") else _of_recbole(trained)
    if found is None:
        return None
    users, items = found
    rows = [
        (np.zeros(len(side.vector), np.float32) if side.bias is None else _numpy(side.bias))[1:]
        for side in (users, items)
    ]
    return Vectors(_numpy(users.vector)[1:], _numpy(items.vector)[1:], *rows)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _of_recbole(trained: TrainedModel) -> tuple[Side, Side] | None:
    """Vectors that reproduce the scores of a model of RecBole, which does not name them."""
    asked = np.flatnonzero(trained.trained_users)[:_TESTED]
    scores = trained.scores(asked)
    for names in _RECBOLES:
        tables = [getattr(trained.model, name, None) for name in names]
        users, items = (getattr(table, "weight", table) for table in tables)
        sizes = (len(trained.user_ids), len(trained.item_ids))
        if not (isinstance(users, Tensor) and isinstance(items, Tensor)):
            continue
        if users.dim() != 2 or items.dim() != 2:
            continue
        if users.shape[1] != items.shape[1] or (len(users), len(items)) != sizes:
            continue
        if torch.allclose(users[asked] @ items.T, scores, rtol=1e-4, atol=1e-5):
            return Side(users), Side(items)
    return None


def _weights(trained: TrainedModel) -> dict[str, Tensor]:
    return {k: v.to_dense() if v.is_sparse else v for k, v in trained.model.state_dict().items()}


def _write_vectors(work: Path, trained: TrainedModel, vectors: Vectors) -> None:
    ids = {"user": trained.user_ids[1:].astype(str), "item": trained.item_ids[1:].astype(str)}
    np.savez(
        work / "vectors.npz",
        user_ids=ids["user"],
        item_ids=ids["item"],
        **vars(vectors),
    )
    for kind, rows, bias in (
        ("user", vectors.users, vectors.user_bias),
        ("item", vectors.items, vectors.item_bias),
    ):
        with writing(work / f"{kind}s.parquet") as write:
            for k in range(0, len(rows), _ROWS):
                part = slice(k, k + _ROWS)
                table = {"id": ids[kind][part].astype(object), "bias": bias[part]}
                write(pd.DataFrame({**table, "vector": list(rows[part])}))


def _described(trained: TrainedModel, vectors: Vectors | None) -> dict[str, Any]:
    return {
        "format": 1,
        "model": trained.name,
        "dataset": trained.config["dataset"],
        "inner_product": vectors is not None,
        "scores": FORMULA if vectors is not None else "",
        "users": len(trained.user_ids) - 1,
        "items": len(trained.item_ids) - 1,
        "provenance": trained.provenance,
    }


def _refuse_other(folder: Path) -> None:
    """Refuse a file, and a folder with anything but an earlier export."""
    check_folder(folder)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - FILES or (found and MARKER not in found):
        raise OutputError(folder, "the folder holds other files", "choose another folder")
