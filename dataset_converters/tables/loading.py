"""Append what a query reads from a file to a table, without the rows that lack something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .bad_records import EXAMPLES
from .sql import any_null, quote
from .workspace import Workspace


@dataclass(frozen=True)
class Loaded:
    """What one file gave.

    Args:
        rows: Number of rows that the query gave.
        incomplete: How many of them were removed.
        examples: Ordinals of the first of these, from 0.
    """

    rows: int
    incomplete: int
    examples: list[int]


def append(space: Workspace, table: str, query: str, path: Path, required: Sequence[str]) -> Loaded:
    """Append the rows of a query in their order; the table is created if needed.

    Args:
        space: The workspace.
        table: Its name.
        query: Reads the file.
        path: The input file, for messages.
        required: Columns that are null in an incomplete row.

    Raises:
        DataError: The file cannot be read.
    """
    known = space.value(f"SELECT count(*) FROM duckdb_tables() WHERE table_name = {quote(table)}")
    # Row ids continue after the last row; rows that were deleted keep theirs.
    start = space.value(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}") if known else 0
    verb = f"INSERT INTO {table}" if known else f"CREATE TABLE {table} AS"
    space.run(f"{verb} {query}", f"read {path.name}", path)
    rows = space.value(f"SELECT count(*) FROM {table} WHERE rowid >= {start}")
    where = f"FROM {table} WHERE rowid >= {start} AND ({any_null(required)})"
    incomplete = space.value(f"SELECT count(*) {where}")
    examples: list[int] = []
    if incomplete:
        found = space.run(f"SELECT rowid {where} ORDER BY rowid LIMIT {EXAMPLES}").fetchall()
        examples = [row - start for (row,) in found]
        space.run(f"DELETE {where}")
    return Loaded(rows, incomplete, examples)
