"""Writing files: completely or not at all, and never over a foreign file.

Only regular files are replaced. A device, pipe or folder of the same name is an error, and so is a
file that the caller's ``check`` does not recognise. Symbolic links are followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from recbole_cierec.errors import OutputError
from recbole_cierec.files.leftovers import FILE_SUFFIX, TEMPORARY, claimed, clear_leftovers

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
    """Write a file under a temporary name and rename it when it is complete and on the disk.

    Args:
        file: The final name; its folder is created.
        prefix: Start of the temporary name.
        check: Called with an existing file; raises a UserError if it must not be replaced.

    Yields:
        A binary stream.

    Raises:
        OutputError: The path is no regular file, or cannot be written. An existing file is
            unchanged.
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
    """Rename a file; an existing regular file is replaced.

    Raises:
        OutputError: The target is no regular file, or cannot be written.
    """
    with _one_line(target):
        os.replace(source, _target(target))


def check_output(
    file: Path, check: Check | None = None, inputs: Iterable[Path | None] = ()
) -> None:
    """Check, before any work, that :func:`replacing` will be able to write a file.

    Args:
        file: As for :func:`replacing`; its folder is created.
        check: Likewise.
        inputs: Files that the command reads, which it must not replace; None: not given.

    Raises:
        OutputError: As :func:`replacing` would, or the file is one of the inputs.
    """
    with _one_line(file):
        target = _target(file, check)
        for path in inputs:
            if path and os.path.exists(path) and target.exists() and target.samefile(path):
                raise OutputError(file, "this command reads it", "choose another file")
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target.parent, suffix=FILE_SUFFIX) as temporary:
            temporary.touch()


def check_folder(folder: Path) -> None:
    """Refuse a file in the place of a folder to write, before any work.

    Raises:
        OutputError: In one line.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OutputError(folder, "it is a file", "give a folder")


def refuse_other_kinds(path: Path, name: Path | None = None, folder: bool = False) -> None:
    """Raise unless a path is absent or a regular file (or, if ``folder``, a folder).

    Args:
        path: The path, links resolved.
        name: The path as the user gave it.
        folder: Accept a folder too.

    Raises:
        OutputError: It is something else.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    for is_kind, kind in _KINDS:
        if is_kind(mode) and not (folder and kind == "folder"):
            raise OutputError(name or path, f"it is a {kind}, which is not replaced")


def _target(file: Path, check: Check | None = None) -> Path:
    """The checked path to write, links resolved."""
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
    """Remove leftovers at this process's first write into a folder."""
    clear_leftovers(folder, prefix)
