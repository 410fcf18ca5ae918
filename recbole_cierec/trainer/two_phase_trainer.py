"""Trainer of the models that train a part of themselves first (PiNet, AlignRec).

The first phase is ``pretrain_epochs`` epochs of ``model.pretrain_loss``, over the training
interactions or over items, without validation and so without early stopping: the part alone ranks
nothing. ``epochs`` more follow with the model's own loss, validated as ever; epoch numbers run
through. With ``epochs: 0`` the phase is all, and its checkpoint serves as ``pretrained``.

Each phase has an optimizer of its own, of the same kind (``learner``): the second starts with fresh
moments, because those of another loss would only mislead it, and ``lr_decay`` counts each phase
from its start. A checkpoint holds the optimizer of the phase it was written in.

``pretrained: PATH`` takes the pretrained part from a checkpoint of the same model instead and
leaves the phase out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from torch import Tensor

from recbole_cierec.distributed.batch_share import Share
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import CheckpointError
from recbole_cierec.files.checkpoint import from_plain, read_checkpoint
from recbole_cierec.trainer.gated_trainer import GatedTrainer
from recbole_cierec.trainer.resuming import data_of, refuse_other_data
from recbole_cierec.trainer.trainer import TrainerMixin


class ItemBatches:
    """Shuffled batches of items; several processes share each of them.

    Args:
        items: Item ids [n].
        field: The name of the item id field.
        size: Items in a batch.
        generator: Draws the order. It is the training loader's own, whose state is part of
            every checkpoint and equal in all processes.
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


class TwoPhaseMixin:
    """Over a trainer with :class:`TrainerMixin`; the model is a ``TwoPhases``."""

    def __init__(self, config, model) -> None:
        super().__init__(config, model)
        self._second: tuple | None = None  # what waits while the first phase lasts
        self._batches = None
        self._taken_from: tuple[Path, dict] | None = None  # a checkpoint and what it holds
        if config["pretrained"]:
            self._take_pretrained(Path(config["pretrained"]))
        self.pretrain_epochs = 0 if config["pretrained"] else config["pretrain_epochs"]
        self.epochs += self.pretrain_epochs
        if self.pretrain_epochs:
            self._second = self.optimizer, self.schedulers
            self.optimizer = self._build_optimizer(params=model.pretrain_groups())
            self.schedulers = {}
            self._decay({"optimizer": self.optimizer})

    @property
    def in_first_phase(self) -> bool:
        """Whether the phase before the model's own loss lasts still."""
        return self._second is not None

    def _leave_first_phase(self) -> None:
        self.optimizer, self.schedulers = self._second
        self._second = None

    # ------------------------------------------------------------------------ training

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, **kwargs):
        self._refuse_other_data(train_data._dataset)
        if self.in_first_phase:
            if self.start_epoch < self.pretrain_epochs:
                self._fit_first_phase(train_data, verbose, saved, kwargs.get("show_progress"))
            self.model.end_pretraining()
            self._leave_first_phase()
        result = super().fit(train_data, valid_data, verbose=verbose, saved=saved, **kwargs)
        if saved and 0 < self.epochs == self.pretrain_epochs:
            self._save_checkpoint(self.epochs - 1, verbose=verbose)  # no epoch was there to do it
        return result

    def _fit_first_phase(self, train_data, verbose: bool, saved: bool, show_progress) -> None:
        items = self.model.pretrain_items()
        self._batches = train_data
        if items is not None:
            size = self.config["pretrain_batch_size"]
            field = self.config["ITEM_ID_FIELD"]
            self._batches = ItemBatches(items, field, size, train_data.generator)
        over = "interactions" if items is None else f"{len(items)} items"
        self.logger.info(f"Phase 1 of 2: {self.pretrain_epochs} epochs over {over}")
        whole, self.epochs = self.epochs, self.pretrain_epochs
        super().fit(train_data, None, verbose, saved, show_progress=bool(show_progress))
        self.epochs, self.start_epoch = whole, self.pretrain_epochs
        self.logger.info("Phase 2 of 2: the model's own loss, with a fresh optimizer")

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if self.in_first_phase:
            train_data, loss_func = self._batches, self.model.pretrain_loss
        return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)

    def _add_train_loss_to_tensorboard(self, epoch_idx, losses, tag="Loss/Train") -> None:
        tag = "Loss/Pretrain" if self.in_first_phase else tag
        super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)

    def _add_hparam_to_tensorboard(self, best_valid_result) -> None:
        if not self.in_first_phase:  # RecBole writes it at the end of every fit
            super()._add_hparam_to_tensorboard(best_valid_result)

    # --------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, epoch, verbose=True, **kwargs) -> None:
        # Without validation RecBole calls every epoch the best; one of the first phase is not.
        if not self.in_first_phase:
            super()._save_checkpoint(epoch, verbose=verbose, **kwargs)

    def extra_state(self) -> dict:
        return super().extra_state() | {"pretrain_epochs": self.pretrain_epochs}

    def _load_weights(self, path: Path, state: dict) -> None:
        theirs = state["extra"]["pretrain_epochs"]
        if theirs != self.pretrain_epochs:
            raise CheckpointError(
                f"{path}: was trained with {theirs} epochs in its first phase, this run has "
                f"{self.pretrain_epochs}; use the settings it was trained with"
            )
        # The optimizer is read next, so it must be that of the checkpoint's phase.
        if self.in_first_phase and state["epoch"] >= self.pretrain_epochs:
            self._leave_first_phase()
        super()._load_weights(path, state)

    def _take_pretrained(self, path: Path) -> None:
        state = read_checkpoint(path)
        name, parts = self.config["model"], tuple(self.model.pretrained_parts)
        if state["model"] != name:
            raise CheckpointError(f"{path}: holds model {state['model']}, this run has {name}")
        if state["epoch"] + 1 < state["extra"]["pretrain_epochs"]:
            raise CheckpointError(
                f"{path}: stopped within its first phase; resume it before it is used as pretrained"
            )
        theirs, ours = from_plain(state["state_dict"]), self.model.state_dict()
        for key in (key for key in ours if key.startswith(parts)):
            there = theirs.get(key)
            if there is None or there.shape != ours[key].shape:
                shape = "absent" if there is None else str(list(there.shape))
                raise CheckpointError(
                    f"{path}: {key} is {shape} there, and {list(ours[key].shape)} is needed; "
                    "pretrain it with the data and the settings of this run"
                )
            ours[key] = there
        self.model.load_state_dict(ours)
        self._taken_from = path, {"data": state["data"]}
        self.logger.info(f"{name} starts from the first phase of {path}")

    def _refuse_other_data(self, dataset) -> None:
        if self._taken_from is not None:
            path, state = self._taken_from
            refuse_other_data(path, state, data_of(dataset), "pretrain it on the same")


class TwoPhaseTrainer(TwoPhaseMixin, TrainerMixin, Trainer):
    """Two phases."""


class TwoPhaseGatedTrainer(TwoPhaseMixin, GatedTrainer):
    """Two phases, the second with gradient gates."""
