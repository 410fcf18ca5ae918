"""Work that one process does while the others wait or do something else.

A lock is a file held by ``flock``: the kernel releases it when its process ends, however it ends.
Some network disks have no locks. There every process may do the work, so whatever is locked here
must also end well when two do it at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from recbole_cierec.errors import OutputError
from recbole_cierec.files.leftovers import LOCK_SUFFIX, NOT_LOCKED, TEMPORARY
from recbole_cierec.terminal import CONSOLE

_FOREVER = -1


def can_lock(folder: Path) -> bool:
    """Whether files in a folder can be locked, which some network disks do not support."""
    lock = FileLock(folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}{LOCK_SUFFIX}")
    try:
        lock.acquire(timeout=0)
        lock.release()
    except NOT_LOCKED:  # some versions of filelock raise Timeout, an OSError
        return False
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
    return True


@contextmanager
def locked(path: Path, patience: float = 0) -> Iterator[bool]:
    """Yield whether this process may work on what a lock file stands for, until the block ends.

    It may where it holds the lock, and where the disk has no locks.

    Args:
        path: The lock file, made if missing.
        patience: Seconds to wait while another process holds it.

    Raises:
        OutputError: The file belongs to another user.
    """
    lock = FileLock(path)
    try:
        free = _acquire(lock, patience)
    except PermissionError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    try:
        yield free
    finally:
        lock.release()  # the file stays: removed, two processes could lock two of its name


@contextmanager
def one_builder(final: Path) -> Iterator[bool]:
    """Let one process at a time build a file or folder; the others say so and wait.

    Args:
        final: What is built.

    Yields:
        Whether another process was building when this one came, so that ``final`` may be there.
    """
    lock = FileLock(final.with_name(f"{TEMPORARY}{final.name}{LOCK_SUFFIX}"))
    waits = False
    with suppress(PermissionError):  # another user's: build without it
        if not _acquire(lock, 0):
            waits = True
            CONSOLE.info("Waiting for another process that builds %s", final)
            _acquire(lock, _FOREVER)
    try:
        yield waits
    finally:
        if lock.is_locked:
            # Two that lock two files of one name would both build, which costs time only.
            with suppress(OSError):  # Windows keeps an open file
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _acquire(lock: FileLock, patience: float) -> bool:
    """False: another process holds the lock. True without a lock where the disk has none."""
    try:
        lock.acquire(timeout=patience)
    except PermissionError:
        raise
    except Timeout:  # some versions of filelock also raise it where a disk has no locks
        return not can_lock(Path(lock.lock_file).parent)
    except NOT_LOCKED:
        pass
    return True
