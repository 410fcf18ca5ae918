"""Users with what they had, what they are recommended, and what they took in the test part.

Users are drawn by the seed of the run, never by their results, except where the section says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recbole_cierec.report.blocks import Card, Note, Section, Strip
from recbole_cierec.report.source import Source
from recbole_cierec.report.tiles import Tiles
from recbole_cierec.serving.ranking import ranked_blocks

TOP = 10  # length of a list
SAMPLE = 256  # users that are ranked
CARDS = 12
FAILURES = 6
SHOWN = 8  # training items, and test items, of a card


@dataclass
class Sample:
    """Users drawn by the seed, and their lists.

    Attributes:
        users: Internal numbers [n], in the order in which they were drawn; each has test items.
        lists: Internal item numbers [n, TOP], the best first; -1 where a list has ended.
        hits: bool [n, TOP].
    """

    users: np.ndarray
    lists: np.ndarray
    hits: np.ndarray

    @property
    def hit_counts(self) -> np.ndarray:
        """Hits of each user [n]."""
        return self.hits.sum(1)


def draw_users(source: Source) -> np.ndarray:
    """Users with test items, at most SAMPLE, in random order."""
    pool = np.flatnonzero(source.positives.lengths > 0)
    return np.random.default_rng([source.seed, 1]).permutation(pool)[:SAMPLE]


def rank(source: Source, users: np.ndarray) -> Sample:
    """The lists of ``users``: all items but those that they have in training and validation."""
    blocks = [lists.items for lists in ranked_blocks(source.trained, users, TOP)]
    lists = np.concatenate(blocks) if blocks else np.empty((0, TOP), dtype=np.int64)
    hits = np.array(
        [
            np.isin(row, source.items_of(source.positives, u))
            for u, row in zip(users, lists, strict=True)
        ]
    ).reshape(lists.shape)
    return Sample(users, lists, hits)


def half_cold(source: Source, users: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` users in their order, half of them cold as far as there are enough."""
    cold = source.user_groups.members["cold"][users]
    parts = [np.flatnonzero(mask) for mask in (cold, ~cold)]
    first = [
        part[: max(count // 2, count - len(other))]
        for part, other in zip(parts, parts[::-1], strict=True)
    ]
    return np.concatenate(first)[:count]


def places_of(scores: np.ndarray, seen: np.ndarray, items: np.ndarray) -> list[int]:
    """The places of ``items`` in the list of all items that a user does not have.

    Args:
        scores: Scores of all items [n_items]; changed here.
        seen: Items that the user has.
        items: Internal numbers.
    """
    scores[0] = scores[seen] = -np.inf
    columns = np.arange(len(scores))
    return [
        1 + int(((scores > scores[i]) | ((scores == scores[i]) & (columns < i))).sum())
        for i in items
    ]


def list_strip(tiles: Tiles, title: str, items: np.ndarray, hits: np.ndarray) -> Strip:
    """A list, hits marked."""
    made = [
        tiles.tile(int(item), f"{place}", bool(hit))
        for place, (item, hit) in enumerate(zip(items, hits, strict=True), 1)
        if item >= 0
    ]
    return Strip(title, made, columns=5)


def training_strip(source: Source, tiles: Tiles, user: int) -> Strip:
    """The training items of a user."""
    items = source.items_of(source.histories, user).tolist()
    strip = tiles.strip("In training", items, SHOWN)
    if not items:
        strip.more = "No training interaction."
    return strip


def cards(source: Source, tiles: Tiles, sample: Sample, rows: Iterable[int]) -> list[Card]:
    """Users of the sample."""
    rows = np.array(list(rows), dtype=np.int64)
    if not len(rows):
        return []
    scores = source.trained.scores(sample.users[rows]).float().cpu().numpy()
    return [_card(source, tiles, sample, *pair) for pair in zip(rows, scores, strict=True)]


def _card(source: Source, tiles: Tiles, sample: Sample, row: int, scores: np.ndarray) -> Card:
    user = int(sample.users[row])
    groups = source.user_groups.members
    wanted = source.items_of(source.positives, user)
    places = places_of(scores, source.trained.seen.take(np.array([user]))[1], wanted)
    order = np.argsort(places, kind="stable")[:SHOWN]
    found = set(sample.lists[row].tolist())
    taken = [tiles.tile(i, f"#{places[k]:,}", i in found) for k in order if (i := int(wanted[k]))]
    more = f"The {SHOWN} best placed of {len(wanted)}." if len(wanted) > SHOWN else ""
    tags: list[str] = [
        name for name in ("cold", "warm", "new") if name in groups and groups[name][user]
    ]
    tags.append(f"{sample.hit_counts[row]} of {len(wanted)} test items in the top {TOP}")
    strips = [
        training_strip(source, tiles, user),
        list_strip(tiles, "Recommended", sample.lists[row], sample.hits[row]),
        Strip("Test items, with their places", taken, more),
    ]
    return Card(f"User {source.trained.user_ids[user]}", tags, strips)


def users_section(source: Source, tiles: Tiles, sample: Sample) -> tuple[Section, np.ndarray]:
    """Twelve users, and their rows of the sample."""
    rows = half_cold(source, sample.users, CARDS)
    n_items = len(source.trained.item_ids) - 1
    lead = (
        f"{len(rows)} users drawn by the seed {source.seed}, half of them cold where there are "
        f"enough, before any result was computed. Lists rank all {n_items:,} items, without "
        "those that a user has in training or validation. A tile marked hit is in the user's test "
        "part. The place #n of a test item is its place in the whole list."
    )
    section = Section("users", "Users", "What users had, and what they get", lead)
    if not source.trained.ranks_unseen_users:
        section.parts.append(
            Note(
                f"{source.name} has nothing for users without training interactions; they get the "
                "most popular items."
            )
        )
    section.parts += cards(source, tiles, sample, rows)
    return section, rows


def failures_section(source: Source, tiles: Tiles, sample: Sample, shown: np.ndarray) -> Section:
    """Users without a hit that were not shown yet."""
    without = np.flatnonzero(sample.hit_counts == 0)
    rows = [int(row) for row in without if row not in set(shown.tolist())][:FAILURES]
    share = len(without) / max(1, len(sample.users))
    lead = (
        f"{len(without)} of {len(sample.users)} users drawn by the seed ({share:.0%}) have no test "
        f"item among their first {TOP} of all items. These are the first of them that are not "
        "shown above."
    )
    section = Section("failures", "Failures", "Users without a hit", lead)
    section.parts += cards(source, tiles, sample, rows)
    if not rows:
        section.parts.append(Note("There is no such user."))
    return section
