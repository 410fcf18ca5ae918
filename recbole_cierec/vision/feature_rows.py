"""Features of items before and after their normalisation, whatever they describe."""

from __future__ import annotations

from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.files.digest import file_digest
from recbole_cierec.vision.feature_norm import FeatureNorm
from recbole_cierec.vision.reduced_features import Reduced, ReducedCache

NORM_ROWS = 16384  # rows of features normalised at a time
_COMPARED_ROWS = 256


class FeatureRows:
    """A vector for every item that has one; subclasses define :attr:`_raw_features`.

    Args:
        config: RecBole config with the keys ``feature_norm``, ``feature_dim`` and ``cache_dir``.

    Attributes:
        cache_dir: Where reduced features are kept.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self.cache_dir = Path(config["cache_dir"])

    @property
    def _given_path(self) -> Path | None:
        """The user's file of features, if they come from one."""
        return None

    @cached_property
    def _raw_features(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows [n, D], row of each item or -1) before normalisation."""
        raise NotImplementedError

    def forget_raw(self) -> None:
        """Drop the features before normalisation; they are read again where they are needed."""
        vars(self).pop("_raw_features", None)

    @cached_property
    def feature_norm(self) -> FeatureNorm:
        """The affine map fitted on the features of all items that have some."""
        return self._fitted_norm() if self._reduced is None else self._reduced.norm

    def _fitted_norm(self) -> FeatureNorm:
        raw, rows = self._raw_features
        used = np.unique(rows[rows >= 0])
        return FeatureNorm.fit(
            torch.from_numpy(np.asarray(raw[used], dtype=np.float32)),
            self._config["feature_norm"],
            self._config["feature_dim"],
        )

    @cached_property
    def _reduced(self) -> Reduced | None:
        """The principal components of the features, from the cache or into it; None: all of D."""
        raw, rows = self._raw_features
        kind, dimensions = self._config["feature_norm"], self._config["feature_dim"]
        known = rows[rows >= 0]
        if not dimensions or dimensions >= raw.shape[1] or not len(known):
            return None
        file = self._given_path or Path(raw.filename)  # type: ignore[attr-defined]  # a map

        def compute() -> Reduced:
            norm = self._fitted_norm()
            # Not in blocks: a product may round by its number of rows.
            values = np.asarray(raw[known], dtype=np.float32)
            return Reduced(norm, norm(torch.from_numpy(values)))

        return ReducedCache(self.cache_dir, file_digest(file), rows, kind, dimensions).get(compute)

    def _warn_of_equal_rows(self, raw: np.ndarray, used: np.ndarray) -> None:
        """Warn if no item's features differ from another's; as a rule one block is read."""
        if len(used) < 2:
            return
        first = raw[used[0]]
        for start in range(0, len(used), _COMPARED_ROWS):
            if (raw[used[start : start + _COMPARED_ROWS]] != first).any():
                return
        getLogger().warning(
            f"{self._given_path or 'pictures'}: the features of all {len(used):,} items are "
            f"{'equal' if first.any() else 'zeros'}, so they tell no item from another; check how "
            "they were made"
        )

    @cached_property
    def features(self) -> Tensor:
        """Normalised features [n_items, D]; zero rows where there are none."""
        raw, rows = self._raw_features
        known = np.flatnonzero(rows >= 0)
        self._warn_of_equal_rows(raw, rows[known])
        norm, reduced = self.feature_norm, vars(self).pop("_reduced", None)
        if reduced is not None:
            out = torch.zeros(len(rows), reduced.features.shape[1])
            out[torch.from_numpy(known)] = reduced.features
            return out
        out = torch.zeros(len(rows), raw.shape[1])
        for start in range(0, len(known), NORM_ROWS):  # in blocks, to save memory
            items = known[start : start + NORM_ROWS]
            values = np.asarray(raw[rows[items]], dtype=np.float32)
            out[torch.from_numpy(items)] = norm(torch.from_numpy(values))
        return out
