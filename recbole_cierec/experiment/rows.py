"""The rows of an experiment: JSON lines that several processes and machines append to.

``rows.jsonl`` has one line a run, ``searches.jsonl`` one line a search. They are the only record of
what is done; a later line of the same run replaces an earlier one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_cierec.errors import DataError, OutputError
from recbole_cierec.files.json_lines import cut_torn_line, json_plain
from recbole_cierec.files.leftovers import TEMPORARY
from recbole_cierec.files.locks import locked

Row = dict[str, Any]
RUNS, SEARCHES = "rows.jsonl", "searches.jsonl"
PATIENCE = 60  # seconds for which another process may hold the lock of a file


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row; it is complete and on the disk, or absent.

    A line that a killed process left incomplete is removed first.

    Raises:
        OutputError: The file cannot be written.
    """
    line = json.dumps(json_plain(row), allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Appending is atomic without a lock on local disks, but not on all network disks.
        with locked(path.with_name(f"{TEMPORARY}{path.name}.lock"), PATIENCE) as free:
            if not free:
                raise OutputError(path, f"another process has held its lock for {PATIENCE} s")
            _append(path, line)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def _append(path: Path, line: bytes) -> None:
    with path.open("ab+") as file:
        cut_torn_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """All complete rows, in the order in which they were written; empty without a file.

    Raises:
        DataError: A line is not valid JSON, or has no ``key``.
    """
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line break is incomplete
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "key" not in row:
                raise ValueError("it has no 'key'")
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a row of an experiment ({error})"
            ) from error
        rows.append(row)
    return rows


def latest(rows: list[Row]) -> dict[str, Row]:
    """The last row of each key."""
    return {row["key"]: row for row in rows}
