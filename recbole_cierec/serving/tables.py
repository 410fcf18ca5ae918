"""Tables written as they come: CSV, JSON lines, or Parquet; complete or not at all.

Parquet is written by DuckDB, from a temporary table on the disk, so that memory is bounded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from recbole_cierec.errors import ConfigError, OutputError
from recbole_cierec.files.atomic_write import replace, replacing
from recbole_cierec.files.leftovers import claimed

Write = Callable[[pd.DataFrame], None]
FORMATS = (".csv", ".jsonl", ".parquet")
SHARED = ("user", "user_status", "new_item", "kind")  # columns that the rows of a list share
MEMORY = "512MB"  # of DuckDB
_ROW_GROUP = 122_880  # rows, DuckDB's own


def check_format(path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a file whose ending names none of the formats.

    Raises:
        ConfigError: In one line.
    """
    if path.suffix not in formats:
        raise ConfigError(f"{path}: end its name in {', '.join(formats)}, which is its format")


@contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Yield a function that appends a table; the file appears when the block ends well.

    Args:
        path: Its ending says the format. In JSON lines the rows of a list make one line.

    Raises:
        OutputError: It cannot be written; an earlier file is unchanged.
    """
    check_format(path)
    if path.suffix == ".parquet":
        with _parquet(path) as write:
            yield write
        return
    with replacing(path) as stream:
        if path.suffix == ".csv":
            first = [True]

            def write_csv(rows: pd.DataFrame) -> None:
                text = rows.to_csv(
                    index=False, header=first[0], float_format="%.9g", lineterminator="\n"
                )
                first[0] = False
                stream.write(text.encode("utf-8", "surrogatepass"))

            yield write_csv
        else:
            yield lambda rows: stream.writelines(_lines(rows))


def _lines(rows: pd.DataFrame) -> Iterator[bytes]:
    """A line for each list: what its rows share, then the other columns as lists."""
    shared = [name for name in SHARED if name in rows]
    for _, part in rows.groupby(shared, sort=False):
        columns = part.to_dict("list")
        record = {name: cells[0] if name in shared else cells for name, cells in columns.items()}
        text = json.dumps(record, ensure_ascii=False) + "\n"
        yield text.encode("utf-8", "surrogatepass")


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import duckdb

    try:
        folder = path.resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        with claimed(folder) as work:
            work.mkdir()
            with duckdb.connect(str(work / "rows.duckdb")) as database:
                for setting in (f"memory_limit = '{MEMORY}'", "threads = 1"):
                    database.execute(f"SET {setting}")
                made: list[bool] = []

                def write(rows: pd.DataFrame) -> None:
                    database.register("block", rows)
                    if made:
                        database.execute("INSERT INTO rows SELECT * FROM block")
                    else:
                        database.execute("CREATE TABLE rows AS SELECT * FROM block")
                        for name in () if len(rows) else rows.select_dtypes(object):
                            # DuckDB cannot infer the type of texts without one.
                            database.execute(f"ALTER TABLE rows ALTER {name} TYPE VARCHAR")
                    database.unregister("block")
                    made.append(True)

                yield write
                if not made:
                    raise OutputError(path, "there is nothing to write")
                done = work / "done.parquet"
                text = str(done).replace("'", "''")
                database.execute(
                    f"COPY rows TO '{text}' (FORMAT parquet, ROW_GROUP_SIZE {_ROW_GROUP})"
                )
            with done.open("r+b") as stream:
                os.fsync(stream.fileno())
            replace(done, path)
    except OutputError:
        raise
    except (OSError, duckdb.IOException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:120]
        raise OutputError(path, reason) from error
