"""What a phase evaluates: users, their positives and the ranked items.

A *view* restricts both positives and candidates to some items. The view without a name has all
items; under strict item cold start ``among_cold`` ranks items that training never saw against each
other, and ``among_warm`` ranks the others. In ``userN`` mode each view has its own candidate lists,
one set per repeat; in RecBole's modes a view is a mask over the items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from recbole_cierec.evaluation.candidates import DrawnLists, Pool, Ragged, blocks, merge
from recbole_cierec.evaluation.cold_split import ColdSplit
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups
from recbole_cierec.evaluation.names import ITEM_GROUPS

# Lists of a phase, all views and repeats together, that are kept for the next evaluation. A list of
# 500 takes about 15 us to draw again, and lists for 50 million users would take 93 GiB.
KEPT_BYTES = 2**30
# Field of a batch: the row of each interaction in its phase, where a ranking is one interaction's.
ROW = "recbole_cierec_row"
NO_ROWS = Ragged(np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64))


@dataclass
class View:
    """A restriction to some items.

    Attributes:
        name: Suffix of its results; empty for all items.
        items: bool [n_items], whether an item is ranked; None: all.
        positives: Positives of each row [R], in ``userN`` mode; otherwise empty.
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

    def select(self, rows: np.ndarray) -> Lists:
        """The lists of some rows."""
        return Lists(self.items.select(rows), self.columns.select(rows))


@dataclass
class EvaluationPlan:
    """How a phase is evaluated.

    Attributes:
        user_groups: Cold and warm users.
        item_groups: Items by training interactions.
        views: The view of all items first.
        users: Users of each row [R], in ``userN`` mode; otherwise empty.
        negatives: Negatives of each row, by view name and repeat, in ``userN`` mode, until
            :meth:`lists` keeps the lists.
        repeats: Number of candidate sets.
        seed: Seed of the lists; depends on ``candidate_seed`` and the phase.
        size: Interactions of the part.
    """

    user_groups: UserGroups | None
    item_groups: ItemGroups
    views: list[View]
    users: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    negatives: dict[tuple[str, int], Ragged | DrawnLists] = field(default_factory=dict)
    repeats: int = 1
    seed: int = 0
    size: int = 0
    _lists: dict[tuple[str, int], Lists] = field(default_factory=dict)

    @property
    def sampled(self) -> bool:
        """Whether candidates are lists (``userN``) instead of all items."""
        return bool(self.negatives or self._lists)

    def has(self, group: str, users: np.ndarray, items: np.ndarray) -> bool:
        """Whether any of some positives, users [n] and items [n], is in a group or a view."""
        if group in ITEM_GROUPS:
            return bool((self.item_groups.of[items] == ITEM_GROUPS.index(group)).any())
        for view in self.views:
            if view.name == group:
                return view.items is None or bool(view.items[items].any())
        return self.user_groups is not None and bool(self.user_groups.members[group][users].any())

    def lists(self, rows: np.ndarray | None = None) -> list[tuple[str, int, Lists]]:
        """(view name, repeat, lists) of each, for some rows [B] or for all.

        The first call keeps the lists of all rows and empties ``negatives``, if all lists fit into
        ``KEPT_BYTES``. Otherwise each call draws those of ``rows``.
        """
        if self.negatives and self._fit:
            every = np.arange(len(self.users))
            for key in list(self.negatives):
                self._lists[key] = self._merged(key, every)
                del self.negatives[key]
        rows = np.arange(len(self.users)) if rows is None else rows
        return [(*key, self._of(key, rows)) for key in (*self._lists, *self.negatives)]

    def ranked(self) -> Iterator[np.ndarray]:
        """What is ranked: users, and for each view and repeat the starts of its lists, their items
        and the columns of positives. Lists that are not kept are drawn, a block at a time."""
        yield self.users
        for key in (*self._lists, *self.negatives):
            if key in self._lists:
                yield self._lists[key].items.starts
            else:
                lengths = self.negatives[key].lengths + self._positives(key).lengths
                yield np.concatenate([[0], np.cumsum(lengths)])
            columns = []
            for rows in blocks(np.arange(len(self.users))):
                lists = self._of(key, rows)
                columns.append(lists.columns.values)
                yield lists.items.values
            yield from columns

    @cached_property
    def _fit(self) -> bool:
        """Whether all lists may be kept; those of a file are in memory already."""
        drawn = [lists for lists in self.negatives.values() if isinstance(lists, DrawnLists)]
        return sum(4 * int(lists.lengths.sum()) for lists in drawn) <= KEPT_BYTES

    def _of(self, key: tuple[str, int], rows: np.ndarray) -> Lists:
        return self._lists[key].select(rows) if key in self._lists else self._merged(key, rows)

    def _merged(self, key: tuple[str, int], rows: np.ndarray) -> Lists:
        args = self.users, self.negatives[key], self._positives(key), rows
        return Lists(*merge(self.seed, key[1], *args))

    def _positives(self, key: tuple[str, int]) -> Ragged:
        return next(view.positives for view in self.views if view.name == key[0])


def has_views(config: Any) -> bool:
    """Whether unseen items, and all others, are also ranked among each other."""
    cold = ColdSplit.of(config)
    return bool(config["cold_item_views"]) or (cold is not None and cold.kind == "item")


def make_views(config: Any, item_groups: ItemGroups, universe: np.ndarray | None) -> list[View]:
    """The views of a configuration.

    Args:
        config: A COLD_ITEM split or ``cold_item_views`` adds views of cold and warm items.
        item_groups: Item groups of the training part.
        universe: bool [n_items], the items that exist in this phase; None: all.
    """
    views = [View("", universe)]
    if has_views(config):
        exists = np.ones(len(item_groups.unseen), dtype=bool) if universe is None else universe
        views.append(View("among_cold", exists & item_groups.unseen))
        views.append(View("among_warm", exists & ~item_groups.unseen))
    return views


def draw_all(plan: EvaluationPlan, n: int, n_items: int, used: Ragged) -> None:
    """Let ``plan.negatives`` have ``n`` drawn items for each row, or all if there are fewer."""
    for view in plan.views:
        allowed = np.ones(n_items, dtype=bool) if view.items is None else view.items.copy()
        allowed[0] = False  # RecBole's padding item
        pool = Pool(np.flatnonzero(allowed))
        for repeat in range(plan.repeats):
            drawn = DrawnLists(plan.seed, repeat, plan.users, n, pool, used)
            plan.negatives[view.name, repeat] = drawn


def restrict(positives: Ragged, items: np.ndarray | None) -> Ragged:
    """Keep only positives in ``items``, bool [n_items]; None keeps all."""
    if items is None:
        return positives
    rows = np.repeat(np.arange(len(positives.lengths)), positives.lengths)
    kept = items[positives.values]
    return Ragged.group(rows[kept], positives.values[kept], len(positives.lengths))
