"""Rows of an array on the disk, moved to the device that computes with them.

A store of pictures is read a batch at a time. If it fits into the memory of a GPU, it is copied
there once; else a thread reads the next block while the device computes on the current one, through
page-locked memory, from which a GPU copies asynchronously. On a CPU the mapped file is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.errors import ConfigError

RESIDENT_SHARE = 0.5  # of a GPU's free memory, which a store may take with place auto
_CHUNK_BYTES = 1 << 28  # copied at a time when a whole store is moved
_CGROUPS = (  # limit, use, statistics, and in these the pages of files not used recently
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


class RowSource:
    """Rows of a mapped array as tensors.

    Args:
        array: [n, ...], usually a read-only map.
        place: ``host`` reads rows on demand, ``device`` copies the whole array to the device at
            the first use, ``auto`` does so on a GPU with enough free memory.
    """

    def __init__(self, array: np.ndarray, place: str = "auto") -> None:
        self._array = np.asarray(array)  # a plain view: memmap has costs of its own
        self._place = place
        self._whole: Tensor | None = None

    def blocks(self, wanted: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
        """Yield the rows of each block.

        Args:
            wanted: Row numbers of each block, on any device.
            device: Device of the result.

        Yields:
            Tensor [len(block), ...] on ``device``, in the array's type.
        """
        if self.is_resident(device):
            for block in wanted:
                yield self._on(device).index_select(0, block.to(device))
            return
        lists = [block.cpu().numpy() for block in wanted]
        if device.type == "cpu":  # reading ahead would compete for the same processor
            for rows in lists:
                yield torch.from_numpy(self._array[rows])
            return
        yield from self._ahead(lists, device)

    def _ahead(self, lists: Sequence[np.ndarray], device: torch.device) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as reader:
            coming: Future[Tensor] | None = None
            for rows in [*lists, None]:
                following = None if rows is None else self._start(reader, rows)
                if coming is not None:
                    # torch does not reuse the block's memory before the copy is done.
                    yield coming.result().to(device, non_blocking=True)
                coming = following

    def _start(self, reader: ThreadPoolExecutor, rows: np.ndarray) -> Future[Tensor]:
        # Allocated here: in another thread the current GPU would be the first one.
        block = _locked_memory((len(rows), *self._array.shape[1:]), self._array.dtype)
        return reader.submit(self._read, rows, block)

    def _read(self, rows: np.ndarray, block: Tensor) -> Tensor:
        # clip: without it numpy fills a buffer first; all rows exist.
        np.take(self._array, rows, axis=0, out=block.numpy(), mode="clip")
        return block

    # ---------------------------------------------------------------- whole array on a device

    def is_resident(self, device: torch.device) -> bool:
        """Whether the whole array is on the device, or will be at the first use."""
        if self._whole is not None or self._place == "device":
            return True
        if self._place == "host" or device.type != "cuda":
            return False
        free = free_memory(device)
        fits = self._array.nbytes <= RESIDENT_SHARE * free
        self._place = "device" if fits else "host"  # decided once: later we have taken the memory
        getLogger().info(
            f"{self._array.nbytes / 2**20:,.0f} MiB of pictures, {free / 2**20:,.0f} MiB free on "
            f"{device}: kept {'there' if fits else 'on the disk and read in blocks'}"
        )
        return fits

    def _on(self, device: torch.device) -> Tensor:
        if self._whole is None or self._whole.device != device:
            self._whole = self._copied(device)
        return self._whole

    def _copied(self, device: torch.device) -> Tensor:
        kind = torch.from_numpy(self._array[:0].copy()).dtype
        step = max(1, _CHUNK_BYTES // max(1, self._array[:1].nbytes))
        try:
            whole = torch.empty(self._array.shape, dtype=kind, device=device)
        except RuntimeError as error:  # torch.OutOfMemoryError on a GPU
            raise ConfigError(
                f"picture_store_device: the {self._array.nbytes / 2**20:,.0f} MiB of the store do "
                f"not fit into the memory of {device}; set it to host"
            ) from error
        for start in range(0, len(self._array), step):
            # A copy: a tensor cannot be over a read-only map.
            whole[start : start + step] = torch.from_numpy(
                np.array(self._array[start : start + step])
            ).to(device)
        return whole


def _locked_memory(shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """An empty tensor that a GPU can copy from asynchronously."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=torch.cuda.is_available())


def free_memory(device: torch.device) -> int:
    """Bytes that this program may still take on a device, those reserved by torch included."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    # Here: models without pictures should not wait for this import.
    import psutil

    return min(psutil.virtual_memory().available, container_memory())


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the limit of a container leaves free; without a limit, ``sys.maxsize``.

    Cached pages of files, such as a mapped store, count as used but can be reclaimed.

    Args:
        root: Where Linux describes control groups, version 2 or 1.
    """
    for limit, use, statistics, files in _CGROUPS:
        try:
            room = int((root / limit).read_text()) - int((root / use).read_text())
        except (OSError, ValueError):  # the other version; "max"
            continue
        return max(0, room + _statistic(root / statistics, files))
    return sys.maxsize


def _statistic(path: Path, name: str) -> int:
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0
