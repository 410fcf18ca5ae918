"""MicroLens: interactions, titles, covers and features of short videos.

Project: https://github.com/westlake-repl/MicroLens. The folder holds MicroLens-100k_pairs.csv (a
row of user, item and timestamp in milliseconds) or .tsv (a row of a user and the videos in order of
time), and, if they were downloaded, MicroLens-100k_title_en.csv, tags_to_summary.csv,
MicroLens-100k_covers (or .zip) and extracted_modality_features. Row k of a file of features belongs
to video k + 1. Annotations are the categories in tags_to_summary.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_cierec.errors import ConfigError, DataError, nearest

from .options import add_folder, add_images
from .pictures.items import attach_images
from .tables.any_format import Target, read_table
from .tables.csv import read_csv
from .tables.csv_header import header_of
from .tables.features import MODALITIES, add_features
from .tables.sql import column, moment
from .tables.workspace import Workspace

NAME = "microlens"
_ITEMS = ("item", "videoID", "video_id", "item_id")  # names of the column of videos
_PAIRS = ("*_pairs.csv", "*_pairs.parquet", "*_pairs.tsv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    add_folder(group, "with MicroLens-100k_pairs.csv")
    add_images(group, "covers named by video; by default *_covers or *_covers.zip in --folder")
    group.add_argument(
        "--features",
        nargs="*",
        metavar="MODALITY=FILE",
        help=f".npy files of {', '.join(MODALITIES)}; by default *_MODALITY_features_*.npy in "
        "--folder or its extracted_modality_features; without a value: none",
    )


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: The folder has no interactions, or a file is of another kind.
    """
    folder = options.folder
    _load_pairs(space, folder)
    for table, pattern in (("titles", "*_title*.csv"), ("tags", "tags_to_summary.csv")):
        space.run(f"CREATE TABLE {table} (item_id VARCHAR, value VARCHAR)")
        for path in sorted(folder.glob(pattern))[:1]:
            _load_values(space, table, path)
    add_features(space, options.name, _features(options))
    space.run(
        "CREATE TABLE items AS SELECT item_id, min(titles.value) AS title, "
        "coalesce(list(DISTINCT tags.value ORDER BY tags.value) "
        "FILTER (tags.value IS NOT NULL), []) AS annotations, "
        "NULL::VARCHAR AS image, NULL::VARCHAR AS image_url, "
        "TRY_CAST(item_id AS BIGINT) - 1 AS feature_row FROM (SELECT item_id FROM interactions "
        "UNION SELECT item_id FROM titles UNION SELECT item_id FROM tags) "
        "LEFT JOIN titles USING (item_id) LEFT JOIN tags USING (item_id) "
        "GROUP BY item_id ORDER BY feature_row, item_id"
    )
    covers = [path for path in sorted(folder.glob("*_covers*")) if path.is_dir()]
    covers += sorted(folder.glob("*_covers*.zip"))
    if place := options.images or next(iter(covers), None):
        attach_images(space, options, place)


def _load_pairs(space: Workspace, folder: Path) -> None:
    path = next((path for name in _PAIRS for path in sorted(folder.glob(name))), None)
    if path is None:
        raise DataError(f"{folder}: holds none of {', '.join(_PAIRS)}")
    if path.suffix == ".tsv":
        _load_sequences(space, path)
        return
    item, user = "item", "user"
    if path.suffix == ".csv" and "videoID" in header_of(path, ","):
        item, user = "videoID", "userID"  # as the release's readme names them
    select = {
        "user_id": column(user),
        "item_id": column(item),
        "rating": "NULL::DOUBLE",
        "timestamp": moment("timestamp", "ms"),
    }
    required = ["user_id", "item_id", "timestamp"]
    what = "a table of MicroLens' pairs"
    read_table(
        space, path, Target("interactions", select, [user, item, "timestamp"], required, what)
    )


def _load_sequences(space: Workspace, path: Path) -> None:
    """Interactions of users with their videos in order; times are the places in that order."""
    read_csv(
        space,
        "sequences",
        path,
        {"user_id": column("user"), "items": column("items")},
        required=("user_id", "items"),
        names=("user", "items"),
        separator="\t",
        quoted=False,
    )
    space.run(
        "CREATE TABLE interactions AS SELECT user_id, item_id, NULL::DOUBLE AS rating, "
        "CAST(place AS DOUBLE) AS timestamp FROM (SELECT rowid AS line, user_id, "
        "unnest(string_split(items, ' ')) AS item_id, "
        "generate_subscripts(string_split(items, ' '), 1) AS place FROM sequences) "
        "WHERE item_id <> '' ORDER BY line, place"
    )
    space.run("DROP TABLE sequences")
    space.notes.append(f"{path.name}: times are the places of videos in their user's sequence")


def _load_values(space: Workspace, table: str, path: Path) -> None:
    """A table of videos and one value each, with or without a header."""
    names = header_of(path, ",")
    headless = names[0].isdecimal()
    if len(names) < 2 or not (headless or names[0] in _ITEMS):
        shown = ", ".join(names[:5])
        raise DataError(f"{path}: is no table of videos and {table}; its columns are {shown[:80]}")
    read_csv(
        space,
        table,
        path,
        {"item_id": column(names[0]), "value": column(names[1])},
        required=("item_id",),
        names=names if headless else None,
    )


def _features(options: argparse.Namespace) -> dict[str, Path]:
    places = [options.folder, options.folder / "extracted_modality_features"]
    if options.features is None:
        found = {
            key: [path for place in places for path in sorted(place.glob(f"*_{key}_features*.npy"))]
            for key in MODALITIES
        }
        return {key: paths[0] for key, paths in found.items() if paths}
    given = dict(text.partition("=")[::2] for text in options.features)
    for key in given:
        if key not in MODALITIES:
            raise ConfigError(f"--features: no modality is named '{key}'{nearest(key, MODALITIES)}")
    return {key: Path(given[key]) for key in MODALITIES if key in given}
