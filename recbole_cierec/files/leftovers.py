"""Temporary files and folders, and the removal of those that dead processes left behind.

Each has a lock file next to it, ``NAME.lock``, which the process that writes it holds until it is
done. The kernel releases the lock when that process ends, however it ends. So leftovers are
recognised immediately, on every machine that shares the disk, and work in progress is never
removed, whatever the clocks say.

This needs a file system that supports ``flock``, across machines if several share it: local disks
and NFS do (NFS unless mounted with ``nolock`` or ``local_lock``). Without that support nothing is
removed.
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

# Starts the names of temporary files and folders; no other program uses it.
TEMPORARY = ".recbole_cierec-"
FILE_SUFFIX = ".tmp"  # of files; folders have none
LOCK_SUFFIX = ".lock"
# Raised by a lock that cannot be taken: another process has it (Timeout is an OSError), no
# permission, or no locks on this disk.
NOT_LOCKED = (OSError, NotImplementedError)
_TRIES = 10


@contextmanager
def claimed(folder: Path, prefix: str = TEMPORARY, suffix: str = "") -> Iterator[Path]:
    """Yield a new, locked path; whatever exists there at the end of the block is removed.

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
        if os.getpid() == maker:  # not in a forked child that leaves the block
            _remove(path)
            _drop(lock)


def _claim(folder: Path, prefix: str, suffix: str) -> tuple[Path, BaseFileLock]:
    for _ in range(_TRIES):
        path = folder / f"{prefix}{uuid.uuid4().hex[:12]}{suffix}"
        lock = _lock_of(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another process saw it before it was locked, and is clearing it
            with suppress(OSError):
                os.unlink(lock.lock_file)
            continue
        except NOT_LOCKED:
            break
        if os.path.exists(lock.lock_file):
            return path, lock
        lock.release()  # as after Timeout, a moment later
    # Locks do not work here (some versions of filelock say Timeout then). What cannot be locked is
    # not cleared either.
    Path(lock.lock_file).touch()
    return path, lock


def clear_leftovers(parent: Path, prefix: str) -> None:
    """Remove the temporary files and folders of processes that have ended.

    Args:
        parent: The folder to clear.
        prefix: Start of their names.
    """
    ours = re.compile(rf"({re.escape(prefix)}[0-9a-f]{{12}}.*?)({re.escape(LOCK_SUFFIX)})?")
    found = parent.glob(f"{glob.escape(prefix)}*")
    names = {match[1] for path in found if (match := ours.fullmatch(path.name))}
    for name in names:
        with suppress(*NOT_LOCKED):
            _clear(parent / name)


def _clear(path: Path) -> None:
    """Remove one leftover; OSError if its process is alive, or if that cannot be determined."""
    lock = _lock_of(path)
    if os.path.lexists(lock.lock_file):
        lock.acquire(timeout=0)
    try:
        _remove(path)
    finally:
        _drop(lock)


def _lock_of(path: Path) -> BaseFileLock:
    # Not thread-local: a generator may be closed by another thread than the one that opened it.
    return FileLock(f"{path}{LOCK_SUFFIX}", thread_local=False)


def _drop(lock: BaseFileLock) -> None:
    """Remove a lock file and release it, in this order so that nobody locks it in between."""
    for step in (lambda: os.unlink(lock.lock_file), lock.release):
        with suppress(*NOT_LOCKED):
            step()
    if os.name == "nt":  # an open file cannot be removed there
        with suppress(OSError):
            os.unlink(lock.lock_file)


def _remove(path: Path) -> None:
    """Remove a folder or a regular file with :data:`FILE_SUFFIX`, never anything else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path, ignore_errors=True)
    elif stat.S_ISREG(mode) and path.name.endswith(FILE_SUFFIX):
        path.unlink(missing_ok=True)
