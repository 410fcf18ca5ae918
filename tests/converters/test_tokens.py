"""Ids, labels, titles and file names: safe and unique."""

from __future__ import annotations

import random
from urllib.parse import unquote

import duckdb
import pytest
from recbole_cierec.dataset_converters.tables.picture_names import picture_name, target_of
from recbole_cierec.dataset_converters.tables.tokens import (
    MAX_LABEL,
    label_token,
    safe_id,
    safe_id_sql,
    title_cell,
)

from recbole_cierec.data.words import label_words, title_words

NASTY = "a%25_ \t\n\r\0\"'\ufeff\u00a0\u2028\u3000\x85\x1f\x7fé🎵/\\.-"
HOSTILE = [
    "../../etc/passwd",
    "a/b",
    "con",
    "CON",
    "nul.txt",
    "x" * 300,
    "🎵",
    "a b",
    "",
    ".",
    "a\0b",
    "[PAD]",
    "%5BPAD%5D",
]


def texts() -> list[str]:
    chance = random.Random(7)
    made = {"".join(chance.choices(NASTY, k=chance.randint(1, 6))) for _ in range(4000)}
    return sorted(made | set(HOSTILE) - {""})


def test_escaped_ids_are_safe_and_give_the_id_back():
    for text in texts():
        escaped = safe_id(text)
        assert unquote(escaped) == text
        assert escaped.split() == [escaped]  # no white space of any kind
        assert escaped != "[PAD]"
        assert '"' not in escaped
        assert escaped.replace("\ufeff", "") == escaped
        assert all(ord(char) > 32 and ord(char) != 127 for char in escaped)


def test_the_expression_for_duckdb_is_the_same_as_the_function():
    con = duckdb.connect()
    query = f"SELECT {safe_id_sql('t')} FROM (SELECT unnest(?) AS t)"
    found = [row[0] for row in con.execute(query, [texts()]).fetchall()]
    assert found == [safe_id(text) for text in texts()]


def test_a_usual_id_stays_as_it_is():
    assert safe_id("A2IBPI20UZIR0U") == "A2IBPI20UZIR0U"
    assert safe_id("a_b-c.d:e") == "a_b-c.d:e"


@pytest.mark.parametrize(
    ("label", "token"),
    [
        ("CDs & Vinyl", "CDs_&_Vinyl"),
        ("CDs &amp; Vinyl", "CDs_&_Vinyl"),
        ("CDs &amp;amp; Vinyl", "CDs_&_Vinyl"),
        ("CDs_&_Vinyl", "CDs%5F&%5FVinyl"),
        ("  New \n Age ", "New_Age"),
        ('12" singles', "12%22_singles"),
        ("<span class='x'>Rock</span>", "Rock"),
        ("</span></span>", ""),
        ("e\u0301tude", "étude"),
        ("x" * (MAX_LABEL + 1), ""),
        ("", ""),
        ("[PAD]", "%5BPAD%5D"),  # RecBole's name of the padding
    ],
)
def test_a_label_becomes_one_readable_token(label, token):
    assert label_token(label) == token


@pytest.mark.parametrize("label", ["klein, schmal", '"xl"', "a_b", "50 %", "%41", "[PAD]", "étude"])
def test_a_label_is_shown_as_it_was(label):
    assert label_words(label_token(label)) == label


@pytest.mark.parametrize("token", ["%0A", "%1B[31m", "%E2%80%AE", "%FF", "50%", "%zz"])
def test_what_cannot_be_seen_stays_escaped(token):
    assert label_words(token) == token


def test_different_clean_labels_give_different_tokens():
    labels = ["a b", "a_b", "a%5Fb", "a%b", "a%25b", "A B", "a\u2019b", "a'b"]
    assert len({label_token(label) for label in labels}) == len(labels)


def test_titles_are_one_line_without_double_quotes():
    assert (
        title_cell('The "Best"\tof\n12&quot; &lt;b&gt;Disco&lt;/b&gt; ')
        == "The ''Best'' of 12'' Disco"
    )
    assert title_cell(None) == ""
    assert title_words(title_cell('Tasche rot "Modell"')) == 'Tasche rot "Modell"'


def test_names_of_pictures_are_safe_and_distinct_on_every_disk():
    names = [picture_name(text, ".jpg") for text in [*texts(), "abc", "ABC", "a b", "a-b"]]
    assert len({name.casefold() for name in names}) == len(
        set(texts()) | {"abc", "ABC", "a b", "a-b"}
    )
    for name in names:
        folder, file = name.split("/")
        assert len(folder) == 2
        assert len(file) < 64
        assert file.isascii()
        assert file.removesuffix(".jpg").replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("source", "suffix"),
    [
        ("https://a.example/i/41L%2B._SX300_.jpg", ".jpg"),
        ("https://a.example/i/x.PNG?size=2", ".png"),
        ("https://a.example/i/x.exe", ".jpg"),
        ("https://a.example/picture", ".jpg"),
        ("C:\\pictures\\x.webp", ".webp"),
    ],
)
def test_a_picture_keeps_a_suffix_of_the_list_only(source, suffix):
    assert target_of("i1", source).endswith(suffix)
