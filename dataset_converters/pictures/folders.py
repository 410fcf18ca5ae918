"""Find the picture files of a folder or an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from recbole_cierec.errors import DataError

from ..tables.picture_names import SUFFIXES
from ..tables.tokens import is_utf8
from .archives import extract_archive

if TYPE_CHECKING:
    from ..tables.workspace import Workspace


def picture_folder(space: Workspace, place: Path) -> Path:
    """The folder that ``--images`` names, or an archive's contents as a folder.

    An archive is unpacked among the temporary files, on the disk of the output: pictures of items
    are linked from there, and the rest is removed with the temporary files.

    Args:
        space: The workspace.
        place: A folder, or a .zip, .tar or .tar.gz.

    Raises:
        DataError: It does not exist, or the archive is damaged or unsafe (see :mod:`.archives`).
    """
    if place.is_dir():
        return place
    if not place.exists():
        raise DataError(f"{place}: no such folder or archive of pictures")
    space.inputs.append(place)
    folder = space.new_file("")
    extract_archive(place, folder)
    return folder


def pictures_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Find the picture files of a folder.

    Ids are never made into paths: files are listed, and ids are looked up among their names.

    Args:
        folder: Searched with its sub-folders.

    Yields:
        A file's name without its suffix, and its path; in the order of the paths.

    Raises:
        DataError: The folder holds no picture, or a name that is not UTF-8.
    """
    empty = True
    for found in walk_pictures(folder):
        empty = False
        yield found
    if empty:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")


def walk_pictures(folder: Path) -> Iterator[tuple[str, str]]:
    """As :func:`pictures_below`; the folder may be empty."""
    for home, folders, files in os.walk(folder, onerror=_unreadable):
        folders.sort()
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in SUFFIXES:
                path = os.path.abspath(os.path.join(home, file))
                if not is_utf8(path):
                    raise DataError(f"{path!r}: this name is not UTF-8; rename it")
                yield stem, path


def _unreadable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")


def readable_picture(path: Path) -> bool:
    """Whether training reads files of this kind: by the suffix, else by the content.

    A file of another kind would get the suffix .jpg, and a name that hides where it came from.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    from recbole_cierec.vision.pictures import is_picture

    try:
        return is_picture(path)
    except OSError:
        return False


def path_inside(folder: Path, text: str) -> Path | None:
    """The file that a relative path names; None if there is none, or if it leaves the folder."""
    try:
        path = (folder / text).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    except (OSError, ValueError):  # a name that is too long, or that holds NUL
        return None
    return None
