"""The cache of features after their principal components.

Fitting the components reads all features and takes most of the time in which a trained model is
loaded, so the map and the reduced rows are kept in a folder ``reduced-KEY`` of the cache. The key
covers the features, the items' rows and the two keys ``feature_norm`` and ``feature_dim``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.errors import DataError
from recbole_cierec.files.cache_folder import build_folder
from recbole_cierec.files.digest import array_digest
from recbole_cierec.files.npy import write_npy
from recbole_cierec.vision.feature_norm import FeatureNorm

FORMAT_VERSION = 1  # raise it when the code changes the numbers for the same features
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Reduced:
    """Normalised features and the map that made them.

    Attributes:
        norm: The map, with principal components.
        features: float32 [n, k], of the items with a picture in their order.
    """

    norm: FeatureNorm
    features: Tensor


@dataclass(frozen=True)
class ReducedCache:
    """Reads and writes one cache.

    Args:
        cache_dir: The folder of all caches.
        source: sha256 (hex) of the file of features.
        rows: Row of each item in it [n_items], -1 for none.
        kind: Key ``feature_norm``.
        dimensions: Key ``feature_dim``.
    """

    cache_dir: Path
    source: str
    rows: np.ndarray
    kind: str
    dimensions: int

    @property
    def _recipe(self) -> dict[str, object]:
        return {
            "format_version": FORMAT_VERSION,
            "features": array_digest(self.source, self.rows.astype(np.int64)),
            "feature_norm": self.kind,
            "feature_dim": self.dimensions,
        }

    @property
    def folder(self) -> Path:
        """Where the cache is."""
        key = hashlib.sha256(json.dumps(self._recipe, sort_keys=True).encode()).hexdigest()
        return self.cache_dir / f"reduced-{key[:16]}"

    def get(self, compute: Callable[[], Reduced]) -> Reduced:
        """The cached features; else those that ``compute`` returns, which are cached if the folder
        can be written."""
        with suppress(OSError, ValueError, RecursionError):  # missing or damaged
            return self._read()
        reduced = compute()
        with suppress(DataError):
            self._write(reduced)
        return reduced

    def _read(self) -> Reduced:
        manifest = json.loads((self.folder / _MANIFEST).read_text("utf-8"))
        if not isinstance(manifest, dict) or manifest.get("recipe") != self._recipe:
            raise ValueError(f"{_MANIFEST} describes something else")
        parts = {name: self._array(name, manifest) for name in ("mean", "scale", "components")}
        if manifest.get("by_column") is True:  # the last bits of a product depend on the layout
            parts["components"] = parts["components"].T.contiguous().T
        norm = FeatureNorm(manifest.get("unit_rows") is True, **parts)
        return Reduced(norm, self._array("features", manifest))

    def _array(self, name: str, manifest: dict) -> Tensor:
        path = self.folder / f"{name}.npy"
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.get(f"{name}_sha256"):
            raise ValueError(f"{path.name} is not the file that was written")
        return torch.from_numpy(np.load(path, allow_pickle=False))

    def _write(self, reduced: Reduced) -> None:
        norm = reduced.norm
        parts = {"features": reduced.features, "mean": norm.mean, "scale": norm.scale}
        if norm.components is not None:
            parts["components"] = norm.components
        with build_folder(self.folder) as temporary:
            digests = {
                f"{name}_sha256": write_npy(
                    temporary / f"{name}.npy", [part.numpy()], tuple(part.shape), "<f4"
                )
                for name, part in parts.items()
            }
            by_column = norm.components is not None and not norm.components.is_contiguous()
            about = {"unit_rows": norm.unit_rows, "by_column": by_column}
            manifest = {"recipe": self._recipe, **about, **digests}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
