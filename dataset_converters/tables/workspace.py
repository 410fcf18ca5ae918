"""Where a conversion happens: a DuckDB database in a temporary folder, its limits and its counts.

Why DuckDB: k-core, de-duplication and joins need the whole table many times, sorted and grouped.
DuckDB does that in SQL over tables on disk within a fixed ``memory_limit``, reads JSON lines, CSV
and Parquet, compressed or not, and goes on after a malformed line. Polars streams its scans but
has no such limit: 2 million reviews (909 MB), last duplicates and 5-core, two threads, 348,503
rows left by both, took Polars 9.8 s of processor time and a peak of 1,252 MiB, this package
(hashing of the input included) 10.0 s and 313 MiB; docs/data.md has the whole measurement.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as Waiting
from pathlib import Path
from typing import Any

import duckdb
from tqdm import tqdm

from recbole_cierec.errors import DataError

from .bad_records import BadRecords
from .sql import quote
from .tokens import is_utf8

# What files and disks can cause; all else is a mistake of ours and keeps its traceback. A file that
# is being read can cause more, but no fault of the SQL.
_OF_THE_DATA = (
    duckdb.OutOfMemoryException,
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.TransactionException,  # of one statement: what it wrote is not on the disk
    duckdb.FatalException,  # the same, found later
)
_OURS = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
FETCH = 10_000  # rows fetched at a time
PATTERN = frozenset("*?[")  # what DuckDB reads as a pattern in a path
_POLL = 0.2  # seconds between two looks at a statement's progress
_DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EMFILE")


class Workspace:
    """A database, the folder for temporary files, and what was met on the way.

    Args:
        temp: An existing folder on the disk of the output; whoever made it removes it.
        memory: DuckDB's limit, as ``1500MB``; the process itself needs some 300 MB more.
        threads: DuckDB's threads.
        bad: Collects unusable lines.

    Attributes:
        con: The connection.
        inputs: Files that were read, in order, for the manifest.
        notes: Lines for the report.
        sought: Where pictures were looked for, for messages; empty: nowhere.
    """

    def __init__(self, temp: Path, memory: str, threads: int, bad: BadRecords) -> None:
        self.temp, self.memory, self.bad = temp, memory, bad
        self.inputs: list[Path] = []
        self.notes: list[str] = []
        self.sought = ""
        self._files = 0
        self._worker = ThreadPoolExecutor(1)
        # Extensions would be downloaded; all that is needed here is built in.
        settings = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": str(temp / "spill"),
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
        self.con = duckdb.connect(str(temp / "work.duckdb"), config=settings)
        # Else DuckDB does not count how far a statement is; the bar itself is ours.
        self.con.execute("SET enable_progress_bar = true")
        self.con.execute("SET enable_progress_bar_print = false")

    def warn(self, text: str) -> None:
        """Add a warning to the report; it stands with the notes, marked as a warning."""
        self.notes.append(f"warning: {text}")

    def run(self, sql: str, what: str = "", path: Path | None = None) -> Any:
        """Run a statement with a progress bar on a terminal.

        Args:
            sql: One statement.
            what: Name of the step; empty: no bar.
            path: The input file that the statement reads, if it reads one.

        Returns:
            The connection, to fetch from.

        Raises:
            DataError: In one line of our words, for what DuckDB refuses: files it cannot read, a
                full disk.
        """
        try:
            return self._wait(self._worker.submit(self.con.execute, sql), what)
        except duckdb.Error as error:
            if not isinstance(error, _OF_THE_DATA) and (not path or isinstance(error, _OURS)):
                raise
            raise DataError(self._explain(error, what, path)) from error

    def value(self, sql: str) -> Any:
        """The one value that a query gives."""
        return self.run(sql).fetchone()[0]

    def rows(self, sql: str) -> Iterator[tuple]:
        """The rows of a query, in blocks, so that they need not fit in memory.

        Args:
            sql: A query; no other statement may run until all rows are taken.

        Yields:
            Each row.
        """
        cursor = self.run(sql)
        while block := cursor.fetchmany(FETCH):
            yield from block

    def new_file(self, suffix: str) -> Path:
        """A path for a temporary file."""
        self._files += 1
        return self.temp / f"part{self._files}{suffix}"

    def readable(self, path: Path) -> Path:
        """A name of an input file that DuckDB does not take for a pattern of names.

        Args:
            path: The file.

        Returns:
            The path itself, or a link to it in the temporary folder.

        Raises:
            DataError: There is no such file, or the system makes no links.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if not PATTERN.intersection(str(path)) and is_utf8(str(path)):
            return path
        # The end of the name tells the compression.
        link = self.new_file("".join(path.suffixes[-1:]))
        try:
            link.symlink_to(path.absolute())
        except OSError:
            raise DataError(f"{path}: has one of * ? [ in its path, or is not UTF-8") from None
        return link

    def make_table(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple]) -> None:
        """Fill a new table from Python.

        Args:
            name: The table.
            columns: Names to DuckDB types.
            rows: Values that JSON has; they go through a file, so that they need not fit in memory.
        """
        path = self.new_file(".jsonl")
        names = list(columns)
        with path.open("w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
        typed = ", ".join(f"{key}: '{kind}'" for key, kind in columns.items())
        self.run(
            f"CREATE TABLE {name} AS SELECT * FROM read_json({quote(path)}, columns={{{typed}}}, "
            "format='newline_delimited', records=true)"
        )
        path.unlink()

    def close(self) -> None:
        """Close the database; its file stays."""
        self._worker.shutdown()
        self.con.close()

    def _explain(self, error: Exception, what: str, path: Path | None) -> str:
        """What failed, where, and what to do: DuckDB's own words speak of SQL and of its files."""
        step = f"the step '{what}'" if what else "the conversion"
        text = str(error)
        system = (
            os.strerror(getattr(errno, name)) for name in _DISK_ERRORS if hasattr(errno, name)
        )
        reason = next((reason for reason in system if reason in text), "")
        if reason and path and str(path) in text:
            return f"{path}: cannot be read ({reason})"
        if reason:
            return (
                f"{self.temp.parent}: {step} failed ({reason}); see to this disk, or set --output"
            )
        if isinstance(error, duckdb.OutOfMemoryException):
            return f"{step} needs more memory than {self.memory}; raise --memory or free disk space"
        if path:
            return (
                f"{path}: cannot be read; is it damaged, or of another format than its name says?"
            )
        return f"{self.temp.parent}: {step} failed; is there space on this disk?"

    def _wait(self, running: Future, what: str) -> Any:
        """Wait for a statement, which runs in a thread of its own: a signal that DuckDB itself
        catches would come out as a RuntimeError."""
        bar = tqdm(total=100, desc=what, unit="%", disable=None if what else True, leave=False)
        with bar:
            try:
                while True:
                    try:
                        return running.result(timeout=_POLL)
                    except Waiting:
                        if running.done():  # a TimeoutError of the statement itself
                            raise
                        bar.update(max(0, min(100, int(self.con.query_progress())) - bar.n))
            except BaseException:
                if not running.done():
                    self.con.interrupt()
                    wait([running])
                raise
