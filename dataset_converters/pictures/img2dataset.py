"""Pictures that img2dataset downloaded, found by their URL.

img2dataset writes a folder ``00000`` or an archive ``00000.tar`` of pictures per shard and next to
it a table ``00000.parquet`` with a row per URL: ``url``, ``key`` (the file's name without suffix)
and ``status``, which is ``success`` for the URLs that have a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from recbole_cierec.errors import DataError

from ..tables.sql import quote
from ..tables.workspace import Workspace
from .archives import extract_archive
from .folders import walk_pictures

_COLUMNS = {"url", "key", "status"}


def is_img2dataset(space: Workspace, place: Path) -> bool:
    """Whether a folder is the output of img2dataset, by the columns of its first table.

    Raises:
        DataError: The table is damaged.
    """
    for table in _tables(place)[:1]:
        source = f"read_parquet({quote(space.readable(table))})"
        described = space.run(f"DESCRIBE FROM {source}", f"read {table.name}", table).fetchall()
        return {row[0] for row in described} >= _COLUMNS
    return False


def load_fetched(space: Workspace, place: Path) -> None:
    """Fill the table pictures with the id (here the URL) and path of each downloaded picture.

    Shards are unpacked among the temporary files.

    Raises:
        DataError: A shard or a table is damaged, or no URL has a picture.
    """
    tables = _tables(place)
    space.inputs += tables
    space.make_table("fetched", {"key": "VARCHAR", "path": "VARCHAR"}, _files(space, place))
    listed = ", ".join(quote(space.readable(table)) for table in tables)
    space.run(
        "CREATE TABLE pictures AS SELECT url AS id, min(path) AS path FROM "
        f"read_parquet([{listed}], union_by_name=true) AS rows "
        "JOIN fetched ON fetched.key = CAST(rows.key AS VARCHAR) "
        "WHERE status = 'success' GROUP BY url",
        f"read {place.name}",
        tables[0],
    )
    space.run("DROP TABLE fetched")
    if not space.value("SELECT count(*) FROM pictures"):
        raise DataError(f"{place}: none of the URLs in its parquet files has a picture")


def _tables(place: Path) -> list[Path]:
    return sorted(place.glob("*.parquet")) if place.is_dir() else []


def _files(space: Workspace, place: Path) -> Iterator[tuple[str, str]]:
    shards = []
    for shard in sorted(place.glob("*.tar")):
        shards.append(space.new_file(""))
        extract_archive(shard, shards[-1])
    yield from chain.from_iterable(map(walk_pictures, (place, *shards)))
