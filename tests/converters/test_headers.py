"""First lines of tables as spreadsheets and pandas leave them."""

from __future__ import annotations

import pytest

from recbole_cierec.errors import DataError

ROWS = "u1,i1\nu2,i2\n"
PAIRS = [("u1", "i1"), ("u2", "i2")]


def test_a_column_without_a_name_is_left_out_and_said(convert, write):
    content = ",user_id,item_id\n0,u1,i1\n3,u2,i2\n"
    made = convert("table", "--interactions", write("t.csv", content))
    assert made.rows() == PAIRS
    (note,) = [line for line in made.report if "without a name" in line]
    assert "t.csv: not read: columns without a name, the first is column 1" in note


@pytest.mark.parametrize(
    "head",
    [
        "user_id,item_id,,",
        "user_id,item_id,Item_ID,ITEM_ID",
        "user_id,item_id,note,note",
        'user_id,item_id,a\'b,a"""b',
        "user_id,item_id,^item_id,^Item_id",
        "\ufeffuser_id,item_id,\u00a0,c",
        '\ufeff"user_id","item_id",a,b',
        "\ufeff user_id ,\titem_id\u00a0,a,b",
        '"user_id","item_id","two\nlines",b',
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_columns_that_are_not_read_may_be_named_as_they_like(convert, write, head, quoted):
    row = '"{}","{}",x,y\n' if quoted else "{},{},x,y\n"
    content = "".join([head + "\n", *(row.format(*pair) for pair in PAIRS)])
    assert convert("table", "--interactions", write("t.csv", content)).rows() == PAIRS


def test_of_columns_that_differ_by_case_each_can_be_read(convert, write):
    path = write("t.csv", "user,item,Item\nu1,a,Lamp\nu2,b,Chair\n")
    words = ["--interactions", path, "--items", path, "--user-column", "user"]
    words += ["--item-column", "item", "--annotation-columns", "Item", "item"]
    made = convert("table", *words)
    assert [(row[0], row[3]) for row in made.rows("item")] == [("a", "Lamp a"), ("b", "Chair b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id,item_id\na,1,2\n", "line 1: two columns are named 'item_id'; rename one"),
        ("user_id,Item_ID\na,1\n", r"no column item_id .*; did you mean 'Item_ID'\?"),
        ("user;item\na;1\n", r"it has: user;item\); is the separator another one\?"),
        ("user;item_id\na;1\n", r"no column user_id \(it has: user, item_id\); name the column"),
        (",\na,1\n", "no column user_id, item_id"),
        ('user_id,"item_id\na,1\n', "line 1: does not name the columns"),
        ("user_id,item_\x1b[31mid\na,1\n", "line 1: is not utf-8 text"),
    ],
)
def test_a_first_line_that_cannot_be_used_is_refused_with_what_to_do(
    convert, write, content, message
):
    with pytest.raises(DataError, match=message) as caught:
        convert("table", "--interactions", write("t.csv", content))
    assert str(caught.value).isprintable()


def test_a_mark_of_utf8_contradicts_another_encoding(convert, write):
    path = write("t.csv", f"\ufeffuser_id,item_id\n{ROWS}")
    with pytest.raises(DataError, match="is marked as UTF-8, not latin-1; leave out --encoding"):
        convert("table", "--interactions", path, "--encoding", "latin-1")
    assert convert("table", "--interactions", path, "--encoding", "UTF8").rows() == PAIRS


def test_files_of_a_release_are_read_by_the_names_of_their_columns(convert, write):
    """Saved again by pandas with its index, and in another order."""
    rows = ",movieId,timestamp,userId,rating\n0,7,964982703,1,4.0\n1,8,964982704,2,3.0\n"
    folder = write("ratings.csv", rows).parent
    write("movies.csv", ",genres,movieId,title\n0,War|Drama,7,Seven\n1,Sci-Fi,8,Eight\n")
    made = convert("movielens", "--folder", folder)
    assert made.rows() == [("1", "7", 4.0, 964982703.0), ("2", "8", 3.0, 964982704.0)]
    assert [(row[0], row[1], row[3]) for row in made.rows("item")] == [
        ("7", "Seven", "War Drama"),
        ("8", "Eight", "Sci-Fi"),
    ]


def test_keys_of_records_that_differ_by_case_are_told_apart(convert, write):
    lines = '{"user_id": "u1", "item_id": "i1", "Item_ID": "x"}\n'
    path = write("t.jsonl", lines + '{"user_id": "u2", "Item_ID": "x", "item_id": "i2"}\n')
    assert convert("table", "--interactions", path).rows() == PAIRS
    words = ["--items", path, "--title-column", "Item_ID", "--overwrite"]
    with pytest.raises(DataError, match="'item_id' and 'Item_ID' differ by case only"):
        convert("table", "--interactions", path, *words)
