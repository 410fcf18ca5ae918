"""Which of a run's processes this one is, and how they wait for one another."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# A process waits while another computes features for hours; training's own time-outs are minutes.
PATIENCE = timedelta(days=30)
# The group of all processes, and the patient one of the same processes. Weak: torch keeps both
# until they are destroyed, and a group that is kept longer can abort the process at its exit.
_groups: list[weakref.ref[dist.ProcessGroup]] = []


def world() -> tuple[int, int]:
    """(rank of this process, number of processes)."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def _patient_group() -> dist.ProcessGroup:
    """A group of all processes that waits for :data:`PATIENCE`; one for the life of their group.

    A new one each time would be freed right behind its work: a run with torch 2.4 stopped there
    for good. In older torch the destructor keeps the interpreter's lock while it waits for the
    group's threads (pytorch pull request 154976).
    """
    everyone = dist.group.WORLD
    if not _groups or _groups[0]() is not everyone:  # the first time, or in another run
        patient = dist.new_group(timeout=PATIENCE, backend="gloo")
        _groups[:] = weakref.ref(everyone), weakref.ref(patient)
    return _groups[1]()


def meet(fine: bool = True) -> bool:
    """Wait for all processes, each of which must call it; returns whether all are fine."""
    if world()[1] == 1:
        return fine
    agreed = torch.tensor([int(fine)])
    dist.all_reduce(agreed, dist.ReduceOp.MIN, group=_patient_group())
    return bool(agreed)


def of_first(value: Any) -> Any:
    """The first process's value in all, each of which must call it."""
    if world()[1] == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0, group=_patient_group())
    return told[0]


@contextmanager
def one_first() -> Iterator[None]:
    """The first process goes through the block before the others, which find what it has made."""
    rank, size = world()
    if rank:
        meet()
    yield
    if size > 1 and not rank:
        meet()
