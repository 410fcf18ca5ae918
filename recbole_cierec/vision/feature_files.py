"""Ready-made features: a .npy file with a row for each data line of NAME.item, or for each id of
the text file next to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from recbole_cierec.errors import DataError
from recbole_cierec.terminal import reason

_CHUNK = 1 << 24  # numbers checked at a time
KEY = "features_file"


def load_feature_file(
    path: Path, ids: Sequence[str], key: str = KEY, listed: Path | None = None
) -> np.ndarray:
    """Read ready-made features.

    Args:
        path: A .npy file, [n_rows, D] of a real number type.
        ids: The item of each row [n_rows].
        key: The key that names the file, for messages.
        listed: The file that names the items of the rows; None: NAME.item.

    Returns:
        float32 [n_rows, D]; mapped from the disk, read-only, where the file is float32 already.

    Raises:
        DataError: The file is missing or no .npy file, holds Python objects or another shape, or a
            number in it is not finite.
    """
    path = Path(path)
    features = read_rows(path, len(ids), key, listed)
    if features.ndim != 2 or features.shape[1] == 0:
        rows = listed.name if listed else "NAME.item"
        raise DataError(
            f"{key} {path}: has shape {features.shape}; give [rows of {rows}, features]"
        )
    if features.dtype != np.float32:
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
            features = features.astype(np.float32)
    refuse_not_finite(features, f"{key} {path}", "correct or drop these items", ids.__getitem__)
    return features


def read_rows(path: Path, n_rows: int, key: str = KEY, listed: Path | None = None) -> np.ndarray:
    """Map a .npy file of real numbers with ``n_rows`` rows; arguments as in
    :func:`load_feature_file`.

    Raises:
        DataError: It is anything else.
    """
    features = open_npy(path, key)
    if features.ndim and len(features) != n_rows:
        others = f"{listed.name} names {n_rows} ids" if listed else ""
        raise DataError(
            f"{key} {path}: has {len(features)} rows, but "
            f"{others or f'the .item file has {n_rows} data lines'}; row k must belong to "
            f"{'id' if listed else 'data line'} k"
        )
    if features.dtype.kind not in "fiu":
        raise DataError(f"{key} {path}: holds {features.dtype}; save it as float32")
    return features


def ids_file(path: Path) -> Path:
    """The text file that names the items of the rows of a feature file: ``F.ids.txt`` of
    ``F.npy``."""
    return path.with_suffix(".ids.txt")


def read_row_ids(path: Path) -> list[str]:
    """The item of each row, from a text file with one id a line.

    Raises:
        DataError: It cannot be read, is empty, or has a blank or repeated line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"{path}: cannot be read ({cause}); give one id a line") from error
    ids = text.removesuffix("\n").split("\n")
    lines: dict[str, int] = {}
    for line, item in enumerate(ids, start=1):
        if not item.strip():
            raise DataError(f"{path}, line {line}: is blank; give one id a line")
        if lines.setdefault(item, line) < line:
            raise DataError(
                f"{path}, line {line}: the id '{item}' is in line {lines[item]} too; an item has "
                "one row"
            )
    return ids


def open_npy(path: Path, key: str = KEY) -> np.ndarray:
    """Map a .npy file of plain numbers.

    Raises:
        DataError: It is missing, damaged or of another format.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
        raise DataError(f"{key} {path}: cannot be read (it is not a regular file)")
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except (OSError, ValueError) as error:  # ValueError: no possible name
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{key} {path}: cannot be read ({cause})") from error
    if magic != b"\x93NUMPY":
        raise DataError(f"{key} {path}: is no .npy file; write it with numpy.save")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy fails in many ways on a damaged header
        raise DataError(
            f"{key} {path}: cannot be read ({reason(error)}); write a plain array of "
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
