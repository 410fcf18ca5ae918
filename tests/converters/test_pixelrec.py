"""PixelRec's tables and covers."""

from __future__ import annotations

import pandas as pd
import pytest

from recbole_cierec.errors import DataError

PAIRS = "item_id,user_id,timestamp\ni7,u0,1655000000\ni012,u0,1655000100\ni7,u3,1655000200\n"
ITEMS = """item_id,view_number,comment_number,title,tag,description
i7,100,2,"Cats, all day",Life,"A film
of cats"
i012,5,0,Chess,"Game, Sport",
i9,1,0,Nothing,Life,
"""


@pytest.fixture
def words(write) -> list:
    write("cover/i7.jpg", b"cats")
    cover = write("cover/i012.jpg", b"chess").parent
    pairs, items = write("Pixel200K.csv", PAIRS), write("info.csv", ITEMS)
    return ["pixelrec", "--interactions", pairs, "--items", items, "--images", cover]


def test_the_tables_as_published(convert, words):
    made = convert(*words)
    assert made.rows() == [
        ("u0", "i7", 1655000000.0),
        ("u0", "i012", 1655000100.0),
        ("u3", "i7", 1655000200.0),
    ]
    cats, chess = made.rows("item")
    assert (cats[0], cats[1], cats[3]) == ("i7", "Cats, all day", "Life")
    assert (chess[0], chess[3]) == ("i012", "Game Sport")
    assert (made.folder / chess[2]).read_bytes() == b"chess"


def test_parquet_gives_the_same_files(convert, words):
    plain = convert(*words, "--name", "plain")
    for place in (2, 4):
        path = words[place]
        pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
        words[place] = path.with_suffix(".parquet")
    made = convert(*words)
    assert (made.rows(), made.rows("item")) == (plain.rows(), plain.rows("item"))


@pytest.mark.parametrize(
    ("file", "content", "words_of_error"),
    [
        ("Pixel200K.csv", PAIRS.replace("timestamp", "time"), ["PixelRec's interactions", "time"]),
        ("Pixel200K.csv", PAIRS.replace("1655000200", "late"), ["line 4", "timestamp"]),
        ("info.csv", ITEMS.replace("tag,", "tags,"), ["PixelRec's items", "no column tag"]),
    ],
)
def test_a_wrong_file_is_one_line(convert, words, write, file, content, words_of_error):
    write(file, content)
    with pytest.raises(DataError) as error:
        convert(*words, "--max-bad-share", "0")
    assert all(word in str(error.value) for word in words_of_error), str(error.value)


def test_a_missing_file_is_one_line(convert, words):
    words[2].unlink()
    with pytest.raises(DataError, match=r"Pixel200K\.csv: no such file"):
        convert(*words)
