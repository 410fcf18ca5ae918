"""Where the picture of an item goes: names that are safe and distinct on every system."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
FOLDER = "images"
_SLUG = re.compile(r"[^A-Za-z0-9]+")


def target_of(item: str, source: str) -> str:
    """Path of an item's picture, relative to the data set's folder, with slashes.

    Args:
        item: The raw item id.
        source: A path or URL, for its suffix.
    """
    place = urlsplit(source).path if "://" in source else source.replace("\\", "/")
    suffix = PurePosixPath(place).suffix.lower()
    return f"{FOLDER}/{picture_name(item, suffix if suffix in SUFFIXES else '.jpg')}"


def picture_name(item: str, suffix: str) -> str:
    """The path of an item's picture below ``images/``.

    The id itself is never a path: it may hold separators, be reserved (``con``), too long, or
    differ from another only in case.

    Args:
        item: The raw item id.
        suffix: Of the file, with its dot, from a fixed list.

    Returns:
        ``3f/slug-3f9ac0...jpg``: two characters spread the files over 256 folders, the hash makes
        the name unique, the slug makes it readable.
    """
    digest = hashlib.sha256(item.encode("utf-8", "surrogatepass")).hexdigest()
    slug = _SLUG.sub("-", item)[:32].strip("-").lower()
    return f"{digest[:2]}/{slug}{'-' if slug else ''}{digest[:20]}{suffix}"
