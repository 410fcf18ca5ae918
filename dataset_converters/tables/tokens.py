"""Text that is safe in atomic files, and file names that are safe everywhere.

An atomic file has one row a line, cells separated by tabs and, in ``token_seq`` columns, elements
separated by blanks; many programs read a quote as the start of something. So ids and labels are
escaped, *injectively*: two different ids never become one.

* An **id** keeps every character but ``%`` and the unsafe ones (control characters, white space of
  any kind, the double quote, the byte order mark), which become ``%XX`` of their UTF-8 bytes, as
  in URLs; ``urllib.parse.unquote`` gives the id back. So does ``[PAD]``, RecBole's name of the
  padding, which is no id there.
* A **label** is an id in which a blank is written ``_`` for the eye, and ``_`` itself ``%5F``.
* A **title** is for reading only: entities are resolved, white space is one blank, double quotes
  are two single ones.
"""

from __future__ import annotations

import html
import re
import unicodedata

# White space as Python and pandas see it, control characters, the quote, the byte order mark.
_UNSAFE = sorted(
    {chr(code) for code in (*range(0x21), 0x22, *range(0x7F, 0xA1), 0x1680, 0xFEFF)}
    | {chr(code) for code in (*range(0x2000, 0x2010), *range(0x2028, 0x2030), 0x205F, 0x3000)}
)
_ESCAPES = {ord(c): "".join(f"%{b:02X}" for b in c.encode()) for c in ["%", *_UNSAFE]}
_LABEL_ESCAPES = {**_ESCAPES, ord("_"): "%5F", ord(" "): "_"}
_TAG = re.compile(r"<[^<>]{0,200}>")
_BLANKS = re.compile(r"[\s\x00-\x20\x7f-\xa0\ufeff\u2000-\u200f\u2028-\u202f]+")

# Removed around an id: what ``str.strip`` removes, the byte order mark, the blank without width.
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\ufeff\u200b"
_PADDING, _ESCAPED_PADDING = "[PAD]", "%5BPAD%5D"

MAX_LABEL = 100  # a longer "category" is a sentence that slipped into the wrong field


def safe_id(text: str) -> str:
    """Escape a user or item id.

    Args:
        text: The raw id.

    Returns:
        The id as it stands in atomic files; different ids give different texts.
    """
    return _ESCAPED_PADDING if text == _PADDING else text.translate(_ESCAPES)


def safe_id_sql(column: str) -> str:
    """The same as an expression of DuckDB.

    Args:
        column: The column with raw ids, as SQL.

    Returns:
        An expression that equals :func:`safe_id` of it.
    """
    codes = "".join(f"\\x{{{ord(c):X}}}" for c in _UNSAFE if c != "\0")
    chain = f"replace({column}, '%', '%25')"
    for char in _UNSAFE:
        chain = f"replace({chain}, chr({ord(char)}), '{_ESCAPES[ord(char)]}')"
    # The chain is long and hardly ever needed: one search decides. NUL is no text for the search.
    unsafe = f"regexp_matches({column}, '[%{codes}]') OR contains({column}, chr(0))"
    padding = f"{column} = '{_PADDING}' THEN '{_ESCAPED_PADDING}'"
    return f"CASE WHEN {unsafe} THEN {chain} WHEN {padding} ELSE {column} END"


def is_utf8(text: str) -> bool:
    """Whether a text can be written; names of files may hold bytes that are no text."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def printable(text: str) -> str:
    """A text for a terminal or a list: what cannot be seen, or does harm there, as ``\\uXXXX``."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def clean_text(text: str) -> str:
    """Resolve HTML entities, drop tags, make white space one blank, compose accents (NFC).

    Args:
        text: Text of a record.

    Returns:
        One line without leading or trailing blanks.
    """
    if "&" in text:
        text = html.unescape(html.unescape(text))  # "&amp;amp;" occurs in the 2018 metadata
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", _BLANKS.sub(" ", text).strip())


def title_cell(text: str | None) -> str:
    """A title as a ``token_seq`` cell: words separated by one blank.

    Args:
        text: The title, or None.

    Returns:
        The cell.
    """
    return clean_text(text or "").replace('"', "''")


def label_token(label: str) -> str:
    """One annotation token of a label such as ``CDs & Vinyl``.

    Args:
        label: Text of a record; it is cleaned by :func:`clean_text` first.

    Returns:
        The token (``CDs_&_Vinyl``), empty when nothing is left or the label is longer than
        :data:`MAX_LABEL` characters.
    """
    text = clean_text(label)
    if text == _PADDING:
        return _ESCAPED_PADDING
    return "" if len(text) > MAX_LABEL else text.translate(_LABEL_ESCAPES)
