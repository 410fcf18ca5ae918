"""The picture of an Amazon product in every form of the field, and other addresses."""

from __future__ import annotations

import json

import pytest

from recbole_cierec.errors import ConfigError

SHOP = "https://images.example/images"
GRAPHICS = "http://g-ecx.images-amazon.com/images/G/01"


def record_2023(hi_res, large, variant="MAIN", thumb="https://p.example/t.jpg") -> dict:
    return {"hi_res": hi_res, "large": large, "thumb": thumb, "variant": variant}


def columns_2023(**columns: list) -> dict:
    return {"hi_res": [], "large": [], "thumb": [], "variant": [], **columns}


@pytest.fixture
def amazon(convert, write):
    """``amazon(fields of the records, *words)``: one product a record, of one generation."""

    def call(records: list[dict], *words: object, generation: str = "2018"):
        new = generation == "2023"
        item, mark = ("parent_asin", {"average_rating": 4.5}) if new else ("asin", {})
        if generation == "2018":
            mark = {"main_cat": "Pets", "also_buy": []}
        lines, reviews = [], []
        for k, record in enumerate(records):
            lines.append({item: f"B{k:09}", "title": f"T{k}", **mark, **record})
            if new:
                review = {"user_id": f"A{k}", item: f"B{k:09}", "rating": 5, "timestamp": k}
            else:
                review = {"reviewerID": f"A{k}", item: f"B{k:09}", "overall": 5.0}
                review["unixReviewTime"] = k
                review["helpful" if generation == "2014" else "verified"] = [0, 0]
            reviews.append(review)
        text = repr if generation == "2014" else json.dumps
        files = ["--reviews", write("r.json", "\n".join(map(json.dumps, reviews)))]
        files += ["--metadata", write("m.json", "\n".join(map(text, lines)))]
        return convert("amazon", *files, *words)

    return call


@pytest.mark.parametrize(
    ("generation", "fields", "address"),
    [
        ("2014", {"imUrl": f"{SHOP}/I/51a.jpg"}, f"{SHOP}/I/51a.jpg"),
        ("2014", {"imUrl": f"{SHOP}/I/51a._SX300_.jpg"}, f"{SHOP}/I/51a._SX300_.jpg"),
        # The first release of 2018 has only these; the server scales by the name.
        ("2018", {"image": [f"{SHOP}/I/51a._SS40_.jpg", "x"]}, f"{SHOP}/I/51a.jpg"),
        ("2018", {"image": [f"{SHOP}/I/5-a._SX38_SY50_CR,0,0,38,50_.jpg"]}, f"{SHOP}/I/5-a.jpg"),
        (
            "2018",
            {"imageURL": [f"{SHOP}/I/1._US40_.jpg"], "imageURLHighRes": [f"{SHOP}/I/2.jpg"]},
            f"{SHOP}/I/2.jpg",
        ),
        ("2018", {"imageURL": [f"{SHOP}/I/1.jpg"], "imageURLHighRes": []}, f"{SHOP}/I/1.jpg"),
        ("2018", {"imageURL": f"{SHOP}/I/1.jpg"}, f"{SHOP}/I/1.jpg"),
        ("2023", {"images": [record_2023(f"{SHOP}/h", f"{SHOP}/l")]}, f"{SHOP}/h"),
        ("2023", {"images": [record_2023(None, f"{SHOP}/l")]}, f"{SHOP}/l"),
        ("2023", {"images": [record_2023(None, None)]}, "https://p.example/t.jpg"),
        (
            "2023",
            {"images": [record_2023(f"{SHOP}/1", None, "PT01"), record_2023(f"{SHOP}/2", None)]},
            f"{SHOP}/2",
        ),
        (
            "2023",
            {"images": [record_2023(None, None, "MAIN", None), record_2023(None, f"{SHOP}/2")]},
            f"{SHOP}/2",
        ),
        # One record of lists, as the datasets library writes the table.
        (
            "2023",
            {
                "images": columns_2023(
                    hi_res=[None, f"{SHOP}/h2"],
                    large=[f"{SHOP}/l1", f"{SHOP}/l2"],
                    variant=["MAIN", "PT01"],
                )
            },
            f"{SHOP}/l1",
        ),
        (
            "2023",
            {"images": columns_2023(hi_res=[f"{SHOP}/1", f"{SHOP}/2"], variant=["PT01", "MAIN"])},
            f"{SHOP}/2",
        ),
        ("2023", {"images": columns_2023(large=[f"{SHOP}/1"])}, f"{SHOP}/1"),
    ],
)
def test_a_picture_is_found_in_every_form(amazon, generation, fields, address):
    made = amazon([fields, {}], generation=generation)
    assert [url for _, url in made.urls()] == [address]
    assert f"generation: {generation}" in made.report
    assert "items of the input with a picture: 1 of 2" in made.report


@pytest.mark.parametrize(
    ("generation", "fields"),
    [
        ("2014", {"imUrl": None}),
        ("2018", {"image": []}),
        ("2018", {"image": [None], "imageURL": 5, "imageURLHighRes": {"a": 1}}),
        ("2023", {"images": columns_2023()}),
        ("2023", {"images": "none"}),
        ("2023", {"images": [[1]]}),
    ],
)
def test_no_picture_at_all_is_said_aloud(amazon, generation, fields):
    made = amazon([fields] * 3, generation=generation)
    (warning,) = [line for line in made.report if line.startswith("warning: ")]
    assert "none of 3 items has a picture; they were looked for in the fields" in warning
    assert not list(made.folder.glob("*image_urls*"))


@pytest.mark.parametrize(
    ("generation", "icon"),
    [
        ("2014", f"{GRAPHICS}/x-site/icons/no-img-sm._CB192198896_.gif"),
        ("2014", f"{GRAPHICS}/x-site/icons/update-page._CB192192236_.gif"),
        ("2018", f"{GRAPHICS}/nav2/dp/no-image-avail-tny.gif"),
        ("2018", "https://images-na.ssl-images-amazon.com/images/I/01RmK%2BJ4pJL.gif"),
        ("2023", "https://m.media-amazon.com/images/I/01RmK+J4pJL._AC_.gif"),
    ],
)
def test_an_icon_for_no_picture_is_none(amazon, generation, icon):
    def fields(url):
        forms = {"2014": {"imUrl": url}, "2018": {"image": [url]}}
        return forms.get(generation, {"images": [record_2023(url, None)]})

    real = f"{GRAPHICS}/kindle/dp/2012/KC.jpg"  # the shop's own products are among its graphics
    made = amazon([fields(icon), fields(real)], "--require", "picture", generation=generation)
    assert [url for _, url in made.urls()] == [real]
    assert [row[1] for row in made.rows()] == ["B000000001"]
    assert "items whose picture is a 'no image' icon: 1" in made.report


def urls(*names: str) -> list[dict]:
    return [{"imageURL": [f"https://p.example/{name}"]} for name in names]


def test_a_picture_that_many_items_share_is_warned_of_and_can_be_dropped(amazon):
    records = urls(*(f"{k}.jpg" for k in range(57)), *["soon.png"] * 3)
    made = amazon(records)
    (warning,) = [line for line in made.report if line.startswith("warning: ")]
    assert "3 of 60 items with a picture share 'https://p.example/soon.png'" in warning
    made = amazon(records, "--no-picture", "SOON", "--overwrite")
    assert not [line for line in made.report if line.startswith("warning: ")]
    assert len(made.urls()) == 57


def test_a_picture_of_two_colours_of_a_product_is_no_cause_for_a_warning(amazon):
    made = amazon(urls(*(f"{k // 2}.jpg" for k in range(40))))
    assert not [line for line in made.report if line.startswith("warning: ")]


def test_an_empty_text_is_in_every_address_and_refused(amazon):
    with pytest.raises(ConfigError, match="--no-picture"):
        amazon(urls("1.jpg"), "--no-picture", " ")


def test_fields_that_differ_by_case_only_cannot_both_be_read(amazon):
    record = {"title": "one", "Title": "two"}
    with pytest.raises(ValueError, match="'title' and 'Title' differ by case only"):
        amazon([record], "--annotation-fields", "Title")
