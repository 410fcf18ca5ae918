"""The rule by which files are written: whole or not at all, and never over what is not ours.

Only a regular file is ever replaced. A device, pipe or folder of that name stays, and so does a
file that the caller's ``check`` does not know as one of ours. A link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from recbole_cierec.errors import OutputError
from recbole_cierec.leftovers import FILE_SUFFIX, TEMPORARY, claimed, clear_leftovers

__all__ = ["TEMPORARY", "check_output", "replace", "replacing"]

Check = Callable[[Path], object]

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


@contextmanager
def replacing(
    file: Path, prefix: str = TEMPORARY, check: Check | None = None
) -> Iterator[BinaryIO]:
    """Write a file under another name and put it in place when it is complete and on the disk.

    Args:
        file: The final name; its folder is made.
        prefix: Starts the other name, by which leftovers of a killed process are known.
        check: Called with a file that is there already; raises a UserError where it is not ours.

    Yields:
        A binary stream.

    Raises:
        OutputError: Something else has this name, or nothing can be written there; what was there
            is there still.
    """
    with _one_line(file):
        target = _target(file, check)
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_once(target.parent, prefix)
        with claimed(target.parent, prefix, FILE_SUFFIX) as temporary:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            replace(temporary, target)


def replace(source: Path, target: Path) -> None:
    """Rename a file of ours, over another one if there is one.

    Raises:
        OutputError: Something else has the target's name, or it cannot be renamed.
    """
    with _one_line(target):
        os.replace(source, _target(target))


def check_output(file: Path, check: Check | None = None) -> None:
    """Refuse, before any work, a file that :func:`replacing` would refuse after it.

    Args:
        file: As for :func:`replacing`; its folder is made.
        check: Likewise.

    Raises:
        OutputError: As :func:`replacing` would.
    """
    with _one_line(file):
        target = _target(file, check)
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target.parent, suffix=FILE_SUFFIX) as temporary:
            temporary.touch()


def refuse_other_kinds(path: Path, name: Path | None = None, folder: bool = False) -> None:
    """Raise unless a path is free or holds a regular file (or, if ``folder``, a folder).

    Args:
        path: The path, links followed.
        name: As the user knows it.
        folder: Whether a folder is fine too.

    Raises:
        OutputError: It holds something else.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    for is_kind, kind in _KINDS:
        if is_kind(mode) and not (folder and kind == "folder"):
            raise OutputError(name or path, f"it is a {kind}, which is not replaced")


def _target(file: Path, check: Check | None = None) -> Path:
    """What is to be written, links followed."""
    try:
        target = Path(os.path.realpath(file))
    except ValueError as error:  # a NUL
        raise OutputError(file, "no file can have this name") from error
    refuse_other_kinds(target, file)
    if check is not None and target.exists():
        check(file)
    return target


@contextmanager
def _one_line(file: Path) -> Iterator[None]:
    """Turn an error of the system into an OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(file, error.strerror or str(error)) from error


@cache
def _clear_once(folder: Path, prefix: str) -> None:
    """The first write of this process into a folder removes what dead ones have left there."""
    clear_leftovers(folder, prefix)
