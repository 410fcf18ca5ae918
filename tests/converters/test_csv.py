"""Reported line numbers of bad rows in large tables, against the lines written."""

from __future__ import annotations

import gzip
import random

import pytest

BAD = ["x{k},y", ",y{k},5", "x{k},y,five", 'x{k},"y\nz",', "x{k},y,1,2", 'x{k},"y"z,1']
WORDS = "--user-column a --item-column b --rating-column c --max-bad-share 1 --duplicates all"


@pytest.mark.parametrize("seed", range(3))
def test_lines_stay_exact_after_cells_with_line_breaks_and_rejected_rows(convert, write, seed):
    chance = random.Random(seed)
    bad = set(chance.sample(range(30_000), 12))
    rows, line, expected = ['a,b,"c"'], 2, []
    for k in range(30_000):
        if k in bad:
            expected.append(line)
            rows.append(chance.choice(BAD).format(k=k))
        else:
            rows.append(f'u{k},"i\nt{k}",{k % 5}' if k % 3 == 0 else f"u{k},i{k},{k % 5}")
        line += 1 + rows[-1].count("\n")
    content = "\n".join(rows).encode()
    name = "t.csv.gz" if seed else "t.csv"
    path = write(name, gzip.compress(content, 1) if seed else content)
    made = convert("table", "--interactions", path, *WORDS.split(), "--threads", 1 + seed)
    (entry,) = made.manifest["bad_records"]
    assert [example["line"] for example in entry["first"]] == expected
    assert (entry["bad"], entry["records"]) == (12, 30_000)
    assert len(made.rows()) == 30_000 - 12


@pytest.mark.parametrize("rows_behind", [0, 3, 1_200_000])
def test_a_quote_that_is_never_closed_does_not_end_the_table_silently(convert, write, rows_behind):
    rows = "".join(f"u{k},i{k},{k}\n" for k in range(rows_behind))
    path = write("t.csv", f'a,b,c\nu,"i\ni",1\nu,9"i,2\nu,"i,3\n{rows}')
    made = convert("table", "--interactions", path, *WORDS.split())
    assert [row[1] for row in made.rows()] == ["i%0Ai", "9%22i"]
    (entry,) = made.manifest["bad_records"]
    reason = "is not a row (a quote is misplaced or never closed)"
    assert entry["first"] == [{"line": 5, "reason": reason}]


def test_text_in_a_cell_that_looks_like_rows_is_text(convert, write):
    """Large enough for a multi-threaded reader to start in the middle of such a cell."""
    cell = "".join(f"u{k},i{k},{k % 5}\n" for k in range(400))
    rows = "".join(f'r{k},"{cell}",5\n' for k in range(15_000))
    path = write("t.csv", f"a,b,c\n{rows}bad,row\n")
    words = "--user-column a --item-column a --rating-column c --max-bad-share 1"
    made = convert("table", "--interactions", path, *words.split(), "--threads", 4)
    assert len(made.rows()) == 15_000
    assert made.manifest["bad_records"][0]["first"] == [
        {"line": 2 + 15_000 * 401, "reason": "has 2 cells instead of 3"}
    ]


def test_other_encodings_have_their_lines_too(convert, write):
    rows = ["a,b,c", "ä1,i,1", 'ä2,"i\ni",1', "ä3,i", "ä4,i,x"]
    path = write("t.csv", "\n".join(rows).encode("cp1252"))
    made = convert("table", "--interactions", path, *WORDS.split(), "--encoding", "cp1252")
    assert [row[0] for row in made.rows()] == ["ä1", "ä2"]
    assert [example["line"] for example in made.manifest["bad_records"][0]["first"]] == [5, 6]


def test_bytes_that_are_not_of_the_encoding_are_bad_rows(convert, write):
    path = write("t.csv", b"a,b,c\nu1,i,1\nu\x81,i,1\nu3,i,1\n")
    made = convert("table", "--interactions", path, *WORDS.split(), "--encoding", "cp1252")
    assert [row[0] for row in made.rows()] == ["u1", "u3"]
    assert made.manifest["bad_records"][0]["first"] == [{"line": 3, "reason": "is not cp1252"}]
