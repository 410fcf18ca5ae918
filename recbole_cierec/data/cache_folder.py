"""Folders of a cache that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recbole_cierec.errors import DataError

# A builder that was killed could not tidy up; one at work has written within this time.
_DEAD_AFTER_S = 6 * 3600
# What a rename says of a target that is there; a file system may say something else.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@contextmanager
def build_folder(
    final: Path, *, prefix: str | None = None, is_valid: Callable[[], bool] | None = None
) -> Iterator[Path]:
    """Yield an empty folder to fill; rename it to ``final`` when the block ends well.

    A folder already at ``final`` is replaced: it is damaged, or another process built the same
    content meanwhile, so that the last of two builders wins and either result is valid. With
    ``is_valid`` the first wins. Files of a replaced folder stay readable to those who have them
    open. After an exception nothing is left.

    Args:
        final: The folder to make; its parents are made too.
        prefix: Starts the names of temporary folders, and of the leftovers that are cleared;
            default one for ``final`` alone.
        is_valid: Tells whether what another process has put at ``final`` is whole; it is then
            kept, and what was built here dropped.

    Yields:
        The temporary folder, beside ``final`` so that the rename stays on one file system.

    Raises:
        DataError: The folder cannot be written (no space, no permission).
    """
    prefix = prefix or f".{final.name}."
    temporary = final.with_name(f"{prefix}{uuid.uuid4().hex[:12]}")
    try:
        temporary.mkdir(parents=True)
        clear_leftovers(final.parent, prefix)
        yield temporary
        _sync(temporary)
        _publish(temporary, final, is_valid)
    except OSError as error:
        raise DataError(
            f"cache {final}: cannot be written ({error.strerror or error}): "
            "make room there, or set cache_dir to another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(parent: Path, prefix: str) -> None:
    """Remove what killed builders left, known by its age: process numbers differ by machine.

    Args:
        parent: Where they worked.
        prefix: What the names of their temporary folders and files start with.
    """
    for path in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # another process clears it as well
            latest = max(part.stat().st_mtime for part in (path, *path.glob("*")))
            if latest < time.time() - _DEAD_AFTER_S:
                _remove(path)


def _sync(folder: Path) -> None:
    """Bring the files to the disk before the rename, so that a power cut leaves no empty ones."""
    for path in folder.iterdir():
        with path.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())


def _publish(temporary: Path, final: Path, is_valid: Callable[[], bool] | None) -> None:
    """Rename ``temporary`` to ``final``, moving away what is there unless it is valid."""
    for _ in range(100):  # another process may publish between the two renames; it ends soon
        try:
            temporary.rename(final)
            return
        except OSError as error:
            # Whether it was there cannot be asked now: another process may have moved it since.
            if error.errno not in _TAKEN and not os.path.lexists(final):
                raise
        if is_valid is not None and is_valid():
            return
        old = temporary.with_name(f"{temporary.name}.old")
        try:
            final.rename(old)
        except FileNotFoundError:
            continue
        _remove(old)
    raise OSError(f"{final} is replaced again and again by another process")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
