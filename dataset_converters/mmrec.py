"""MMRec: a data folder with NAME.inter and features of images and text.

Project: https://github.com/enoche/MMRec. NAME.inter is tab-separated, with the columns userID,
itemID and x_label, which is 0, 1 or 2 for training, validation and test; rating and timestamp are
kept if there are any. Row k of image_feat.npy and text_feat.npy belongs to itemID k. The split is
kept, and NAME.yaml names its files and the features.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_cierec.errors import DataError

from .options import add_folder, add_images
from .pictures.items import attach_images
from .tables.csv import read_csv
from .tables.csv_header import header_of
from .tables.features import MODALITIES, add_features
from .tables.sql import column, number
from .tables.workspace import Workspace

NAME = "mmrec"
SPLITS = ("train", "valid", "test")
_USER, _ITEM, _LABEL = "userID", "itemID", "x_label"
_MAPPINGS = {"user_id": ("u_id_mapping.csv", _USER), "item_id": ("i_id_mapping.csv", _ITEM)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    add_folder(group, "data/NAME of MMRec")
    group.add_argument(
        "--split",
        choices=("keep", "merge"),
        default="keep",
        help="keep MMRec's, or merge its parts into one file (default: keep)",
    )
    group.add_argument(
        "--raw-ids",
        action="store_true",
        help="write the ids of u_id_mapping.csv and i_id_mapping.csv, not MMRec's numbers",
    )
    add_images(group, "pictures named by item id")
    # The split is part of the data: nothing is dropped from it unless the user asks for it.
    parser.set_defaults(duplicates="all")


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: The folder is none of MMRec, or a file of it cannot be read.
    """
    _load_interactions(space, _inter_file(options.folder))
    paths = {name: options.folder / f"{name}_feat.npy" for name in MODALITIES}
    given = {name: path for name, path in paths.items() if path.is_file()}
    _load_items(space, add_features(space, options.name, given))
    if options.raw_ids:
        for key, (name, number_column) in _MAPPINGS.items():
            _rename(space, key, options.folder / name, number_column)
    if options.images:
        attach_images(space, options, options.images)
    if options.split == "keep":
        space.settings["benchmark_filename"] = list(SPLITS)
    else:
        space.run("ALTER TABLE interactions DROP COLUMN split")
    space.settings["use_annotations"] = False  # there are none


def _inter_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: must hold one NAME.inter of MMRec; it holds {names}")
    return found[0]


def _load_interactions(space: Workspace, path: Path) -> None:
    names = header_of(path, "\t")
    label = number(_LABEL)
    parts = " ".join(f"WHEN {k} THEN '{part}'" for k, part in enumerate(SPLITS))
    select = {
        "user_id": column(_USER),
        "item_id": column(_ITEM),
        "split": f"CASE {label} {parts} END",
    }
    for key in ("rating", "timestamp"):
        select[key] = number(key) if key in names else "NULL::DOUBLE"
    read_csv(
        space,
        "interactions",
        path,
        select,
        required=("user_id", "item_id", "split"),
        wanted=(_USER, _ITEM, _LABEL),
        what="NAME.inter of MMRec",
        names=None,
        separator="\t",
    )


def _load_items(space: Workspace, rows: int) -> None:
    """The items with an interaction, and those of the other rows of features."""
    odd = space.features and space.value(
        "SELECT min(item_id) FROM interactions WHERE NOT regexp_full_match(item_id, '[0-9]{1,18}')"
    )
    if odd:
        raise DataError(
            f"{space.inputs[0]}: itemID {odd[:60]!r} is no whole number, so that no row of "
            f"{next(iter(space.features.values())).name} belongs to it"
        )
    space.run(
        "CREATE TABLE items AS SELECT item_id, NULL::VARCHAR AS title, "
        "[]::VARCHAR[] AS annotations, NULL::VARCHAR AS image, NULL::VARCHAR AS image_url, "
        "feature_row FROM (SELECT DISTINCT item_id, TRY_CAST(item_id AS BIGINT) AS feature_row "
        "FROM interactions UNION "
        f"SELECT CAST(range AS VARCHAR), range FROM range({rows})) ORDER BY feature_row, item_id"
    )


def _rename(space: Workspace, key: str, path: Path, number_column: str) -> None:
    """Replace MMRec's numbers in a column by the ids of a mapping file."""
    names = header_of(path, "\t")
    separator = "\t" if len(names) > 1 else ","
    names = names if len(names) > 1 else header_of(path, ",")
    raw = next((name for name in names if name not in (number_column, "")), number_column)
    read_csv(
        space,
        f"{key}_names",
        path,
        {"number": column(number_column), "raw": column(raw)},
        required=("number", "raw"),
        wanted=(raw, number_column),
        what=f"a mapping of MMRec with the raw ids and {number_column}",
        separator=separator,
    )
    twice = f"SELECT number FROM {key}_names GROUP BY number HAVING count(DISTINCT raw) > 1"
    if (number := space.value(f"SELECT min(number) FROM ({twice})")) is not None:
        raise DataError(f"{path}: {number[:60]!r} in {number_column} has two raw ids")
    tables = ("interactions", "items") if key == "item_id" else ("interactions",)
    lost = f"FROM interactions ANTI JOIN {key}_names ON number = {key}"
    if count := space.value(f"SELECT count(DISTINCT {key}) {lost}"):
        first = space.value(f"SELECT min({key}) {lost}")
        raise DataError(f"{path}: lacks {count:,} ids of NAME.inter, the first is {first[:60]!r}")
    for table in tables:
        space.run(
            f"CREATE OR REPLACE TABLE {table} AS SELECT {table}.* REPLACE (raw AS {key}) "
            f"FROM {table} JOIN (SELECT DISTINCT number, raw FROM {key}_names) "
            f"ON number = {key} ORDER BY {table}.rowid"
        )
