"""A metric that RecBole lacks: NDCG whose ideal is taken over the hits within k.

RecBole's NDCG divides by the gain of min(positives, k) hits at the top. The one here divides by the
gain of the hits that are there, moved to the top. It says how high the hits stand, not how many
there are, and so is no measure of recall. It is here because the values printed in the paper's
Table II exceed what standard NDCG can reach with that table's recall, and agree with this one
(docs/protocol.md): compare it, and nothing else, with the paper's NDCG@10.
"""

from __future__ import annotations

import numpy as np
from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric, TopkMetric
from recbole.evaluator.collector import DataStruct


def ndcg_hit(hits: np.ndarray) -> np.ndarray:
    """Hit-normalised NDCG at every cut.

    Args:
        hits: bool [n, K]; whether the item at a rank is a positive.

    Returns:
        float64 [n, K]; column k - 1 is NDCG_Hit@k, 0 where there is no hit yet.

    >>> ndcg_hit(np.array([[True, False], [False, True], [False, False]])).round(4).tolist()
    [[1.0, 1.0], [0.0, 0.6309], [0.0, 0.0]]
    """
    gains = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gains)])[np.cumsum(hits, axis=1)]
    return np.cumsum(hits * gains, axis=1) / np.where(ideal > 0, ideal, 1.0)


class NDCG_Hit(TopkMetric):
    """:func:`ndcg_hit` in RecBole's form."""

    def calculate_metric(self, dataobject: DataStruct) -> dict[str, float]:
        """The mean over users at each ``topk``."""
        hits, _ = self.used_info(dataobject)
        return self.topk_result("ndcg_hit", ndcg_hit(hits))


def register_metric(metric: type[AbstractMetric]) -> None:
    """Make a metric known by its class's name, in any case, for ``metrics`` and ``valid_metric``.

    It may be called any number of times.

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
