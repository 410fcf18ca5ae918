"""RecBole's sampler of negatives without its loops in Python: the same draws from the same seed.

RecBole draws an item for every row and draws again if the user has already interacted with it. This
sampler does the same, in the same order from the same generator (numpy's global one, whose state is
in every checkpoint), but it checks all rows at once.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import torch
from recbole.sampler import KGSampler, RepeatableSampler, Sampler

from recbole_cierec.data.sampler import UsedItems
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.candidates import look_up

BITS_PER_PAIR = 16  # of the filter: at most one unused pair in sixteen passes it
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


class UsedPairs:
    """The pairs (user, item) that must not be drawn.

    A bit filter sorts out most unused pairs; the others are looked up in the sorted pairs. A pair
    takes two to four bytes for the filter, and 8 that :class:`UsedItems` has already.

    Args:
        used: The set of items of each user: RecBole's ``used_ids``, or :class:`UsedItems`.
        n_items: Number of items, RecBole's padding included.
    """

    def __init__(self, used: np.ndarray | UsedItems, n_items: int) -> None:
        self.n_items = n_items
        pairs = used.pairs if isinstance(used, UsedItems) else _sorted_pairs(used, n_items)
        self.pairs = pairs
        width = max(3, (BITS_PER_PAIR * len(pairs)).bit_length())
        self._shift = np.uint64(64 - width)
        flags = np.zeros(1 << width, dtype=bool)
        flags[self._places(pairs)] = True
        self._filter = np.packbits(flags, bitorder="little")

    def _places(self, pairs: np.ndarray) -> np.ndarray:
        return ((pairs.astype(np.uint64) * _SPREAD) >> self._shift).astype(np.int64)

    def rows_used(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The row numbers k, ascending, whose pair (users[k], items[k]) is used."""
        pairs = users * self.n_items + items
        places = self._places(pairs)
        bits = self._filter[places >> 3] >> (places & 7).astype(np.uint8)
        rows = np.flatnonzero(bits & 1)
        return rows[look_up(self.pairs, pairs[rows])[1]]


def _sorted_pairs(used: np.ndarray, n_items: int) -> np.ndarray:
    users, items = _flat(used)
    return np.sort(users * n_items + items)


def _flat(used: np.ndarray | UsedItems) -> tuple[np.ndarray, np.ndarray]:
    """User and item of each pair."""
    if isinstance(used, UsedItems):
        return np.divmod(used.pairs, used.n_items)
    lengths = _lengths(used)
    items = np.fromiter(chain.from_iterable(used), np.int64, int(lengths.sum()))
    return np.repeat(np.arange(len(used)), lengths), items


def _lengths(used: np.ndarray | UsedItems) -> np.ndarray:
    if isinstance(used, UsedItems):
        return used.lengths
    return np.fromiter(map(len, used), np.int64, len(used))


class QuickSampler(Sampler):
    """RecBole's ``Sampler`` of one phase, made by :func:`quick_sampler`."""

    used_pairs: UsedPairs
    seen: np.ndarray | None  # items of uniform draws, ascending; None: all

    def sample_by_key_ids(self, key_ids: Any, num: int) -> torch.Tensor:
        users = np.tile(np.asarray(key_ids), num)
        items = self.sampling(len(users))
        left = self.used_pairs.rows_used(users, items)
        while len(left):
            items[left] = again = self.sampling(len(left))
            left = left[self.used_pairs.rows_used(users[left], again)]
        return torch.from_numpy(items)

    def _uni_sampling(self, sample_num: int) -> np.ndarray:
        if self.seen is None:
            return super()._uni_sampling(sample_num)
        return self.seen[np.random.randint(0, len(self.seen), sample_num)]

    def _pop_sampling(self, sample_num: int) -> np.ndarray:
        items, own, other = self._alias
        places = np.random.randint(0, len(items), sample_num)
        return np.where(own[places] > np.random.random(sample_num), items[places], other[places])

    def _set_alias(self) -> None:
        """RecBole's alias table as arrays: item, probability to keep it, the other item."""
        items, own, other = (
            np.array(list(column), dtype=kind)
            for column, kind in (
                (self.prob, np.int64),
                (self.prob.values(), np.float64),
                (self.alias.values(), np.int64),
            )
        )
        # After rounding errors RecBole's table may lack another item, -1: then keep the item.
        self._alias = items, own, np.where(other < 0, items, other)


def quick_sampler(sampler: Any, seen: np.ndarray | None = None) -> QuickSampler:
    """A copy of RecBole's sampler that checks all rows at once.

    Args:
        sampler: RecBole's ``Sampler`` after ``set_phase``.
        seen: Ids of the items that uniform draws are from, ascending; None: all.
    """
    quick = QuickSampler.__new__(QuickSampler)  # RecBole's constructor would count all pairs again
    quick.__dict__.update(vars(sampler))
    quick.used_pairs = UsedPairs(sampler.used_ids, sampler.item_num)
    quick.seen = seen
    if sampler.distribution == "popularity":
        quick._set_alias()
    return quick


def seen_items(train_dataset: Any) -> np.ndarray:
    """Items with a training interaction, ascending; the same for all kinds of models."""
    return np.flatnonzero(train_dataset.training_counts(train_dataset.iid_field))


def refuse_endless(sampler: Any, name: str, seen: np.ndarray | None = None) -> None:
    """Refuse data for which a sampler would never stop: a user has all items it draws from.

    RecBole draws until an item is new to the user. Its check compares the user's items with the
    whole vocabulary, but popularity draws only from items that have interactions.

    Args:
        sampler: RecBole's sampler for users or, for a knowledge graph, for head entities.
        name: Name of the data set, for the message.
        seen: Ids of the items that may be drawn; None: all.

    Raises:
        DataError: There are users, or heads, without a possible negative.
    """
    over_graph = isinstance(sampler, KGSampler)
    size = sampler.entity_num if over_graph else sampler.item_num
    drawn = np.zeros(size, dtype=bool)
    drawn[1:] = sampler.distribution != "popularity"
    drawn[list(getattr(sampler, "prob", ()))] = True
    if seen is not None:
        drawn &= np.isin(np.arange(size), seen)
    if isinstance(sampler, RepeatableSampler):  # excludes the one item that comes next
        full = sampler.user_num - 1 if drawn.sum() < 2 else 0
    else:
        full = int((_used_among(sampler.used_ids, drawn) >= drawn.sum()).sum())
    if full:
        whose, what = ("head(s)", "entities") if over_graph else ("user(s)", "items")
        raise DataError(
            f"{name}: {full} {whose} have all {drawn.sum()} {what} that negatives are drawn from, "
            "so no negative is left for them; draw from more (train_negatives: all, "
            "distribution: uniform), or drop these users (user_inter_num_interval)"
        )


def _used_among(used: np.ndarray | UsedItems, drawn: np.ndarray) -> np.ndarray:
    """Number of items [n_users] of each user among those that are drawn."""
    users, items = _flat(used)
    return np.bincount(users[drawn[items]], minlength=len(used))
