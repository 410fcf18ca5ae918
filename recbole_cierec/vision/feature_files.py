"""Ready-made features: a .npy file with a row for each data line of NAME.item."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from recbole_cierec.errors import DataError
from recbole_cierec.terminal import reason

_CHUNK = 1 << 24  # numbers checked at a time


def load_feature_file(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Read ready-made features.

    Args:
        path: A .npy file, [n_rows, D] of a real number type; row k belongs to the k-th data line
            of NAME.item.
        ids: The item of each data line of NAME.item [n_rows].

    Returns:
        float32 [n_rows, D]; mapped from the disk, read-only, where the file is float32 already.

    Raises:
        DataError: The file is missing or no .npy file, holds Python objects or another shape, or a
            number in it is not finite.
    """
    path = Path(path)
    features = read_rows(path, len(ids))
    if features.ndim != 2 or features.shape[1] == 0:
        raise DataError(
            f"features_file {path}: has shape {features.shape}; give [rows of NAME.item, features]"
        )
    if features.dtype != np.float32:
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
            features = features.astype(np.float32)
    refuse_not_finite(
        features, f"features_file {path}", "correct or drop these items", ids.__getitem__
    )
    return features


def read_rows(path: Path, n_rows: int) -> np.ndarray:
    """Map a .npy file of real numbers with ``n_rows`` rows.

    Raises:
        DataError: It is anything else.
    """
    features = _read_npy(path)
    if features.ndim and len(features) != n_rows:
        raise DataError(
            f"features_file {path}: has {len(features)} rows, but the .item file has {n_rows} "
            "data lines; row k must belong to data line k"
        )
    if features.dtype.kind not in "fiu":
        raise DataError(f"features_file {path}: holds {features.dtype}; save it as float32")
    return features


def _read_npy(path: Path) -> np.ndarray:
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
        raise DataError(f"features_file {path}: cannot be read (it is not a regular file)")
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except (OSError, ValueError) as error:  # ValueError: no possible name
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"features_file {path}: cannot be read ({cause})") from error
    if magic != b"\x93NUMPY":
        raise DataError(f"features_file {path}: is no .npy file; write it with numpy.save")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy fails in many ways on a damaged header
        raise DataError(
            f"features_file {path}: cannot be read ({reason(error)}); write a plain array of "
            "float32 with numpy.save"
        ) from error


def refuse_not_finite(
    features: np.ndarray, what: str, advice: str, item_of: Callable[[int], str]
) -> None:
    """Raise a DataError that names the first rows with NaN or infinity, and their items.

    Args:
        features: [n_rows, ...].
        what: What they are, for the message.
        advice: What to do.
        item_of: The item of a row.
    """
    rows: list[int] = []
    step = max(1, _CHUNK // max(1, features[:1].size))
    for start in range(0, len(features), step):
        finite = np.isfinite(features[start : start + step]).reshape(-1, features[:1].size)
        finite = finite.all(axis=1)
        rows += (start + np.flatnonzero(~finite)).tolist()
    if rows:
        named = ", ".join(f"{row} of item {item_of(row)}" for row in rows[:5])
        named += ", ..." if len(rows) > 5 else ""
        raise DataError(
            f"{what}: {len(rows)} of {len(features)} rows hold NaN or infinity "
            f"(counted from 0: {named}); {advice}"
        )
