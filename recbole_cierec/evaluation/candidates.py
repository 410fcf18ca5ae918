"""Candidate lists of the ``userN`` protocol: all positives of a user plus N other items.

The paper ranks, for each user, all test positives against 500 items "which have no interaction
with the user" (Sec. IV-A2). A list here is a pure function of (seed, repeat, user, pool, excluded
items): a counter-based generator gives each user a stream of draws, and the list has the first N
distinct allowed ones. It is the same for every model, epoch, process and batch size, whether it is
kept or drawn again, and depends on no library's random generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK_CELLS = 2**17  # draws of a block of users, which should stay in the CPU's cache
BLOCK_USERS = 1024  # whose lists are drawn and merged at a time
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """Finaliser of SplitMix64 (Steele et al., OOPSLA 2014): uint64 to well-mixed uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def user_keys(seed: int, repeat: int, users: np.ndarray) -> np.ndarray:
    """The key [B] of each user's random stream."""
    key = mix(np.array([seed], dtype=np.uint64) + _GOLDEN)  # arrays wrap around silently
    key = mix(key + np.array([repeat], dtype=np.uint64) * _GOLDEN + np.uint64(1))
    return mix(key + users.astype(np.uint64) * _GOLDEN + np.uint64(2))


def stream(keys: np.ndarray, first: int, count: int) -> np.ndarray:
    """Numbers ``first .. first + count - 1`` of each stream: uint64 [B, count]."""
    steps = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
    return mix(keys[:, None] + steps)


def below(numbers: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """uint64 to int64 in [0, bound), by the upper 32 bits."""
    return ((numbers >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array.

    Attributes:
        values: All rows, one after the other.
        starts: [n + 1]; row r is ``values[starts[r]:starts[r + 1]]``.
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def group(cls, rows: np.ndarray, values: np.ndarray, n: int) -> Ragged:
        """Distinct sorted ``values``, from 0, of each of ``n`` rows; ``rows`` has the row of each
        value."""
        span = int(values.max(initial=0)) + 1
        cells = rows.astype(np.int64) * span
        cells += values
        cells.sort()  # of one array: a tenth of the time of lexsort
        cells = cells[np.diff(cells, prepend=-1) > 0]
        starts = np.searchsorted(cells, np.arange(n + 1) * span)
        cells %= span
        return cls(cells.astype(values.dtype, copy=False), starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of values of each row [n]."""
        return np.diff(self.starts)

    def select(self, rows: np.ndarray | None = None) -> Ragged:
        """Some rows, or all; the values of consecutive ones are a view."""
        if rows is None:
            return self
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
            return Ragged(self.values[self.starts[rows[0]] : self.starts[rows[-1] + 1]], starts)
        places = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Ragged(self.values[places], starts)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row numbers within ``rows``, values), flat, in the order of ``rows``."""
        found = self.select(rows)
        return np.repeat(np.arange(len(rows)), found.lengths), found.values

    def padded(self, rows: np.ndarray, fill: int) -> np.ndarray:
        """The rows as a table [len(rows), longest], padded with ``fill``."""
        found = self.select(rows)
        width = int(found.lengths.max(initial=0))
        table = np.full((len(rows), width), fill, dtype=self.values.dtype)
        table[np.arange(width) < found.lengths[:, None]] = found.values
        return table


def look_up(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values are in an ascending array.

    Args:
        ordered: Ascending [n].
        values: What to find [m].

    Returns:
        (a place in ``ordered`` for each value [m], whether it is there [m]). The place of a value
        that is not there means nothing.
    """
    if not len(ordered):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return places, ordered[places] == values


class Pool:
    """Items that lists are drawn from.

    Args:
        items: Distinct ids [P], ascending.

    Attributes:
        items: int32 [P], the type of the lists.
        place: int32; the index in ``items`` of each id, -1 for other ids.
    """

    def __init__(self, items: np.ndarray) -> None:
        self.items = items.astype(np.int32)
        self.place = np.full(int(items.max(initial=-1)) + 1, -1, dtype=np.int32)
        self.place[items] = np.arange(len(items))

    def among(self, rows: Ragged) -> Ragged:
        """The places of those values of each row that are in the pool."""
        inside = np.flatnonzero(rows.values < len(self.place))
        places = self.place[rows.values[inside]]
        inside, places = inside[places >= 0], places[places >= 0]
        return Ragged(places, np.searchsorted(inside, rows.starts))


@dataclass(frozen=True)
class DrawnLists:
    """Negatives that are drawn when they are read: only what they depend on is kept.

    Attributes:
        seed, repeat, users, n, pool, excluded: As for :func:`draw_negatives`.
    """

    seed: int
    repeat: int
    users: np.ndarray
    n: int
    pool: Pool
    excluded: Ragged

    def select(self, rows: np.ndarray | None = None) -> Ragged:
        """The lists of some rows, or of all."""
        users = self.users if rows is None else self.users[rows]
        excluded = self.excluded.select(rows)
        return draw_negatives(self.seed, self.repeat, users, self.n, self.pool, excluded)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of items of each list [R], without drawing them."""
        every = np.arange(len(self.users))
        barred = [self.pool.among(self.excluded.select(rows)).lengths for rows in blocks(every)]
        allowed = len(self.pool.items) - np.concatenate([every[:0], *barred])
        return np.minimum(allowed, self.n)


def blocks(rows: np.ndarray) -> list[np.ndarray]:
    """``rows``, some at a time."""
    return [rows[k : k + BLOCK_USERS] for k in range(0, len(rows), BLOCK_USERS)]


def draw_negatives(
    seed: int, repeat: int, users: np.ndarray, n: int, pool: Pool, excluded: Ragged
) -> Ragged:
    """For each user, ``n`` distinct items of ``pool`` that are not excluded.

    Args:
        seed: Depends on ``candidate_seed`` and the phase.
        repeat: Index of the candidate set.
        users: Users [R]; equal users get equal lists.
        n: Items per list; a user with fewer allowed items gets all of them.
        pool: The items to draw from.
        excluded: Row r: the distinct items that ``users[r]`` interacted with.

    Returns:
        Row r: the list of ``users[r]``, in random order.
    """
    items, size = pool.items, len(pool.items)
    if not size:  # as in a view of unseen items if there are none
        return Ragged(np.empty(0, dtype=np.int32), np.zeros(len(users) + 1, dtype=np.int64))
    barred = pool.among(excluded)
    allowed = size - barred.lengths
    starts = np.concatenate([[0], np.cumsum(np.minimum(allowed, n))])
    values = np.empty(starts[-1], dtype=np.int32)
    # If all lists are full, whole rows are written at once.
    table = values.reshape(-1, n) if len(values) == n * len(users) else None
    # Where few items are allowed, the stream would repeat itself for long.
    crowded = (2 * n > allowed) | (4 * allowed < size)
    for row in np.flatnonzero(crowded):
        key = user_keys(seed, repeat, users[row : row + 1])
        out = barred.values[barred.starts[row] : barred.starts[row + 1]]
        values[starts[row] : starts[row + 1]] = items[_shuffled(key, n, size, out)]
    count = int(1.1 * n) + 64
    left = np.flatnonzero(~crowded)
    left = left[np.argsort(barred.lengths[left], kind="stable")]  # rows of a block are as wide
    while len(left):
        step = max(1, BLOCK_CELLS // count)
        short = []
        for first in range(0, len(left), step):
            rows = left[first : first + step]
            keys = user_keys(seed, repeat, users[rows])
            good, drawn = _distinct_draws(keys, count, size, *barred.take(rows))
            good &= np.cumsum(good, axis=1, dtype=np.int32) <= n
            full = good.sum(1) == n
            if not full.all():
                short.append(rows[~full])
                rows, good, drawn = rows[full], good[full], drawn[full]
            lists = items[drawn[good]].reshape(-1, n)
            if table is None:
                values[starts[rows, None] + np.arange(n)] = lists
            else:
                table[rows] = lists
        left, count = np.concatenate([left[:0], *short]), 2 * count
    return Ragged(values, starts)


def _distinct_draws(
    keys: np.ndarray, count: int, size: int, where: np.ndarray, barred: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` draws of each stream from ``size`` places.

    Args:
        keys: Keys of the streams [B].
        count: Draws of each stream.
        size: Number of places.
        where: Row of each barred place, ascending.
        barred: The places that may not be drawn, distinct in a row.

    Returns:
        (whether a draw is neither barred nor a repetition, draws), both [B, count].
    """
    draws = below(stream(keys, 0, count), size)
    width = int(np.bincount(where, minlength=1).max(initial=0))
    # Each row's barred places, then its draws, as one number of place and column: after sorting, a
    # draw is bad if its neighbour to the left has the same place.
    bits = int(width + count).bit_length()
    kind = np.uint32 if (size + 1) << bits < 2**32 else np.uint64
    cells = np.empty((len(keys), width + count), dtype=kind)
    cells[:, :width] = kind(size << bits)  # no place: to fill up
    if len(where):
        within = np.arange(len(where)) - np.searchsorted(where, where)
        cells[where, within] = barred.astype(kind) << kind(bits)
    np.left_shift(draws, bits, out=cells[:, width:], casting="unsafe")
    cells[:, width:] |= np.arange(width, width + count, dtype=kind)
    cells.sort(axis=1)
    places = cells >> kind(bits)
    rows, bad = np.nonzero(places[:, 1:] == places[:, :-1])
    columns = (cells[rows, bad + 1] & kind((1 << bits) - 1)).astype(np.int64) - width
    good = np.ones(draws.shape, dtype=bool)
    good[rows[columns >= 0], columns[columns >= 0]] = False
    return good, draws


def _shuffled(key: np.ndarray, n: int, size: int, barred: np.ndarray) -> np.ndarray:
    """The first ``n`` of all places but the barred ones, in random order."""
    order = stream(key, 0, size)[0]
    free = np.ones(size, dtype=bool)
    free[barred] = False
    places = np.flatnonzero(free)
    return places[np.argsort(order[places], kind="stable")[:n]]


def merge(
    seed: int,
    repeat: int,
    users: np.ndarray,
    negatives: Ragged | DrawnLists,
    positives: Ragged,
    rows: np.ndarray | None = None,
) -> tuple[Ragged, Ragged]:
    """Put positives at random places among the negatives, so that ties favour neither.

    Args:
        seed: As for :func:`draw_negatives`.
        repeat: As for :func:`draw_negatives`.
        users: Users [R].
        negatives: Row r: negatives in random order.
        positives: Row r: positives of ``users[r]``.
        rows: Row numbers [B] to merge; None: all.

    Returns:
        (items of each row, columns of its positives): row r of the second holds the columns of the
        positives in row r of the first, in the order of ``positives``.
    """
    rows = np.arange(len(users)) if rows is None else rows
    ends = np.cumsum([negatives.lengths[rows], positives.lengths[rows]], axis=1)
    of_positives = np.concatenate([[0], ends[1]])
    starts = np.concatenate([[0], ends.sum(0)])
    items = np.empty(starts[-1], dtype=np.int32)
    columns = np.empty(of_positives[-1], dtype=np.int64)
    first = 0
    for part in blocks(rows):  # the arrays of a block stay in the cache
        merged = _merge_block(
            seed, repeat, users[part], negatives.select(part), positives.select(part)
        )
        last = first + len(part)
        items[starts[first] : starts[last]] = merged[0]
        columns[of_positives[first] : of_positives[last]] = merged[1]
        first = last
    return Ragged(items, starts), Ragged(columns, of_positives)


def _merge_block(
    seed: int, repeat: int, users: np.ndarray, negatives: Ragged, positives: Ragged
) -> tuple[np.ndarray, np.ndarray]:
    """The values of both results of :func:`merge` for a block of users."""
    n_neg, n_pos = negatives.lengths, positives.lengths
    starts = negatives.starts + positives.starts
    # A user has hundreds of negatives: the arrays over them use the smallest types.
    negative = np.ones(starts[-1], dtype=bool)
    # The end of each row, for its positives.
    tail = np.repeat(starts[1:] - positives.starts[1:], n_pos)
    negative[np.arange(len(tail)) + tail] = False
    items = np.empty(starts[-1], dtype=np.int32)
    items[negative] = negatives.values
    columns = np.empty(len(positives.values), dtype=np.int64)
    kind = np.min_scalar_type(-len(columns) - 1)
    # Index of the positive at a place; -1 for negatives.
    owner = np.full(starts[-1], -1, dtype=kind)
    keys = mix(user_keys(seed, repeat, users) + np.uint64(3))
    for j in range(int(n_pos.max(initial=0))):  # each swaps places with a random earlier one
        rows = np.flatnonzero(n_pos > j)
        last = n_neg[rows] + j
        to = starts[rows] + below(stream(keys[rows], j, 1)[:, 0], last + 1)
        here = starts[rows] + last
        items[here], owner[here] = items[to], owner[to]
        mine = positives.starts[rows] + j
        items[to], owner[to] = positives.values[mine], mine
    held = np.flatnonzero(owner >= 0)
    columns[owner[held]] = held - starts[np.searchsorted(starts, held, side="right") - 1]
    return items, columns
