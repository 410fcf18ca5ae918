"""Features computed in parts, by several processes or by machines that share only a disk.

Each writes the rows of its shard into ``features-KEY.parts``; the one that completes them joins all
into ``features-KEY``, the file that one process would have written: shards begin where a batch of
the encoder begins, so that every picture is encoded in the same batch. The cache's manifest names
all parts with their rows and checksums.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.cache_folder import build_folder
from recbole_cierec.files.digest import file_digest
from recbole_cierec.files.npy import write_npy

_MANIFEST, _ROWS = "manifest.json", "rows.npy"
_BYTES = 1 << 22  # copied at a time


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts, counted from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def within(self, rank: int, size: int) -> Shard:
        """The part of this part that process ``rank`` of ``size`` takes."""
        return Shard(self.index * size + rank, self.count * size)

    def rows(self, n_rows: int, batch_size: int) -> range:
        """Its rows: whole batches, except for the last one of all."""
        batches = -(-n_rows // batch_size)
        first, last = (batches * k // self.count for k in (self.index, self.index + 1))
        return range(first * batch_size, min(last * batch_size, n_rows))


WHOLE = Shard(0, 1)


def read_shard(text: str) -> Shard:
    """``3/16``: the third of sixteen.

    Raises:
        ConfigError: It is anything else.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    index, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(f"--shard={text}: give K/N, as 3/16 for the third of sixteen shards")
    return Shard(index - 1, count)


class Parts:
    """The parts of one cache.

    Args:
        folder: Folder of the cache; the parts are next to it.
        inputs: What the numbers depend on.
        shape: Shape of all rows.
        dtype: Type of the numbers.
        batch_size: Rows computed at a time, the same for all parts.
        own: The shard of this process.
    """

    def __init__(
        self,
        folder: Path,
        inputs: dict[str, Any],
        shape: tuple[int, ...],
        dtype: str,
        batch_size: int,
        own: Shard,
    ) -> None:
        self.shape, self.dtype, self.batch_size = shape, dtype, batch_size
        self.own, self.count, self.inputs = own, own.count, inputs
        self.folder = _parts_of(folder)

    def _of(self, shard: Shard) -> Path:
        return self.folder / f"{shard.index + 1}-of-{shard.count}"

    def _shards(self) -> Iterator[Shard]:
        return (Shard(k, self.count) for k in range(self.count))

    def rows(self, shard: Shard) -> range:
        """The rows of a part."""
        return shard.rows(self.shape[0], self.batch_size)

    def add(self, batches: Iterable[np.ndarray], check: Callable[[np.ndarray], None]) -> None:
        """Write this process's part.

        Args:
            batches: Its rows.
            check: Called with the written rows; raises if they cannot be used.

        Raises:
            DataError: It cannot be written.
        """
        rows = self.rows(self.own)
        # If two processes compute the same part, the first wins: during a replacement, a third
        # one that joins would find neither.
        own = self._of(self.own)
        with build_folder(own, is_valid=lambda: not self.fault(self.own)) as temporary:
            path = temporary / _ROWS
            digest = write_npy(path, batches, (len(rows), *self.shape[1:]), self.dtype)
            check(np.load(path, mmap_mode="r", allow_pickle=False))
            manifest = self._described(self.own) | {"sha256": digest}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")

    def _described(self, shard: Shard) -> dict[str, Any]:
        rows = self.rows(shard)
        return {
            "inputs": self.inputs,
            "shard": str(shard),
            "rows": [rows.start, rows.stop],
            "batch_size": self.batch_size,
        }

    def missing(self) -> list[Shard]:
        """Shards that are not finished."""
        return [s for s in self._shards() if not (self._of(s) / _MANIFEST).is_file()]

    def fault(self, shard: Shard) -> str:
        """What is wrong with a part, in a few words; "" if nothing is."""
        folder = self._of(shard)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
            expected = self._described(shard)
            if {key: manifest.get(key) for key in expected} != expected:
                if manifest.get("batch_size") != self.batch_size:
                    return f"was made with encoder_batch_size {manifest.get('batch_size')}"
                return "is of other pictures or weights"
            if file_digest(folder / _ROWS) != manifest["sha256"]:
                return "is damaged"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "is missing or damaged"
        return ""

    def refuse_faults(self) -> None:
        """Raise a DataError that names the first part that cannot be used."""
        for shard in self._shards():
            fault = self.fault(shard)
            if fault:
                raise DataError(
                    f"{self._of(shard)}: {fault}; run the shard {shard} again, with the keys of "
                    f"this run (encoder_batch_size {self.batch_size})"
                )

    def listed(self) -> list[dict[str, Any]]:
        """Rows and checksum of every part, for the manifest of the whole."""
        manifests = (
            json.loads((self._of(s) / _MANIFEST).read_text("utf-8")) for s in self._shards()
        )
        return [{key: m[key] for key in ("shard", "rows", "sha256")} for m in manifests]

    def blocks(self) -> Generator[np.ndarray, None, None]:
        """All rows, in order, in blocks."""
        for shard in self._shards():
            rows = np.load(self._of(shard) / _ROWS, mmap_mode="r", allow_pickle=False)
            step = max(1, _BYTES // max(1, rows[:1].nbytes))
            yield from (rows[k : k + step] for k in range(0, len(rows), step))

    def others(self) -> list[Path]:
        """Folders of parts of the same pictures by other weights or another network."""
        found = []
        for folder in self.folder.parent.glob(f"{self.folder.name.split('-')[0]}-*.parts"):
            for file in folder.glob(f"*/{_MANIFEST}"):
                try:
                    pictures = json.loads(file.read_text("utf-8"))["inputs"]["store_digest"]
                except (OSError, ValueError, KeyError, TypeError, RecursionError):
                    continue
                if folder != self.folder and pictures == self.inputs["store_digest"]:
                    found.append(folder)
                    break
        return found


def drop_parts(folder: Path) -> None:
    """Remove all parts of a cache that is complete.

    Args:
        folder: Folder of the cache.
    """
    shutil.rmtree(_parts_of(folder), ignore_errors=True)


def _parts_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.parts")
