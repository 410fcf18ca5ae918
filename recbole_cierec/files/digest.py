"""Digests and stamps of files: whether one is the file that it was."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

_BYTES = 1 << 20  # read in one go

Stamp = tuple[int, int, int, int]


def file_digest(path: str | Path) -> str:
    """sha256 (hex) of a file.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def known_digest(path: Path) -> str:
    """:func:`file_digest`, read once in a process as long as the file's :func:`stamp_of` stays.

    Raises:
        OSError: It cannot be read.
    """
    return _digest_at(path, stamp_of(path))


@lru_cache(maxsize=64)
def _digest_at(path: Path, _stamp: Stamp | None) -> str:
    return file_digest(path)


def array_digest(text: str, numbers: np.ndarray) -> str:
    """sha256 (hex) of a text and the bytes of an array."""
    digest = hashlib.sha256(text.encode())
    digest.update(np.ascontiguousarray(numbers).data)
    return digest.hexdigest()


def stamp(status: os.stat_result) -> Stamp:
    """Size, mtime and ctime (ns) and inode: one of them changes whenever the file does."""
    inode = status.st_ino & (2**63 - 1)  # some file systems use all 64 bits; kept as int64
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def stamp_of(path: str | Path) -> Stamp | None:
    """The :func:`stamp` of a file, equal for all who see it; None if there is none."""
    try:
        return stamp(os.stat(path))
    except OSError:
        return None
