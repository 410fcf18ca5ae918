"""Pictures of the loaded items: joined by id or URL, cleaned, and counted."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from recbole_cierec.errors import DataError

from ..tables.matching import Ids, check_match
from ..tables.sql import quote, trimmed
from ..tables.workspace import Workspace
from .folders import picture_folder, pictures_below
from .img2dataset import is_img2dataset, load_fetched

# How many items must share a picture for a warning. Shops do show one picture for all colours and
# sizes of a product: 5 % of 40 items may be that, but hardly 0.05 % of a million.
_SHARE_OF_FEW, _LEAST_OF_FEW = 0.05, 3
_SHARE_OF_MANY, _LEAST_OF_MANY = 0.0005, 10


def attach_images(
    space: Workspace,
    options: argparse.Namespace,
    place: Path,
    rename: Callable[[Iterator[tuple[str, str]]], Iterable[tuple[str, str]]] = iter,
) -> None:
    """Give items local pictures: by the id in a file's name, or by URL if img2dataset wrote them.

    By URL, items keep their address: icons are recognised by it, and missing pictures can still be
    downloaded.

    Args:
        space: The workspace, with the table items.
        options: The shared options.
        place: A folder, an archive, or the output of img2dataset.
        rename: Turns (file name without suffix, path) into (item id, path); of several pictures of
            an id the first path is used.

    Raises:
        DataError: The place cannot be read, or hardly any picture belongs to an item.
    """
    key, what, address = "item_id", "items", "NULL::VARCHAR"
    if is_img2dataset(space, place):
        _clean_addresses(space)  # as in the list that img2dataset was given
        load_fetched(space, place)
        key, what, address = "image_url", "addresses of items", "image_url"
        if not space.value("SELECT count(image_url) FROM items"):
            raise DataError(f"{place}: img2dataset's pictures are found by URL; no item has one")
    else:
        files = rename(pictures_below(picture_folder(space, place)))
        space.make_table("pictures", {"id": "VARCHAR", "path": "VARCHAR"}, files)
    where = f"the pictures of {place}"
    check_match(
        space,
        options,
        Ids("items", key, what),
        Ids("pictures", "id", where),
        dropped="picture" in options.require,
    )
    space.sought = where
    space.run(
        f"CREATE OR REPLACE TABLE items AS SELECT items.* REPLACE (path AS image, {address} AS "
        "image_url) FROM items LEFT JOIN (SELECT id, min(path) AS path FROM pictures GROUP BY id) "
        f"ON id = {key} ORDER BY items.rowid"
    )
    space.run("DROP TABLE pictures")


def check_pictures(
    space: Workspace, options: argparse.Namespace, icons: Sequence[str] = ()
) -> None:
    """Drop addresses that are not pictures of items, and report how many items have one.

    Args:
        space: The workspace, with the table items.
        options: The shared options: ``no_picture``.
        icons: Regular expressions of the addresses that a shop gives to items without a picture.
    """
    _clean_addresses(space)
    tests = [f"regexp_matches(image_url, {quote('(?i)' + icon)})" for icon in icons]
    file = "lower(coalesce(image_url, parse_filename(image)))"
    tests += [f"contains({file}, {quote(text.lower())})" for text in options.no_picture]
    _drop_icons(space, " OR ".join(tests))
    items = space.value("SELECT count(*) FROM items")
    have = space.value("SELECT count(coalesce(image, image_url)) FROM items")
    if not have and items and space.sought:
        space.warn(
            f"none of {items:,} items has a picture; they were looked for in {space.sought}; are "
            "these the right files?"
        )
    elif space.sought:
        space.notes.append(f"items of the input with a picture: {have:,} of {items:,}")
    _warn_of_shared(space, have)


def _clean_addresses(space: Workspace) -> None:
    """Set addresses to null that a download could not use."""
    clean = f"replace({trimmed('image_url')}, ' ', '%20')"
    unclean = f"image_url <> {clean}"
    if space.value(f"SELECT count(*) FROM items WHERE {unclean}"):
        _rewrite(space, unclean, image_url=clean)
    bad = "NOT regexp_matches(image_url, '^(?i)https?://[^\\x00-\\x20\\x7f]+$')"
    count = space.value(f"SELECT count(*) FROM items WHERE {bad}")
    if count:
        first = space.value(f"SELECT first(image_url ORDER BY rowid) FROM items WHERE {bad}")
        space.warn(
            f"{count:,} pictures are left out: not an http or https address; the first: "
            f"{first[:80]!r}"
        )
        _rewrite(space, bad, image_url="NULL")


def _drop_icons(space: Workspace, test: str) -> None:
    count = space.value(f"SELECT count(*) FROM items WHERE {test}") if test else 0
    if count:
        space.notes.append(f"items whose picture is a 'no image' icon: {count:,}")
        _rewrite(space, test, image="NULL", image_url="NULL")


def _rewrite(space: Workspace, where: str, **values: str) -> None:
    """Set columns of the rows for which a condition holds; rows keep their order."""
    cells = ", ".join(
        f"CASE WHEN {where} THEN {value} ELSE {key} END AS {key}" for key, value in values.items()
    )
    space.run(
        f"CREATE OR REPLACE TABLE items AS SELECT * REPLACE ({cells}) FROM items ORDER BY rowid"
    )


def _warn_of_shared(space: Workspace, have: int) -> None:
    """Name a picture that an unlikely number of items share."""
    many = max(_LEAST_OF_MANY, _SHARE_OF_MANY * have)
    least = max(_LEAST_OF_FEW, min(_SHARE_OF_FEW * have, many))
    shared = space.run(
        "SELECT coalesce(image_url, image) AS picture, count(DISTINCT item_id) AS n FROM items "
        f"WHERE picture IS NOT NULL GROUP BY picture HAVING n >= {least} "
        "ORDER BY n DESC, picture LIMIT 3"
    ).fetchall()
    for picture, count in shared:
        space.warn(
            f"{count:,} of {have:,} items with a picture share {picture[-120:]!r}; if it is a "
            "'no image' icon, give a part of its address as --no-picture"
        )
