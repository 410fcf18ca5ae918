"""Names of metrics and their groups, and means over users with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_cierec.evaluation.groups import ITEM_GROUPS
from recbole_cierec.evaluation.per_user import UserResults
from recbole_cierec.evaluation.significance import mean_interval

ALL = "all"
USER_GROUPS = ("cold", "warm", "new", "known")
VIEWS = ("among_cold", "among_warm")
GROUPS = (ALL, *USER_GROUPS, *ITEM_GROUPS, *VIEWS)  # in the order in which they are shown
LABELS = {
    ALL: "all",
    "item_unseen": "unseen items",
    "item_rare": "rare items",
    "item_common": "common items",
    "among_cold": "among unseen",
    "among_warm": "among seen",
    **{name: f"{name} users" for name in USER_GROUPS},
}


def split_name(name: str) -> tuple[str, str]:
    """The metric and the group of a result's name.

    >>> split_name("recall@10_item_rare"), split_name("ndcg_hit@5")
    (('recall@10', 'item_rare'), ('ndcg_hit@5', 'all'))
    """
    for group in GROUPS[1:]:
        if name.endswith(f"_{group}"):
            return name.removesuffix(f"_{group}"), group
    return name, ALL


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over the users of a group.

    Attributes:
        low: Lower end of the 95 % bootstrap interval over these users.
        high: Its upper end.
        users: How many there are.
    """

    metric: str
    group: str
    mean: float
    low: float
    high: float
    users: int


def group_values(results: UserResults, metric: str, group: str) -> np.ndarray | None:
    """The values [n] of a metric by user, NaN for users without one; None: there are none."""
    if group == ALL:
        return results.values.get(metric)
    mask = results.values.get(f"group/{group}")
    if mask is None:
        return results.values.get(f"{metric}_{group}")
    whole = results.values.get(metric)
    return None if whole is None else np.where(mask, whole, np.nan)


def group_means(results: UserResults, metric: str, seed: int) -> list[Mean]:
    """The means of all groups that have users."""
    found = []
    for group in GROUPS:
        values = group_values(results, metric, group)
        known = np.empty(0) if values is None else values[~np.isnan(values)]
        if len(known):
            ends = mean_interval(known, seed)
            found.append(Mean(metric, group, float(known.mean()), *ends, len(known)))
    return found


def shown_metrics(names: list[str], valid_metric: str, most: int = 6) -> list[str]:
    """Metrics by user at the cutoff of ``valid_metric``, that one first."""
    first = valid_metric.lower()
    cutoff = first.partition("@")[2]
    plain = [name for name in names if "/" not in name and split_name(name)[1] == ALL]
    chosen = [name for name in plain if name.partition("@")[2] == cutoff] or plain
    return sorted(chosen, key=lambda name: name != first)[:most]
