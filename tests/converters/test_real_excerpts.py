"""Excerpts of the published files; counts were computed independently.

Independent counts: ``zcat | wc -l``, sets of the parsed records, and for the 5-core a loop over
Counter objects. First rows were copied from the files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_cierec.errors import DataError

pytestmark = pytest.mark.shared


@pytest.fixture
def formats(shared_dir) -> Path:
    return shared_dir / "data" / "formats"


def test_2014_musical_instruments(convert, formats):
    made = convert(
        "amazon", "--reviews", formats / "amazon2014_reviews_Musical_Instruments_5.head200.json"
    )
    assert made.steps() == {"read": (200, 177, 20), "duplicates": (200, 177, 20)}
    assert made.rows()[:2] == [
        ("A2IBPI20UZIR0U", "1384719342", 5.0, 1393545600.0),
        ("A14VAT5EAX3D9S", "1384719342", 5.0, 1363392000.0),
    ]
    assert made.manifest["bad_records"] == []


def test_2014_metadata_records(convert, formats):
    made = convert(
        "amazon",
        "--reviews",
        formats / "amazon2014_reviews_Musical_Instruments_5.head200.json",
        "--metadata",
        formats / "amazon2014_meta.excerpt.json",
        "--all-items",
        "--min-match",
        "0",  # reviews and metadata are of other categories
    )
    rows = made.rows("item")
    assert [row[0] for row in rows] == ["5555991584", "0558925278", "0000191639", "0076561046"]
    assert rows[0][1] == "Memory of Trees"
    assert rows[0][3] == "CDs_&_Vinyl New_Age Celtic_New_Age Meditation Pop Rock Digital_Music"
    assert rows[2][3] == "Toys_&_Games Puzzles Jigsaw_Puzzles"
    urls = dict(made.urls())
    assert urls[rows[1][2]] == "http://ecx.images-amazon.com/images/I/51L%2BzYCQWSL._SX300_.jpg"


@pytest.fixture
def gift_cards(formats) -> list[object]:
    return [
        "amazon",
        "--reviews",
        formats / "amazon2018_Gift_Cards_5.json.gz",
        "--metadata",
        formats / "amazon2018_meta_Gift_Cards.json.gz",
    ]


def test_2018_gift_cards(convert, gift_cards):
    made = convert(*gift_cards, "--user-core", "5", "--item-core", "5")
    assert made.steps() == {
        "read": (2972, 458, 148),
        "duplicates": (2965, 458, 148),
        "5-core of users, 5-core of items (3 rounds)": (2941, 453, 147),
    }
    assert made.rows()[0] == ("A31UBHTUUIFJUT", "B004LLIKVU", 5.0, 1529193600.0)
    items = {row[0]: row for row in made.rows("item")}
    assert items["B004LLIKVU"][1] == "Amazon eGift Card"
    assert made.manifest["items"]["annotation tokens (elements)"] == 1  # all are Gift Cards


def test_2018_items_and_their_pictures(convert, gift_cards):
    made = convert(*gift_cards)
    facts = made.manifest["items"]
    assert (facts["described items"], facts["to download"], facts["annotated"]) == (148, 116, 146)
    assert facts["with a picture"] == 116


def test_2018_a_picture_that_many_gift_cards_share_is_warned_of(convert, gift_cards):
    made = convert(*gift_cards, "--all-items")
    shared = "203 of 660 items with a picture share '"
    (warning,) = [line for line in made.report if shared in line]
    assert warning.startswith("warning: ")
    assert "/I/31cvqMhdG2L.jpg'" in warning
    made = convert(*gift_cards, "--all-items", "--no-picture", "31cvqMhdG2L", "--overwrite")
    assert made.manifest["items"]["to download"] == 660 - 203


def test_excerpts_of_other_categories_do_not_belong_together(convert, formats):
    files = [formats / "amazon2014_reviews_Musical_Instruments_5.head200.json"]
    with pytest.raises(DataError, match="only 0 of 20 items of the interactions"):
        convert(
            "amazon", "--reviews", *files, "--metadata", formats / "amazon2014_meta.excerpt.json"
        )


def test_2018_all_metadata(convert, gift_cards):
    made = convert(*gift_cards, "--all-items")
    facts = made.manifest["items"]
    assert (facts["described items"], facts["to download"]) == (1547, 1547 - 887)
    assert made.rows("item")[0] == (
        "B001BKEWF2",
        "Serendipity 3 $100.00 Gift Card",
        None,
        "Gift_Cards",
    )


def test_2023_records(convert, formats):
    made = convert(
        "amazon",
        "--reviews",
        formats / "amazon2023_reviews.excerpt.jsonl",
        "--metadata",
        formats / "amazon2023_meta.excerpt.jsonl",
        "--all-items",
        "--min-match",
        "0",
    )
    assert made.rows() == [
        ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 5.0, 1588687728.923),
        ("AG2L7H23R5LLKDKLBEF2Q3L2MVDA", "B07CJYMRWM", 5.0, 1676601581.238),
    ]
    rows = made.rows("item")
    assert [row[3] for row in rows[:2]] == ["Gift_Cards Gift_Card_Recipients For_Him", None]
    urls = [url.rpartition("/")[2] for _, url in made.urls()]
    assert urls[0] == "71cWJvVGYtL._SL1500_.jpg"
    assert urls[2] == "41J3kMGt34L.jpg"  # hi_res is null


def test_files_of_two_generations_are_refused(convert, formats):
    with pytest.raises(DataError, match="holds reviews of 2018, not of 2023"):
        convert(
            "amazon",
            "--reviews",
            formats / "amazon2018_Gift_Cards_5.json.gz",
            "--metadata",
            formats / "amazon2023_meta.excerpt.jsonl",
        )


def test_allrecipes(convert, formats, tmp_path):
    folder = tmp_path / "foodrecsys"
    folder.mkdir()
    for name in ("train_rating.10k", "test_rating.10k", "recipe.first256KiB"):
        target = folder / f"core-data{'_' if 'recipe' in name else '-'}{name.partition('.')[0]}.csv"
        target.symlink_to(formats / f"allrecipes_core-data{target.name[9]}{name}.csv")
    rows = '"2010-08-25T14:38:53.84\n"'
    (folder / "core-data-valid_rating.csv").write_text(
        f"user_id,recipe_id,rating,dateLastModified\n1,240488,5,{rows}\n"
    )
    with pytest.raises(DataError, match="1 of 65 records cannot be used"):  # the last is cut off
        convert("allrecipes", "--folder", folder)
    made = convert("allrecipes", "--folder", folder, "--max-bad-share", "0.02", "--all-items")
    train, test = made.rows("train.inter"), made.rows("test.inter")
    assert (len(train), len({row[0] for row in train}), len({row[1] for row in train})) == (
        9999,
        912,
        5724,
    )
    assert (len(test), len({row[0] for row in test}), len({row[1] for row in test})) == (
        9999,
        1890,
        6462,
    )
    assert train[0] == ("5215572", "17991", 5.0, 1282747133.84)
    assert train[-1][:2] == ("4123580", "79470")
    assert test[0] == ("16", "12011", 5.0, 1387277763.29)
    items = made.rows("item")
    assert len(items) == 64
    assert items[0][:2] == ("240488", "Pork Loin, Apples, and Sauerkraut")
    assert items[0][3] == (
        "sauerkraut granny_smith_apple onion caraway_seed apple_cider brown_sugar thai_seasoning"
        " salt garlic_powder ground_black_pepper pork_loin_roast"
    )
