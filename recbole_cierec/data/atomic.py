"""Reading of RecBole's atomic files (NAME.inter, NAME.item, NAME.user ...), with checks.

An atomic file is a table: the first line names the columns as ``field:type``, every other line is
a row, cells are separated by one character. RecBole reads it with pandas' Python engine and its
default rules, under which a stray quote swallows lines, the ids ``NA`` and ``null`` vanish, short
rows are padded and rows with empty ids are dropped. Here the faster C engine reads the file
unchanged, or it is refused with one line that says where and why.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
import pandas as pd
import pyarrow

from recbole_cierec.data.coded_table import read_coded
from recbole_cierec.data.parquet import SUFFIX, column_names, read_rows
from recbole_cierec.errors import DataError

TYPES = ("token", "float", "token_seq", "float_seq")

# Blocks bound the memory that checking a large file takes.
BLOCK_BYTES = 1 << 20  # whose arrays stay in the CPU's cache
# A longer line means missing line breaks; without a limit such a file would fill the memory.
MAX_LINE_BYTES = 1 << 26

# Missing values of a float column: pandas' default list, as in RecBole. In all other columns only
# an empty cell is missing, since "NA" and "null" are valid ids.
MISSING_NUMBERS = ["", "NA", "#NA", "<NA>", "N/A", "n/a", "#N/A", "#N/A N/A", "NULL", "null"]
MISSING_NUMBERS += ["None", "NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND"]
MISSING_NUMBERS += ["1.#QNAN", "-1.#QNAN"]

_NEWLINE, _RETURN = ord("\n"), ord("\r")


def read_atomic(
    path: str | Path,
    *,
    separator: str = "\t",
    columns: Collection[str] | None = None,
    encoding: str = "utf-8",
    coded: bool = False,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read one atomic file, also in Parquet (:mod:`recbole_cierec.data.parquet`).

    Args:
        separator: One ASCII character between two cells.
        columns: Names of the columns to keep (others are checked for shape only); None keeps all.
        encoding: A byte order mark is accepted.
        coded: Make columns of the type ``token`` categorical, which takes a third of the time.

    Returns:
        The table, with the columns in the order of the file: float64 for the type float,
        otherwise text (object) with NaN in empty cells; and the type of each of these columns:
        ``token``, ``float``, ``token_seq`` or ``float_seq``.

    Raises:
        DataError: The file is missing, empty or malformed. The message is one line with the file,
            the line number if known, and what to do.
    """
    path = Path(path)
    types = read_header(path, separator=separator, encoding=encoding)
    kept = [field for field in types if columns is None or field in columns]
    wanted = {field: types[field] for field in kept}
    if path.suffix == SUFFIX:
        table, rows = read_rows(path, wanted, separator, MISSING_NUMBERS, coded)
    else:
        rows = _check_rows(path, separator, len(types), encoding)
    if rows == 0:
        raise DataError(f"{path}: has a header but no rows; add data or remove the file")
    if path.suffix != SUFFIX:
        parse = _parse_coded if coded else _parse
        table = parse(path, separator, encoding, list(types), wanted)
    for field in kept:
        if types[field] == "float":
            refuse_rows(path, np.isinf(table[field].to_numpy()), f"{field} is infinite")
    return table, {field: types[field] for field in kept}


class Format(TypedDict):
    """How an atomic file is written: arguments of the functions that read it."""

    separator: str
    encoding: str


def format_of(config: Any) -> Format:
    """How the atomic files of a data set are written."""
    return Format(separator=config["field_separator"], encoding=config["encoding"] or "utf-8")


def read_header(
    path: str | Path, *, separator: str = "\t", encoding: str = "utf-8"
) -> dict[str, str]:
    """Read only the first line of an atomic file.

    Returns:
        The type of each column by name, in the order of the file.

    Raises:
        DataError: The file cannot be read or its header is malformed.
    """
    path = Path(path)
    if len(separator) != 1 or not separator.isascii() or separator in '\r\n"':
        raise DataError(f"{path}: field_separator {separator!r} must be one ASCII character")
    if path.suffix == SUFFIX:
        return _types_of(path, column_names(path), separator)
    with _open(path, encoding) as file:
        first = file.readline(MAX_LINE_BYTES)
    try:
        line = first.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _bad_byte(path, 1, error, encoding) from None
    if "\0" in line:
        raise DataError(f"{path}, line 1: holds NUL bytes; this is not a text file")
    if not line:
        what = "its first line is blank" if first else "the file is empty"
        raise DataError(f"{path}: {what}; it must name the columns, as in user_id:token")
    return _types_of(path, line.split(separator), separator)


def _types_of(path: Path, names: list[str], separator: str) -> dict[str, str]:
    """The type of each column, from names as in ``user_id:token``."""
    types: dict[str, str] = {}
    where = in_header(path)
    _refuse_other_separator(where, names, separator)
    for cell in names:
        field, colon, kind = cell.partition(":")
        if not field or not colon:
            raise DataError(
                f"{where}: {_short(cell)} is not field:type; name each column as in "
                f"user_id:token, separated by {separator!r}"
            )
        if kind not in TYPES:
            raise DataError(
                f"{where}: column {_short(field)} has the unknown type {_short(kind)}; "
                f"use one of {', '.join(TYPES)}"
            )
        if field in types:
            raise DataError(f"{where}: two columns are named {_short(field)}; rename one")
        types[field] = kind
    return types


def _refuse_other_separator(where: str, names: list[str], separator: str) -> None:
    """Refuse one long name that another separator divides into several."""
    marks = [mark for mark in "\t,;| " if mark != separator and mark in names[0]]
    if len(names) > 1 or not marks:
        return
    for mark in marks:
        if all(cell.partition(":")[2] in TYPES for cell in names[0].split(mark)):
            raise DataError(
                f"{where}: its columns are separated by {mark!r}, not {separator!r}; set "
                f"field_separator to {mark!r}"
            )
    if ":" not in names[0] and marks[0] != " ":
        raise DataError(
            f"{where}: {_short(names[0])} is not field:type; name each column as in "
            f"user_id:token, separated by {separator!r}, or convert the table by 'python -m "
            "recbole_cierec convert table'"
        )


def validate_interactions(
    table: pd.DataFrame,
    uid: str | None,
    iid: str | None,
    time: str | None = None,
    *,
    path: str | Path = "interactions",
) -> None:
    """Refuse rows without a user, an item or a finite time; warn of ids with blanks at their ends.

    Negative times and times in the far future are valid: only their order counts.

    Args:
        table: As :func:`read_atomic` returns it; columns that it lacks are not checked.
        uid: Name of the user column, or None.
        iid: Name of the item column, or None.
        time: Name of the time column, or None.
        path: Source of the table, for the message.

    Raises:
        DataError: Names the first such line and the number of such lines.
    """
    for field in (uid, iid):
        if field in table:
            cells = table[field]
            padded = [text for text in pd.unique(cells.dropna()) if text != text.strip()]
            empty = cells.isna() | cells.isin([text for text in padded if not text.strip()])
            refuse_rows(path, empty.to_numpy(), f"{field} is empty")
            if padded:
                _warn_of_blanks(path, cells, padded)
    if time in table:
        times = pd.to_numeric(table[time], errors="coerce").to_numpy()
        refuse_rows(path, ~np.isfinite(times), f"{time} is not a finite number")


def _warn_of_blanks(path: str | Path, cells: pd.Series, padded: list[str]) -> None:
    rows = cells.isin(padded).to_numpy()
    first = int(rows.argmax())
    getLogger().warning(
        f"{path}, {_place_of_row(path, first)}: {cells.name} {_short(cells.iloc[first])} begins or "
        f"ends with a blank, as in {rows.sum():,} of {len(rows):,} rows; with it an id is another "
        "one than without, so remove such blanks"
    )


def split_cells(
    cells: pd.Series, kind: str, separator: str, *, path: str | Path = "sequences"
) -> list[np.ndarray]:
    """Split the cells of a sequence column.

    Args:
        cells: Text, NaN where a cell is empty.
        kind: ``token_seq`` or ``float_seq``.
        separator: Between two elements of a cell; empty elements are dropped.
        path: Source of the cells, for the message.

    Returns:
        One array per cell, of str or float64; an empty cell gives an empty array.

    Raises:
        DataError: An element of a float_seq is not a finite number.
    """
    parts = [
        [part for part in cell.split(separator) if part] if isinstance(cell, str) else []
        for cell in cells
    ]
    if kind == "token_seq":
        return [np.array(part, dtype=str) for part in parts]
    arrays = []
    for row, part in enumerate(parts):
        try:
            array = np.array(part, dtype=np.float64)
        except ValueError:
            array = np.array([np.nan])
        if not np.isfinite(array).all():
            place = f"{path}, {_place_of_row(path, row)}"
            raise DataError(f"{place}: {cells.name} holds an element that is not a number")
        arrays.append(array)
    return arrays


def _open(path: Path, encoding: str) -> BinaryIO:
    """Open a file as UTF-8 bytes; a file in another encoding is recoded in memory."""
    try:
        if _is_utf8(encoding):
            return path.open("rb")
        return io.BytesIO(path.read_bytes().decode(encoding).encode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check data_path and the data set's name") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except LookupError:
        raise DataError(f"{path}: encoding {encoding!r} is unknown to Python") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _bad_byte(path, line, error, encoding) from None


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii")


def _blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the rest of the file in blocks of whole lines; the last line gets a missing break."""
    rest = b""
    while block := file.read(BLOCK_BYTES):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(
                f"{path}: has a line of more than {MAX_LINE_BYTES >> 20} MiB; are the line breaks "
                "missing?"
            )
    if rest:
        yield rest + b"\n"


def _check_rows(path: Path, separator: str, n_cells: int, encoding: str) -> int:
    """Check every line after the header; return the number of rows, without blank lines."""
    rows, line = 0, 2
    with _open(path, encoding) as file:
        file.readline()
        for block in _blocks(file, path):
            try:
                block.decode("utf-8")
            except UnicodeDecodeError as error:
                bad_line = line + block.count(b"\n", 0, error.start)
                raise _bad_byte(path, bad_line, error, encoding) from None
            data = np.frombuffer(block, dtype=np.uint8)
            ends = np.flatnonzero(data == _NEWLINE)
            _check_control(path, block, data, line)
            lengths = np.diff(ends, prepend=-1) - 1
            blank = (lengths == 0) | ((lengths == 1) & (data[ends - 1] == _RETURN))
            separators = np.flatnonzero(data == ord(separator))
            cells = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
            wrong = np.flatnonzero((cells != n_cells) & ~blank)
            if wrong.size:
                first = wrong[0]
                raise DataError(
                    f"{path}, line {line + first}: has {cells[first]} cells, the header names "
                    f"{n_cells}; cells are separated by {separator!r} and cannot hold it"
                )
            rows += int((~blank).sum())
            line += len(ends)
    return rows


def _check_control(path: Path, block: bytes, data: np.ndarray, line: int) -> None:
    """Refuse NUL bytes and carriage returns outside line breaks."""
    place = block.find(b"\0")
    if place >= 0:
        number = line + block.count(b"\n", 0, place)
        raise DataError(f"{path}, line {number}: holds a NUL byte; this is not a text file")
    returns = np.flatnonzero(data == _RETURN)
    stray = returns[data[returns + 1] != _NEWLINE]  # in bounds: a block ends with a line break
    if stray.size:
        number = line + block.count(b"\n", 0, int(stray[0]))
        raise DataError(
            f"{path}, line {number}: holds a carriage return inside a line; end lines with LF or "
            "CR LF"
        )


def _parse_coded(
    path: Path, separator: str, encoding: str, names: list[str], types: Mapping[str, str]
) -> pd.DataFrame:
    """As :func:`_parse`, with categorical columns of tokens."""
    if types:
        with _open(path, encoding) as file, suppress(pyarrow.ArrowException):
            file.readline()
            return read_coded(file, separator, names, types, MISSING_NUMBERS)
    table = _parse(path, separator, encoding, names, types)  # finds the line that is wrong
    for field in (field for field, kind in types.items() if kind == "token"):
        codes, texts = pd.factorize(table[field])
        table[field] = pd.Categorical.from_codes(codes, texts)
    return table


def _parse(
    path: Path, separator: str, encoding: str, names: list[str], types: Mapping[str, str]
) -> pd.DataFrame:
    """Read the rows of a file whose shape was checked."""
    floats = [field for field, kind in types.items() if kind == "float"]
    options = {
        "sep": separator,
        "header": None,
        "names": names,
        "usecols": list(types),
        "index_col": False,
        "quoting": csv.QUOTE_NONE,
        "keep_default_na": False,
        "na_values": {field: MISSING_NUMBERS if field in floats else [""] for field in types},
        "encoding": "utf-8",
        "engine": "c",
        "low_memory": False,
    }
    if int(pd.__version__.split(".")[0]) < 3:  # from pandas 3.0 on numbers are always read exactly
        options["float_precision"] = "round_trip"
    text = dict.fromkeys(types, object)
    with _open(path, encoding) as file:
        file.readline()
        start = file.tell()
        try:
            return pd.read_csv(file, dtype=text | dict.fromkeys(floats, np.float64), **options)
        except ValueError:
            file.seek(start)
            table = pd.read_csv(file, dtype=text, **options)
    for field in floats:
        numbers = pd.to_numeric(table[field], errors="coerce")
        wrong = (numbers.isna() & table[field].notna()).to_numpy()
        if wrong.any():
            cell = _short(table[field].iloc[int(wrong.argmax())])
            refuse_rows(path, wrong, f"{field} is {cell}, which is not a number")
    raise DataError(f"{path}: a column of type float holds a cell that is not a number")


def refuse_rows(path: str | Path, wrong: np.ndarray, what: str) -> None:
    """Refuse a file for some of its rows.

    Args:
        wrong: bool [n_rows].
        what: The fault of those rows, for the message.

    Raises:
        DataError: Any row is wrong; names the first such line and the number of such lines.
    """
    count = int(wrong.sum())
    if count:
        place = _place_of_row(path, int(wrong.argmax()))
        more = f" (and {count - 1} more such {place.split()[0]}s)" if count > 1 else ""
        raise DataError(f"{path}, {place}: {what}{more}; correct or remove it")


def in_header(path: Path) -> str:
    """The header of an atomic file, for messages: only a text file has a first line."""
    return str(path) if path.suffix == SUFFIX else f"{path}, line 1"


def _place_of_row(path: str | Path, row: int) -> str:
    """``line 5``, or ``row 4`` of a Parquet file; rows are counted from 1."""
    parquet = Path(path).suffix == SUFFIX
    return f"row {row + 1}" if parquet else f"line {_line_of_row(path, row)}"


def _line_of_row(path: str | Path, row: int) -> int:
    """Line number of a row of data; the header is line 1, and blank lines are not rows."""
    if not Path(path).is_file():
        return row + 2
    with Path(path).open("rb") as file:
        lines = (n for n, text in enumerate(file, start=1) if n > 1 and text.strip(b"\r\n"))
        for number, line in enumerate(lines):
            if number == row:
                return line
    return row + 2


def _bad_byte(path: Path, line: int, error: UnicodeDecodeError, encoding: str) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{path}, line {line}: byte 0x{byte:02x} is not {encoding}; save the file as UTF-8 or set "
        "encoding"
    )


def _short(text: object) -> str:
    """Quote a piece of a file for a one-line message."""
    text = str(text)
    return repr(text if len(text) <= 40 else text[:37] + "...")
