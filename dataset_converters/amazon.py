"""Amazon reviews and product metadata of 2014, 2018 and 2023.

Pages: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html (2014),
https://nijianmo.github.io/amazon/ (2018), https://amazon-reviews-2023.github.io/ (2023).
Ratings-only files (CSV) work as well: user,item,rating,timestamp in 2014, item,user,... in 2018,
with a header in 2023.
"""

from __future__ import annotations

import argparse
import csv
from itertools import islice
from pathlib import Path

from recbole_cierec.errors import DataError

from .fields.amazon_pictures import ICONS, picture_sql
from .fields.amazon_records import METADATA, REVIEWS, Kind, expect, kind_of_file
from .options import add_images
from .pictures.items import attach_images
from .tables.csv import read_csv
from .tables.records import numbered_lines, read_json_lines
from .tables.sql import column, number, quote, ref
from .tables.workspace import Workspace

__all__ = ["EXPECTED", "ICONS", "NAME", "PRESETS", "add_arguments", "expected", "load"]
NAME = "amazon"
PRESETS = {
    # The paper's Amazon_CDs was "extracted from the original Amazon dataset", that of 2014; the
    # counts of Table I match neither all reviews nor their 5-core exactly.
    "amazon-cds": {
        "name": "amazon-cds",
        "category": ["CDs & Vinyl"],
        "require": ["metadata", "picture", "annotations"],
        "user_core": 5,
        "item_core": 5,
    }
}
EXPECTED = {
    "amazon-cds": {"users": 67_282, "items": 40_314, "interactions": 752_724, "elements": 467}
}
_CSV_NAMES = {"2014": ("user", "item"), "2018": ("item", "user")}
_ASIN = 10  # characters of an item id; user ids have more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this converter."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--reviews",
        type=Path,
        nargs="+",
        required=True,
        metavar="F",
        help="files of reviews or ratings, plain, .gz or .zst",
    )
    group.add_argument(
        "--metadata", type=Path, nargs="*", default=[], metavar="F", help="files of product records"
    )
    group.add_argument("--generation", choices=tuple(REVIEWS), help="default: detected")
    group.add_argument(
        "--category",
        nargs="+",
        default=[],
        metavar="LABEL",
        help='only items in one of these categories ("CDs & Vinyl")',
    )
    group.add_argument(
        "--annotation-fields",
        nargs="+",
        default=["categories"],
        metavar="FIELD",
        help="metadata fields to use as annotations; categories stands for the categories of each "
        "generation (default: categories)",
    )
    group.add_argument(
        "--annotation-form",
        choices=("label", "path"),
        default="label",
        help="a category by its own label, or with all its parents",
    )
    add_images(group, "pictures named by item id; default: URLs to download")
    group.add_argument("--preset", choices=tuple(PRESETS), help="the paper's recipe")


def expected(options: argparse.Namespace) -> dict[str, int]:
    """The paper's Table I, for its recipe."""
    return EXPECTED.get(options.preset, {})


def load(space: Workspace, options: argparse.Namespace) -> None:
    """Fill the tables interactions and items.

    Raises:
        DataError: A file is of another kind than its option says, or cannot be read.
    """
    generation = options.generation
    kinds: dict[Path, Kind] = {}
    given = [(path, "metadata") for path in options.metadata]
    given += [(path, "reviews") for path in options.reviews if not _is_csv(path)]
    for path, what in given:
        kinds[path] = kind_of_file(path)
        expect(path, kinds[path], what, generation)
        generation = generation or kinds[path].generation or None
    if generation is None and given:
        raise DataError(f"{given[0][0]}: its generation cannot be detected; set --generation")
    for path in options.reviews:
        if _is_csv(path):
            _read_ratings(space, path, generation)
        else:
            _read_reviews(space, path, generation, kinds[path].literal)
    space.run(
        "CREATE TABLE raw_items (item_id VARCHAR, title VARCHAR, labels VARCHAR[], "
        "annotations VARCHAR[], image_url VARCHAR, has BOOLEAN[])"
    )
    for path in options.metadata:
        _read_metadata(space, path, generation, kinds[path].literal, options)
    _check_annotation_fields(space, options)
    _make_items(space, options)
    space.notes.append(f"generation: {generation or 'ratings only'}")


def _is_csv(path: Path) -> bool:
    return ".csv" in path.suffixes[-2:]


def _read_reviews(space: Workspace, path: Path, generation: str, literal: bool) -> None:
    form = REVIEWS[generation]
    numbers = {
        "rating": f"TRY_CAST({ref(form.rating)} AS DOUBLE)",
        "timestamp": f"TRY_CAST({ref(form.time)} AS DOUBLE) / {form.per_second}",
    }
    select = {
        "user_id": column(form.user),
        "item_id": column(form.item),
        **{key: f"CASE WHEN isfinite({value}) THEN {value} END" for key, value in numbers.items()},
    }
    read_json_lines(
        space,
        "interactions",
        path,
        dict.fromkeys(form.fields, "VARCHAR"),
        select,
        form.lacks,
        required=tuple(select),
        literal=literal,
    )


def _read_ratings(space: Workspace, path: Path, generation: str | None) -> None:
    first = next((line for _, line in numbered_lines(path)), b"")
    cells = next(csv.reader([first.decode("utf-8", "replace")]))
    names = None
    user, item, per_second = "user_id", "parent_asin", 1000
    if "user_id" not in cells:
        names = [*_order_of_ratings(path, generation), "rating", "timestamp"]
        user, item, per_second = "user", "item", 1
        if len(cells) != len(names):
            raise DataError(
                f"{path}: is not a table of ratings; expected user, item, rating, timestamp"
            )
    select = {
        "user_id": column(user),
        "item_id": column(item),
        "rating": number("rating"),
        "timestamp": f"{number('timestamp')} / {per_second}",
    }
    read_csv(
        space,
        "interactions",
        path,
        select,
        required=tuple(select),
        wanted=(user, item, "rating", "timestamp"),
        what="a table of ratings",
        names=names,
    )


def _order_of_ratings(path: Path, generation: str | None) -> tuple[str, str]:
    """Names of the first two columns; item ids have ten characters throughout."""
    rows = [line.split(b",") for _, line in islice(numbered_lines(path), 1000)]
    is_item = [all(len(row) > k and len(row[k]) == _ASIN for row in rows) for k in (0, 1)]
    if is_item[0] != is_item[1]:
        return ("user", "item") if is_item[1] else ("item", "user")
    if generation in _CSV_NAMES:
        return _CSV_NAMES[generation]
    raise DataError(f"{path}: cannot tell users from items; set --generation 2014 or 2018")


def _read_metadata(
    space: Workspace, path: Path, generation: str, literal: bool, options: argparse.Namespace
) -> None:
    form = METADATA[generation]
    fields = [form.categories if f == "categories" else f for f in options.annotation_fields]
    names = (form.item, "title", form.categories, *form.pictures, *fields)
    columns = dict.fromkeys(names, "JSON") | {form.item: "VARCHAR"}
    labels = [_labels(ref(field), options.annotation_form) for field in fields]
    select = {
        "item_id": column(form.item),
        "title": f"{ref('title')}->>'$'",
        "labels": _labels(ref(form.categories), "label"),
        "annotations": labels[0] if len(labels) == 1 else f"flatten([{', '.join(labels)}])",
        "image_url": picture_sql(form.pictures),
        "has": f"[{', '.join(f'len({label}) > 0' for label in labels)}]",
    }
    read_json_lines(
        space,
        "raw_items",
        path,
        columns,
        select,
        form.lacks,
        required=("item_id",),
        literal=literal,
    )
    space.sought = f"the fields {', '.join(form.pictures)} of the metadata"


def _check_annotation_fields(space: Workspace, options: argparse.Namespace) -> None:
    """Refuse fields that hold no text in any record; categories may all be empty."""
    for place, field in enumerate(options.annotation_fields, start=1):
        named = options.metadata and field != "categories"
        if named and not space.value(f"SELECT count(*) FROM raw_items WHERE has[{place}]"):
            raise DataError(
                f"--annotation-fields: no record of the metadata has a text or texts in {field!r}"
            )


def _labels(field: str, form: str) -> str:
    """Texts in a field: a text, a list of texts, or a list of lists (paths)."""
    if form == "path":
        path = _prefixes(f"CAST({field} AS VARCHAR[])")
        step = f"lambda p: {_prefixes('p')}"
        paths = f"flatten(list_transform(CAST({field} AS VARCHAR[][]), {step}))"
    else:
        path = f"json_extract_string({field}, '$[*]')"
        paths = f"json_extract_string({field}, '$[*][*]')"
    return (
        f"CASE json_type({field}) WHEN 'VARCHAR' THEN [{field}->>'$'] "
        f"WHEN 'ARRAY' THEN CASE json_type({field}, '$[0]') WHEN 'ARRAY' THEN {paths} "
        f"WHEN 'VARCHAR' THEN {path} ELSE [] END ELSE [] END"
    )


def _prefixes(path: str) -> str:
    """Each label of a path together with all its parents."""
    first = f"lambda n: array_to_string({path}[1:n], ' > ')"
    return f"list_transform(range(1, len({path}) + 1), {first})"


def _make_items(space: Workspace, options: argparse.Namespace) -> None:
    """Select the items of the categories, and attach local pictures if there are any."""
    where = ""
    if options.category:
        wanted = ", ".join(quote(label.casefold()) for label in options.category)
        spelled = "lambda x: lower(replace(x, '&amp;', '&'))"
        where = f"WHERE list_has_any(list_transform(labels, {spelled}), [{wanted}])"
    space.run(
        "CREATE TABLE items AS SELECT item_id, title, annotations, NULL::VARCHAR AS image, "
        f"image_url FROM raw_items {where} ORDER BY rowid"
    )
    if options.category:
        if not space.value("SELECT count(*) FROM items"):
            raise DataError(f"--category: no item has {' or '.join(options.category)}")
        # Items of other categories are not in the table; a later step drops and counts them.
        options.require = ["metadata", *(need for need in options.require if need != "metadata")]
    space.run("DROP TABLE raw_items")
    if options.images:
        attach_images(space, options, options.images)
