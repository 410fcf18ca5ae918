"""Choices among items by a hash of their ids: equal on every machine and for every model, and
independent of order and number of the items."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np


def chosen(ids: Sequence[str], share: float, seed: int, what: str) -> np.ndarray:
    """Whether each item is chosen: bool [n], on average ``share`` of them, never the padding.

    With the same seed, items chosen at a smaller share are also chosen at a larger one.

    Args:
        ids: External ids [n]; entry 0 is the padding.
        share: From 0 to 1.
        seed: Seed of the choice.
        what: The purpose; two purposes choose independently.
    """
    found = _hashes(ids, seed, what) < share
    found[:1] = False
    return found


def exchanged(
    ids: Sequence[str], having: np.ndarray, share: float, seed: int, what: str
) -> np.ndarray:
    """The item whose content each item gets: int64 [n], itself where it keeps its own.

    The chosen items that have content pass it on in a circle, in the order of their hashes; none
    keeps its own if there are two or more.

    Args:
        having: bool [n], the items with content, among which it chooses.
    """
    source = np.arange(len(ids))
    rows = np.flatnonzero(chosen(ids, share, seed, what) & having)
    rows = rows[np.argsort(_hashes(ids, seed, f"{what} order")[rows], kind="stable")]
    source[rows] = np.roll(rows, 1)
    return source


def _hashes(ids: Sequence[str], seed: int, what: str) -> np.ndarray:
    """A number in [0, 1) for each id."""
    start = crc32(f"{seed} {what} ".encode())
    # CRC is linear: the mixing below makes numbers of different seeds independent.
    codes = np.array([crc32(str(name).encode(), start) for name in ids], dtype=np.uint64)
    codes ^= codes >> np.uint64(16)
    codes = (codes * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    codes ^= codes >> np.uint64(13)
    codes = (codes * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    codes ^= codes >> np.uint64(16)
    return codes / 2.0**32
