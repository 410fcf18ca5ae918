"""H&M's tables: zeros at the start of ids, days, annotations and pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import programs
import pytest

from recbole_cierec.errors import DataError

TRANSACTIONS = """t_dat,customer_id,article_id,price,sales_channel_id
2018-09-20,000058a1,0108775015,0.0508,2
2018-09-20,000058a1,0541518023,0.0305,2
2018-09-21,00007d2d,0108775015,0.0152,1
"""
ARTICLES = """article_id,product_code,prod_name,product_type_name,graphical_appearance_name,\
colour_group_name,garment_group_name,detail_desc
0108775015,0108775,Strap top,Vest top,Solid,Black,Jersey Basic,"A top, of jersey."
0541518023,0541518,Rae Push,Bra,Unknown,Light Pink,"Under-, Nightwear",
"""


@pytest.fixture
def folder(write) -> Path:
    write("transactions_train.csv", TRANSACTIONS)
    for name in ("010/0108775015.jpg", "054/0541518023.jpg"):
        write(f"images/{name}", name.encode())
    return write("articles.csv", ARTICLES).parent


def test_the_tables_as_published(convert, folder):
    made = convert("hm", "--folder", folder)
    assert made.rows() == [
        ("000058a1", "0108775015", 1537401600.0),
        ("000058a1", "0541518023", 1537401600.0),
        ("00007d2d", "0108775015", 1537488000.0),
    ]
    top, bra = made.rows("item")
    assert (top[0], top[1], top[3]) == (
        "0108775015",
        "Strap top",
        "Vest_top Solid Black Jersey_Basic",
    )
    assert bra[3] == "Bra Light_Pink Under-,_Nightwear"  # Unknown is no annotation
    assert (made.folder / top[2]).read_bytes() == b"010/0108775015.jpg"


def test_parquet_with_ids_as_numbers_gives_the_same_files(convert, folder):
    plain = convert("hm", "--folder", folder, "--name", "plain")
    for name in ("transactions_train", "articles"):
        path = folder / f"{name}.csv"
        pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))  # article ids become integers
        path.unlink()
    made = convert("hm", "--folder", folder)
    assert (made.rows(), made.rows("item")) == (plain.rows(), plain.rows("item"))


def test_days_begin_in_utc_wherever_the_machine_is(folder, tmp_path):
    words = "convert", "hm", "--folder", str(folder), "--output", str(tmp_path), "--name", "far"
    done = programs.start(*words, "--after", "2018-09-20", cwd=folder, TZ="Asia/Tokyo")
    assert done.wait() == 0, done.stderr
    lines = (tmp_path / "far" / "far.inter").read_text().splitlines()
    assert [float(line.split("\t")[2]) for line in lines[1:]] == [1537401600.0] * 2 + [1537488000.0]


def test_other_columns_of_annotations(convert, folder):
    made = convert("hm", "--folder", folder, "--annotation-columns", "colour_group_name")
    assert [row[3] for row in made.rows("item")] == ["Black", "Light_Pink"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("transactions_train.csv", None, ["transactions_train.csv: no such file"]),
        ("articles.csv", None, ["articles.csv: no such file"]),
        ("articles.csv", ARTICLES.replace("prod_name", "name"), ["not the articles of H&M"]),
        (
            "transactions_train.csv",
            TRANSACTIONS.replace("2018-09-21", "x"),
            ["line 4", "timestamp"],
        ),
        ("transactions_train.csv", TRANSACTIONS.replace(",1\n", "\n"), ["line 4", "4 cells"]),
    ],
)
def test_a_wrong_file_is_one_line(convert, folder, write, file, content, words):
    if content is None:
        (folder / file).unlink()
    else:
        write(file, content)
    with pytest.raises(DataError) as error:
        convert("hm", "--folder", folder, "--max-bad-share", "0")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
