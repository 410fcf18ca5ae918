"""Any table of interactions and, optionally, of items, with named columns.

The file name tells CSV, TSV, Parquet and JSON lines apart; all but Parquet may end in .gz or .zst.
Pictures come from a column of paths or URLs, or from a folder of files named by item id.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_cierec.errors import ConfigError, DataError

from .fields.annotation_columns import annotations_sql
from .fields.kept_columns import field_names, kept_sql
from .options import add_images
from .pictures.folders import path_inside, picture_folder, readable_picture
from .pictures.img2dataset import is_img2dataset
from .pictures.items import attach_images
from .tables.any_format import Target, read_table
from .tables.matching import FEW
from .tables.sql import PER_SECOND, column, moment, number
from .tables.workspace import Workspace

NAME = "table"
_IS_URL = "regexp_matches(picture, '^(?i)https?://')"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    group.add_argument("--interactions", type=Path, nargs="+", required=True, metavar="F")
    group.add_argument("--items", type=Path, nargs="*", default=[], metavar="F")
    group.add_argument("--encoding", default="utf-8", help="of CSV and TSV (default: utf-8)")
    group.add_argument("--separator", help="of CSV and TSV (default: that of each file)")
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
        choices=tuple(PER_SECOND),
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
        "--columns",
        nargs="+",
        default=[],
        metavar="C",
        help="of items, to keep in NAME.item, as for --where: numbers as float, others as token",
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
    of_items = options.image_column or options.annotation_columns or options.columns
    if of_items and not options.items:
        raise ConfigError(
            "--image-column, --annotation-columns and --columns are columns of --items"
        )
    select = {
        "user_id": column(options.user_column),
        "item_id": column(options.item_column),
        "rating": number(options.rating_column) if options.rating_column else "NULL::DOUBLE",
        "timestamp": (
            moment(options.time_column, options.time_unit)
            if options.time_column
            else "NULL::DOUBLE"
        ),
    }
    wanted = [options.user_column, options.item_column]
    target = Target("interactions", select, wanted, ["user_id", "item_id"])
    target.options = _options(options, "user_column", "item_column", "rating_column", "time_column")
    for given, key in ((options.rating_column, "rating"), (options.time_column, "timestamp")):
        if given:
            target.wanted.append(given)
            target.required.append(key)
    for path in options.interactions:
        read_table(space, path, target, options.separator, options.encoding)
    _load_items(space, options)


def _options(options: argparse.Namespace, *names: str) -> dict[str, str]:
    """The option that names a column, by the column."""
    return {getattr(options, name): f"--{name.replace('_', '-')}" for name in names}


def _load_items(space: Workspace, options: argparse.Namespace) -> None:
    key = options.item_key or options.item_column
    labels, kept = options.annotation_columns, field_names(options.columns)
    wanted = [key, *labels, *kept, *(c for c in (options.title_column, options.image_column) if c)]
    select = {
        "item_id": column(key),
        "title": column(options.title_column) if options.title_column else "NULL::VARCHAR",
        "picture": column(options.image_column) if options.image_column else "NULL::VARCHAR",
        **{f"cell{place}": column(label) for place, label in enumerate(labels)},
        **{f"kept{place}": column(name) for place, name in enumerate(kept)},
    }
    space.run(f"CREATE TABLE raw_items ({', '.join(f'{name} VARCHAR' for name in select)})")
    target = Target("raw_items", select, wanted, ["item_id"])
    target.options = {
        **dict.fromkeys(labels, "--annotation-columns"),
        **dict.fromkeys(kept, "--columns"),
        **_options(options, "title_column", "image_column"),
        key: "--item-key",
    }
    for path in options.items:
        read_table(space, path, target, options.separator, options.encoding)
    if not options.items and options.images:
        # Pictures named by item id are all that is known about the items.
        space.run(
            "INSERT INTO raw_items (item_id) SELECT DISTINCT item_id FROM interactions ORDER BY 1"
        )
    annotations = annotations_sql(space, "raw_items", labels, options.annotation_separator)
    cells = {field: f"kept{place}" for place, field in enumerate(kept.values())}
    _make_items(space, options, annotations, kept_sql(space, "raw_items", cells))
    space.run("DROP TABLE raw_items")


def _make_items(
    space: Workspace, options: argparse.Namespace, annotations: str, kept: dict[str, str]
) -> None:
    """Make items of raw_items, whose pictures are local files or URLs."""
    space.kept = {head: f"kept{place}" for place, head in enumerate(kept)}
    more = "".join(f", {kept[head]} AS {name}" for head, name in space.kept.items())
    fetched = options.images and is_img2dataset(space, options.images)
    files = _named_files(space, options) if options.image_column else []
    space.make_table("files", {"cell": "VARCHAR", "path": "VARCHAR"}, files)
    space.run(
        f"CREATE TABLE items AS SELECT item_id, title, {annotations} AS annotations, "
        f"path AS image, CASE WHEN {_IS_URL} THEN picture END AS image_url{more} FROM raw_items "
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
    files = {cell: path for cell, path in found.items() if path}
    other = [cell for cell, path in files.items() if not readable_picture(path)]
    if other:
        space.warn(
            f"pictures of --image-column that are left out: {len(other):,} are no JPEG, PNG, WebP, "
            f"GIF or BMP, such as {other[0][:80]!r}; convert them first"
        )
    for cell in other:
        del files[cell]
    return [(cell, str(path)) for cell, path in files.items()]
