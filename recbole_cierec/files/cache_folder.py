"""Folders of a cache that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_cierec.errors import DataError, OutputError
from recbole_cierec.files.atomic_write import refuse_other_kinds
from recbole_cierec.files.leftovers import TEMPORARY, claimed, clear_leftovers
from recbole_cierec.files.places import why_not_writable

# Errors of a rename to an existing target; some file systems raise others.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def refuse_unmakable(cache_dir: Path) -> None:
    """Refuse, before any work, a cache that does not exist and cannot be made.

    One that exists passes: it may be complete and read-only.

    Raises:
        DataError: In one line.
    """
    if not cache_dir.exists() and (why := why_not_writable(cache_dir)):
        raise no_cache(cache_dir, why)


def no_cache(cache_dir: Path, why: str) -> DataError:
    """The error for a ``cache_dir`` that cannot be used."""
    return DataError(
        f"no picture store can be kept in cache_dir {cache_dir}: {why}; correct that or set "
        "another cache_dir"
    )


@contextmanager
def build_folder(
    final: Path,
    *,
    prefix: str = TEMPORARY,
    is_valid: Callable[[], bool] | None = None,
    key: str = "cache_dir",
) -> Iterator[Path]:
    """Yield an empty folder to fill; rename it to ``final`` when the block ends well.

    A folder already at ``final`` is replaced: it is damaged, or another process built the same
    content meanwhile, so that the last of two builders wins and either result is valid. With
    ``is_valid`` the first wins. Files of a replaced folder stay readable to those who have them
    open. After an exception nothing is left.

    Args:
        final: The folder to make; its parents are made too.
        prefix: Starts the names of temporary folders, and of the leftovers that are cleared.
        is_valid: Whether the folder that another process has put at ``final`` is whole; it is
            then kept, and the new one dropped.
        key: What chooses another place, for the error.

    Yields:
        The temporary folder, next to ``final`` so that the rename stays on one file system.

    Raises:
        DataError: The folder cannot be written (no space, no permission).
    """
    try:
        target = Path(os.path.realpath(final))  # a link may lead to another disk
        target.parent.mkdir(parents=True, exist_ok=True)
        refuse_other_kinds(target, final, folder=True)
        clear_leftovers(target.parent, prefix)
        with claimed(target.parent, prefix) as temporary:
            temporary.mkdir()
            yield temporary
            _sync(temporary)
            _publish(temporary, target, is_valid)
    except OutputError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"{final}: cannot be written ({error.strerror or error}): "
            f"make room there, or set {key} to another folder"
        ) from error


def _sync(folder: Path) -> None:
    """Flush the files to the disk before the rename, so that a power cut leaves no empty ones."""
    for path in folder.iterdir():
        with path.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())


def _publish(temporary: Path, final: Path, is_valid: Callable[[], bool] | None) -> None:
    """Rename ``temporary`` to ``final``; an existing folder is replaced unless it is valid."""
    for _ in range(100):  # another process may publish between the two renames; it ends soon
        try:
            temporary.rename(final)
            return
        except OSError as error:
            # The target may exist no longer: another process may have moved it since.
            if error.errno not in _TAKEN and not os.path.lexists(final):
                raise
        if is_valid is not None and is_valid():
            return
        old = temporary.with_name(f"{temporary.name}.old")
        try:
            final.rename(old)
        except FileNotFoundError:
            time.sleep(0.001)
            continue
        _remove(old)
    raise OSError(f"{final} is replaced again and again by another process")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
