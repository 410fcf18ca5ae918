"""Reading of tables with separated columns, with every bad line named.

DuckDB reads a file without quotes, fast. A file with quotes, in another encoding or with a bad line
goes through Python's csv reader: there the number of each line is certain, and a quote that is
never closed is an error instead of the silent end of the table.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from recbole_cierec.errors import DataError

from .bad_lines import EXAMPLES
from .csv_header import MAX_CELL, codec_is_utf8, header_of, open_text, require_columns
from .records import BROKEN_FILE, append, open_bytes
from .tokens import BLANKS, is_utf8
from .workspace import Workspace, quote, ref

_BLOCK = 1 << 22
_Bad = Callable[[int, int, str], None]  # line, number of lines, reason


@dataclass
class _Problems:
    """Rows that are none: how many lines they take, and the first of them."""

    lines: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, lines: int, reason: str) -> None:
        self.lines += lines
        if len(self.first) < EXAMPLES:
            self.first.append((line, reason))


def read_csv(
    space: Workspace,
    table: str,
    path: Path,
    select: Mapping[str, str],
    *,
    names: Sequence[str],
    required: Sequence[str],
    header: bool = True,
    separator: str = ",",
    encoding: str = "utf-8",
) -> None:
    """Append the rows of a file to a table.

    Args:
        space: The workspace.
        table: Made when it is not there; rows stay in the order of the file.
        path: The file; .gz and .zst are decompressed.
        select: Columns of the table, as name -> expression over the file's columns (all text,
            null where a cell is empty; see :func:`ref`).
        names: The file's columns.
        required: Columns of the table that are null in a bad row.
        header: Whether the first line holds the names.
        separator: Up to four characters; cells may be quoted (and then hold line breaks) when it
            is a single one.
        encoding: Of the file.
    """
    space.inputs.append(path)
    if header and "" in names:
        place = names.index("") + 1
        space.notes.append(
            f"{path.name}: not read: columns without a name, the first is column {place} (pandas "
            "writes its index so)"
        )
    if codec_is_utf8(encoding) and not _has_quote(path):
        if _read_clean(space, table, path, select, names, required, header, separator):
            return
    problems = _Problems()
    source = space.new_file(".jsonl")
    with source.open("w", encoding="ascii") as out:
        rows = numbered_rows(path, separator, encoding, problems.add)
        for line, cells in tqdm(rows, desc=f"read {path.name}", disable=None, leave=False):
            if header and line == 1:
                continue
            if len(cells) != len(names):
                problems.add(line, 1, f"has {len(cells)} cells instead of {len(names)}")
            else:
                out.write(json.dumps([line, *(cell or None for cell in cells)]) + "\n")
    _load_rows(space, table, path, source, select, names, required, problems)
    source.unlink()


def column(key: str) -> str:
    """A column as SQL, blanks around its text removed; null when nothing is left."""
    return trimmed(ref(key))


def trimmed(text: str) -> str:
    """A text as SQL without blanks around it; null when nothing is left."""
    # The search for blanks of all kinds is slow; almost every text begins and ends in plain ASCII.
    plain = f"unicode({text}) BETWEEN 33 AND 126 AND unicode({text}[-1]) BETWEEN 33 AND 126"
    return f"CASE WHEN {plain} THEN {text} ELSE nullif(trim({text}, {quote(BLANKS)}), '') END"


def number(key: str) -> str:
    """A column as a finite number in SQL; null where it is none."""
    cast = f"TRY_CAST({column(key)} AS DOUBLE)"
    return f"CASE WHEN isfinite({cast}) THEN {cast} END"


def _read_clean(
    space: Workspace,
    table: str,
    path: Path,
    select: Mapping[str, str],
    names: Sequence[str],
    required: Sequence[str],
    header: bool,
    separator: str,
) -> bool:
    """Have DuckDB read the file; False, and nothing read, when anything in it is bad."""
    typed = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(names)))
    cells = _renamed(names, "c{}")
    query = (
        f"SELECT {_chosen(select)} FROM (SELECT {cells} FROM "
        f"read_csv({quote(space.readable(path))}, auto_detect=false, columns={{{typed}}}, "
        f"header={str(header).lower()}, delim={quote(separator)}, quote='', "
        f"escape='', nullstr='', max_line_size={MAX_CELL}))"
    )
    try:
        start = append(space, table, query, f"read {path.name}", path)
    except DataError:
        return False
    missing = " OR ".join(f"{key} IS NULL" for key in required)
    bad = space.value(f"SELECT count(*) FROM {table} WHERE rowid >= {start} AND ({missing})")
    if bad:
        space.run(f"DELETE FROM {table} WHERE rowid >= {start}")
        return False
    space.bad.add(path, space.value(f"SELECT count(*) FROM {table} WHERE rowid >= {start}"), 0, [])
    return True


def _load_rows(
    space: Workspace,
    table: str,
    path: Path,
    source: Path,
    select: Mapping[str, str],
    names: Sequence[str],
    required: Sequence[str],
    problems: _Problems,
) -> None:
    """Append rows that Python has split; those that lack something required are bad as well."""
    cells = _renamed(names, "json->>({} + 1)")
    lines = f"read_ndjson_objects({quote(source)})"
    rows = f"(SELECT CAST(json->>0 AS BIGINT) AS line_, {cells} FROM {lines})"
    space.run(f"CREATE OR REPLACE TABLE raw_rows AS SELECT line_, {_chosen(select)} FROM {rows}")
    missing = " OR ".join(f"{key} IS NULL" for key in required)
    flags = ", ".join(f"{key} IS NULL" for key in required)
    unusable = space.value(f"SELECT count(*) FROM raw_rows WHERE {missing}")
    query = f"SELECT line_, {flags} FROM raw_rows WHERE {missing} ORDER BY line_ LIMIT {EXAMPLES}"
    examples = list(problems.first)
    for line, *null in space.run(query).fetchall():
        what = " and ".join(key for key, empty in zip(required, null, strict=True) if empty)
        examples.append((line, f"{what} is missing or malformed"))
    bad = unusable + problems.lines
    records = space.value("SELECT count(*) FROM raw_rows") + bad - unusable
    space.bad.add(path, records, bad, sorted(examples))
    kept = f"SELECT {', '.join(select)} FROM raw_rows WHERE NOT ({missing}) ORDER BY line_"
    append(space, table, kept, "")
    space.run("DROP TABLE raw_rows")


def _chosen(select: Mapping[str, str]) -> str:
    return ", ".join(f"{expression} AS {key}" for key, expression in select.items())


def _renamed(names: Sequence[str], cell: str) -> str:
    """Columns by place as columns by name; names that are not unique cannot be meant by anyone."""
    count = Counter(names)
    unique = [(place, key) for place, key in enumerate(names) if count[key] == 1]
    return ", ".join(f"{cell.format(place)} AS {ref(key)}" for place, key in unique)


def _has_quote(path: Path) -> bool:
    try:
        with open_bytes(path) as file:
            return any(b'"' in block for block in iter(lambda: file.read(_BLOCK), b""))
    except BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None


def named_rows(
    path: Path, wanted: Sequence[str], what: str, bad: list[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
    """Read some columns of a CSV file in UTF-8 that has a header.

    Args:
        path: The file; .gz and .zst are decompressed.
        wanted: Names of the columns.
        what: What the file should be, for the message.
        bad: Gets line number and reason of each row that is none.

    Yields:
        The first line's number and the wanted cells of each row, in their order.

    Raises:
        DataError: The file cannot be read to its end, or lacks a column.
    """

    def note(line: int, lines: int, reason: str) -> None:
        bad.append((line, reason))

    names = header_of(path, ",")
    require_columns(path, names, wanted, what)
    places = [names.index(key) for key in wanted]
    rows = numbered_rows(path, ",", "utf-8", note)
    next(rows)
    for line, cells in rows:
        if len(cells) == len(names):
            yield line, [cells[place] for place in places]
        else:
            note(line, 1, f"has {len(cells)} cells instead of {len(names)}")


def numbered_rows(
    path: Path, separator: str, encoding: str, bad: _Bad
) -> Iterator[tuple[int, list[str]]]:
    """Read rows whatever is wrong with some of them.

    Args:
        path: The file; .gz and .zst are decompressed.
        separator: Between two cells, which may be quoted when it is a single character.
        encoding: Of the file.
        bad: Called for each row that is none: its first line, its number of lines, the reason.

    Yields:
        The first line's number and the cells of each row; blank lines are none.

    Raises:
        DataError: The file cannot be read to its end.
    """
    csv.field_size_limit(MAX_CELL)
    with open_text(path, encoding) as file:
        if len(separator) > 1:
            rows: Iterator[list[str]] = (line.rstrip("\r\n").split(separator) for line in file)
            reader = None
        else:
            rows = reader = csv.reader(file, delimiter=separator, strict=True)
        end = 0
        while True:
            start = end + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                end = reader.line_num if reader else start
                bad(start, max(1, end - start + 1), f"is no row ({error})")
                continue
            except BROKEN_FILE as error:
                message = f"{path}: cannot be read beyond line {start} ({error}); download it again"
                raise DataError(message) from None
            end = reader.line_num if reader else start
            if not any(cells):
                continue
            if not all(map(is_utf8, cells)):
                bad(start, end - start + 1, f"is not {encoding}")
                continue
            yield start, cells
