"""The shared steps against plain Python."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest
from recbole_cierec.dataset_converters.__main__ import main

from recbole_cierec.errors import DataError

ROWS = [  # user, item, rating, time
    ("u1", "i1", 5.0, 10),
    ("u1", "i1", 2.0, 30),
    ("u1", "i2", 4.0, 20),
    ("u2", "i1", 1.0, 40),
    ("u2", "i1", 3.0, 40),
    ("u3", "i3", 5.0, 50),
]


def pairs(made) -> list[tuple]:
    return [(user, item, rating) for user, item, rating, _ in made.rows()]


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        ("first", [("u1", "i1", 5), ("u1", "i2", 4), ("u2", "i1", 1), ("u3", "i3", 5)]),
        ("last", [("u1", "i1", 2), ("u1", "i2", 4), ("u2", "i1", 3), ("u3", "i3", 5)]),
        ("all", [row[:3] for row in ROWS]),
    ],
)
def test_duplicates_keep_the_first_or_the_last_by_time_then_by_line(
    convert, reviews_2018, which, kept
):
    made = convert("amazon", "--reviews", reviews_2018(ROWS), "--duplicates", which)
    assert pairs(made) == kept


def test_a_time_window_holds_its_start_and_not_its_end(convert, reviews_2018):
    path = reviews_2018(ROWS)
    made = convert("amazon", "--reviews", path, "--after", "20", "--before", "40")
    assert [row[3] for row in made.rows()] == [30, 20]
    assert made.steps()["time window"] == (2, 1, 2)


def test_dates_are_days_in_utc(convert, reviews_2018):
    rows = [("u1", "i1", 5.0, 1398902399), ("u1", "i2", 5.0, 1398902400)]  # 2014-05-01 00:00 UTC
    made = convert("amazon", "--reviews", reviews_2018(rows), "--after", "2014-05-01")
    assert [row[1] for row in made.rows()] == ["i2"]


def test_the_rating_threshold_is_applied_to_the_rating_that_stays(convert, reviews_2018):
    made = convert("amazon", "--reviews", reviews_2018(ROWS), "--min-rating", "3")
    assert pairs(made) == [("u1", "i2", 4), ("u2", "i1", 3), ("u3", "i3", 5)]


def random_rows(seed: int, count: int = 900) -> list[tuple]:
    chance = random.Random(seed)
    found = {}
    while len(found) < count:
        pair = (f"u{int(chance.random() ** 2 * 150)}", f"i{int(chance.random() ** 2 * 120)}")
        found[pair] = (*pair, 4.0, len(found))
    return list(found.values())


def core(rows: list[tuple], users: int, items: int) -> list[tuple]:
    """The definition: drop until both hold."""
    while True:
        by_user, by_item = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if by_user[row[0]] >= users and by_item[row[1]] >= items]
        if len(kept) == len(rows):
            return kept
        rows = kept


@pytest.mark.parametrize(("users", "items"), [(5, 5), (4, 6), (1, 8), (8, 1)])
def test_the_core_is_the_largest_part_in_which_both_bounds_hold(
    convert, reviews_2018, users, items
):
    rows = random_rows(3)
    expected = core(rows, users, items)
    assert 0 < len(expected) < len(rows)
    made = convert(
        "amazon", "--reviews", reviews_2018(rows), "--user-core", users, "--item-core", items
    )
    assert [row[:2] for row in made.rows()] == [row[:2] for row in expected]


def test_a_sample_is_drawn_by_the_seed_alone(convert, reviews_2018):
    rows = random_rows(4)
    path, shuffled = reviews_2018(rows), reviews_2018(rows[::-1], "shuffled.json")

    def users(path, seed, size):
        words = ("--sample-users", size, "--seed", seed, "--overwrite")
        return {row[0] for row in convert("amazon", "--reviews", path, *words).rows()}

    all_users = {row[0] for row in rows}
    first = users(path, 1, 20)
    assert len(first) == 20
    assert users(shuffled, 1, 20) == first
    assert users(path, 2, 20) != first
    assert len(users(path, 1, 0.25)) == round(0.25 * len(all_users))
    assert len(users(path, 1, 1)) == 1  # a number, not a share


def test_hashes_are_those_of_the_files(convert, reviews_2018):
    path = Path(reviews_2018(ROWS))
    made = convert("amazon", "--reviews", path)

    def facts(path):
        content = path.read_bytes()
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    names = {p.name for p in made.folder.iterdir() if p.is_file()} - {"conversion.json"}
    assert made.manifest["files"] == {name: facts(made.folder / name) for name in sorted(names)}
    (given,) = made.manifest["inputs"]
    assert given.items() >= facts(path).items()


ITEMS = """\
item_id,labels,picture
i1,Rock|Pop|Rock,https://p.example/1.jpg
i2,Rock,
i3,Pop|Rare,https://p.example/3.jpg
i4,,https://p.example/4.jpg
i9,Rock|Rare,
"""
TABLE = "user_id,item_id\n" + "".join(f"u{k},i{k % 5 + 1}\n" for k in range(10))
COLUMNS = ("--annotation-columns", "labels", "--image-column", "picture")


def annotations(made) -> dict[str, str | None]:
    return {row[0]: row[3] for row in made.rows("item")}


def test_annotations_that_few_of_the_kept_items_have_are_dropped(convert, write):
    words = ("--interactions", write("t.csv", TABLE), "--items", write("i.csv", ITEMS), *COLUMNS)
    made = convert("table", *words)
    assert annotations(made) == {"i1": "Rock Pop", "i2": "Rock", "i3": "Pop Rare", "i4": None}
    made = convert("table", *words, "--min-annotation-items", "2", "--overwrite")
    # Rare is on two items of the file, but only on one of the remaining items.
    assert annotations(made) == {"i1": "Rock Pop", "i2": "Rock", "i3": "Pop", "i4": None}
    made = convert("table", *words, "--min-annotation-items", "2", "--overwrite", "--all-items")
    assert annotations(made)["i3"] == "Pop Rare"
    assert annotations(made)["i9"] == "Rock Rare"


def test_stop_lists_are_read_in_any_case(convert, write):
    words = ("--interactions", write("t.csv", TABLE), "--items", write("i.csv", ITEMS), *COLUMNS)
    listed = write("stop.txt", "pop\n\n")
    made = convert("table", *words, "--stop", "ROCK", "--stop-file", listed)
    assert annotations(made) == {"i1": None, "i2": None, "i3": "Rare", "i4": None}


@pytest.mark.parametrize(
    ("need", "items"),
    [("metadata", "i1 i2 i3 i4"), ("picture", "i1 i3 i4"), ("annotations", "i1 i2 i3")],
)
def test_items_without_something_can_be_dropped_with_their_interactions(
    convert, write, need, items
):
    words = ("--interactions", write("t.csv", TABLE), "--items", write("i.csv", ITEMS), *COLUMNS)
    made = convert("table", *words, "--require", need)
    assert sorted({row[1] for row in made.rows()}) == items.split()
    left = items.split()
    assert made.steps()[f"items with {need}"] == (2 * len(left), 2 * len(left), len(left))


def test_filters_that_leave_nothing_name_the_step(convert, reviews_2018):
    with pytest.raises(DataError, match="after the step 'minimum rating'"):
        convert("amazon", "--reviews", reviews_2018(ROWS), "--min-rating", "6")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["amazn"], "did you mean 'amazon'"),
        (["amazn", "--help"], "did you mean 'amazon'"),
        (["json"], "no converter is named 'json'"),  # a module, and no converter
        (["../x"], "no converter is named '../x'"),
        ([], "give a converter: amazon"),
    ],
)
def test_what_is_no_converter_is_refused_in_one_line(words, said, capsys):
    assert main(words) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
