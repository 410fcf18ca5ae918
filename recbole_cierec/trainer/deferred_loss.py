"""A batch's loss, read without making the host wait for the device.

RecBole's loop reads the loss twice before the backward pass: to add it up and to check for NaN. On
a GPU each read waits for the forward pass, while nothing more is queued. Here the sum stays on the
device until the epoch ends. The value for the check is copied while the backward pass is queued and
checked right before the optimizer steps, so nothing is updated with a loss that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

Losses = Tensor | tuple[Tensor, ...]  # of a batch
Totals = float | tuple[float, ...]  # of an epoch
LossFunction = Callable[[Interaction], Losses]


class DeferredLoss(Tensor):
    """A loss whose ``item()``, which RecBole adds up, stays on its device."""

    def item(self) -> Tensor:  # type: ignore[override]
        # float64, as Python's numbers are: the sum has the same bits.
        return _plain(self).double()


def _plain(loss: Tensor) -> Tensor:
    """The loss without its graph and its kind."""
    return loss.detach().as_subclass(Tensor)


def deferred(loss_func: LossFunction) -> LossFunction:
    """``loss_func`` with deferred losses."""

    def compute(interaction: Interaction) -> Losses:
        losses = loss_func(interaction)
        if isinstance(losses, tuple):
            return tuple(loss.as_subclass(DeferredLoss) for loss in losses)
        return losses.as_subclass(DeferredLoss)

    return compute


def settled(total: Losses) -> Totals:
    """An epoch's sum of deferred losses as plain numbers."""
    if isinstance(total, tuple):
        return tuple(float(part) for part in total)
    return float(total)


class Pending(NamedTuple):
    """A loss that is being copied to the host."""

    value: Tensor
    arrival: torch.cuda.Event | None  # None: it has arrived
    at: tuple[int, int]  # epoch and batch


def send(loss: Tensor, at: tuple[int, int]) -> Pending:
    """Start copying a loss to the host; its device continues to work."""
    loss = _plain(loss)
    if not loss.is_cuda:
        return Pending(loss.cpu(), None, at)
    value = loss.to("cpu", non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return Pending(value, arrival, at)


def receive(pending: Pending) -> Tensor:
    """Wait for a loss that was sent."""
    if pending.arrival is not None:
        pending.arrival.synchronize()
    return pending.value


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no number is NaN or infinite; one pass over each tensor, one read from the device.

    Sums keep NaN and infinity. A sum that overflows counts as infinite: its numbers exceed 1e30,
    which single precision cannot use.
    """
    if not tensors:
        return True
    values = (tensor._values() if tensor.is_sparse else tensor for tensor in tensors)
    sums = [value.sum(dtype=torch.float32) for value in values]
    return bool(torch.isfinite(torch.stack(sums)).all())
