"""Metrics in addition to RecBole's: NDCG normalised by the hits within k.

RecBole's NDCG divides by the gain of min(positives, k) hits at the top. This one divides by the
gain of the actual hits, moved to the top. It measures how high the hits rank, not how many there
are, so it does not measure recall. The values in the paper's Table II exceed what standard NDCG can
reach with that table's recall, and agree with this metric (docs/protocol.md): compare only this
one with the paper's NDCG@10.
"""

from __future__ import annotations

import numpy as np
from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric, TopkMetric
from recbole.evaluator.collector import DataStruct

from recbole_cierec.evaluation import beyond_accuracy


def ndcg_hit(hits: np.ndarray) -> np.ndarray:
    """Hit-normalised NDCG at every k.

    Args:
        hits: bool [n, K], whether the item at a rank is a positive.

    Returns:
        float64 [n, K]; column k - 1 is NDCG_Hit@k, 0 without a hit.

    >>> ndcg_hit(np.array([[True, False], [False, True], [False, False]])).round(4).tolist()
    [[1.0, 1.0], [0.0, 0.6309], [0.0, 0.0]]
    """
    gains = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gains)])[np.cumsum(hits, axis=1)]
    return np.cumsum(hits * gains, axis=1) / np.where(ideal > 0, ideal, 1.0)


class NDCG_Hit(TopkMetric):
    """:func:`ndcg_hit` in RecBole's form."""

    def calculate_metric(self, dataobject: DataStruct) -> dict[str, float]:
        """Means over users, at each k of ``topk``."""
        hits, _ = self.used_info(dataobject)
        return self.topk_result("ndcg_hit", ndcg_hit(hits))


def register_metric(metric: type[AbstractMetric]) -> None:
    """Register a metric under its class name, in any case, for ``metrics`` and ``valid_metric``.

    Registering a metric again has no effect.

    Args:
        metric: A subclass of RecBole's ``TopkMetric``, ``LossMetric`` or ``AbstractMetric``.
    """
    name = metric.__name__.lower()
    register.metrics_dict[name] = metric
    register.metric_types[name] = metric.metric_type
    register.metric_information[name] = metric.metric_need
    if metric.smaller and name not in register.smaller_metrics:
        register.smaller_metrics.append(name)


register_metric(NDCG_Hit)
register_metric(beyond_accuracy.ItemCoverage)
register_metric(beyond_accuracy.ShannonEntropy)
register_metric(beyond_accuracy.GiniIndex)
register_metric(beyond_accuracy.AveragePopularity)
register_metric(beyond_accuracy.TailPercentage)
