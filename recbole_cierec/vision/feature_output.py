"""Features of items as a file for other programs, in the form that the key ``features`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.atomic_write import check_output, replacing
from recbole_cierec.vision.feature_files import ids_file

_BLOCK = 4096  # rows copied at a time


def features_path(text: str) -> Path:
    """The file of features that a command line names.

    Raises:
        ConfigError: It does not end in .npy.
    """
    path = Path(text)
    if path.suffix != ".npy":
        raise ConfigError(f"command line: --out={text}: must end in .npy, as in --out=image.npy")
    return path


def check_places(file: Path, inputs: Iterable[Path]) -> None:
    """Check, before any work, that the features and their ids can be written.

    Raises:
        OutputError: One of both is a folder, is among the inputs, or cannot be written.
    """
    inputs = list(inputs)
    for place in (file, ids_file(file)):
        check_output(place, inputs=inputs)


def write_features(file: Path, raw: np.ndarray, rows: np.ndarray, ids: Sequence[str]) -> int:
    """Write a row for each item that has features, and the ids of the rows next to it.

    Rows keep the order of ``raw``, so that sums over them round as they do over ``raw``.

    Args:
        file: The .npy file; the ids are in ``F.ids.txt`` of ``F.npy``.
        raw: Features before normalisation [n, D], or region maps [n, R, C].
        rows: int64 [n_items], the row of each item in ``raw``, -1 for none.
        ids: The id of each item [n_items].

    Returns:
        The number of rows.

    Raises:
        DataError: No item has features, or an id does not fit in one line.
        OutputError: A file cannot be written, or is the one that ``raw`` is mapped from.
    """
    source = getattr(raw, "filename", None)
    check_places(file, [Path(source)] if source else [])
    items = np.flatnonzero(rows >= 0)
    items = items[np.argsort(rows[items], kind="stable")]
    names = [ids[item] for item in items.tolist()]
    _check_ids(names)
    dtype = "<f2" if raw.dtype == np.float16 else "<f4"  # region maps are kept as float16
    form = {"descr": dtype, "fortran_order": False, "shape": (len(items), *raw.shape[1:])}
    # The inner file is renamed first, the outer one right after it: the two stay a pair.
    with replacing(ids_file(file)) as listed, replacing(file) as stream:
        listed.write("".join(f"{name}\n" for name in names).encode())
        np.lib.format.write_array_header_1_0(stream, form)
        for start in range(0, len(items), _BLOCK):
            block = raw[rows[items[start : start + _BLOCK]]]
            stream.write(block.astype(dtype).tobytes())
    return len(items)


def _check_ids(names: Sequence[str]) -> None:
    if not names:
        raise DataError("--out: no item has a usable picture, so there is nothing to write")
    for name in names:
        if not name.strip() or "\n" in name or "\r" in name:
            raise DataError(f"--out: the item id {name!r} does not fit in one line; correct it")
