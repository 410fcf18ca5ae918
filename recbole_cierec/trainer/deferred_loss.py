"""A batch's loss read without making the host wait for the device.

RecBole's loop asks for the loss as a number before the backward pass, twice: to add it up and to
look whether it is one. On a GPU each answer waits until the forward pass is done, and meanwhile
nothing is queued behind it. Here the sum stays on the device until the epoch's end, and the number
for the check is copied while the backward pass is being queued; it is looked at right before the
optimizer steps, so that nothing is ever updated with a loss that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class DeferredLoss(Tensor):
    """A loss whose ``item()``, which RecBole adds up, is a number still on its device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def item(self) -> Tensor:
        # float64, as Python's numbers are: the sum has the same bits.
        return self.detach().double()


def deferred(loss_func: Callable) -> Callable:
    """``loss_func`` with deferred losses."""

    def compute(interaction):
        losses = loss_func(interaction)
        if isinstance(losses, tuple):
            return tuple(loss.as_subclass(DeferredLoss) for loss in losses)
        return losses.as_subclass(DeferredLoss)

    return compute


def settled(total):
    """An epoch's sum of losses as plain numbers."""
    if isinstance(total, tuple):
        return tuple(float(part) for part in total)
    return float(total)


class Pending(NamedTuple):
    """A loss on its way to the host, and where it belongs."""

    value: Tensor
    arrival: torch.cuda.Event | None  # None: it is there
    at: tuple[int, int]  # epoch and batch


def send(loss: Tensor, at: tuple[int, int]) -> Pending:
    """Start copying a loss to the host; its device goes on working."""
    if not loss.is_cuda:
        return Pending(loss.detach().cpu(), None, at)
    value = loss.detach().to("cpu", non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return Pending(value, arrival, at)


def receive(pending: Pending) -> Tensor:
    """Wait for a loss sent."""
    if pending.arrival is not None:
        pending.arrival.synchronize()
    return pending.value


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no number is NaN or infinite; one pass over each tensor, one answer of the device.

    Sums keep NaN and infinity. A sum of finite numbers that overflows counts as infinite: its
    numbers are beyond 1e30 and of no use in single precision.
    """
    if not tensors:
        return True
    values = (tensor._values() if tensor.is_sparse else tensor for tensor in tensors)
    sums = [value.sum(dtype=torch.float32) for value in values]
    return bool(torch.isfinite(torch.stack(sums)).all())
