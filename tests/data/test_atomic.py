"""Atomic files are read unchanged or refused with one line that names file and line."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from recbole_cierec.data.atomic import (
    MAX_LINE_BYTES,
    MISSING_NUMBERS,
    read_atomic,
    read_header,
    split_cells,
    validate_interactions,
)
from recbole_cierec.errors import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a file's content and returns its path."""

    def write_file(content: str | bytes, name: str = "toy.inter") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def refusal(path: Path, **options) -> str:
    """Return the message with which reading is refused; it must be one line with the file."""
    with pytest.raises(DataError) as caught:
        read_atomic(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert str(path) in message
    return message


def test_columns_have_their_types_and_order(write):
    table, types = read_atomic(write(HEADER + "u1\ti1\t5\nu2\ti2\t6.5\n"))
    assert types == {"user_id": "token", "item_id": "token", "timestamp": "float"}
    assert list(table) == list(types)
    assert table["user_id"].tolist() == ["u1", "u2"]
    assert table["user_id"].dtype == object
    assert table["timestamp"].tolist() == [5.0, 6.5]
    assert table["timestamp"].dtype == np.float64


def test_only_the_wanted_columns_are_kept_in_the_order_of_the_file(write):
    path = write(HEADER + "u1\ti1\t5\n")
    table, types = read_atomic(path, columns={"timestamp", "user_id"})
    assert list(table) == list(types) == ["user_id", "timestamp"]


@pytest.mark.parametrize("token", ["NA", "null", "None", "nan", "007", "1.0", "True", "é", " x"])
def test_ids_that_look_like_something_else_survive(write, token):
    table, _ = read_atomic(write(f"{HEADER}{token}\ti1\t5\n"))
    assert table["user_id"].tolist() == [token]


def test_a_stray_quote_swallows_no_lines(write):
    table, _ = read_atomic(write('a:token\tb:token\n"x\t1\ny\t2"\n5" disk\t3\n'))
    assert table["a"].tolist() == ['"x', "y", '5" disk']
    assert table["b"].tolist() == ["1", '2"', "3"]


def test_only_empty_cells_of_text_are_missing(write):
    table, _ = read_atomic(write("a:token\tb:token_seq\nx\t\n\tNA\n"))
    assert table["a"].isna().tolist() == [False, True]
    assert table["b"].isna().tolist() == [True, False]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NaN", "null"])
def test_missing_numbers_are_nan(write, cell):
    table, _ = read_atomic(write(f"a:token\tb:float\nx\t{cell}\ny\t2\n"))
    np.testing.assert_array_equal(table["b"], [np.nan, 2.0])


def test_numbers_are_read_to_the_last_digit(write):
    values = [0.1, 1 / 3, 1e-300, 123456789.123456789, -5e300]
    table, _ = read_atomic(write("a:float\tb:token\n" + "".join(f"{v!r}\tx\n" for v in values)))
    assert table["a"].tolist() == values


def test_crlf_and_byte_order_mark_are_accepted(write):
    plain, _ = read_atomic(write(HEADER + "u1\ti1\t5\nu2\ti2\t6\n", "plain.inter"))
    text = (HEADER + "u1\ti1\t5\nu2\ti2\t6\n").replace("\n", "\r\n")
    marked, types = read_atomic(write(b"\xef\xbb\xbf" + text.encode(), "marked.inter"))
    pd.testing.assert_frame_equal(plain, marked)
    assert list(types) == ["user_id", "item_id", "timestamp"]


def test_blank_lines_and_a_missing_last_line_break_do_not_matter(write):
    plain, _ = read_atomic(write("a:token\tb:token\nx\t1\ny\t2\n", "plain.item"))
    blank, _ = read_atomic(write("a:token\tb:token\n\nx\t1\n\r\n\ny\t2", "blank.item"))
    pd.testing.assert_frame_equal(plain, blank)


def test_another_separator_and_encoding(write):
    content = "a:token,b:token\nGöteborg,ÿ\n"
    for encoding in ("latin-1", "utf-16"):
        path = write(content.encode(encoding), f"{encoding}.item")
        table, _ = read_atomic(path, separator=",", encoding=encoding)
        assert table.iloc[0].tolist() == ["Göteborg", "ÿ"]


@pytest.mark.parametrize("separator", ["", "\t\t", "→", "\n", '"'])
def test_a_separator_that_is_not_one_plain_character_is_refused(write, separator):
    assert "separator" in refusal(write("a:token\nx\n"), separator=separator)


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.inter")
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("\nu1\ti1\n", "first line is blank"),
        (HEADER, "no rows"),
        (HEADER + "\n\r\n", "no rows"),
        ("user_id\titem_id\nu1\ti1\n", "line 1: 'user_id' is not field:type"),
        ("u1\ti1\t5\n", "line 1: 'u1' is not field:type"),
        (":token\nu1\n", "line 1: ':token' is not field:type"),
        (
            "user_id:token,item_id:token\nu1,i1\n",
            "line 1: its columns are separated by ',', not '\\t'; set field_separator to ','",
        ),
        ("user_id,item_id\nu1,i1\n", "or convert the table by 'python -m recbole_cierec convert"),
        ("user_id:token\t\nu1\t\n", "line 1: '' is not field:type"),
        ("user_id:tokens\nu1\n", "unknown type 'tokens'"),
        ("user_id:token \nu1\n", "unknown type 'token '"),
        ("a:b:token\nu1\n", "unknown type 'b:token'"),
        ("a:token\tb:float\ta:token\nx\t1\ty\n", "two columns are named 'a'"),
        ("a:token\0\nx\n", "line 1: holds NUL bytes"),
    ],
)
def test_a_wrong_header_is_refused(write, content, words):
    assert words in refusal(write(content))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("u1\ti1\t5\nu2\ti2\n", "line 3: has 2 cells, the header names 3"),
        ("u1\ti1\t5\n\nu2\ti\t2\t6\n", "line 4: has 4 cells"),
        ("u1\ti1\t5\nu2\ti2\tfive\n", "line 3: timestamp is 'five', which is not a number"),
        ("u1\ti1\t5\n\nu2\ti2\t1,5\nu3\ti3\tx\n", "line 4: timestamp is '1,5'"),
        ("u1\ti1\tinf\n", "line 2: timestamp is infinite"),
        ("u1\ti1\t1e999\n", "line 2: timestamp is "),  # not a number to older versions of pandas
        ("u1\ti1\t5\nu\0\ti1\t5\n", "line 3: holds a NUL byte"),
        ("u1\ti\r1\t5\n", "line 2: holds a carriage return"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(write, rows, words):
    assert words in refusal(write(HEADER + rows))


def test_a_byte_that_is_not_utf8_is_refused_with_its_line(write):
    row = b"u1\ti1\t5\n"
    assert "line 4: byte 0xe9" in refusal(write(HEADER.encode() + row * 2 + b"caf\xe9\ti\t5\n"))
    assert "line 1: byte 0xe9" in refusal(write(b"us\xe9r:token\nx\n"))
    assert "line 2: byte 0x81" in refusal(write(b"a:token\n\x81\n"), encoding="cp1252")


def test_an_unknown_encoding_is_refused(write):
    assert "unknown to Python" in refusal(write("a:token\nx\n"), encoding="utf-9")


def test_a_line_of_10_mb_is_read_or_refused_at_once(write):
    start = time.process_time()
    words = "word " * 2_000_000
    table, _ = read_atomic(write("a:token\tb:token_seq\nx\t" + words + "\n", "long.item"))
    assert table["b"].tolist() == [words]
    assert "2 cells" not in refusal(write("x" * 10_000_000, "header.item"))
    assert "has 1 cells" in refusal(write("a:token\tb:token\n" + "x" * 10_000_000, "row.item"))
    assert time.process_time() - start < 4


def test_a_file_without_line_breaks_is_refused_before_it_is_held_whole(write):
    path = write(b"a:token\tb:token\n" + b"x" * (MAX_LINE_BYTES + (1 << 25)))
    assert "line breaks" in refusal(path)


def test_blocks_are_joined_where_they_cut_lines(write, monkeypatch):
    monkeypatch.setattr("recbole_cierec.data.atomic.BLOCK_BYTES", 7)
    rows = "".join(f"user{i}\titém{i}\t{i}\r\n" for i in range(50))
    table, _ = read_atomic(write(HEADER + rows))
    assert table["item_id"].tolist() == [f"itém{i}" for i in range(50)]
    assert "line 52: has 2 cells" in refusal(write(HEADER + rows + "u\ti"))


def test_header_alone_can_be_read(write):
    path = write(HEADER + "too\tfew\n")
    assert list(read_header(path)) == ["user_id", "item_id", "timestamp"]


def check(path: Path) -> None:
    table, _ = read_atomic(path)
    validate_interactions(table, "user_id", "item_id", "timestamp", path=path)


@pytest.mark.parametrize("times", [["-5", "-1e12"], ["99999999999999", "0"], ["7", "7"]])
def test_negative_far_future_and_equal_times_are_fine(write, times):
    check(write(HEADER + "".join(f"u{i}\ti\t{t}\n" for i, t in enumerate(times))))


def test_equal_times_and_duplicates_stay_in_the_order_of_the_file(write):
    rows = [("u1", "b"), ("u1", "a"), ("u1", "b"), ("u0", "z")]
    path = write(HEADER + "".join(f"{u}\t{i}\t3\n" for u, i in rows))
    check(path)
    table, _ = read_atomic(path)
    assert list(zip(table["user_id"], table["item_id"], strict=True)) == rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("u1\ti1\t5\n\ti2\t5\n", "line 3: user_id is empty; "),
        ("u1\ti1\t5\n\nu\t\t5\nu\t \t5\nu\t\t5\n", "line 4: item_id is empty (and 2 more such"),
        ("u1\ti1\t\n", "line 2: timestamp is not a finite number"),
        ("u1\ti1\t5\nu1\ti1\tNaN\n", "line 3: timestamp is not a finite number"),
    ],
)
def test_empty_ids_and_times_are_refused(write, rows, words):
    path = write(HEADER + rows)
    with pytest.raises(DataError, match=r"toy\.inter, line") as caught:
        check(path)
    assert words in str(caught.value)


def test_infinite_times_are_refused_in_a_table_made_by_hand():
    table = pd.DataFrame({"u": ["a", "b"], "i": ["x", "y"], "t": [1.0, -np.inf]})
    with pytest.raises(DataError, match="line 3: t is not a finite number"):
        validate_interactions(table, "u", "i", "t")


def test_columns_that_are_not_there_are_not_checked():
    validate_interactions(pd.DataFrame({"x": ["", "y"]}), "u", None, "t")


def test_sequences_are_split_and_empty_cells_become_empty():
    tokens = split_cells(pd.Series(["a  b", np.nan, "c"]), "token_seq", " ")
    assert [t.tolist() for t in tokens] == [["a", "b"], [], ["c"]]
    assert all(t.dtype.kind == "U" for t in tokens)
    numbers = split_cells(pd.Series(["1|2.5", np.nan]), "float_seq", "|")
    assert [n.tolist() for n in numbers] == [[1.0, 2.5], []]
    assert all(n.dtype == np.float64 for n in numbers)


@pytest.mark.parametrize("cell", ["1 x", "nan", "1 inf 2"])
def test_a_sequence_of_numbers_with_something_else_is_refused(cell):
    cells = pd.Series(["1 2", cell], name="vector")
    with pytest.raises(DataError, match=r"line 3: vector holds an element that is not a number"):
        split_cells(cells, "float_seq", " ")


def test_what_stands_for_no_number_is_pandas_own_list():
    assert set(MISSING_NUMBERS) == STR_NA_VALUES
