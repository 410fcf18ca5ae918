"""Any table of interactions and, optionally, of items, with named columns.

The file name tells CSV, TSV, Parquet and JSON lines apart; all but Parquet may end in .gz or .zst.
Pictures come from a column of paths or URLs, or from a folder of files named by item id.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_cierec.errors import ConfigError, DataError

from .fields.annotation_columns import annotations_sql
from .options import add_images
from .pictures.folders import path_inside, picture_folder
from .pictures.img2dataset import is_img2dataset
from .pictures.items import attach_images
from .tables.csv import read_csv
from .tables.csv_header import require_columns
from .tables.loading import append
from .tables.matching import FEW
from .tables.records import read_json_lines, sample_records
from .tables.sql import column, name, number, quote, ref, selected
from .tables.workspace import Workspace

NAME = "table"
_FORMS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
_IS_URL = "regexp_matches(picture, '^(?i)https?://')"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass
class _Target:
    """Where the rows of a file go.

    Args:
        table: Name of the table.
        select: Its columns, as name -> expression over the file's columns.
        wanted: The file's columns that are needed.
        required: Columns of the table without which a row is bad.
    """

    table: str
    select: dict[str, str]
    wanted: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    group.add_argument("--interactions", type=Path, nargs="+", required=True, metavar="F")
    group.add_argument("--items", type=Path, nargs="*", default=[], metavar="F")
    group.add_argument("--encoding", default="utf-8", help="of CSV and TSV (default: utf-8)")
    group.add_argument("--separator", help="of CSV and TSV (default: by the file's name)")
    columns = parser.add_argument_group("columns (name of the file's column)")
    columns.add_argument("--user-column", default="user_id", metavar="C")
    columns.add_argument("--item-column", default="item_id", metavar="C")
    columns.add_argument(
        "--item-key", metavar="C", help="the item id in the table of items (default: --item-column)"
    )
    columns.add_argument("--rating-column", metavar="C")
    columns.add_argument("--time-column", metavar="C", help="numbers or ISO dates")
    columns.add_argument(
        "--time-unit",
        choices=tuple(_PER_SECOND),
        default="s",
        help="of times that are numbers (default: s)",
    )
    columns.add_argument("--title-column", metavar="C")
    columns.add_argument(
        "--annotation-columns",
        nargs="*",
        default=[],
        metavar="C",
        help="of labels; a column of 0 and 1 (true and false, yes and no) gives its own name where "
        "it is true, a column of numbers name=number",
    )
    columns.add_argument(
        "--annotation-separator",
        default="|",
        metavar="S",
        help="between labels in a text cell (default: |); lists are read as lists",
    )
    columns.add_argument(
        "--image-column", metavar="C", help="paths below --images, or URLs to download"
    )
    add_images(columns, "pictures, named by item id unless --image-column names them")


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: A file cannot be read or lacks a column.
        ConfigError: Options contradict each other.
    """
    if options.separator is not None and not 1 <= len(options.separator) <= 4:
        raise ConfigError("--separator must have one to four characters")
    if (options.image_column or options.annotation_columns) and not options.items:
        raise ConfigError("--image-column and --annotation-columns are columns of --items")
    select = {
        "user_id": column(options.user_column),
        "item_id": column(options.item_column),
        "rating": number(options.rating_column) if options.rating_column else "NULL::DOUBLE",
        "timestamp": _time(options.time_column, options.time_unit),
    }
    wanted = [options.user_column, options.item_column]
    target = _Target("interactions", select, wanted, ["user_id", "item_id"])
    for given, key in ((options.rating_column, "rating"), (options.time_column, "timestamp")):
        if given:
            target.wanted.append(given)
            target.required.append(key)
    for path in options.interactions:
        _read(space, path, options, target)
    _load_items(space, options)


def _load_items(space: Workspace, options: argparse.Namespace) -> None:
    key = options.item_key or options.item_column
    labels = options.annotation_columns
    wanted = [key, *labels, *(c for c in (options.title_column, options.image_column) if c)]
    select = {
        "item_id": column(key),
        "title": column(options.title_column) if options.title_column else "NULL::VARCHAR",
        "picture": column(options.image_column) if options.image_column else "NULL::VARCHAR",
        **{f"cell{place}": column(label) for place, label in enumerate(labels)},
    }
    space.run(f"CREATE TABLE raw_items ({', '.join(f'{name} VARCHAR' for name in select)})")
    target = _Target("raw_items", select, wanted, ["item_id"])
    for path in options.items:
        _read(space, path, options, target)
    if not options.items and options.images:
        # Pictures named by item id are all that is known about the items.
        space.run(
            "INSERT INTO raw_items (item_id) SELECT DISTINCT item_id FROM interactions ORDER BY 1"
        )
    annotations = annotations_sql(space, "raw_items", labels, options.annotation_separator)
    _make_items(space, options, annotations)
    space.run("DROP TABLE raw_items")


def _make_items(space: Workspace, options: argparse.Namespace, annotations: str) -> None:
    """Make items of raw_items, whose pictures are local files or URLs."""
    fetched = options.images and is_img2dataset(space, options.images)
    files = _named_files(space, options) if options.image_column else []
    space.make_table("files", {"cell": "VARCHAR", "path": "VARCHAR"}, files)
    space.run(
        f"CREATE TABLE items AS SELECT item_id, title, {annotations} AS annotations, "
        f"path AS image, CASE WHEN {_IS_URL} THEN picture END AS image_url FROM raw_items "
        "LEFT JOIN files ON cell = picture ORDER BY raw_items.rowid"
    )
    if options.images and (fetched or not options.image_column):
        attach_images(space, options, options.images)
    else:
        space.sought = f"the column {options.image_column}" if options.image_column else ""


def _named_files(space: Workspace, options: argparse.Namespace) -> list[tuple[str, str]]:
    """Cells of the column of pictures that name a file below --images, and these files."""
    cells = space.run(
        f"SELECT DISTINCT picture FROM raw_items WHERE NOT {_IS_URL} ORDER BY picture"
    ).fetchall()
    if not options.images:
        if cells:
            raise DataError(
                f"--image-column {options.image_column}: holds {cells[0][0][:60]!r}, which is not "
                "a URL; give the pictures' folder with --images"
            )
        return []
    folder = picture_folder(space, options.images)
    found = {cell: path_inside(folder, cell) for (cell,) in cells}
    lost = [cell for cell, path in found.items() if not path]
    if lost:
        text = f"pictures of --image-column that are not in {options.images}: {len(lost):,} of"
        text += f" {len(found):,}, such as {lost[0][:80]!r}"
        if len(found) - len(lost) < options.min_match * len(found):
            raise DataError(f"{text}; give the folder that they are relative to")
        note = space.warn if len(lost) > FEW * len(found) else space.notes.append
        note(text)
    return [(cell, str(path)) for cell, path in found.items() if path]


def _time(key: str | None, unit: str) -> str:
    if not key:
        return "NULL::DOUBLE"
    seconds = f"{number(key)} / {_PER_SECOND[unit]}"
    return f"coalesce({seconds}, epoch(TRY_CAST({column(key)} AS TIMESTAMPTZ)))"


def _read(space: Workspace, path: Path, options: argparse.Namespace, to: _Target) -> None:
    """Append one file of any form; all its columns are read as text."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    form = _FORMS.get(suffixes[-1].lower() if suffixes else "")
    if form is None and options.separator is None:
        raise DataError(f"{path}: is not named {', '.join(_FORMS)}; rename it or set --separator")
    if form == "parquet":
        _read_parquet(space, path, to)
    elif form == "json":
        _read_records(space, path, to)
    else:
        read_csv(
            space,
            to.table,
            path,
            to.select,
            required=to.required,
            wanted=to.wanted,
            separator=options.separator or ("," if form == "csv" else "\t"),
            encoding=options.encoding,
        )


def _read_parquet(space: Workspace, path: Path, to: _Target) -> None:
    source = f"read_parquet({quote(space.readable(path))})"
    space.inputs.append(path)
    columns = space.run(f"DESCRIBE FROM {source}", f"read {path.name}", path).fetchall()
    described = {row[0]: row[1] for row in columns}
    require_columns(path, list(described), to.wanted, "such a table")
    texts = {ref(key): _as_text(key, described[key]) for key in to.wanted}
    query = f"SELECT {selected(to.select)} FROM (SELECT {selected(texts)} FROM {source})"
    loaded = append(space, to.table, query, path, to.required)
    examples = [(row + 1, "(row) lacks a required value") for row in loaded.examples]
    space.bad.add(path, loaded.rows, loaded.incomplete, examples)


def _as_text(key: str, kind: str) -> str:
    """A column as the text that the other formats would have."""
    if kind.endswith("[]"):
        return f"CAST(to_json({name(key)}) AS VARCHAR)"
    text = f"CAST({name(key)} AS VARCHAR)"
    if kind in ("DOUBLE", "FLOAT"):  # whole numbers of a column with gaps: 123, not 123.0
        return f"regexp_replace({text}, '\\.0$', '')"
    return text


def _read_records(space: Workspace, path: Path, to: _Target) -> None:
    records, literal = sample_records(path)
    known = list(dict.fromkeys(key for record in records for key in record))
    require_columns(path, known, to.wanted, "such a table")

    def lacks(record: dict[str, Any]) -> str:
        return f"lacks one of {', '.join(to.wanted)}, or it is malformed"

    read_json_lines(
        space,
        to.table,
        path,
        dict.fromkeys(to.wanted, "VARCHAR"),
        to.select,
        lacks,
        required=to.required,
        literal=literal,
    )
