"""RecBole's metrics of the recommended items, for lists shorter than k.

Such lists end with the padding item, which RecBole's metrics would count as a recommendation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from recbole.evaluator import metrics as recbole_metrics

PADDING = 0


def _listed(items: np.ndarray) -> np.ndarray:
    """The items [n, 1] of all lists [R, k], without padding."""
    return items[items != PADDING][:, None]


class ItemCoverage(recbole_metrics.ItemCoverage):
    """The share of items that are in any list."""

    def get_coverage(self, item_matrix: np.ndarray, num_items: int) -> float:
        """RecBole's, of lists [R, k]."""
        return super().get_coverage(_listed(item_matrix), num_items)


class ShannonEntropy(recbole_metrics.ShannonEntropy):
    """The entropy of the items of all lists."""

    def get_entropy(self, item_matrix: np.ndarray) -> float:
        """RecBole's, of lists [R, k]."""
        return super().get_entropy(_listed(item_matrix))


class GiniIndex(recbole_metrics.GiniIndex):
    """How unequally often items are in the lists."""

    def get_gini(self, item_matrix: np.ndarray, num_items: int) -> float:
        """RecBole's, of lists [R, k]."""
        return super().get_gini(_listed(item_matrix), num_items)


class _MeanOfList:
    """Divides by the number of items in a list, where RecBole divides by k."""

    def metric_info(self, values: np.ma.MaskedArray) -> np.ndarray:
        """Means [R, k] of the first items, from values [R, k] in which padding is masked."""
        lengths = (~np.ma.getmaskarray(values)).cumsum(axis=1)
        return values.filled(0).cumsum(axis=1) / lengths


class AveragePopularity(_MeanOfList, recbole_metrics.AveragePopularity):
    """The mean number of training interactions of a list's items."""

    def get_pop(self, item_matrix: np.ndarray, item_count: Mapping[int, int]) -> np.ndarray:
        """RecBole's counts [R, k], masked at padding."""
        counts = super().get_pop(item_matrix, item_count)
        return np.ma.masked_where(item_matrix == PADDING, counts)


class TailPercentage(_MeanOfList, recbole_metrics.TailPercentage):
    """The share of a list's items that are rare in training, or not in it at all."""

    def get_tail(self, item_matrix: np.ndarray, count_items: Mapping[int, int]) -> np.ndarray:
        """RecBole's 0 or 1 [R, k], masked at padding."""
        rare = super().get_tail(item_matrix, count_items)
        # RecBole knows the items with training interactions only.
        rare |= ~np.isin(item_matrix, list(count_items))
        return np.ma.masked_where(item_matrix == PADDING, rare)
