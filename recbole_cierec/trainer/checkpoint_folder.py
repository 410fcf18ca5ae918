"""Which process writes checkpoints, and whether it can."""

from __future__ import annotations

import uuid
from pathlib import Path

from recbole_cierec.distributed.world import of_first, wait_for_all, world
from recbole_cierec.errors import CheckpointError
from recbole_cierec.files.leftovers import TEMPORARY


def writes_in(folder: Path, first_here: bool) -> bool:
    """Whether this process writes the run's files in ``folder``; all processes must call it.

    The first process writes. On a machine that does not see its files, the first one there writes
    too, since every process reads the best epoch and resumes. Machines that share a disk need one
    writer: two would rename each other's files.

    Args:
        folder: The folder of the checkpoints.
        first_here: Whether this is the first process on its machine.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    rank, size = world()
    if size == 1:
        return True
    sign = folder / of_first(f"{TEMPORARY}{uuid.uuid4().hex[:12]}")
    if rank == 0:
        make_folder(folder, sign)
    wait_for_all()
    seen = sign.exists()
    wait_for_all()
    if rank == 0:
        sign.unlink(missing_ok=True)
    return rank == 0 or (first_here and not seen)


def make_folder(folder: Path, sign: Path | None = None) -> None:
    """Make the folder of the checkpoints, and the file ``sign`` in it.

    Raises:
        CheckpointError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sign is not None:
            sign.touch()
    except OSError as error:
        raise CheckpointError(
            f"{folder}: no checkpoint can be written there ({error.strerror or error}); "
            "set checkpoint_dir to another folder"
        ) from error


def check_writable(folder: Path) -> None:
    """Make the folder of the checkpoints, and check that a file can be written in it.

    Raises:
        CheckpointError: It cannot be made, or nothing can be written in it.
    """
    sign = folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}"
    make_folder(folder, sign)
    sign.unlink(missing_ok=True)
