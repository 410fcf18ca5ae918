"""The expected metrics of a random ranking of the same candidates.

A user has P positives among C candidates, and every order of the candidates is equally likely. Then
the hits within k follow the hypergeometric distribution, every rank holds a positive with
probability P/C, and the expectation of each metric below is exact. C is the number of items that
are ranked for the user: all items less the user's history in mode ``full``, positives and drawn
negatives in the other modes. For a group of items, P counts only the positives in the group.

A metric without a rule here, such as GAUC (0.5 by definition) or one that ``register_metric``
added, has no chance level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Expectations [n] from positives [n], candidates [n] and k.
Rule = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _gain(ranks: int) -> np.ndarray:
    """The discounted gain of the first r ranks, all hits: float64 [ranks + 1]."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, ranks + 2)))])


def _without_hit(p: np.ndarray, c: np.ndarray, ranks: int) -> np.ndarray:
    """The probability that the first r ranks hold no positive: float64 [n, ranks + 1]."""
    r = np.arange(ranks)
    left = np.maximum(c[:, None] - r, 1)
    steps = np.maximum(c[:, None] - p[:, None] - r, 0) / left
    return np.concatenate([np.ones((len(p), 1)), np.cumprod(steps, axis=1)], axis=1)


def _recall(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    return np.minimum(k, c) / c


def _precision(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    return np.minimum(k, c) * p / (c * k)


def _hit(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    return 1.0 - _without_hit(p, c, k)[:, k]


def _mrr(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    first_at = -np.diff(_without_hit(p, c, k), axis=1)  # the first hit is at rank 1, ..., k
    return first_at @ (1.0 / np.arange(1, k + 1))


def _map(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    # A hit at rank r has precision (1 + hits before it) / r; these are (r-1)(P-1)/(C-1) on average.
    m = np.minimum(k, c)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, k + 1))])[m]
    others = (p - 1) / np.maximum(c - 1, 1)
    return p / c * (harmonic + others * (m - harmonic)) / np.minimum(k, p)


def _ndcg(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    gain = _gain(k)
    return p / c * gain[np.minimum(k, c)] / gain[np.minimum(k, p)]


def _ndcg_hit(p: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    from scipy.stats import hypergeom  # 0.7 s of processor time, after training

    # Given h hits, each of the first m ranks holds one with probability h/m.
    gain, m = _gain(k), np.minimum(k, c)
    h = np.arange(1, k + 1)
    probability = hypergeom.pmf(h, c[:, None], p[:, None], m[:, None])
    return (probability * h / gain[h]).sum(axis=1) * gain[m] / m


RULES: dict[str, Rule] = {
    "recall": _recall, "precision": _precision, "hit": _hit, "mrr": _mrr, "map": _map,
    "ndcg": _ndcg, "ndcg_hit": _ndcg_hit,
}  # fmt: skip


def chance_by_user(
    metric: str, positives: np.ndarray, candidates: np.ndarray, k: int
) -> np.ndarray:
    """Expectations for some users.

    Args:
        metric: A key of :data:`RULES`.
        positives: Positives of each user [n], 1 or more.
        candidates: Ranked items of each user [n], positives included.
        k: Cut-off.

    Returns:
        float64 [n].

    >>> chance_by_user("recall", np.array([1, 2]), np.array([100, 50]), 10).tolist()
    [0.1, 0.2]
    """
    pairs = np.stack([positives, candidates]).astype(np.int64)
    (p, c), of = np.unique(pairs, axis=1, return_inverse=True)  # most users share a pair
    return RULES[metric](p, c, k)[np.asarray(of).reshape(-1)]


@dataclass
class Ranked:
    """How many items were ranked for the users of a group.

    Attributes:
        users: Number of distinct users.
        positives: Positives of each row [R].
        candidates: Candidates of each row [R], positives included.
    """

    users: int
    positives: np.ndarray
    candidates: np.ndarray

    def chance(self, metrics: list[str], topk: list[int]) -> dict[str, float]:
        """Means over the rows, as ``recall@10``; metrics without a rule are left out."""
        if not len(self.positives):
            return {}
        levels = {}
        for name in (name for name in metrics if name in RULES):
            for k in topk:
                each = chance_by_user(name, self.positives, self.candidates, k)
                levels[f"{name}@{k}"] = float(each.mean())
        return levels
