"""RecBole's training loop, stopped before it applies a bad loss, for one process or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from torch import Tensor
from torch.optim import Optimizer

from recbole_cierec.distributed.gradient_exchange import ProcessGroup, followed_by
from recbole_cierec.trainer.checkpoints import CheckpointMixin
from recbole_cierec.trainer.deferred_loss import (
    Losses,
    LossFunction,
    Pending,
    Totals,
    all_finite,
    deferred,
    receive,
    send,
    settled,
)


class GuardedLoopMixin(CheckpointMixin):
    """Checks each loss and gradient; with several processes exchanges both first."""

    # With several processes: the loss of this one's share of the batch, its epoch and batch.
    _own_loss: tuple[Tensor, tuple[int, int]]

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self._group: ProcessGroup | None = None
        if not config["single_spec"]:
            # It has copied the first process's parameters to all, its only use here.
            self.distributed_model = None
            self._group = ProcessGroup(self.model, self.device)
            self._exchanged = followed_by(self._exchange)
        self._at = (0, 0)  # epoch and batch, for messages
        self._deferring = False
        self._pending: Pending | None = None  # the loss of the current batch

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        self._at = (epoch_idx, 0)
        loop = super()._train_epoch
        self._deferring = self._may_defer(loop)
        if self._deferring:
            loop = self._train_deferred
        if self._group is not None:
            loss_func = loss_func or self.model.calculate_loss
            return _train_in_group(
                self._group, loop, train_data, epoch_idx, loss_func, show_progress
            )
        return loop(train_data, epoch_idx, loss_func, show_progress)

    def _may_defer(self, loop: Any) -> bool:
        """Whether RecBole's plain loop runs on a device that works while the host continues."""
        return self.device.type == "cuda" and loop.__func__ is Trainer._train_epoch

    def _train_deferred(
        self, train_data: Any, epoch_idx: int, loss_func: LossFunction | None, show_progress: bool
    ) -> Totals:
        loss_func = deferred(loss_func or self.model.calculate_loss)
        total = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self._stop_if_not_finite()
        return settled(total)

    # --------------------------------------------------------------- several processes

    def set_reduce_hook(self) -> None:
        """RecBole calls it before each batch to prepare torch's wrapper, which is not used."""

    def sync_grad_loss(self) -> Tensor:
        """The zero that RecBole adds to each loss; the exchange follows the backward pass."""
        return torch.zeros((), device=self.device).as_subclass(self._exchanged)

    def _exchange(self) -> None:
        if self._group is not None:
            loss, at = self._own_loss
            self._pending = send(self._group.exchange(loss), at)

    # -------------------------------------------------------------------------- checks

    def _check_nan(self, loss: Tensor) -> None:
        epoch, batch = self._at
        self._stop_if_not_finite()  # of the previous batch, if a scaler skipped its step
        self._at = (epoch, batch + 1)
        if self._group is not None:  # no process stops before all know why
            self._own_loss = loss.detach().sum(), (epoch, batch)
            return
        self._pending = send(loss, (epoch, batch))
        if not self._deferring:
            self._stop_if_not_finite()

    def _before_step(self, optimizer: Optimizer) -> None:
        """Stop before an optimizer applies a loss or a gradient that is not finite."""
        self._stop_if_not_finite()
        if getattr(optimizer, "found_inf", None) is not None:
            return  # a scaler of mixed precision skips such steps
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not all_finite([p.grad for p in parameters if p.grad is not None]):
            epoch, batch = self._at
            bad = {id(p) for p in parameters if p.grad is not None and not all_finite([p.grad])}
            names = [n for n, p in self.model.named_parameters() if id(p) in bad]
            self._refuse_numbers(
                f"the gradient of {', '.join(names)} is not finite in epoch {epoch}, batch "
                f"{batch - 1}; nothing was updated with it"
            )

    def _stop_if_not_finite(self) -> None:
        if self._pending is None:
            return
        loss, (epoch, batch) = receive(self._pending), self._pending.at
        self._pending = None
        if not bool(torch.isfinite(loss)):
            self._refuse_numbers(
                f"the training loss is {loss.item()} in epoch {epoch}, batch {batch}; nothing was "
                "updated with it"
            )


def _train_in_group(
    group: ProcessGroup,
    loop: Callable[..., Totals],
    train_data: Any,
    epoch_idx: int,
    compute: LossFunction,
    show_progress: bool,
) -> Totals:
    """One epoch of ``loop`` in one of several processes; the losses are means over all."""

    def weighted(interaction: Interaction) -> Losses:
        weight = group.begin_batch(getattr(train_data, "share", None))
        losses = compute(interaction)
        if isinstance(losses, tuple):
            return tuple(loss * weight for loss in losses)
        return losses * weight

    group.begin_epoch(shared=hasattr(train_data, "share"))
    losses = loop(train_data, epoch_idx, weighted, show_progress)
    group.end_epoch()
    means = group.mean(torch.tensor(losses, dtype=torch.float64, device=group.device))
    return tuple(means.tolist()) if isinstance(losses, tuple) else means.item()
