"""Read tables with separated columns; DuckDB parses them and stores the rows that it rejects."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_cierec.errors import DataError

from .bad_records import EXAMPLES
from .csv_header import MAX_LINE, header_of, is_utf8_codec, open_text, require_columns
from .loading import Loaded, append
from .records import BROKEN_FILE, open_bytes
from .sql import quote, ref, selected
from .workspace import Workspace

_BLOCK = 1 << 22
_REASONS = {
    "UNQUOTED VALUE": "is not a row (a quote is misplaced or never closed)",
    "LINE SIZE OVER MAXIMUM": f"is longer than {MAX_LINE >> 20} MiB",
}


@dataclass(frozen=True)
class _Reject:
    """A record that DuckDB rejects.

    Args:
        record: Its number in the file; the header is the first.
        line: Its first line in the file.
        text: As written.
        reason: What is wrong.
    """

    record: int
    line: int
    text: str
    reason: str


def read_csv(
    space: Workspace,
    table: str,
    path: Path,
    select: Mapping[str, str],
    *,
    required: Sequence[str],
    wanted: Sequence[str] = (),
    what: str = "such a table",
    options: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    separator: str = ",",
    quoted: bool = True,
    encoding: str = "utf-8",
) -> None:
    """Append the rows of a file to a table.

    Args:
        space: The workspace.
        table: Created if needed; rows stay in the order of the file.
        path: The file; .gz and .zst are decompressed.
        select: Columns of the table, as name -> expression over the file's columns (all text,
            null where a cell is empty; see :func:`.sql.ref`).
        required: Columns of the table that are null in a bad row.
        wanted: Columns that the file must have.
        what: What the file should be, for messages.
        options: The option that names each column, for messages.
        names: The file's columns; None: its first line names them.
        separator: Up to four characters.
        quoted: Cells may be quoted, and then hold line breaks; not with a longer separator.
        encoding: Of the file.

    Raises:
        DataError: The file cannot be read, lacks a column, or has too many bad rows.
    """
    header = names is None
    names = header_of(path, separator, encoding) if names is None else names
    require_columns(path, names, wanted, what, options)
    space.inputs.append(path)
    if header:
        _note_nameless(space, path, names)
    utf8 = is_utf8_codec(encoding)
    source = space.readable(path) if utf8 else _as_utf8(space, path, encoding)
    quotes = quoted and len(separator) == 1 and _has_quote(source)
    file = _File(source, names, header, separator, '"' if quotes else "")
    query = f"SELECT {selected(select)} FROM {file.rows()}"
    loaded = append(space, table, query, path, required)
    rejected = space.value("SELECT count(DISTINCT line) FROM reject_errors")
    examples: list[tuple[int, str]] = []
    if rejected or loaded.incomplete:
        rejects = _rejects(space, source, encoding)
        examples = [(reject.line, reject.reason) for reject in rejects]
        needed = {key: select[key] for key in required}
        examples += _incomplete(space, file, needed, loaded, rejects)
    unclosed = _unclosed(source, separator) if quotes else None
    if unclosed and unclosed not in dict(examples):
        rejected += 1
        examples.append((unclosed, _REASONS["UNQUOTED VALUE"]))
    for rejects_table in ("reject_errors", "reject_scans"):
        space.run(f"DROP TABLE {rejects_table}")
    if not utf8:
        source.unlink()
    bad = rejected + loaded.incomplete
    space.bad.add(path, loaded.rows + rejected, bad, sorted(examples))


def _note_nameless(space: Workspace, path: Path, names: Sequence[str]) -> None:
    if "" in names:
        place = names.index("") + 1
        space.notes.append(
            f"{path.name}: not read: columns without a name, the first is column {place} (pandas "
            "writes its index so)"
        )


@dataclass(frozen=True)
class _File:
    """A file in UTF-8, and how its cells are separated and quoted."""

    path: Path
    names: Sequence[str]
    header: bool
    separator: str
    mark: str

    def rows(self, more: str = "") -> str:
        """A sub-query of its columns by name, without names that are not unique.

        Args:
            more: Further columns, over the cells c0, c1 ...
        """
        count = Counter(self.names)
        unique = [(place, key) for place, key in enumerate(self.names) if count[key] == 1]
        cells = ", ".join(f"c{place} AS {ref(key)}" for place, key in unique)
        typed = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(self.names)))
        # A thread that starts in the middle of a file guesses whether it is in a quoted cell, and
        # guesses wrong, silently, if the text of a cell looks like rows.
        parallel = "false" if self.mark else "true"
        return (
            f"(SELECT {cells}{more} FROM read_csv({quote(self.path)}, auto_detect=false, "
            f"columns={{{typed}}}, header={str(self.header).lower()}, "
            f"delim={quote(self.separator)}, quote={quote(self.mark)}, escape={quote(self.mark)}, "
            f"nullstr='', max_line_size={MAX_LINE}, parallel={parallel}, "
            "store_rejects=true))"
        )


def _has_quote(path: Path) -> bool:
    try:
        with open_bytes(path) as file:
            return any(b'"' in block for block in iter(lambda: file.read(_BLOCK), b""))
    except BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None


def _unclosed(path: Path, separator: str) -> int | None:
    """Line of the record with a quote that is never closed; DuckDB drops all from there, silently.

    Python's reader takes some 0.2 s for 10 MB.
    """
    csv.field_size_limit(MAX_LINE)
    with open_text(path, "utf-8") as text:
        rows = csv.reader(text, delimiter=separator, strict=True)
        while True:
            line = rows.line_num + 1
            try:
                next(rows)
            except StopIteration:
                return None
            except csv.Error as error:
                if "expected after" not in str(error):  # but the end of the file, or a huge cell
                    return line


def _as_utf8(space: Workspace, path: Path, encoding: str) -> Path:
    """A copy in UTF-8; bytes that are not text stay invalid, so that their rows are rejected."""
    target = space.new_file(".csv")
    try:
        with open_text(path, encoding) as text, target.open("wb") as copy:
            while block := text.read(_BLOCK):
                copy.write(block.encode("utf-8", "surrogateescape"))
    except UnicodeError as error:
        raise DataError(f"{path}: is not {encoding} ({error})") from None
    except BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None
    return target


def _rejects(space: Workspace, source: Path, encoding: str) -> list[_Reject]:
    """The first rejected records."""
    rows = space.run(
        "SELECT line, first(line_byte_position), first(csv_line), "
        "first(error_type ORDER BY column_idx), first(error_message ORDER BY column_idx) "
        f"FROM reject_errors GROUP BY line ORDER BY line LIMIT {EXAMPLES}"
    ).fetchall()
    found, seen, line = [], 0, 1
    with open_bytes(source) as file:
        for record, start, text, kind, message in rows:
            while seen < start - 1 and (block := file.read(min(_BLOCK, start - 1 - seen))):
                seen += len(block)
                line += block.count(b"\n")
            blank = text[: len(text) - len(text.lstrip("\r\n"))].count("\n")
            if cells := re.search(r"Columns: (\d+) Found: (\d+)", message):
                reason = f"has {cells[2]} cells instead of {cells[1]}"
            else:
                reason = _REASONS.get(kind, f"is not {encoding}")
            # Old line ends (CR alone) are not counted above; then records are lines.
            found.append(_Reject(record, max(line + blank, record), text, reason))
    return found


def _incomplete(
    space: Workspace,
    file: _File,
    required: Mapping[str, str],
    loaded: Loaded,
    rejects: Sequence[_Reject],
) -> list[tuple[int, str]]:
    """Line and reason of the first rows that lack something required.

    DuckDB does not number the rows that it reads. The line follows from the number of rows,
    including rejected ones, and of line breaks in cells above; blank lines above are not counted.
    """
    if not loaded.examples:
        return []
    text = f"concat({', '.join(f'c{place}' for place in range(len(file.names)))})"
    breaks = f", length({text}) - length(replace({text}, chr(10), '')) AS breaks"
    flags = ", ".join(f"{expression} IS NULL AS {key}" for key, expression in required.items())
    rows = space.run(
        f"SELECT n, total - breaks, {', '.join(required)} FROM (SELECT {flags}, breaks, "
        "row_number() OVER () - 1 AS n, "
        "sum(breaks) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS total "
        f"FROM {file.rows(breaks)}) "
        f"WHERE n IN ({', '.join(map(str, loaded.examples))}) ORDER BY n"
    ).fetchall()
    above = sum(name.count("\n") for name in file.names)
    found = []
    for n, before, *lacking in rows:
        record = n + 1 + file.header
        line = record + int(before) + above
        for reject in rejects:
            if reject.record <= record:
                record, line = record + 1, line + 1 + reject.text.count("\n")
        what = " and ".join(key for key, lacks in zip(required, lacking, strict=True) if lacks)
        found.append((line, f"{what} is missing or malformed"))
    return found
