"""PixelRec: interactions, descriptions and covers of videos.

Project: https://github.com/westlake-repl/PixelRec. Interactions have the columns item_id, user_id
and timestamp, the table of items item_id, title, tag and description, and covers are named by item
(i0.jpg). Annotations are the tags.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .fields.annotation_columns import make_items
from .options import add_images
from .pictures.items import attach_images
from .tables.any_format import Target, read_table
from .tables.sql import PER_SECOND, column, moment
from .tables.workspace import Workspace

NAME = "pixelrec"
_COLUMNS = ["item_id", "user_id", "timestamp"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--interactions",
        type=Path,
        required=True,
        metavar="F",
        help="such as interaction/Pixel200K.csv; .parquet works too",
    )
    group.add_argument(
        "--items",
        type=Path,
        required=True,
        metavar="F",
        help="item information, such as item_info/Pixel200K.csv",
    )
    add_images(group, "covers, named by item id")
    group.add_argument(
        "--tag-column",
        default="tag",
        metavar="C",
        help="of annotations; tag_en in some releases (default: tag)",
    )
    group.add_argument(
        "--tag-separator", default=",", metavar="S", help="between tags of a cell (default: ,)"
    )
    group.add_argument(
        "--time-unit",
        choices=tuple(PER_SECOND),
        default="s",
        help="of times that are numbers (default: s)",
    )


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: A file is missing or of another kind.
    """
    target = Target(
        "interactions",
        {
            "user_id": column("user_id"),
            "item_id": column("item_id"),
            "rating": "NULL::DOUBLE",
            "timestamp": moment("timestamp", options.time_unit),
        },
        _COLUMNS,
        _COLUMNS,
        "a table of PixelRec's interactions",
    )
    read_table(space, options.interactions, target)
    tags = options.tag_column
    target = Target(
        "raw_items",
        {"item_id": column("item_id"), "title": column("title"), "cell0": column(tags)},
        ["item_id", "title", tags],
        ["item_id"],
        "a table of PixelRec's items",
    )
    read_table(space, options.items, target)
    make_items(space, [tags], options.tag_separator)
    if options.images:
        attach_images(space, options, options.images)
