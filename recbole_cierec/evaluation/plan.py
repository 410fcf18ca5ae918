"""What a phase evaluates: users, their positives and the ranked items.

A *view* restricts both positives and candidates to some items. The view without a name has all
items; under strict item cold start ``among_cold`` ranks items that training never saw against each
other, and ``among_warm`` ranks the others. In ``userN`` mode each view has its own candidate lists,
one set per repeat; in RecBole's modes a view is a mask over the items.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbole_cierec.evaluation.candidates import Ragged, draw_negatives, merge
from recbole_cierec.evaluation.cold_split import ColdSplit
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups

NO_ROWS = Ragged(np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64))


@dataclass
class View:
    """A restriction to some items.

    Attributes:
        name: Suffix of its results; empty for all items.
        items: bool [n_items], whether an item is ranked; None: all.
        positives: Of each row [R], in ``userN`` mode; otherwise empty.
    """

    name: str
    items: np.ndarray | None = None
    positives: Ragged = NO_ROWS


@dataclass
class Lists:
    """The candidates of a view and repeat, ready to be ranked.

    Attributes:
        items: Row r: item ids, positives at random places.
        columns: Row r: the columns of its positives.
    """

    items: Ragged
    columns: Ragged


@dataclass
class EvaluationPlan:
    """How a phase is evaluated.

    Attributes:
        user_groups: Cold and warm users.
        item_groups: Items by training interactions.
        views: The view of all items first.
        users: Of each row [R], in ``userN`` mode; otherwise empty.
        negatives: Negatives of each row, by view name and repeat, in ``userN`` mode, until
            :meth:`lists`.
        repeats: Number of candidate sets.
        seed: Of the lists; depends on ``candidate_seed`` and the phase.
    """

    user_groups: UserGroups | None
    item_groups: ItemGroups
    views: list[View]
    users: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    negatives: dict[tuple[str, int], Ragged] = field(default_factory=dict)
    repeats: int = 1
    seed: int = 0
    _lists: dict[tuple[str, int], Lists] = field(default_factory=dict)

    @property
    def sampled(self) -> bool:
        """Whether candidates are lists (``userN``) instead of all items."""
        return bool(self.negatives or self._lists)

    def lists(self) -> list[tuple[str, int, Lists]]:
        """(view name, repeat, lists) of each, computed on first use from ``negatives``, which it
        empties: the lists have the same items, and both would take twice the memory."""
        positives = {view.name: view.positives for view in self.views}
        for name, repeat in list(self.negatives):
            args = self.seed, repeat, self.users, self.negatives[name, repeat], positives[name]
            self._lists[name, repeat] = Lists(*merge(*args))
            del self.negatives[name, repeat], args
        return [(name, repeat, lists) for (name, repeat), lists in self._lists.items()]


def has_views(config: Any) -> bool:
    """Whether unseen items, and all others, are also ranked among each other."""
    cold = ColdSplit.of(config)
    return bool(config["cold_item_views"]) or (cold is not None and cold.kind == "item")


def make_views(config: Any, item_groups: ItemGroups, universe: np.ndarray | None) -> list[View]:
    """The views of a configuration.

    Args:
        config: A COLD_ITEM split or ``cold_item_views`` adds views of cold and warm items.
        item_groups: Of the training part.
        universe: bool [n_items], the items that exist in this phase; None: all.
    """
    views = [View("", universe)]
    if has_views(config):
        exists = np.ones(len(item_groups.unseen), dtype=bool) if universe is None else universe
        views.append(View("among_cold", exists & item_groups.unseen))
        views.append(View("among_warm", exists & ~item_groups.unseen))
    return views


def draw_all(plan: EvaluationPlan, n: int, n_items: int, used: Ragged) -> None:
    """Draw ``plan.negatives``: ``n`` items for each row, or all if there are fewer."""
    for view in plan.views:
        allowed = np.ones(n_items, dtype=bool) if view.items is None else view.items.copy()
        allowed[0] = False  # RecBole's padding item
        pool = np.flatnonzero(allowed)
        for repeat in range(plan.repeats):
            plan.negatives[view.name, repeat] = draw_negatives(
                plan.seed, repeat, plan.users, n, pool, used
            )


def restrict(positives: Ragged, items: np.ndarray | None) -> Ragged:
    """Keep only positives in ``items``, bool [n_items]; None keeps all."""
    if items is None:
        return positives
    rows = np.repeat(np.arange(len(positives.lengths)), positives.lengths)
    kept = items[positives.values]
    return Ragged.group(rows[kept], positives.values[kept], len(positives.lengths))
