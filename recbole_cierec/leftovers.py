"""Unfinished files and folders: whose they are, and what to do with those of dead processes.

Each has a lock next to it, the file ``NAME.lock``, which its maker holds until it is done. The
kernel drops the lock when the process ends, however it ends. So what a killed process left is
known at once, on every machine that sees the disk, and what a living one works on stays, whatever
the clocks say.

It takes a file system on which ``flock`` works, for several machines on all of them: local disks
and NFS do (the latter not when mounted with ``nolock`` or ``local_lock``). Where it does not work
nothing is ever removed.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

# Starts the names of unfinished files; such that no other program's are meant.
TEMPORARY = ".recbole_cierec-"
FILE_SUFFIX = ".tmp"  # of files; folders have none
_LOCK_SUFFIX = ".lock"
# Raised by a lock that cannot be taken: another process has it (Timeout is an OSError), no
# permission, or no locks on this disk.
_NOT_LOCKED = (OSError, NotImplementedError)
_TRIES = 10


@contextmanager
def claimed(folder: Path, prefix: str = TEMPORARY, suffix: str = "") -> Iterator[Path]:
    """Yield a new path that is this process's until the block ends; what is there then is removed.

    Args:
        folder: Where it will be; must exist.
        prefix: Starts its name.
        suffix: Ends it; :data:`FILE_SUFFIX` for a file.

    Raises:
        OSError: Nothing can be written in the folder.
    """
    maker = os.getpid()
    path, lock = _claim(folder, prefix, suffix)
    try:
        yield path
    finally:
        if os.getpid() == maker:  # a forked child that leaves the block owns nothing
            _remove(path)
            _drop(lock)


def _claim(folder: Path, prefix: str, suffix: str) -> tuple[Path, BaseFileLock]:
    for _ in range(_TRIES):
        path = folder / f"{prefix}{uuid.uuid4().hex[:12]}{suffix}"
        lock = _lock_of(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another process has just found it, not locked yet, and is clearing it
            with suppress(OSError):
                os.unlink(lock.lock_file)
            continue
        except _NOT_LOCKED:
            break
        if os.path.exists(lock.lock_file):
            return path, lock
        lock.release()  # as after Timeout, a moment later
    # Locks do not work here (some versions of filelock say Timeout then). What cannot be locked is
    # not cleared either.
    Path(lock.lock_file).touch()
    return path, lock


def clear_leftovers(parent: Path, prefix: str) -> None:
    """Remove what processes that ended without tidying up have left in a folder.

    Args:
        parent: Where they worked.
        prefix: What the names of their unfinished files and folders start with.
    """
    ours = re.compile(rf"({re.escape(prefix)}[0-9a-f]{{12}}.*?)({re.escape(_LOCK_SUFFIX)})?")
    found = parent.glob(f"{glob.escape(prefix)}*")
    names = {match[1] for path in found if (match := ours.fullmatch(path.name))}
    for name in names:
        with suppress(*_NOT_LOCKED):
            _clear(parent / name)


def _clear(path: Path) -> None:
    """Remove one leftover unless its maker lives; Timeout or OSError where that is not known."""
    lock = _lock_of(path)
    if os.path.lexists(lock.lock_file):
        lock.acquire(timeout=0)
    try:
        _remove(path)
    finally:
        _drop(lock)


def _lock_of(path: Path) -> BaseFileLock:
    return FileLock(f"{path}{_LOCK_SUFFIX}")


def _drop(lock: BaseFileLock) -> None:
    """Remove a lock and release it: in this order, so that nobody takes it in between."""
    for step in (lambda: os.unlink(lock.lock_file), lock.release):
        with suppress(*_NOT_LOCKED):
            step()
    if os.name == "nt":  # an open file cannot be removed there
        with suppress(OSError):
            os.unlink(lock.lock_file)


def _remove(path: Path) -> None:
    """Remove a folder, or a file that bears our suffix; nothing else is of our making."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path, ignore_errors=True)
    elif stat.S_ISREG(mode) and path.name.endswith(FILE_SUFFIX):
        path.unlink(missing_ok=True)
