"""Joins by ids: counts, warnings, refusals; the same in every converter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbole_cierec.errors import DataError

IDS = [f"{k:04}" for k in range(1, 41)]  # 0001 ... 0040


@pytest.fixture
def table(convert, write):
    """``table(ids of interactions, ids of items, *words)``."""

    def call(bought: list[str], described: list[str], *words: object):
        sales = "".join(f"u{k},{item}\n" for k, item in enumerate(bought))
        items = "".join(f"{item},lamp\n" for item in described)
        files = ["--interactions", write("t.csv", f"user_id,item_id\n{sales}")]
        files += ["--items", write("i.csv", f"item_id,kind\n{items}")]
        return convert("table", *files, "--annotation-columns", "kind", *words)

    return call


SPELLINGS = {
    "leading zeros": lambda text: text.lstrip("0"),
    "a decimal point, as in 123.0": lambda text: f"{text}.0",
    "upper and lower case": lambda text: text.upper(),
    "blanks or invisible characters": lambda text: f"{text[:2]} {text[2:]}",
    "the suffix of a file": lambda text: f"{text}.jpg",
    "several differences": lambda text: f"{text.upper().lstrip('0')}.0",
}


@pytest.mark.parametrize("cause", SPELLINGS)
def test_ids_that_never_match_are_refused_with_the_likely_cause(table, tmp_path, cause):
    ids = [f"{text}ab" for text in IDS] if "case" in cause or "several" in cause else IDS
    bought = [SPELLINGS[cause](text) for text in ids]
    with pytest.raises(DataError, match="only 0 of 40 items of the interactions") as caught:
        table(bought, ids)
    said = str(caught.value)
    assert f"40 more would match but for {cause}" in said
    assert repr(min(bought)) in said
    assert repr(min(ids)) in said
    assert "--min-match" in said
    assert not list((tmp_path / "out").iterdir())


def warnings(made) -> list[str]:
    return [line for line in made.report if line.startswith("warning: ")]


def test_a_few_ids_that_would_match_but_for_a_cause_are_warned_of(table):
    made = table([*IDS[:38], "39", "40"], IDS)
    (warning,) = warnings(made)
    assert "38 of 40 items of the interactions match the files of items" in warning
    assert "2 more would match but for leading zeros" in warning
    assert warning in made.manifest["notes"]


@pytest.mark.parametrize(
    ("bought", "described", "said"),
    [
        (IDS, IDS, ""),
        (IDS[:4], IDS, ""),  # the table of all products
        (IDS[:30], IDS[10:], ""),
        (IDS[:30], IDS[20:], "only 10 of 30"),
        (IDS, IDS[:4], "only 4 of 40"),
    ],
)
def test_few_described_items_are_a_warning_and_a_large_table_of_items_is_none(
    table, bought, described, said
):
    made = table(bought, described)
    found = warnings(made)
    assert [said in line for line in found] == [True] * bool(said)
    count = len(set(bought) & set(described))
    line = f"{count} of {len(bought)} items of the interactions match the files of items"
    assert any(line in text for text in made.report)


def test_items_that_are_dropped_anyway_are_no_warning(table):
    assert not warnings(table(IDS, IDS[:4], "--require", "metadata"))


def test_the_share_that_must_match_can_be_set(table):
    other = [f"x{text}" for text in IDS]
    # One of 40 is less than the default of 0.05.
    with pytest.raises(DataError, match="only 1 of 40"):
        table(IDS, [*other[1:], IDS[0]])
    made = table(IDS, [*other[1:], IDS[0]], "--min-match", "0.02")
    assert "only 1 of 40" in warnings(made)[0]
    with pytest.raises(DataError, match="only 30 of 40"):
        table(IDS, [*IDS[:30], *other[:10]], "--min-match", "0.8", "--overwrite")


def test_nothing_in_common_leaves_no_file_that_training_refuses(table):
    made = table(IDS, [f"x{text}" for text in IDS], "--min-match", "0")
    assert "only 0 of 40" in warnings(made)[0]
    assert len(made.rows()) == 40
    assert not (made.folder / "made.item").exists()


def test_blanks_around_ids_are_no_difference(table):
    made = table([f" {text}\u00a0" for text in IDS], [f"\ufeff{text} " for text in IDS])
    assert not warnings(made)
    assert [row[0] for row in made.rows("item")] == IDS


def pictures(write, names: list[str]) -> Path:
    for name in names:
        write(f"pictures/{name}.jpg", name.encode())
    return write(f"pictures/{names[0]}.jpg", b"x").parent


def test_pictures_that_belong_to_no_item_are_refused(table, write):
    folder = pictures(write, [text.lstrip("0") for text in IDS])
    with pytest.raises(DataError, match="40 items match the pictures of") as caught:
        table(IDS, IDS, "--images", folder)
    assert "40 more would match but for leading zeros" in str(caught.value)


def test_a_few_pictures_are_a_warning_and_many_of_others_are_none(table, write):
    made = table(IDS, IDS, "--images", pictures(write, IDS[:4]))
    assert "only 4 of 40 items match the pictures" in warnings(made)[0]
    write_more = pictures(write, [*IDS, *(f"x{k}" for k in range(200))])
    made = table(IDS, IDS, "--images", write_more, "--overwrite")
    assert not warnings(made)


def test_a_column_of_pictures_that_are_not_there_is_refused(convert, write):
    rows = [f"u{k},{item},pictures/{item}.jpg" for k, item in enumerate(IDS)]
    path = write("t.csv", "\n".join(["user_id,item_id,file", *rows]))
    folder = pictures(write, IDS)
    words = ["--interactions", path, "--items", path, "--image-column", "file"]
    with pytest.raises(DataError, match=r"40 of 40, such as 'pictures/0001\.jpg'; give the folder"):
        convert("table", *words, "--images", folder)
    made = convert("table", *words, "--images", folder.parent)
    assert not warnings(made)
    for item in IDS[:30]:
        (folder / f"{item}.jpg").unlink()
    made = convert("table", *words, "--images", folder.parent, "--overwrite")
    assert "not in" in warnings(made)[0]


def amazon(write) -> list[object]:
    reviews = [
        {"reviewerID": "A", "asin": t.lstrip("0"), "overall": 1, "unixReviewTime": 1, "vote": "1"}
        for t in IDS
    ]
    items = [{"asin": t, "category": ["a"]} for t in IDS]
    files = ["--reviews", write("r.json", "\n".join(map(json.dumps, reviews)))]
    return ["amazon", *files, "--metadata", write("m.json", "\n".join(map(json.dumps, items)))]


def movielens(write) -> list[object]:
    rows = "".join(f"1,{text.lstrip('0')},3,5\n" for text in IDS)
    write("ratings.csv", f"userId,movieId,rating,timestamp\n{rows}")
    rows = "".join(f"{text},Title,War\n" for text in IDS)
    return ["movielens", "--folder", write("movies.csv", f"movieId,title,genres\n{rows}").parent]


def allrecipes(write) -> list[object]:
    head = "user_id,recipe_id,rating,dateLastModified"
    for split in ("train", "valid", "test"):
        rows = "".join(f"1,{text.lstrip('0')},3,2010-08-25\n" for text in IDS)
        write(f"core-data-{split}_rating.csv", f"{head}\n{rows}")
    rows = "".join(f"{text},Soup,https://p.example/{text}.jpg,salt\n" for text in IDS)
    items = f"recipe_id,recipe_name,image_url,ingredients\n{rows}"
    return ["allrecipes", "--folder", write("core-data_recipe.csv", items).parent]


@pytest.mark.parametrize("raw", [amazon, movielens, allrecipes])
def test_the_rule_is_the_same_in_every_converter(convert, write, raw):
    words = raw(write)
    with pytest.raises(DataError, match="40 more would match but for leading zeros"):
        convert(*words)
    assert convert(*words, "--min-match", "0")


@pytest.mark.parametrize("raw", [movielens, allrecipes])
def test_the_rule_for_pictures_too(convert, write, raw):
    words = raw(write)
    write("posters/0.jpg", b"x")
    folder = write("posters/x.jpg", b"x").parent
    with pytest.raises(DataError, match=r"only 0 of 40 items match the pictures of .*posters"):
        convert(*words, "--images", folder)
