"""The rank of this process in its run, and how processes wait for each other."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Processes may wait for hours while one computes features; the time-outs of training are minutes.
PATIENCE = timedelta(days=30)
# The group of all processes, and the patient one of the same processes. Weak, because torch keeps
# both until they are destroyed, and a group that is kept longer can abort the process at its exit.
_groups: list[weakref.ref[dist.ProcessGroup]] = []


def world() -> tuple[int, int]:
    """(rank of this process, number of processes)."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def _patient_group() -> dist.ProcessGroup:
    """A group of all processes that waits for :data:`PATIENCE`, made once.

    A new one for each wait would be freed right after it, where a run with torch 2.4 hung: in older
    torch the destructor keeps the interpreter's lock while it waits for the group's threads
    (pytorch pull request 154976).
    """
    everyone: Any = dist.group.WORLD
    patient = _groups[1]() if _groups and _groups[0]() is everyone else None
    if patient is None:  # the first time, or in another run
        made: Any = dist.new_group(timeout=PATIENCE, backend="gloo")
        patient, _groups[:] = made, (weakref.ref(everyone), weakref.ref(made))
    return patient


def wait_for_all(fine: bool = True) -> bool:
    """Wait until all processes have called this; returns whether ``fine`` holds in all of them."""
    if world()[1] == 1:
        return fine
    agreed = torch.tensor([int(fine)])
    dist.all_reduce(agreed, dist.ReduceOp.MIN, group=_patient_group())
    return bool(agreed)


def of_first(value: Any) -> Any:
    """The first process's value, in all processes; each must call this."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_patient_group())
    return values[0]


@contextmanager
def one_first() -> Iterator[None]:
    """The first process runs the block before the others, which find what it has made."""
    rank, size = world()
    if rank:
        wait_for_all()
    yield
    if size > 1 and not rank:
        wait_for_all()


def gathered(value: Any) -> list[Any]:
    """The values of all processes, by rank, in the first one; [] in the others. Each must call
    this."""
    rank, size = world()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.gather_object(value, values if rank == 0 else None, dst=0, group=_patient_group())
    return values if rank == 0 else []
