"""Allrecipes: the CSV files of FoodRecSys-V1, or the files of HAFR's own release.

FoodRecSys-V1 (https://www.kaggle.com/datasets/elisaxxygao/foodrecsysv1) holds
core-data-{train,valid,test}_rating.csv, core-data_recipe.csv and the folder core-data-images.
HAFR's release (https://github.com/elisagao122/HAFR) holds PREFIX.{train,valid,test}.rating and
NumPy files of ingredient numbers and picture features, but neither times nor names nor pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from recbole_cierec.errors import ConfigError, DataError

from .fields.ingredients import element_of
from .options import add_images
from .pictures.items import attach_images
from .tables.csv import read_csv
from .tables.sql import column, number, quote, ref
from .tables.workspace import Workspace

NAME = "allrecipes"
ICONS = (r"/nophoto/", r"/images/44555\.png$", r"/userphotos/[^/]*/0\.jpg$")
SPLITS = ("train", "valid", "test")
EXPECTED = {"users": 68_768, "items": 45_630, "interactions": 1_093_845, "elements": 2_736}
_RATING = ("user_id", "recipe_id", "rating", "dateLastModified")
_RECIPE = ("recipe_id", "recipe_name", "image_url", "ingredients")
_ITEMS = {
    "item_id": "VARCHAR",
    "title": "VARCHAR",
    "annotations": "VARCHAR[]",
    "image": "VARCHAR",
    "image_url": "VARCHAR",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    # The split is part of the data: nothing is dropped from it unless the user asks for it.
    parser.set_defaults(duplicates="all")
    group = parser.add_argument_group("input: either --folder or --release")
    group.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="unpacked FoodRecSys-V1, with core-data-train_rating.csv",
    )
    group.add_argument(
        "--release",
        type=Path,
        metavar="PREFIX",
        help="of HAFR's files: Data/data for Data/data.train.rating",
    )
    add_images(
        group,
        "pictures named by recipe id (default: core-data-images in --folder, else URLs to "
        "download)",
    )
    group.add_argument(
        "--split",
        choices=("keep", "merge"),
        default="keep",
        help="keep it as shipped, in NAME.train.inter and so on, or write one NAME.inter",
    )
    group.add_argument(
        "--raw-ingredients",
        action="store_true",
        help="keep ingredient lines unchanged instead of cleaning them to elements",
    )


def expected(options: argparse.Namespace) -> dict[str, int]:
    """The paper's Table I."""
    return EXPECTED


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        ConfigError: Not exactly one of --folder and --release is given.
        DataError: A file is missing or is something else.
    """
    if (options.folder is None) == (options.release is None):
        raise ConfigError("give either --folder (FoodRecSys-V1) or --release (HAFR)")
    if options.folder:
        _load_foodrecsys(space, options)
    else:
        _load_hafr(space, options)
    if options.split == "merge":
        space.run("ALTER TABLE interactions DROP COLUMN split")


def _load_foodrecsys(space: Workspace, options: argparse.Namespace) -> None:
    user, item, rating, time = _RATING
    for split in SPLITS:
        path = options.folder / f"core-data-{split}_rating.csv"
        select = {
            "user_id": column(user),
            "item_id": column(item),
            "rating": number(rating),
            # The quoted text ends with a line break, which column() removes.
            "timestamp": f"epoch(TRY_CAST({column(time)} AS TIMESTAMP))",
            "split": quote(split),
        }
        what = "a table of recipe ratings"
        read_csv(
            space, "interactions", path, select, required=tuple(select), wanted=_RATING, what=what
        )
    recipes = options.folder / "core-data_recipe.csv"
    _load_recipes(space, recipes, raw=options.raw_ingredients)
    space.sought = f"the column image_url of {recipes}"
    shipped = options.folder / "core-data-images"
    if options.images or shipped.is_dir():
        attach_images(space, options, options.images or shipped)


def _load_recipes(space: Workspace, path: Path, *, raw: bool) -> None:
    item, title, url, lines = _RECIPE
    select = {
        "item_id": column(item),
        "title": column(title),
        "lines": f"string_split({ref(lines)}, '^')",
        "image_url": column(url),
    }
    what = "the table of recipes"
    read_csv(space, "recipes", path, select, required=("item_id",), wanted=_RECIPE, what=what)
    rows = (
        (item, title, parts if raw else [element_of(part) for part in parts or ()], None, url)
        for item, title, parts, url in space.rows("FROM recipes")
    )
    space.make_table("items", _ITEMS, rows)
    space.run("DROP TABLE recipes")


def _load_hafr(space: Workspace, options: argparse.Namespace) -> None:
    prefix = options.release
    for split in SPLITS:
        path = prefix.with_name(f"{prefix.name}.{split}.rating")
        select = {
            "user_id": column("user"),
            "item_id": column("item"),
            "rating": number("rating"),
            "timestamp": "NULL::DOUBLE",
            "split": quote(split),
        }
        read_csv(
            space,
            "interactions",
            path,
            select,
            names=("user", "item", "rating"),
            required=("user_id", "item_id", "rating"),
            separator="\t",
        )
    codes = _array(space, prefix.with_name(f"{prefix.name}_ingre_code_file.npy"))
    counts_path = prefix.with_name(f"{prefix.name}_id_ingre_num_file")
    counts = _ingredient_counts(space, counts_path)
    features = prefix.with_name(f"{prefix.name}_image_features_float.npy")
    has_features = features.is_file()
    if has_features:
        space.features["features"] = features
    if has_features and len(_array(space, features)) != len(codes):
        raise DataError(f"{features}: does not have {len(codes)} rows, one for each item")
    rows = (
        (
            str(item),
            None,
            [f"ingredient {code}" for code in codes[item, : counts.get(item, 0)]],
            None,
            None,
            item if has_features else None,
        )
        for item in range(len(codes))
    )
    columns = {**_ITEMS, "feature_row": "BIGINT"} if has_features else _ITEMS
    space.make_table("items", columns, (row[: len(columns)] for row in rows))
    if options.images:
        attach_images(space, options, options.images)
    space.notes.append("HAFR's lists of negatives are not used: candidates are drawn again")


def _array(space: Workspace, path: Path) -> np.ndarray:
    """Open a matrix in a NumPy file, without pickled objects."""
    space.inputs.append(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as numbers ({error})") from None
    if array.ndim != 2:
        raise DataError(f"{path}: has {array.ndim} dimensions instead of 2")
    return array


def _ingredient_counts(space: Workspace, path: Path) -> dict[int, int]:
    """Number of ingredients of each item; the rest of its row is padding."""
    space.inputs.append(path)
    counts: dict[int, int] = {}
    line = 0
    try:
        for text in path.read_text(encoding="ascii").splitlines():
            line += 1
            if text.strip():
                item, count = text.split()
                counts[int(item)] = int(count)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise DataError(f"{path}, line {line}: is not item and number of ingredients") from None
    return counts
