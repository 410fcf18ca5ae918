"""The three generations of Amazon's files, with the peculiarities of each."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard

from recbole_cierec.errors import DataError

REVIEWS_2014 = """\
{"reviewerID": "A1", "asin": "5550000001", "reviewerName": "Ann \\"A\\"", "helpful": [0, 1], \
"reviewText": "One, two", "overall": 5.0, "summary": "s", "unixReviewTime": 1393545600, \
"reviewTime": "02 28, 2014"}
{"reviewerID": "A2", "asin": "5550000001", "helpful": [2, 2], "reviewText": "x", "overall": 3.0, \
"summary": "s", "unixReviewTime": 1363392000, "reviewTime": "03 16, 2013"}
"""
META_2014 = """\
{'asin': '5550000001', 'title': "It's \\"here\\"", 'price': 9.49, \
'imUrl': 'http://pictures.example/51b5.jpg', 'salesRank': {'Music': 93}, \
'categories': [['CDs & Vinyl', 'New Age', 'Celtic'], ['CDs & Vinyl', 'Pop'], \
['Digital Music', 'Celtic']]}
{'asin': '5550000002'}
"""
REVIEWS_2018 = """\
{"overall": 5.0, "verified": true, "reviewTime": "06 17, 2018", "reviewerID": "A1", \
"asin": "B000000001", "style": {"Format:": " Audio CD"}, "reviewText": "x", \
"unixReviewTime": 1529193600}
{"overall": 4.0, "verified": true, "reviewTime": "06 17, 2018", "reviewerID": "A1", \
"asin": "B000000001", "style": {"Format:": " Vinyl"}, "unixReviewTime": 1529193600}
{"overall": 2.0, "verified": false, "vote": "3", "reviewTime": "06 14, 2018", "reviewerID": "A2", \
"asin": "B000000002", "image": ["https://pictures.example/u.jpg"], "unixReviewTime": 1528934400}
"""
META_2018 = """\
{"category": ["CDs &amp; Vinyl", "Pop"], "title": "Tom &amp; Jerry", "rank": ["1 in CDs"], \
"main_cat": "CDs &amp; Vinyl", "asin": "B000000001", "brand": "Acme", \
"imageURL": ["https://pictures.example/small.jpg"], \
"imageURLHighRes": ["https://pictures.example/large.jpg", "https://pictures.example/back.jpg"]}
{"category": [], "title": "", "rank": "5 in CDs", "main_cat": "", "asin": "B000000002", \
"brand": "", "imageURL": [], "imageURLHighRes": []}
{"category": ["Again"], "title": "the same item again", "asin": "B000000001", "imageURL": [], \
"imageURLHighRes": []}
"""
REVIEWS_2023 = """\
{"rating": 5.0, "title": "t", "text": "x", "images": [], "asin": "B0CHILD001", \
"parent_asin": "B0PARENT01", "user_id": "AGK", "timestamp": 1588687728923, "helpful_vote": 0, \
"verified_purchase": true}
{"rating": 1.0, "title": "t", "text": "x", "images": [], "asin": "B0PARENT02", \
"parent_asin": "B0PARENT02", "user_id": "AGL", "timestamp": 1676601581000, "helpful_vote": 0, \
"verified_purchase": true}
"""
META_2023 = """\
{"main_category": "Music", "title": "One", "average_rating": 4.8, "features": ["a", "b"], \
"price": null, "images": [{"thumb": "https://p.example/t2.jpg", \
"large": "https://p.example/l2.jpg", \
"variant": "PT01", "hi_res": "https://p.example/h2.jpg"}, {"thumb": "https://p.example/t.jpg", \
"large": "https://p.example/l.jpg", "variant": "MAIN", "hi_res": null}], "store": "Shop", \
"categories": ["CDs & Vinyl", "Pop"], "details": {"A": "B"}, "parent_asin": "B0PARENT01"}
{"main_category": "Beauty", "title": "Two", "average_rating": 4.1, "features": [], \
"price": "from 3", \
"images": [], "store": null, "categories": [], "details": {}, "parent_asin": "B0PARENT02"}
"""


def test_2014_reads_literals_and_lists_of_category_paths(convert, write):
    files = ("--reviews", write("r.json", REVIEWS_2014), "--metadata", write("m.json", META_2014))
    made = convert("amazon", *files)
    assert made.rows() == [
        ("A1", "5550000001", 5.0, 1393545600.0),
        ("A2", "5550000001", 3.0, 1363392000.0),
    ]
    ((item, title, path, tokens),) = made.rows("item")
    assert (item, title) == ("5550000001", "It's ''here''")
    assert tokens == "CDs_&_Vinyl New_Age Celtic Pop Digital_Music"
    assert made.urls() == [(path, "http://pictures.example/51b5.jpg")]
    assert "generation: 2014" in made.report


def test_paths_tell_equal_labels_apart(convert, write):
    files = ("--reviews", write("r.json", REVIEWS_2014), "--metadata", write("m.json", META_2014))
    made = convert("amazon", *files, "--annotation-form", "path")
    tokens = made.rows("item")[0][3].split()
    assert len(tokens) == 6
    assert "CDs_&_Vinyl_>_New_Age_>_Celtic" in tokens
    assert "Digital_Music_>_Celtic" in tokens


def test_2018_has_duplicates_entities_and_empty_picture_lists(convert, write):
    files = ("--reviews", write("r.json", REVIEWS_2018), "--metadata", write("m.json", META_2018))
    made = convert("amazon", *files, "--annotation-fields", "categories", "brand", "rank")
    assert made.steps() == {"read": (3, 2, 2), "duplicates": (2, 2, 2)}
    assert made.rows()[0] == ("A1", "B000000001", 4.0, 1529193600.0)
    first, second = made.rows("item")
    assert first[1] == "Tom & Jerry"
    assert first[3] == "CDs_&_Vinyl Pop Acme 1_in_CDs"
    assert second == ("B000000002", None, None, "5_in_CDs")
    assert made.urls() == [(first[2], "https://pictures.example/large.jpg")]


def test_2023_joins_on_the_parent_and_counts_milliseconds(convert, write):
    files = ("--reviews", write("r.jsonl", REVIEWS_2023), "--metadata", write("m.jsonl", META_2023))
    made = convert("amazon", *files, "--annotation-fields", "categories", "store", "main_category")
    assert made.rows() == [
        ("AGK", "B0PARENT01", 5.0, 1588687728.923),
        ("AGL", "B0PARENT02", 1.0, 1676601581.0),
    ]
    first, second = made.rows("item")
    assert first[3] == "CDs_&_Vinyl Pop Shop Music"
    assert second == ("B0PARENT02", "Two", None, "Beauty")
    # The main picture, although it is not the first, in the largest existing size.
    assert made.urls() == [(first[2], "https://p.example/l.jpg")]


def test_a_category_is_found_in_any_case_and_behind_entities(convert, write):
    files = ("--reviews", write("r.json", REVIEWS_2018), "--metadata", write("m.json", META_2018))
    made = convert("amazon", *files, "--category", "cds & vinyl")
    assert {row[1] for row in made.rows()} == {"B000000001"}
    with pytest.raises(DataError, match="no item has Books"):
        convert("amazon", *files, "--category", "Books", "--name", "other")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_compressed_files_give_the_same(convert, write, suffix):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    files = (
        ("--reviews", write(f"r.jsonl{suffix}", pack(REVIEWS_2023.encode()))),
        ("--metadata", write(f"m.jsonl{suffix}", pack(META_2023.encode()))),
    )
    made = convert("amazon", *files[0], *files[1])
    assert made.rows()[0] == ("AGK", "B0PARENT01", 5.0, 1588687728.923)
    assert len(made.rows("item")) == 2


@pytest.mark.parametrize(
    ("content", "words", "rows"),
    [
        ("A1XYZABC,B000000001,5.0,1393545600\nA2XYZABC,B000000002,1.0,1363392000\n", (), 2),
        ("B000000001,A1XYZABC,5.0,1393545600\nB000000002,A2XYZABC,1.0,1363392000\n", (), 2),
        ("A1XYZABC,B000000001,5.0,1393545600\n", ("--generation", "2014"), 1),
        (
            "user_id,parent_asin,rating,timestamp\nA1XYZABC,B000000001,5.0,1393545600000\n",
            (),
            1,
        ),
    ],
)
def test_ratings_alone_are_read_whatever_the_order_of_user_and_item(
    convert, write, content, words, rows
):
    made = convert("amazon", "--reviews", write("ratings.csv", content), *words)
    assert len(made.rows()) == rows
    assert made.rows()[0] == ("A1XYZABC", "B000000001", 5.0, 1393545600.0)


def test_local_pictures_are_found_by_item_id(convert, write):
    write("pictures/B000000001.JPG", b"one")
    write("pictures/other.jpg", b"two")
    reviews = write("r.json", REVIEWS_2018)
    files = ("--reviews", reviews, "--metadata", write("m.json", META_2018))
    made = convert("amazon", *files, "--images", reviews.parent / "pictures")
    first, second = made.rows("item")
    assert (made.folder / first[2]).read_bytes() == b"one"
    assert second[2] is None
    assert not list(made.folder.glob("*image_urls*"))


@pytest.mark.parametrize(
    ("reviews", "metadata", "message"),
    [
        (META_2018, None, "holds metadata of 2018, not reviews; give it as --metadata"),
        (META_2014, None, "holds metadata of 2014, not reviews"),
        (META_2023, None, "holds metadata of 2023, not reviews"),
        (REVIEWS_2018, REVIEWS_2018, "holds reviews of 2018, not metadata; give it as --reviews"),
        (REVIEWS_2023, META_2018, "holds reviews of 2023, not of 2018"),
        (REVIEWS_2018, META_2014, "holds reviews of 2018, not of 2014"),
        ('{"a": 1}\n', None, "neither reviews nor metadata"),
        ("user,item\n1,2\n", None, "first lines are not records"),
        ("", None, "first lines are not records"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(convert, write, reviews, metadata, message):
    words = ["--reviews", write("r.json", reviews)]
    if metadata:
        words += ["--metadata", write("m.json", metadata)]
    with pytest.raises(DataError, match=message) as caught:
        convert("amazon", *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["colour", "details", "price"])
def test_a_field_that_gives_no_annotation_is_refused(convert, write, field):
    files = ("--reviews", write("r.jsonl", REVIEWS_2023), "--metadata", write("m.jsonl", META_2023))
    given = META_2023.replace('"price": "from 3"', '"price": 3')
    write("m.jsonl", given)
    with pytest.raises(DataError, match=f"no record of the metadata has .* in '{field}'"):
        convert("amazon", *files, "--annotation-fields", "categories", field)
    empty = given.replace('["CDs & Vinyl", "Pop"]', "[]")
    write("m.jsonl", empty)
    assert convert("amazon", *files).rows("item")[0][3] is None


def test_another_generation_than_the_one_given_is_refused(convert, write):
    with pytest.raises(DataError, match="holds reviews of 2023, not of 2014"):
        convert("amazon", "--generation", "2014", "--reviews", write("r.json", REVIEWS_2023))


def test_the_recipe_of_the_paper_prints_its_counts_beside(convert, write):
    reviews, records = [], []
    for item in range(6):
        records.append(
            {
                "asin": f"{item:010}",
                "imUrl": "http://p.example/1.jpg",
                "categories": [["CDs & Vinyl"]],
            }
        )
        for user in range(6 if item else 4):  # item 0 has too few
            review = {"reviewerID": f"U{user}", "asin": f"{item:010}", "helpful": [0, 0]}
            reviews.append({**review, "overall": 4.0, "unixReviewTime": item})
    records[0]["categories"] = [["CDs & Vinyl", "Rock"]]
    made = convert(
        "amazon",
        "--preset",
        "amazon-cds",
        "--reviews",
        write("r.json", "".join(json.dumps(r) + "\n" for r in reviews)),
        "--metadata",
        write("m.json", "".join(repr(r) + "\n" for r in records)),
    )
    assert made.steps()["5-core of users, 5-core of items (2 rounds)"] == (30, 6, 5)
    assert "users: 6; the paper's Table I: 67,282" in made.report
    assert "elements: 1; the paper's Table I: 467" in made.report
