"""Large .npy files, written and read as streams."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

_BYTES = 1 << 22  # bytes hashed in one go


def write_npy(path: Path, batches: Iterable[np.ndarray], shape: tuple[int, ...], dtype: str) -> str:
    """Write batches of rows as one .npy file and return its sha256 (hex).

    Written, not mapped: a full disk is then an error, where a write to a map kills the process.
    """
    header = io.BytesIO()
    form = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
            for block in chain([header.getvalue()], (b.astype(dtype).tobytes() for b in batches)):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file does, alike for all who see it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
