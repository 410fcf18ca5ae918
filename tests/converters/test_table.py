"""Any table: the same rows in every form give the same data set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from recbole_cierec.config import Config
from recbole_cierec.errors import DataError, UserError

ROWS = [
    ("u 1", "i/1", 4.5, 1393545600, ["Rock", "Pop & Jazz"], "a.jpg"),
    ('u"2', "i/2", 3.0, 1393545601, [], ""),
    ("\u00fc3", "../i3", 1.0, 1393545602, ["Rock"], "sub/b.png"),
]
NAMES = ("who", "what", "stars", "when", "tags", "file")
WORDS = "--user-column who --item-column what --rating-column stars --time-column when".split()
ITEM_WORDS = "--annotation-columns tags --image-column file".split()


def cells(row: tuple) -> list[str]:
    return [str(cell) if not isinstance(cell, list) else "|".join(cell) for cell in row]


def csv_text(separator: str) -> str:
    quoted = ['"' + cell.replace('"', '""') + '"' for row in ROWS for cell in cells(row)]
    lines = [separator.join(quoted[k : k + 6]) for k in range(0, len(quoted), 6)]
    return "\n".join([separator.join(NAMES), *lines]) + "\n"


def table_file(form: str, write) -> Path:
    if form in ("t.csv", "t.tsv"):
        return write(form, csv_text("," if form == "t.csv" else "\t"))
    if form == "t.csv.gz":
        return write(form, gzip.compress(csv_text(",").encode()))
    lines = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
    path = write("t.jsonl", lines)
    if form == "t.parquet":
        path = path.with_suffix(".parquet")
        source = path.with_suffix(".jsonl")
        duckdb.connect().execute(f"COPY (FROM read_json('{source}')) TO '{path}' (FORMAT parquet)")
    return path


@pytest.mark.parametrize("form", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.parquet"])
def test_every_form_gives_the_same_rows_with_safe_ids(convert, write, form):
    path = table_file(form, write)
    write("pictures/a.jpg", b"one")
    write("pictures/sub/b.png", b"two")
    words = ("--images", path.parent / "pictures", *WORDS, *ITEM_WORDS)
    made = convert("table", "--interactions", path, "--items", path, *words)
    assert made.rows() == [
        ("u%201", "i/1", 4.5, 1393545600.0),
        ("u%222", "i/2", 3.0, 1393545601.0),
        ("\u00fc3", "../i3", 1.0, 1393545602.0),
    ]
    items = made.rows("item")
    assert [row[0] for row in items] == ["i/1", "i/2", "../i3"]
    assert [row[3] for row in items] == ["Rock Pop_&_Jazz", None, "Rock"]
    assert (made.folder / items[0][2]).read_bytes() == b"one"
    assert items[1][2] is None
    assert (made.folder / items[2][2]).read_bytes() == b"two"
    assert all(p.resolve().is_relative_to(made.folder) for p in made.folder.rglob("*"))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_each_file_has_its_own_separator(convert, write, mark):
    inter = write("t.csv", "user_id,item_id\na,1\nb,2\n")
    rows = f'item_id{mark}"tags"{mark}title\n1{mark}Rock{mark}"A, B{mark} C"\n2{mark}{mark}D\n'
    words = ["table", "--interactions", inter, "--items", write("i.csv", rows)]
    words += ["--title-column", "title", "--annotation-columns", "tags"]
    made = convert(*words)
    assert made.rows() == [("a", "1"), ("b", "2")]
    assert [row[1] for row in made.rows("item")] == [f"A, B{mark} C".replace("\t", ""), "D"]
    assert f"i.csv: columns are separated by {mark!r}" in "\n".join(made.report)
    with pytest.raises(DataError, match=r"t\.csv: is not such a table: no column user_id"):
        convert(*words, "--separator", ";", "--overwrite")


def test_other_encodings_are_read_and_named(convert, write):
    path = write("t.csv", csv_text(",").encode("latin-1"))
    words = ("--interactions", path, *WORDS)
    with pytest.raises(DataError, match="line 4, is not utf-8"):
        convert("table", *words)
    assert convert("table", *words, "--encoding", "latin-1").rows()[2][0] == "\u00fc3"
    utf16 = write("u.csv", csv_text(",").encode("utf-16"))
    made = convert("table", "--interactions", utf16, *WORDS, "--encoding", "utf-16", "--overwrite")
    assert made.rows()[2][0] == "\u00fc3"


def test_data_without_ratings_and_times_have_no_such_columns(convert, write):
    path = write("t.csv", "\ufeffuser_id,item_id\na,1\nb,2\n")
    made = convert("table", "--interactions", path)
    header = (made.folder / "made.inter").read_text().splitlines()[0]
    assert header == "user_id:token\titem_id:token"
    assert made.rows() == [("a", "1"), ("b", "2")]
    assert not (made.folder / "made.item").exists()  # a header alone would be refused
    assert "without times interactions are split at random" in "".join(made.report)
    keys = {"data_path": str(made.folder.parent)}
    assert Config("MF", "made", config_dict=keys)["eval_args"]["order"] == "RO"


def test_another_separator_between_labels_is_noted(convert, write):
    rows = "item_id,tags\n1,Rock;Pop\n2,Jazz;Rock\n3,Rock\n"
    inter, items = write("t.csv", "user_id,item_id\na,1\nb,2\n"), write("i.csv", rows)
    words = ("--interactions", inter, "--items", items, "--annotation-columns", "tags")
    said = "".join(convert("table", *words).report)
    assert "tags: no cell holds '|', and 67% hold ';'" in said
    made = convert("table", *words, "--annotation-separator", ";", "--overwrite")
    assert "no cell holds" not in "".join(made.report)


@pytest.mark.parametrize(
    ("header", "items", "said"),
    [
        ("user,item_id", "item_id", "no column user_id .* name the column by --user-column"),
        ("user_id,item_id", "sku", "no column item_id .* name the column by --item-key"),
    ],
)
def test_a_missing_column_is_named_with_its_option(convert, write, header, items, said):
    inter, table = write("t.csv", f"{header}\na,1\n"), write("i.csv", f"{items},b\n1,2\n")
    with pytest.raises(DataError, match=said):
        convert("table", "--interactions", inter, "--items", table)


@pytest.mark.parametrize(
    ("cell", "unit", "seconds"),
    [
        ("1588687728923", "ms", 1588687728.923),
        ("-5", "s", -5.0),
        ("2014-02-28", "s", 1393545600.0),
        ("2014-02-28T00:00:00Z", "s", 1393545600.0),
        ("2014-02-28 01:00:00+01:00", "s", 1393545600.0),
    ],
)
def test_times_are_numbers_of_any_unit_or_iso_dates(convert, write, cell, unit, seconds):
    path = write("t.csv", f"user_id,item_id,t\na,1,{cell}\n")
    made = convert("table", "--interactions", path, "--time-column", "t", "--time-unit", unit)
    assert made.rows() == [("a", "1", seconds)]


@pytest.mark.parametrize("when", ["", "nan", "inf", "1e999", "soon"])
def test_a_time_that_is_none_is_a_bad_row(convert, write, when):
    path = write("t.csv", f"user_id,item_id,t\na,1,5\nb,2,{when}\n")
    with pytest.raises(DataError, match="line 3, timestamp is missing or malformed"):
        convert("table", "--interactions", path, "--time-column", "t")


def test_empty_and_blank_ids_are_bad_rows(convert, write):
    path = write("t.csv", "user_id,item_id\na,1\n,1\n  ,1\nb,\nNA,null\n")
    made = convert("table", "--interactions", path, "--max-bad-share", "0.9")
    assert made.rows() == [("a", "1"), ("NA", "null")]
    assert [entry["line"] for entry in made.manifest["bad_records"][0]["first"]] == [3, 4, 5]


def test_an_id_is_never_a_path(convert, write):
    items = ["../../secret", "/etc/passwd", "a/b", "con", "x" * 300, "\U0001f3b5"]
    write("secret.jpg", b"secret")
    write("pictures/deep/x.jpg", b"x")
    rows = "".join(f"a,{item},{item}.jpg\n" for item in items)
    path = write("t.csv", f"user_id,item_id,file\n{rows}")
    folder = path.parent / "pictures" / "deep"
    words = ("--images", folder, "--min-match", "0")
    made = convert("table", "--interactions", path, "--items", path, *words)
    assert [row[:3] for row in made.rows("item")] == [(item, None, None) for item in items]
    words = ("--image-column", "file", "--images", folder, "--overwrite", "--min-match", "0")
    made = convert("table", "--interactions", path, "--items", path, *words)
    assert {row[2] for row in made.rows("item")} == {None}
    assert f"not in {folder}: 6 of 6" in "\n".join(made.report)


def test_pictures_of_another_kind_are_left_out_and_named(convert, write):
    files = {"1": "a.tiff", "2": "b.avif", "3": "noext", "4": "c.png", "5": "d.TIF"}
    for file, form in zip(files.values(), ("TIFF", None, "PNG", "PNG", "TIFF"), strict=True):
        path = write(f"pictures/{file}", b"\0\0\0 ftypavif")
        if form:
            Image.new("RGB", (8, 8)).save(path, form)
    rows = "".join(f"u,{item},{file}\n" for item, file in files.items())
    table = write("t.csv", f"user_id,item_id,file\n{rows}")
    words = ("--image-column", "file", "--images", path.parent)
    made = convert("table", "--interactions", table, "--items", table, *words)
    assert [row[0] for row in made.rows("item") if row[2]] == ["3", "4"]
    assert (made.folder / made.rows("item")[2][2]).read_bytes() == (
        path.parent / "noext"
    ).read_bytes()
    said = "left out: 3 are no JPEG, PNG, WebP, GIF or BMP, such as 'a.tiff'; convert them first"
    assert said in "\n".join(made.report)
    assert "with a picture: 2" in made.report


def test_urls_go_to_the_list_and_pictures_by_id_need_no_table_of_items(convert, write):
    path = write("t.csv", "user_id,item_id,p\na,1,https://p.example/1.png\nb,2,\n")
    made = convert("table", "--interactions", path, "--items", path, "--image-column", "p")
    first, second = made.rows("item")
    assert made.urls() == [(first[2], "https://p.example/1.png")]
    assert second[2] is None
    write("pictures/2.webp", b"two")
    words = ("--images", path.parent / "pictures", "--overwrite")
    made = convert("table", "--interactions", path, *words)
    assert [row[0] for row in made.rows("item")] == ["1", "2"]
    assert (made.folder / made.rows("item")[1][2]).read_bytes() == b"two"


def test_the_first_of_several_rows_of_an_item_describes_it(convert, write):
    items = write("i.csv", "item_id,name\n1,first\n1,second\n2,other\n")
    path = write("t.csv", "user_id,item_id\na,1\na,2\n")
    words = ("--interactions", path, "--items", items, "--title-column", "name")
    assert [row[1] for row in convert("table", *words).rows("item")] == ["first", "other"]


ITEMS = """item_id,price,colour of it,code,empty,size
1,9.5,"dark\tblue ""XL"" x",007,,1
2,1e3,red,12,,NaN
3,,[PAD],13,,nan
"""


def test_columns_of_items_are_kept_with_their_types(convert, write):
    inter, items = write("t.csv", "user_id,item_id\na,1\na,2\nb,3\n"), write("i.csv", ITEMS)
    words = ("--interactions", inter, "--items", items, "--columns", "price", "colour of it")
    made = convert("table", *words, "code", "empty", "size")
    head = (made.folder / "made.item").read_text().splitlines()[0].split("\t")[4:]
    assert head == "price:float colour_of_it:token code:token empty:token size:float".split()
    assert [row[4:] for row in made.rows("item")] == [
        (9.5, "dark blue ''XL'' x", "007", None, 1.0),
        (1000.0, "red", "12", None, None),
        (None, "%5BPAD%5D", "13", None, None),
    ]
    said = f"columns kept in NAME.item: {', '.join(head)}"
    assert said in made.report


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["price", "colour"], r"no column colour \(it has: item_id, price.*by --columns"),
        (["title"], "--columns title: title is a column of its own"),
        (["rating"], "--columns rating: rating is a column of its own"),
        (["a b", "a_b"], "--columns a_b: gives the name 'a_b'; rename it"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(convert, write, columns, message):
    inter, items = write("t.csv", "user_id,item_id\na,1\n"), write("i.csv", ITEMS)
    with pytest.raises(UserError, match=message):
        convert("table", "--interactions", inter, "--items", items, "--columns", *columns)
    with pytest.raises(UserError, match="--columns are columns of --items"):
        convert("table", "--interactions", inter, "--columns", *columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "the first line is empty"),
        ("t.csv", "user_id,item_id\n", "holds no records"),
        ("t.csv", "user,item\na,1\n", "no column user_id, item_id"),
        ("t.csv", "user_id,item_id,item_id\na,1,2\n", "two columns are named"),
        ("t.csv", b"\x00\x01\x02\n", "not utf-8 text"),
        ("t.parquet", b"PAR1 or not", "parquet"),
        ("t.jsonl", '{"user": 1}\n', "no column user_id, item_id"),
        ("t.xlsx", "x", "rename it or set --separator"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(convert, write, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        convert("table", "--interactions", write(name, content))
    assert "\n" not in str(caught.value)
