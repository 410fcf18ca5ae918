"""Candidate lists against a plain loop over the same stream of draws."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from recbole_cierec.evaluation.candidates import (
    DrawnLists,
    Pool,
    Ragged,
    draw_negatives,
    look_up,
    merge,
    stream,
)

N_USERS, N_ITEMS = 60, 200


def ragged(lists):
    rows = np.repeat(np.arange(len(lists)), [len(x) for x in lists])
    return Ragged.group(rows, np.array([i for x in lists for i in x], dtype=np.int64), len(lists))


def row(table, r):
    return table.values[table.starts[r] : table.starts[r + 1]].tolist()


@pytest.fixture
def history():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 30, N_USERS)
    return [sorted(rng.choice(np.arange(1, N_ITEMS), n, replace=False).tolist()) for n in sizes]


ITEMS = np.arange(1, N_ITEMS)
POOL = Pool(ITEMS)
GOLDEN, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def splitmix(x):
    """The finaliser of SplitMix64 in Python's own integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def literal_draws(seed, repeat, user, size):
    """The endless stream of a user's draws below ``size``: published lists depend on it."""
    key = splitmix((seed + GOLDEN) & MASK)
    key = splitmix((key + repeat * GOLDEN + 1) & MASK)
    key = splitmix((key + user * GOLDEN + 2) & MASK)
    for k in count(1):
        yield (splitmix((key + k * GOLDEN) & MASK) >> 32) * size >> 32


def test_the_stream_is_splitmix64():
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # of state 0, published
    assert stream(np.zeros(1, dtype=np.uint64), 0, 3).tolist() == [first]
    assert stream(np.zeros(1, dtype=np.uint64), 1, 2).tolist() == [first[1:]]


@pytest.mark.parametrize("repeat", [0, 3])
def test_a_list_is_the_first_distinct_allowed_draws(history, repeat):
    users = np.arange(5, 5 + N_USERS)
    drawn = draw_negatives(7, repeat, users, 40, POOL, ragged(history))
    for r, user in enumerate(users):
        expected = []
        for draw in literal_draws(7, repeat, int(user), len(ITEMS)):
            item = int(ITEMS[draw])
            if item not in history[r] and item not in expected:
                expected.append(item)
            if len(expected) == 40:
                break
        assert row(drawn, r) == expected


def test_a_list_depends_on_nobody_else(history):
    users = np.arange(N_USERS)
    together = draw_negatives(1, 0, users, 30, POOL, ragged(history))
    for r in (0, 17, 59):
        alone = draw_negatives(1, 0, users[r : r + 1], 30, POOL, ragged(history[r : r + 1]))
        assert row(alone, 0) == row(together, r)


def test_seeds_and_repeats_give_other_lists(history):
    users = np.arange(N_USERS)
    lists = [
        draw_negatives(seed, repeat, users, 30, POOL, ragged(history)).values.tolist()
        for seed, repeat in ((1, 0), (1, 1), (2, 0))
    ]
    assert lists[0] != lists[1] != lists[2] != lists[0]


@pytest.mark.parametrize("n", [100, 150, 198, 500])
def test_crowded_lists_are_distinct_and_allowed(history, n):
    drawn = draw_negatives(3, 0, np.arange(N_USERS), n, POOL, ragged(history))
    for r in range(N_USERS):
        items = row(drawn, r)
        assert len(items) == len(set(items)) == min(n, len(ITEMS) - len(history[r]))
        assert not set(items) & set(history[r])


def test_a_user_with_everything_has_no_candidates():
    drawn = draw_negatives(3, 0, np.arange(2), 5, POOL, ragged([ITEMS.tolist(), [1]]))
    assert drawn.lengths.tolist() == [0, 5]


def test_items_are_drawn_evenly():
    users = np.arange(4000)
    for n, pool in ((20, ITEMS), (150, ITEMS), (20, ITEMS[::3])):
        nothing = Ragged(np.empty(0, dtype=np.int64), np.zeros(4001, dtype=np.int64))
        drawn = draw_negatives(5, 0, users, n, Pool(pool), nothing)
        counts = np.bincount(drawn.values, minlength=N_ITEMS)
        assert set(np.flatnonzero(counts)) == set(pool.tolist())
        share = n / len(pool)
        spread = np.sqrt(4000 * share * (1 - share))
        assert np.abs(counts[pool] - 4000 * share).max() < 4.5 * spread


def test_merge_keeps_every_item_and_places_positives_evenly():
    rng = np.random.default_rng(2)
    n_users = 3000
    positives = ragged([rng.choice(np.arange(1, 20), 3, replace=False).tolist()] * n_users)
    users = np.arange(n_users)
    negatives = draw_negatives(9, 0, users, 17, Pool(np.arange(20, 90)), ragged([[]] * n_users))
    items, columns = merge(9, 0, users, negatives, positives)
    for r in range(0, n_users, 97):
        whole = row(items, r)
        assert sorted(whole) == sorted(row(negatives, r) + row(positives, r))
        assert [whole[c] for c in row(columns, r)] == row(positives, r)
    places = np.bincount(columns.values, minlength=20)
    expected = 3 * n_users / 20
    assert np.abs(places - expected).max() < 4.5 * np.sqrt(expected)


def test_ragged_rows_pad_and_take():
    table = ragged([[3, 1, 3], [], [2]])
    assert row(table, 0) == [1, 3]
    assert table.padded(np.array([2, 0, 1]), -1).tolist() == [[2, -1], [1, 3], [-1, -1]]
    where, values = table.take(np.array([2, 0]))
    assert where.tolist() == [0, 1, 1]
    assert values.tolist() == [2, 1, 3]


def test_merging_in_blocks_of_users_gives_the_same_lists(monkeypatch):
    rng = np.random.default_rng(5)
    users = np.arange(1, 12)
    negatives = Ragged.group(np.repeat(np.arange(11), 6), rng.integers(1, 50, 66), 11)
    positives = Ragged.group(rng.integers(0, 11, 20), rng.integers(50, 99, 20), 11)
    whole = merge(3, 1, users, negatives, positives)
    monkeypatch.setattr("recbole_cierec.evaluation.candidates.BLOCK_USERS", 4)
    for one, other in zip(merge(3, 1, users, negatives, positives), whole, strict=True):
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.starts, other.starts)


@pytest.mark.parametrize("n", [30, 150])
def test_lists_drawn_in_blocks_are_those_drawn_at_once(history, n, monkeypatch):
    users = np.arange(100, 100 + N_USERS)
    whole = draw_negatives(3, 2, users, n, POOL, ragged(history))
    lists = DrawnLists(3, 2, users, n, POOL, ragged(history))
    monkeypatch.setattr("recbole_cierec.evaluation.candidates.BLOCK_USERS", 7)
    assert lists.lengths.tolist() == whole.lengths.tolist()
    positives = ragged([items[:2] for items in history])
    expected = merge(3, 2, users, whole, positives)
    for rows in (np.arange(20, 55), np.array([59, 3, 17, 4])):
        assert lists.select(rows).values.tolist() == [i for r in rows for i in row(whole, r)]
        for got, want in zip(merge(3, 2, users, lists, positives, rows), expected, strict=True):
            assert [row(got, k) for k in range(len(rows))] == [row(want, r) for r in rows]


@pytest.mark.parametrize("ordered", [[], [4], [1, 3, 3, 7]])
def test_a_look_up_finds_what_is_there(ordered):
    values = np.array([0, 1, 3, 4, 7, 9])
    places, found = look_up(np.array(ordered, dtype=np.int64), values)
    assert found.tolist() == [value in ordered for value in values]
    assert [ordered[place] for place in places[found]] == values[found].tolist()
