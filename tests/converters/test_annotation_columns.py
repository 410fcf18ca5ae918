"""The cells of annotation columns: labels, flags or numbers."""

from __future__ import annotations

import csv
import io
import json

import pytest


@pytest.fixture
def annotate(convert, write):
    """``annotate({column: cells}, *words)`` -> tokens of each item, and the report."""

    def call(columns: dict[str, list], *words: object):
        count = len(next(iter(columns.values())))
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["user_id", "item_id", *columns])
        for k in range(count):
            rows.writerow([f"u{k}", f"i{k}", *(cells[k] for cells in columns.values())])
        path = write("t.csv", text.getvalue())
        words = ["--annotation-columns", *columns, *words]
        made = convert("table", "--interactions", path, "--items", path, *words)
        return [(row[3] or "").split() for row in made.rows("item")], made.report

    return call


@pytest.mark.parametrize(
    ("true", "false"),
    [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("TRUE", "false"), ("yes", "no"), ("1", "")],
)
def test_a_flag_gives_the_name_of_its_column(annotate, true, false):
    columns = {"Action": [true, false, false, true], "is_new": [false, false, true, true]}
    tokens, report = annotate(columns)
    assert tokens == [["Action"], [], ["is_new"], ["Action", "is_new"]]
    assert ("flags, annotated by the column's name where they are true: Action, is_new") in report


def test_flags_are_told_by_the_whole_column(annotate):
    tokens, report = annotate({"seasons": ["1", "0", "2"], "answer": ["yes", "no", "maybe"]})
    assert tokens == [["seasons=1", "yes"], ["seasons=0", "no"], ["seasons=2", "maybe"]]
    assert not any(line.startswith("flags") for line in report)


def test_numbers_of_two_columns_are_not_the_same_annotation(annotate):
    tokens, report = annotate({"size": ["5", "7.5", ""], "colour_code": ["5", "07", "nan"]})
    assert tokens == [["size=5", "colour_code=5"], ["size=7.5", "colour_code=07"], []]
    assert "numbers, annotated as column=number: size, colour_code" in report


def test_whole_numbers_are_written_alike_with_and_without_a_point(annotate):
    tokens, _ = annotate({"year": ["1995.0", "1995", "1996."]})
    assert tokens == [["year=1995"], ["year=1995"], ["year=1996"]]


def test_several_numbers_in_a_cell_are_several_annotations(annotate):
    assert annotate({"genre": ["1|12", "3", "[4, 5]"]})[0] == [
        ["genre=1", "genre=12"],
        ["genre=3"],
        ["genre=4", "genre=5"],
    ]


@pytest.mark.parametrize(("distinct", "warned"), [(40, True), (4, False)])
def test_a_measurement_is_a_poor_annotation(annotate, distinct, warned):
    _, report = annotate({"price": [f"{k % distinct}.99" for k in range(40)]})
    said = [line for line in report if line.startswith("warning: price holds 40 numbers for 40")]
    assert bool(said) == warned


@pytest.mark.parametrize(
    ("cell", "tokens"),
    [
        (json.dumps(["Rock", "New Age"]), ["Rock", "New_Age"]),
        (repr(["Rock", "New Age"]), ["Rock", "New_Age"]),
        (repr(["Children's", "Rock, Pop"]), ["Children's", "Rock,_Pop"]),
        ("[]", []),
        ("[live]|Rock", ["[live]", "Rock"]),
        ("Rock||Pop", ["Rock", "Pop"]),
    ],
)
def test_lists_are_read_as_json_and_as_python_writes_them(annotate, cell, tokens):
    assert annotate({"tags": [cell, "Jazz"]})[0][0] == tokens
