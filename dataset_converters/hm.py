"""H&M: the tables and pictures of the Kaggle competition.

Page: https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations. The folder
holds transactions_train.csv, articles.csv and images (images/010/0108775015.jpg); customers.csv is
not needed. Annotations are columns of articles.csv. An article id has ten digits: zeros at its
start are kept, and restored where a program has dropped them.
"""

from __future__ import annotations

import argparse

from .fields.annotation_columns import make_items
from .options import add_folder, add_images
from .pictures.items import attach_images
from .tables.any_format import Target, read_table, table_file
from .tables.sql import column, moment
from .tables.workspace import Workspace

NAME = "hm"
_ARTICLE, _TITLE = "article_id", "prod_name"
_LABELS = (
    "product_type_name",
    "graphical_appearance_name",
    "colour_group_name",
    "garment_group_name",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    add_folder(group, "with transactions_train and articles, as .csv, .csv.gz or .parquet")
    group.add_argument(
        "--annotation-columns",
        nargs="*",
        default=list(_LABELS),
        metavar="C",
        help=f"columns of articles (default: {' '.join(_LABELS)})",
    )
    add_images(group, "pictures named by article id; by default images in --folder, if it exists")
    parser.set_defaults(stop=["Unknown", "Undefined"])


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: A file is missing or of another kind.
    """
    ids = {"user_id": column("customer_id"), "item_id": _article()}
    target = Target(
        "interactions",
        {**ids, "rating": "NULL::DOUBLE", "timestamp": moment("t_dat")},
        ["t_dat", "customer_id", _ARTICLE],
        ["user_id", "item_id", "timestamp"],
        "the transactions of H&M",
    )
    read_table(space, table_file(options.folder, "transactions_train"), target)
    labels = options.annotation_columns
    cells = {f"cell{place}": column(label) for place, label in enumerate(labels)}
    target = Target(
        "raw_items",
        {"item_id": _article(), "title": column(_TITLE), **cells},
        list(dict.fromkeys([_ARTICLE, _TITLE, *labels])),
        ["item_id"],
        "the articles of H&M",
    )
    read_table(space, table_file(options.folder, "articles"), target)
    make_items(space, labels, "|")
    place = options.images or options.folder / "images"
    if options.images or place.is_dir():
        attach_images(space, options, place)


def _article() -> str:
    """The article id, with the zeros that make it ten digits."""
    text = column(_ARTICLE)
    short = f"regexp_full_match({text}, '[0-9]{{1,9}}')"
    return f"CASE WHEN {short} THEN lpad({text}, 10, '0') ELSE {text} END"
