"""A DuckDB database in a temporary folder, and what a conversion notes for its report.

Why DuckDB: k-core, de-duplication and joins need the whole table many times, sorted and grouped.
DuckDB does that in SQL over tables on disk within a fixed ``memory_limit``, reads JSON lines, CSV
and Parquet, compressed or not, and continues after a malformed line. Polars streams its scans but
has no such limit. docs/converters.md compares processor time and memory.
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

# What files and disks can cause; anything else is a bug in this package and keeps its traceback. A
# file that is being read can cause more errors, but none of the SQL itself.
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
    """The database, a folder for temporary files, and notes for the report.

    Args:
        temp: An existing folder on the disk of the output; the caller removes it.
        memory: DuckDB's limit, such as ``1500MB``; the process itself needs some 300 MB more.
        threads: Of DuckDB.
        bad: Collects unusable records.

    Attributes:
        inputs: Files that were read, in order, for the manifest.
        notes: Lines for the report.
        sought: Where pictures were looked for, for messages; empty: nowhere.
        features: Files of ready-made features by modality; ``items.feature_row`` names their rows.
        kept: Further columns of NAME.item, from their head (``price:float``) to that of ``items``.
        settings: Keys that a run on the data needs, for NAME.yaml.
    """

    def __init__(self, temp: Path, memory: str, threads: int, bad: BadRecords) -> None:
        self.temp, self.memory, self.bad = temp, memory, bad
        self.inputs: list[Path] = []
        self.notes: list[str] = []
        self.sought = ""
        self.features: dict[str, Path] = {}
        self.kept: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self._files = 0
        self._worker = ThreadPoolExecutor(1)
        # Extensions would be downloaded; everything needed is built in.
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": str(temp / "spill"),
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
        self.con = duckdb.connect(str(temp / "work.duckdb"), config=settings)
        self.con.execute("SET TimeZone = 'UTC'")  # of dates without a zone; else the machine's
        # Without it DuckDB does not track a statement's progress; tqdm draws the bar.
        self.con.execute("SET enable_progress_bar = true")
        self.con.execute("SET enable_progress_bar_print = false")

    def warn(self, text: str) -> None:
        """Add a note to the report that is marked as a warning."""
        self.notes.append(f"warning: {text}")

    def run(self, sql: str, what: str = "", path: Path | None = None) -> Any:
        """Run a statement with a progress bar on a terminal.

        Args:
            sql: One statement.
            what: Name of the step; empty: no bar.
            path: The input file that the statement reads, if any.

        Returns:
            The connection, to fetch from.

        Raises:
            DataError: A file cannot be read, the disk is full, or there is too little memory.
        """
        try:
            return self._wait(self._worker.submit(self.con.execute, sql), what)
        except duckdb.Error as error:
            if not isinstance(error, _OF_THE_DATA) and (not path or isinstance(error, _OURS)):
                raise
            raise DataError(self._explain(error, what, path)) from error

    def value(self, sql: str) -> Any:
        """The single value of a query."""
        return self.run(sql).fetchone()[0]

    def rows(self, sql: str) -> Iterator[tuple]:
        """Yield the rows of a query, which need not fit in memory.

        No other statement may run before all rows are taken.
        """
        cursor = self.run(sql)
        while block := cursor.fetchmany(FETCH):
            yield from block

    def new_file(self, suffix: str) -> Path:
        """A path for a temporary file."""
        self._files += 1
        return self.temp / f"part{self._files}{suffix}"

    def readable(self, path: Path) -> Path:
        """A path of an input file that DuckDB does not read as a pattern.

        Returns:
            The path itself, or a link to it in the temporary folder.

        Raises:
            DataError: There is no such file, or the system cannot make links.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if not PATTERN.intersection(str(path)) and is_utf8(str(path)):
            return path
        # DuckDB detects the compression by the end of the name.
        link = self.new_file("".join(path.suffixes[-1:]))
        try:
            link.symlink_to(path.absolute())
        except OSError:
            raise DataError(f"{path}: its path has one of * ? [, or is not UTF-8") from None
        return link

    def make_table(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple]) -> None:
        """Fill a new table from Python.

        Args:
            name: The table.
            columns: Names to DuckDB types.
            rows: JSON values; they go through a file and need not fit in memory.
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
        """Close the database; its file remains."""
        self._worker.shutdown()
        self.con.close()

    def _explain(self, error: Exception, what: str, path: Path | None) -> str:
        """What failed, where, and what to do; DuckDB's messages are about SQL and its own files."""
        step = f"the step '{what}'" if what else "the conversion"
        text = str(error)
        system = (
            os.strerror(getattr(errno, name)) for name in _DISK_ERRORS if hasattr(errno, name)
        )
        reason = next((reason for reason in system if reason in text), "")
        if reason and path and str(path) in text:
            return f"{path}: cannot be read ({reason})"
        if reason:
            return f"{self.temp.parent}: {step} failed ({reason}); check this disk, or set --output"
        if isinstance(error, duckdb.OutOfMemoryException):
            return f"{step} needs more memory than {self.memory}; raise --memory or free disk space"
        if path:
            return (
                f"{path}: cannot be read; is it damaged, or of another format than its name says?"
            )
        return f"{self.temp.parent}: {step} failed; is there space on this disk?"

    def _wait(self, running: Future, what: str) -> Any:
        """Wait for a statement in another thread.

        DuckDB would catch a signal in the main thread and raise it as a RuntimeError.
        """
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
