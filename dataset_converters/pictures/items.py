"""Pictures of the loaded items: joined by id, cleaned of what is none, and counted."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from ..tables.csv import trimmed
from ..tables.matching import Ids, check_match
from ..tables.workspace import Workspace, quote

# From how many items on a picture that they share is suspicious. Shops do show one picture for all
# colours and sizes of a product: 5 % of 40 items may be that, but hardly 0.05 % of a million.
_SHARE_OF_FEW, _LEAST_OF_FEW = 0.05, 3
_SHARE_OF_MANY, _LEAST_OF_MANY = 0.0005, 10


def attach_pictures(
    space: Workspace, options: argparse.Namespace, files: Iterable[tuple[str, str]]
) -> None:
    """Give items the local pictures that are named by their ids, instead of addresses.

    Args:
        space: The workspace, with the table items.
        options: The shared options and the place of the pictures, ``images``.
        files: Item id and path of each picture; of several of one id the first path stays.

    Raises:
        DataError: Hardly any picture belongs to an item.
    """
    space.make_table("pictures", {"id": "VARCHAR", "path": "VARCHAR"}, files)
    where = f"the pictures of {options.images}" if options.images else "the folder of pictures"
    check_match(
        space,
        options,
        Ids("items", "item_id", "items"),
        Ids("pictures", "id", where),
        dropped="picture" in options.require,
    )
    space.sought = where
    space.run(
        "CREATE OR REPLACE TABLE items AS SELECT items.* REPLACE (path AS image, "
        "NULL::VARCHAR AS image_url) FROM items LEFT JOIN (SELECT id, min(path) AS path "
        "FROM pictures GROUP BY id) ON id = item_id ORDER BY items.rowid"
    )
    space.run("DROP TABLE pictures")


def check_pictures(
    space: Workspace, options: argparse.Namespace, icons: Sequence[str] = ()
) -> None:
    """Drop what is no picture of an item, and say how many items have one.

    Args:
        space: The workspace, with the table items.
        options: The shared options: ``no_picture``.
        icons: Regular expressions of addresses that a shop gives to items without a picture.
    """
    _clean_addresses(space)
    tests = [f"regexp_matches(image_url, {quote('(?i)' + icon)})" for icon in icons]
    file = "lower(coalesce(parse_filename(image), image_url))"
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
    """Make null what is no address of the web, which a download could not use."""
    clean = f"replace({trimmed('image_url')}, ' ', '%20')"
    unclean = f"image_url <> {clean}"
    if space.value(f"SELECT count(*) FROM items WHERE {unclean}"):
        _rewrite(space, unclean, image_url=clean)
    bad = "NOT regexp_matches(image_url, '^(?i)https?://[^\\x00-\\x20\\x7f]+$')"
    count = space.value(f"SELECT count(*) FROM items WHERE {bad}")
    if count:
        first = space.value(f"SELECT first(image_url ORDER BY rowid) FROM items WHERE {bad}")
        space.warn(
            f"{count:,} pictures are left out, since they are no http or https address; the first: "
            f"{first[:80]!r}"
        )
        _rewrite(space, bad, image_url="NULL")


def _drop_icons(space: Workspace, test: str) -> None:
    count = space.value(f"SELECT count(*) FROM items WHERE {test}") if test else 0
    if count:
        space.notes.append(f"items whose picture only says that there is none: {count:,}")
        _rewrite(space, test, image="NULL", image_url="NULL")


def _rewrite(space: Workspace, where: str, **values: str) -> None:
    """Set columns of the rows that a condition is true of; rows keep their order."""
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
        "SELECT coalesce(image, image_url) AS picture, count(DISTINCT item_id) AS n FROM items "
        f"WHERE picture IS NOT NULL GROUP BY picture HAVING n >= {least} "
        "ORDER BY n DESC, picture LIMIT 3"
    ).fetchall()
    for picture, count in shared:
        space.warn(
            f"{count:,} of {have:,} items with a picture share {picture[-120:]!r}; if it says that "
            "there is none, give a part of its address as --no-picture"
        )
