"""Means over users with their intervals, by metric and group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_cierec.evaluation.bootstrap import mean_interval
from recbole_cierec.evaluation.names import ALL, LABELS, join_name, split_name
from recbole_cierec.evaluation.per_user import UserResults


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over the users of a group.

    Attributes:
        low: Lower end of the 95 % bootstrap interval over these users.
        high: Its upper end.
        users: How many there are.
        chance: The mean of a random ranking; None: unknown.
    """

    metric: str
    group: str
    mean: float
    low: float
    high: float
    users: int
    chance: float | None = None


def group_means(results: UserResults, metric: str) -> list[Mean]:
    """The means of all groups that have users."""
    found, chance = [], results.about.get("chance", {})
    for group in LABELS:
        name = join_name(metric, group)
        values = results.of(name)
        if values is None or np.isnan(values).all():
            continue
        has = ~np.isnan(values)
        known, users = values[has], results.users[has]
        ends, count = mean_interval(known, users), len(np.unique(users))
        found.append(Mean(metric, group, float(known.mean()), *ends, count, chance.get(name)))
    return found


def shown_metrics(names: list[str], valid_metric: str, most: int = 6) -> list[str]:
    """Metrics by user at the cutoff of ``valid_metric``, that one first."""
    first = valid_metric.lower()
    cutoff = first.partition("@")[2]
    plain = [name for name in names if "/" not in name and split_name(name)[1] == ALL]
    chosen = [name for name in plain if name.partition("@")[2] == cutoff] or plain
    return sorted(chosen, key=lambda name: name != first)[:most]
