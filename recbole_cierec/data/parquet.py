"""Atomic files in Parquet: NAME.inter.parquet in place of NAME.inter, and so on.

Columns are named as in the header of a text file, ``user_id:token``. The same rules hold: what a
text file could not hold is refused, and the table that is read has the same bits. Tokens are text
or whole numbers, floats any numbers, sequences text with separated elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import compute, types

from recbole_cierec.data.coded_table import as_frame
from recbole_cierec.errors import DataError
from recbole_cierec.terminal import reason

SUFFIX = ".parquet"


def atomic_file(path: Path) -> Path:
    """An atomic file, or the one in Parquet that takes its place.

    Raises:
        DataError: Both exist.
    """
    other = path.with_name(path.name + SUFFIX)
    if not other.is_file():
        return path
    if path.is_file():
        raise DataError(f"{path}: exists as {other.name} too, so that one may be stale; keep one")
    return other


@contextmanager
def as_text_files(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for code that looks for text files, and the file behind each name in it.

    Without files in Parquet it is the folder itself.

    Args:
        folder: The data set's.
        name: The data set's name.
    """
    ends = tuple(f".{kind}{SUFFIX}" for kind in ("inter", "item", "user"))
    files = [p for p in folder.iterdir() if p.name.startswith(f"{name}.") and p.is_file()]
    if not any(path.name.endswith(ends) for path in files):
        yield folder, {}
        return
    with TemporaryDirectory() as names:
        behind = {}
        for path in files:
            stand_in = Path(names, path.name.removesuffix(SUFFIX))
            behind[str(stand_in)] = str(atomic_file(folder / stand_in.name))
            stand_in.touch()
        yield Path(names), behind


def column_names(path: Path) -> list[str]:
    """The columns of a file, ``field:type`` each.

    Raises:
        DataError: It cannot be read.
    """
    return _read(path, lambda parquet: parquet.read_schema(path).names)


def read_rows(
    path: Path, kinds: Mapping[str, str], separator: str, missing: list[str], coded: bool
) -> tuple[pd.DataFrame, int]:
    """Read columns of a file.

    Args:
        path: The file.
        kinds: The type of each column to read.
        separator: Between two cells of a text file; no cell may hold it.
        missing: Texts of missing numbers.
        coded: Make tokens categorical.

    Returns:
        The table as :func:`recbole_cierec.data.atomic.read_atomic` returns it, and the number of
        rows of the file.

    Raises:
        DataError: A column has another type, or a cell what a text file could not hold.
    """
    names = [f"{field}:{kind}" for field, kind in kinds.items()]
    table, rows = _read(
        path,
        lambda parquet: (
            parquet.read_table(path, columns=names),
            parquet.read_metadata(path).num_rows,
        ),
    )
    columns = {
        field: _column(path, field, kind, table[name], separator, missing)
        for (field, kind), name in zip(kinds.items(), names, strict=True)
    }
    return as_frame(columns, kinds, coded), rows


def _read(path: Path, read: Callable[[Any], Any]) -> Any:
    import pyarrow.parquet as parquet  # here: runs on text files need not wait for it

    try:
        return read(parquet)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check data_path and the data set's name") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({reason(error)})") from None


def _column(
    path: Path,
    field: str,
    kind: str,
    cells: pyarrow.ChunkedArray,
    separator: str,
    missing: list[str],
) -> pyarrow.ChunkedArray:
    """A column as the reader of text files gives it: text without nulls, or float64."""
    of = cells.type.value_type if types.is_dictionary(cells.type) else cells.type
    text = types.is_string(of) or types.is_large_string(of)
    whole = types.is_integer(of)
    if kind == "float":
        if text:
            return _numbers(path, field, cells.cast(pyarrow.string()), missing)
        if not (whole or types.is_floating(of) or types.is_decimal(of)):
            raise DataError(f"{path}: column {field}:float holds {of}; store numbers, of times too")
        return cells.cast(pyarrow.float64(), safe=False)
    if not (text or (whole and kind == "token")):
        good = "text or whole numbers" if kind == "token" else "text with separated elements"
        raise DataError(f"{path}: column {field}:{kind} holds {of}; store {good}")
    cells = cells.cast(pyarrow.string()).fill_null("")
    unlike = compute.match_substring_regex(cells, f"[\\x00\\r\\n\\x{ord(separator):02x}]")
    if compute.any(unlike).as_py():
        row = compute.index(unlike.combine_chunks(), value=True).as_py() + 1
        raise DataError(
            f"{path}, row {row}: {field} holds {separator!r}, a line break or NUL, which no "
            "cell of an atomic file can"
        )
    return cells


def _numbers(
    path: Path, field: str, cells: pyarrow.ChunkedArray, missing: list[str]
) -> pyarrow.ChunkedArray:
    """Numbers from text, by the rules of text files."""
    absent = compute.is_in(cells, pyarrow.array(missing))
    texts = compute.if_else(absent, None, cells)
    values = pd.to_numeric(texts.to_pandas(), errors="coerce")
    wrong = (values.isna() & texts.to_pandas().notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{path}, row {row + 1}: {field} is {cells[row].as_py()[:40]!r}, which is not a "
            "number; correct or remove it"
        )
    return pyarrow.chunked_array([pyarrow.array(values.astype("float64"))])
