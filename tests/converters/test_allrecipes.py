"""FoodRecSys-V1 and HAFR's release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recbole_cierec.dataset_converters.fields.ingredients import element_of, singular

from recbole_cierec.errors import DataError

HEAD = "user_id,recipe_id,rating,dateLastModified\n"
RATINGS = {
    "train": HEAD + '7,240488,5,"2010-08-25T14:38:53.84\n"\n8,9999,4,"2009-03-15T12:10:20\n"\n',
    "valid": HEAD + '7,9999,3,"2011-01-01T00:00:00\n"\n',
    "test": HEAD + '8,240488,1,"2012-01-01T00:00:00.5\n"\n',
}
RECIPES = """\
recipe_id,recipe_name,image_url,ingredients,cooking_directions,nutritions
240488,"Pork, Apples",https://p.example/1897772.jpg,\
Granny Smith apples sliced^Rub:^large apple^salt,\
"{'directions': u'Prep
15 m
Cook, stir.'}","{u'niacin': {u'amount': 15.6}}"
9999,Egg,https://p.example/9999.jpg,eggs^salt,"{'directions': u'x'}",{}
"""


@pytest.fixture
def folder(write) -> Path:
    for split, content in RATINGS.items():
        write(f"core-data-{split}_rating.csv", content)
    return write("core-data_recipe.csv", RECIPES).parent


def test_the_split_is_kept_as_shipped(convert, folder):
    made = convert("allrecipes", "--folder", folder)
    assert made.rows("train.inter") == [
        ("7", "240488", 5.0, 1282747133.84),
        ("8", "9999", 4.0, 1237119020.0),
    ]
    assert made.rows("valid.inter") == [("7", "9999", 3.0, 1293840000.0)]
    assert made.rows("test.inter") == [("8", "240488", 1.0, 1325376000.5)]
    assert not (made.folder / "made.inter").exists()
    assert made.steps() == {"read": (4, 2, 2)}
    assert "elements: 4; the paper's Table I: 2,736" in made.report


def test_the_split_can_be_merged(convert, folder):
    made = convert("allrecipes", "--folder", folder, "--split", "merge")
    assert [row[:2] for row in made.rows()] == [
        ("7", "240488"),
        ("8", "9999"),
        ("7", "9999"),
        ("8", "240488"),
    ]
    assert not list(made.folder.glob("*train*"))


def test_ingredients_become_elements_and_pictures_are_listed(convert, folder):
    made = convert("allrecipes", "--folder", folder)
    first, second = made.rows("item")
    assert first[:2] == ("240488", "Pork, Apples")
    assert first[3] == "granny_smith_apple apple salt"
    assert second[3] == "egg salt"
    assert made.urls() == [
        (first[2], "https://p.example/1897772.jpg"),
        (second[2], "https://p.example/9999.jpg"),
    ]


def test_ingredient_lines_can_be_left_as_they_are(convert, folder):
    made = convert("allrecipes", "--folder", folder, "--raw-ingredients")
    assert made.rows("item")[0][3] == "Granny_Smith_apples_sliced Rub: large_apple salt"


def test_shipped_pictures_are_taken_instead_of_urls(convert, folder, write):
    write("core-data-images/9999.jpg", b"egg")
    made = convert("allrecipes", "--folder", folder)
    first, second = made.rows("item")
    assert first[2] is None
    assert (made.folder / second[2]).read_bytes() == b"egg"
    assert not list(made.folder.glob("*image_urls*"))


def test_a_quote_that_is_never_closed_is_a_bad_record_and_not_the_end(convert, folder, write):
    write("core-data_recipe.csv", RECIPES + '17,Cut,https://p.example/1.jpg,salt,"{')
    with pytest.raises(DataError, match=r"1 of 3 records .* line 6, is not a row"):
        convert("allrecipes", "--folder", folder)
    made = convert("allrecipes", "--folder", folder, "--max-bad-share", "0.4")
    assert len(made.rows("item")) == 2


def test_a_bad_rating_is_named_by_its_line(convert, folder, write):
    rows = RATINGS["train"] + '9,17,five,"2012-01-01T00:00:00\n"\n9,17\n9,17,5,"yesterday\n"\n'
    write("core-data-train_rating.csv", rows)
    made = convert("allrecipes", "--folder", folder, "--max-bad-share", "0.9")
    assert made.manifest["bad_records"][0]["first"] == [
        {"line": 6, "reason": "rating is missing or malformed"},
        {"line": 8, "reason": "has 2 cells instead of 4"},
        {"line": 9, "reason": "timestamp is missing or malformed"},
    ]
    assert len(made.rows("train.inter")) == 2


def test_swapped_files_are_named(convert, folder, write):
    write("core-data-train_rating.csv", RECIPES)
    with pytest.raises(DataError, match="is not a table of recipe ratings: no column user_id"):
        convert("allrecipes", "--folder", folder)


@pytest.mark.parametrize(
    ("line", "element"),
    [
        ("Granny Smith apples sliced", "granny smith apple"),
        ("Rub:", ""),
        ("salt and ground black pepper to taste", "salt and ground black pepper"),
        ("black beans rinsed and drained", "black bean"),
        ("fluid ounce) can chicken broth", "chicken broth"),
        ("light margarine (such as I Can't Believe It's Not Butter", "margarine"),
        ("prepared yellow mustard (such as Colman's\u00ae)", "yellow mustard"),
        ("ground beef", "ground beef"),
        ("hot pepper sauce (such as Tabasco\u00ae) (optional)", "hot pepper sauce"),
        ("warm water (125 degrees F 52 degrees C)", "water"),
        ("fresh asparagus trimmed and cut into 2-inch pieces", "asparagus"),
        ("Gruy\u00e8re cheese", "gruyere cheese"),
        ("half-and-half cream", "half-and-half cream"),
        ("bay leaves", "bay leaf"),
        ("chopped green chilies", "green chili"),
        ("fresh", ""),
        ("", ""),
    ],
)
def test_an_ingredient_line_names_one_element(line, element):
    assert element_of(line) == element
    assert element_of(element) == element  # cleaning twice changes nothing


@pytest.mark.parametrize(
    "pair",
    "eggs egg, tomatoes tomato, cherries cherry, radishes radish, leaves leaf, asparagus asparagus,"
    " swiss swiss, peas pea, cheese cheese, oats oat".split(", "),
)
def test_the_ending_tells_the_singular(pair):
    plural, single = pair.split()
    assert singular(plural) == single


@pytest.fixture
def release(write) -> Path:
    write("data.train.rating", "0\t0\t1\n0\t2\t1\n1\t1\t1\n")
    write("data.valid.rating", "0\t1\t1\n")
    write("data.test.rating", "1\t0\t1\n")
    write("data_id_ingre_num_file", "0\t2\n1\t1\n2\t0\n")
    folder = write("data.test.negative", "(1:0)\t2\n").parent
    np.save(folder / "data_ingre_code_file.npy", np.array([[4, 7, 9], [7, 9, 9], [9, 9, 9]]))
    np.save(folder / "data_image_features_float.npy", np.arange(6.0).reshape(3, 2))
    return folder / "data"


def test_hafrs_release_gives_split_ingredients_and_features(convert, release):
    made = convert("allrecipes", "--release", release)
    assert made.rows("train.inter") == [("0", "0", 1.0), ("0", "2", 1.0), ("1", "1", 1.0)]
    assert made.rows("test.inter") == [("1", "0", 1.0)]
    # Rows are padded with 9; the real lengths are in the file of numbers.
    tokens = [row[3] for row in made.rows("item")]
    assert tokens == ["ingredient_4 ingredient_7", "ingredient_7", None]
    np.testing.assert_array_equal(
        np.load(made.folder / "made.features.npy"), [[0, 1], [2, 3], [4, 5]]
    )


def test_features_follow_the_lines_of_the_item_file(convert, release):
    made = convert("allrecipes", "--release", release, "--item-core", "2")
    assert [row[0] for row in made.rows("item")] == ["0", "1"]
    np.testing.assert_array_equal(np.load(made.folder / "made.features.npy"), [[0, 1], [2, 3]])


def test_arrays_of_objects_are_not_unpickled(convert, release):
    array = np.array([[1, "x"]], dtype=object)
    np.save(release.parent / "data_ingre_code_file.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as numbers"):
        convert("allrecipes", "--release", release)
