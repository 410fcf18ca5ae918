"""Trainer of the models that pretrain a part of themselves (PiNet, AlignRec).

The first phase is ``pretrain_epochs`` epochs of ``model.pretrain_loss``, over the training
interactions or over items. It has no validation and no early stopping, because the part alone ranks
nothing. The second phase is ``epochs`` epochs with the model's main loss and validation; epoch
numbers continue. With ``epochs: 0`` there is only the first phase; its checkpoint can be used as
``pretrained``.

Each phase has its own optimizer of the same kind (``learner``), since moments of another loss would
mislead the second, and ``lr_decay`` counts from the start of each phase. A checkpoint holds the
optimizer of the phase in which it was written.

``pretrained: PATH`` loads the pretrained part from a checkpoint of the same model and skips the
first phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recbole_cierec.distributed.batch_share import Share
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import CheckpointError
from recbole_cierec.files.checkpoint import from_plain, read_checkpoint
from recbole_cierec.model.base.warm_start import stage_weight
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.deferred_loss import LossFunction, Totals
from recbole_cierec.trainer.gated_trainer import GatedTrainer
from recbole_cierec.trainer.resuming import data_of, refuse_other_data
from recbole_cierec.trainer.trainer import Result, TrainerMixin


class ItemBatches:
    """Shuffled batches of items, each shared by all processes.

    Args:
        items: Item ids [n].
        field: The name of the item id field.
        size: Items in a batch.
        generator: Draws the order. Pass the training loader's: its state is part of every
            checkpoint and equal in all processes.
    """

    shuffle = False  # RecBole would ask a shuffled loader for a distributed sampler

    def __init__(self, items: Tensor, field: str, size: int, generator: torch.Generator) -> None:
        self.items, self.field, self.size, self.generator = items.cpu(), field, size, generator
        self.rank, self.world = world()
        self.share: Share | None = None

    def __len__(self) -> int:
        return -(-len(self.items) // self.size)

    def __iter__(self) -> Iterator[Interaction]:
        order = torch.randperm(len(self.items), generator=self.generator)
        for rows in order.split(self.size):
            batch = Interaction({self.field: self.items[rows]})
            if self.world == 1:
                yield batch
            else:
                self.share = Share(batch, self.rank, self.world)
                yield self.share.own


class TwoPhaseMixin(TrainerMixin):
    """Over a RecBole trainer; the model is a ``TwoPhases``."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        # Optimizer and schedulers of the second phase, while the first lasts.
        self._second: tuple[Optimizer, dict[str, LRScheduler]] | None = None
        self._batches: Any = None
        # The checkpoint of the first phase, and the digests of its data.
        self._pretrained: tuple[Path, dict[str, str]] | None = None
        if config["pretrained"]:
            self._load_pretrained(Path(config["pretrained"]))
        self.pretrain_epochs = 0 if config["pretrained"] else config["pretrain_epochs"]
        self.epochs += self.pretrain_epochs
        if self.pretrain_epochs:
            self._second = self.optimizer, self.schedulers
            self.optimizer = self._build_optimizer(params=model.pretrain_groups())
            self.schedulers = {}
            self._decay({"optimizer": self.optimizer})
            self._warm_up(self.optimizer)

    @property
    def in_first_phase(self) -> bool:
        """Whether the model is still being pretrained."""
        return self._second is not None

    @property
    def phase(self) -> str:
        if not self.pretrain_epochs:
            return ""
        return "phase 1 of 2: " if self.in_first_phase else "phase 2 of 2: "

    def _leave_first_phase(self) -> None:
        if self._second is not None:
            # The second optimizer may own other parameters, and clipping counts all gradients.
            self.optimizer.zero_grad(set_to_none=True)
            self.optimizer, self.schedulers = self._second
            self._second = None

    # ------------------------------------------------------------------------ training

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        **kwargs: Any,
    ) -> tuple[float, Result | None]:
        if self._pretrained is not None:
            path, then = self._pretrained
            refuse_other_data(path, then, data_of(train_data._dataset), "pretrain it on the same")
        if self.in_first_phase:
            if self.start_epoch < self.pretrain_epochs:
                show_progress = bool(kwargs.get("show_progress"))
                self._fit_first_phase(train_data, verbose, saved, show_progress)
            self.model.end_pretraining()
            self._leave_first_phase()
        result = super().fit(train_data, valid_data, verbose=verbose, saved=saved, **kwargs)
        if saved and 0 < self.epochs == self.pretrain_epochs:
            self._save_checkpoint(self.epochs - 1, verbose=verbose)  # no epoch did
        return result

    def _fit_first_phase(
        self, train_data: Any, verbose: bool, saved: bool, show_progress: bool
    ) -> None:
        items = self.model.pretrain_items()
        self._batches = train_data
        if items is not None:
            size = self.config["pretrain_batch_size"]
            field = self.config["ITEM_ID_FIELD"]
            self._batches = ItemBatches(items, field, size, train_data.generator)
        over = "interactions" if items is None else f"{len(items)} items"
        CONSOLE.info(f"Phase 1 of 2: {self.pretrain_epochs} epochs over {over}")
        whole, self.epochs = self.epochs, self.pretrain_epochs
        super().fit(train_data, None, verbose, saved, show_progress=show_progress)
        self.epochs, self.start_epoch = whole, self.pretrain_epochs
        CONSOLE.info("Phase 2 of 2: the main loss, with a new optimizer")

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        if self.in_first_phase:
            train_data, loss_func = self._batches, self.model.pretrain_loss
        return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)

    def _add_train_loss_to_tensorboard(
        self, epoch_idx: int, losses: Totals, tag: str = "Loss/Train"
    ) -> None:
        tag = "Loss/Pretrain" if self.in_first_phase else tag
        super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)

    def _add_hparam_to_tensorboard(self, best_valid_result: Result | None) -> None:
        if not self.in_first_phase:  # RecBole calls it at the end of every fit
            super()._add_hparam_to_tensorboard(best_valid_result)

    # --------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        # Without validation RecBole takes every epoch for the best.
        if not self.in_first_phase:
            super()._save_checkpoint(epoch, verbose=verbose, **kwargs)

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"pretrain_epochs": self.pretrain_epochs}

    def _load_weights(self, path: Path, state: dict[str, Any]) -> None:
        theirs = state["extra"]["pretrain_epochs"]
        if theirs != self.pretrain_epochs:
            raise CheckpointError(
                f"{path}: was trained with {theirs} epochs in its first phase, this run has "
                f"{self.pretrain_epochs}; use the settings it was trained with"
            )
        # The optimizer is loaded next, so it must be that of the checkpoint's phase.
        if self.in_first_phase and state["epoch"] >= self.pretrain_epochs:
            self._leave_first_phase()
        super()._load_weights(path, state)

    def _load_pretrained(self, path: Path) -> None:
        state = read_checkpoint(path)
        name, parts = self.config.model_spelling, tuple(self.model.pretrained_parts)
        if state["model"] != name:
            raise CheckpointError(f"{path}: holds model {state['model']}, this run has {name}")
        if state["epoch"] + 1 < state["extra"]["pretrain_epochs"]:
            raise CheckpointError(
                f"{path}: stopped in its first phase; resume it before you use it as pretrained"
            )
        theirs, ours = from_plain(state["state_dict"]), self.model.state_dict()
        try:
            for key in (key for key in ours if key.startswith(parts)):
                ours[key] = stage_weight(theirs, key, ours[key].shape)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        self.model.load_state_dict(ours)
        self._pretrained = path, state["data"]
        CONSOLE.info(f"{name} starts from the first phase of {path}")


class TwoPhaseTrainer(TwoPhaseMixin, Trainer):
    """Two phases."""


class TwoPhaseGatedTrainer(TwoPhaseMixin, GatedTrainer):
    """Two phases, the second with gradient gates."""
