"""Region maps: the last spatial map of an encoder for every picture, for attention over regions.

A map is about fifty times as large as a pooled vector, so the maps stay on the disk as float16,
mapped into memory, and only the items of a batch are read. Their principal components
(``feature_dim``) are computed once and kept in memory if they fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.errors import DataError
from recbole_cierec.vision.feature_files import KEY, read_rows, refuse_not_finite
from recbole_cierec.vision.feature_norm import FeatureNorm
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.features import Kind, cached

if TYPE_CHECKING:
    from recbole_cierec.vision.picture_store import PictureStore
    from recbole_cierec.vision.visual_encoder import VisualEncoder

_SAMPLE = 16384  # regions to fit the normalisation on
_KEPT_BYTES = 1 << 30  # of principal components in memory; 40,000 items at 7 x 7 x 128
_BLOCK = 256  # pictures whose components are computed at a time


class RegionMaps:
    """Normalised region vectors of items, read on demand.

    Args:
        maps: [n_rows, R, C] of a real type, in memory or mapped.
        rows: Row of each item, -1 for an item without picture.
        norm: Key ``feature_norm``, applied to each region as to a row of pooled features.
        dimensions: Key ``feature_dim``.

    Attributes:
        count: R, regions of a picture.
        size: C, or the number of principal components kept.
    """

    def __init__(
        self, maps: np.ndarray, rows: np.ndarray, norm: str, dimensions: int | None = None
    ) -> None:
        self.maps, self.rows = maps, torch.from_numpy(np.asarray(rows, dtype=np.int64))
        self.count = maps.shape[1]
        used = np.unique(rows[rows >= 0])
        # Evenly spread over the pictures, and the same ones each time.
        wanted = min(len(used), max(1, _SAMPLE // self.count))
        sample = used[np.linspace(0, len(used) - 1, wanted).astype(np.int64)]
        self.norm = FeatureNorm.fit(self._read(sample).flatten(0, 1), norm, dimensions)
        kept = self.norm.components
        self.size = maps.shape[2] if kept is None else kept.shape[1]
        self.kept = None if kept is None else self._all_components()

    def __call__(self, items: Tensor) -> Tensor:
        """items [m] -> float32 [m, R, C] on their device; zero where there is no picture."""
        rows = self.rows[items.cpu()]
        known = rows >= 0
        regions = self._vectors(rows[known], items.device)
        if known.all():
            return regions
        out = regions.new_zeros(len(items), self.count, self.size)
        return out.index_copy(0, known.nonzero().squeeze(1).to(items.device), regions)

    def _all_components(self) -> Tensor | None:
        """float32 [n_rows, R, k], or None if that is too large to keep."""
        shape = (len(self.maps), self.count, self.size)
        if 4 * math.prod(shape) > _KEPT_BYTES:
            return None
        vectors = torch.empty(shape)
        for rows in torch.arange(len(self.maps)).split(_BLOCK):
            vectors[rows] = self._computed(rows, "cpu")
        return vectors

    def _vectors(self, rows: Tensor, device: torch.device) -> Tensor:
        return self._computed(rows, device) if self.kept is None else self.kept[rows].to(device)

    def _computed(self, rows: Tensor, device: torch.device | str) -> Tensor:
        raw = self._read(rows.numpy(), device)
        return self.norm(raw.flatten(0, 1)).view(len(raw), self.count, self.size)

    def _read(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """float32 [len(rows), R, C]; float16 is converted on the device, to halve the transfer."""
        values = self.maps[rows]
        if values.dtype != np.float16:
            values = values.astype(np.float32)
        return torch.from_numpy(values).to(device).float()


def extract_regions(
    store: PictureStore,
    encoder: VisualEncoder,
    *,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    grid: int = 7,
    progress: bool = True,
    shard: Shard = WHOLE,
) -> np.ndarray | None:
    """Return the region map of every picture of a store, from the cache or into it.

    Args:
        store: The pictures, uint8 [n_rows, S, S, 3].
        encoder: The network; it is moved to ``device`` and keeps its train or eval mode.
        cache_dir: Holds one folder ``regions-KEY`` for each set of pictures, weights and grid.
        batch_size: Pictures encoded at a time.
        device: Where to run the network.
        grid: Larger maps are averaged down to so many rows and columns.
        progress: Show a progress bar on a terminal.
        shard: The part that this run computes; other runs compute the others.

    Returns:
        float16 [n_rows, R, C], read-only, mapped from the disk; None while other shards are
        missing.

    Raises:
        ConfigError: The batch size is not positive, or the network has no map.
        DataError: A number does not fit float16, or the cache cannot be written.
    """
    side = store.pictures.shape[1]
    shape = encoder.to(device).region_shape(side, grid)
    encode = partial(encoder.region_map, grid=grid)
    kind = Kind("regions", shape, "<f2", encode, {"regions": "last map", "grid": grid})
    return cached(kind, store, encoder, cache_dir, batch_size, device, progress, shard)


def load_region_file(
    path: Path, ids: Sequence[str], key: str = KEY, listed: Path | None = None
) -> np.ndarray:
    """Map ready-made region maps.

    Args:
        path: A .npy file, [n_rows, R, C] of a real number type.
        ids: The item of each row [n_rows].
        key: The key that names the file, for messages.
        listed: The file that names the items of the rows; None: NAME.item.

    Returns:
        [n_rows, R, C] in the file's type, mapped from the disk, read-only.

    Raises:
        DataError: The file holds pooled vectors or another shape, or a number in it is not
            finite, or it is no .npy file at all.
    """
    path = Path(path)
    maps = read_rows(path, len(ids), key, listed)
    if maps.ndim == 2:
        raise DataError(
            f"{key} {path}: has shape {maps.shape}, one pooled vector a picture, over "
            "which there is nothing to attend; give region maps [rows of NAME.item, regions, "
            f"features], or leave {key} out to compute them from the pictures"
        )
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise DataError(
            f"{key} {path}: has shape {maps.shape}; give region maps "
            "[rows of NAME.item, regions, features]"
        )
    refuse_not_finite(maps, f"{key} {path}", "correct or drop these items", ids.__getitem__)
    return maps
