"""Text that is safe in atomic files.

An atomic file has one row per line, cells separated by tabs and, in ``token_seq`` columns, elements
separated by blanks; many programs interpret quotes. So ids and labels are escaped, *injectively*:
two different ids never become the same.

* An **id** keeps every character except ``%`` and unsafe ones (control characters, any white
  space, the double quote, the byte order mark), which become ``%XX`` of their UTF-8 bytes, as in
  URLs; ``urllib.parse.unquote`` restores the id. ``[PAD]``, RecBole's padding token, is escaped
  too.
* A **label** is an id in which a blank is written as ``_``, and ``_`` itself as ``%5F``.
* A **title** is for reading only: entities are resolved, white space becomes one blank, double
  quotes become two single ones.
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

# Removed around an id: what str.strip() removes, the byte order mark, the zero-width space.
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\ufeff\u200b"
_PADDING, _ESCAPED_PADDING = "[PAD]", "%5BPAD%5D"

MAX_LABEL = 100  # a longer "category" is a sentence in the wrong field


def safe_id(text: str) -> str:
    """Escape a raw user or item id for atomic files; different ids give different texts."""
    return _ESCAPED_PADDING if text == _PADDING else text.translate(_ESCAPES)


def safe_id_sql(column: str) -> str:
    """:func:`safe_id` of a column as an expression of DuckDB."""
    codes = "".join(f"\\x{{{ord(char):X}}}" for char in _UNSAFE if char != "\0")
    unsafe = f"regexp_matches(TEXT, '[%{codes}]') OR contains(TEXT, chr(0))"  # NUL ends a pattern
    escaped = "regexp_replace(hex(char), '(..)', '%\\1', 'g')"
    chars = f"list_transform(range(1, length({column}) + 1), lambda place: {column}[place])"
    each = f"lambda char: CASE WHEN {unsafe.replace('TEXT', 'char')} THEN {escaped} ELSE char END"
    return (
        f"CASE WHEN {unsafe.replace('TEXT', column)} "
        f"THEN array_to_string(list_transform({chars}, {each}), '') "
        f"WHEN {column} = '{_PADDING}' THEN '{_ESCAPED_PADDING}' ELSE {column} END"
    )


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded; file names may hold bytes that are not text."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def clean_text(text: str) -> str:
    """Resolve HTML entities, drop tags, collapse white space, compose accents (NFC)."""
    if "&" in text:
        text = html.unescape(html.unescape(text))  # "&amp;amp;" occurs in the 2018 metadata
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", _BLANKS.sub(" ", text).strip())


def title_cell(text: str | None) -> str:
    """A title as a ``token_seq`` cell: words separated by one blank."""
    return clean_text(text or "").replace('"', "''")


def text_cell(text: str | None) -> str:
    """A text as a ``token`` cell: as a title; ``[PAD]``, RecBole's padding, is escaped."""
    cell = title_cell(text)
    return _ESCAPED_PADDING if cell == _PADDING else cell


def label_token(label: str) -> str:
    """The annotation token of a label: ``CDs & Vinyl`` becomes ``CDs_&_Vinyl``.

    Args:
        label: Raw; it is cleaned by :func:`clean_text` first.

    Returns:
        The token; empty if nothing is left or the label has more than :data:`MAX_LABEL` characters.
    """
    text = clean_text(label)
    if text == _PADDING:
        return _ESCAPED_PADDING
    return "" if len(text) > MAX_LABEL else text.translate(_LABEL_ESCAPES)
