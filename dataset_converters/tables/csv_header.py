"""The first line of a table with separated columns, which names them."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_cierec.errors import DataError
from recbole_cierec.terminal import one_line

from .records import BOM, BROKEN_FILE, open_bytes
from .tokens import BLANKS

MAX_LINE = 1 << 24  # characters
_UTF8 = ("utf-8", "utf-8-sig", "ascii")  # as the codecs are named
_NO_TEXT = ("Cc", "Cs")  # categories of control characters and of bytes that are not text


def header_of(path: Path, separator: str, encoding: str = "utf-8") -> list[str]:
    """Names in the first row, without blanks around them; they may be equal or empty.

    Raises:
        DataError: The file is empty or not in that encoding.
    """
    try:
        with open_text(path, encoding) as file:
            line = file.readline(MAX_LINE).rstrip("\r\n")
            if any(unicodedata.category(char) in _NO_TEXT for char in line.replace("\t", "")):
                what = f"is not {encoding} text; set --encoding or give the table"
                raise DataError(f"{path}, line 1: {what}")
            if not line.strip():
                raise DataError(f"{path}: the first line is empty; it must name the columns")
        if len(separator) > 1 or '"' not in line:
            return [cell.strip(BLANKS) for cell in line.split(separator)]
        csv.field_size_limit(MAX_LINE)
        with open_text(path, encoding) as file:  # quoted names may hold line breaks
            names = next(csv.reader(file, delimiter=separator, strict=True))
        return [name.strip(BLANKS) for name in names]
    except csv.Error as error:
        raise DataError(f"{path}, line 1: does not name the columns ({error})") from None
    except BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be read ({error}); is the download complete?") from None


def require_columns(
    path: Path,
    names: Sequence[str],
    wanted: Sequence[str],
    what: str,
    options: Mapping[str, str] | None = None,
) -> None:
    """Refuse a file that lacks columns.

    Args:
        path: The file.
        names: Its columns.
        wanted: Columns that it must have, each once.
        what: What the file should be, for the message.
        options: The option that names each column, for those that one names.

    Raises:
        DataError: Columns are missing, or several have the same name.
    """
    for key in wanted:
        if names.count(key) > 1:
            raise DataError(f"{path}, line 1: two columns are named {key!r}; rename one")
    missing = [key for key in wanted if key not in names]
    if missing:
        shown = ", ".join(key[:30] or "''" for key in names[:8]) + (" ..." if names[8:] else "")
        alike = {key.lower(): key for key in names}.get(missing[0].lower())
        hint = f"; did you mean {alike!r}?" if alike else ""
        if len(names) == 1 and any(mark in names[0] for mark in ",;\t|"):
            hint = "; is the separator another one?"
        if missing[0] in (options or {}) and len(names) > 1:
            hint += f"; name the column by {options[missing[0]]}"
        text = f"is not {what}: no column {', '.join(missing)} (it has: {shown}){hint}"
        raise DataError(f"{path}: {one_line(text)}")


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open text with its line breaks unchanged; bytes that are not text become lone surrogates.

    Raises:
        DataError: There is no such file or encoding, or the file is marked as UTF-8.
    """
    utf8 = is_utf8_codec(encoding)
    file = open_bytes(path)
    if not utf8 and file.peek(len(BOM)).startswith(BOM):
        raise DataError(f"{path}: is marked as UTF-8, not {encoding}; leave out --encoding")
    codec = "utf-8-sig" if utf8 else encoding
    try:
        return io.TextIOWrapper(file, codec, "surrogateescape", newline="")
    except LookupError:
        raise DataError(f"{path}: the encoding {encoding!r} is unknown") from None


def is_utf8_codec(encoding: str) -> bool:
    """Whether an encoding is UTF-8 or a part of it, however it is spelled."""
    try:
        return codecs.lookup(encoding).name in _UTF8
    except LookupError:
        return False
