"""What every trainer gains here, RecBole's own included: safe checkpoints, exact resume, decay,
a stop before a bad update, and results by user group.

:func:`compose` puts :class:`TrainerMixin` over any RecBole trainer class. Each hook does its part
and calls RecBole's; no loop is written again.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from functools import cache
from pathlib import Path

import torch
from recbole.trainer import PretrainTrainer, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from recbole_cierec.distributed.gradient_exchange import ProcessGroup, after_backward
from recbole_cierec.distributed.random_state import loader_generators, rng_state, set_rng_state
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import CheckpointError, NonFiniteLossError
from recbole_cierec.evaluation.collector import PlanCollector
from recbole_cierec.evaluation.evaluator import PlanEvaluator
from recbole_cierec.evaluation.scoring import candidate_batch
from recbole_cierec.files.atomic_write import TEMPORARY
from recbole_cierec.files.cache_folder import clear_leftovers
from recbole_cierec.files.checkpoint import (
    fitting,
    from_plain,
    read_checkpoint,
    to_plain,
    write_checkpoint,
)
from recbole_cierec.trainer.checkpoint_folder import writes_in
from recbole_cierec.trainer.compat import TrainerCompat
from recbole_cierec.trainer.deferred_loss import (
    Pending,
    all_finite,
    deferred,
    receive,
    send,
    settled,
)
from recbole_cierec.trainer.optimizers import RowAdagrad, load_state, quick
from recbole_cierec.trainer.plain_state import PlainState
from recbole_cierec.trainer.pretraining import PretrainingMixin
from recbole_cierec.trainer.recbole_errors import plain_words
from recbole_cierec.trainer.resuming import (
    data_of,
    newest_checkpoint,
    refuse_other_data,
    refuse_other_run,
    warn_of_differences,
)


class TrainerMixin(TrainerCompat):
    """Over a RecBole trainer; use :func:`compose`."""

    def __init__(self, config, model) -> None:
        super().__init__(config, model)
        self._group: ProcessGroup | None = None
        if not config["single_spec"]:
            # It has given all processes the first one's parameters, which is all it serves for.
            self.distributed_model = None
            self._group = ProcessGroup(self.model, self.device)
        # RecBole's trainer of models without epochs (Pop, ItemKNN) lowers epochs to 1 too late for
        # this rule of its own, and would never validate or save with a larger eval_step.
        self.eval_step = min(self.eval_step, self.epochs)
        self.eval_collector = PlanCollector(config)
        self.evaluator = PlanEvaluator(config)
        self._name_files()
        self.schedulers: dict[str, StepLR] = {}
        self._decay(self._optimizers())
        self._plain = PlainState(model)
        self.stopped_early = False
        self._saving = True
        self.writes = world()[0] == 0  # whether the run's files are left to this process
        self._valid_result: dict | None = None
        self._resumed: dict | None = None
        self._generators: list[torch.Generator] = []  # of the loader
        self._data: dict[str, str] = {}  # digests of the data that the model is trained on
        self._at = (0, 0)  # epoch and batch, for messages
        self._deferring = False
        self._pending: Pending | None = None  # the loss of the batch that was just computed
        # With several processes: of this one's share of it, and its epoch and batch.
        self._own_loss: tuple[Tensor, tuple[int, int]] | None = None

    def _name_files(self) -> None:
        """RecBole names by the second; two runs in one second would share a file."""
        stem = Path(self.saved_model_file).with_suffix("")
        name = [f"{stem}-{uuid.uuid4().hex[:6]}"]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(name)
        self.saved_model_file = f"{name[0]}.pth"

    @property
    def last_file(self) -> Path:
        """State at the end of the last whole epoch; ``saved_model_file`` is the best one."""
        return Path(self.saved_model_file).with_suffix(".last.pth")

    def _optimizers(self) -> dict[str, Optimizer]:
        """By attribute name; an optimizer with two names (RecVAE swaps its two) counts once."""
        named = sorted((n, v) for n, v in vars(self).items() if isinstance(v, Optimizer))
        return dict(sorted({id(v): (n, v) for n, v in named}.values()))

    def _decay(self, optimizers: dict[str, Optimizer]) -> None:
        """Sec. IV-A3: every ``lr_decay_epochs`` epochs the rate is multiplied by ``lr_decay``."""
        step, factor = self.config["lr_decay_epochs"], self.config["lr_decay"]
        if factor != 1.0:
            self.schedulers |= {n: StepLR(o, step, factor) for n, o in optimizers.items()}

    def _build_optimizer(self, **kwargs) -> Optimizer:
        if "params" not in kwargs and hasattr(self.model, "parameter_groups"):
            kwargs["params"] = self.model.parameter_groups()
        optimizer = quick(super()._build_optimizer(**kwargs), self.config["optimizer_kernel"])
        # Clipping takes dense gradients; on a GPU these cost less than finding out which rows are
        # there.
        by_row = isinstance(optimizer, RowAdagrad) and self.device.type == "cpu"
        optimizer.register_step_pre_hook(lambda optimizer, *_: self._before_step(optimizer))
        for table in self.model.id_tables() if hasattr(self.model, "id_tables") else ():
            table.sparse = by_row and not self.clip_grad_norm
        return optimizer

    # ------------------------------------------------------------------------ training

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, **kwargs):
        self._saving = saved
        if saved:
            folder = Path(self.saved_model_file).parent
            self.writes = writes_in(folder, first_here=self.config["local_rank"] == 0)
            if self.writes:
                clear_leftovers(folder, TEMPORARY)  # of runs killed while they wrote
        self._generators = loader_generators(train_data)
        dataset = train_data._dataset
        self._data = data_of(dataset)
        resumed = self._resumed
        if resumed is not None:
            refuse_other_data(self._resumed_file, resumed, self._data, "start without --resume")
            if resumed["stopped_early"] or self.start_epoch >= self.epochs:
                self.logger.info("The resumed run had finished; its best model is evaluated")
                self._restore_rng()  # ADMMSLIM draws noise when it scores
                self.eval_collector.data_collect(train_data)  # some metrics count training items
                return self.best_valid_score, self.best_valid_result
        with plain_words(self.config):
            result = super().fit(train_data, valid_data, verbose=verbose, saved=saved, **kwargs)
        last = max(self.train_loss_dict, default=self.start_epoch - 1)
        self.stopped_early = last + 1 < self.epochs
        self._save_last(last)
        return result

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if self._resumed is not None:
            self._restore_rng()
        elif epoch_idx > self.start_epoch:
            self._save_last(epoch_idx - 1)
        self._at = (epoch_idx, 0)
        self._deferring = self._may_defer(super()._train_epoch)
        loop = self._train_deferred if self._deferring else super()._train_epoch
        if self._group is None:
            losses = loop(train_data, epoch_idx, loss_func, show_progress)
        else:
            losses = self._train_in_group(loop, train_data, epoch_idx, loss_func, show_progress)
        self._settle()
        for scheduler in self.schedulers.values():
            scheduler.step()
        return losses

    def _restore_rng(self) -> None:
        """Not done on reading: what is built after it draws random numbers."""
        with fitting(self._resumed_file):
            set_rng_state(self._resumed["rng"], self._generators)
        self._resumed = None

    def _settle(self) -> None:
        """For sub-classes: what the last batch has left to do, before rates decay."""

    def _train_in_group(self, loop, train_data, epoch_idx, loss_func, show_progress):
        loss_func = loss_func or self.model.calculate_loss

        def weighted(interaction):
            weight = self._group.begin_batch(getattr(train_data, "share", None))
            losses = loss_func(interaction)
            if isinstance(losses, tuple):
                return tuple(loss * weight for loss in losses)
            return losses * weight

        self._group.begin_epoch(shared=hasattr(train_data, "share"))
        losses = loop(train_data, epoch_idx, weighted, show_progress)
        self._group.end_epoch()
        means = self._group.mean(torch.tensor(losses, dtype=torch.float64, device=self.device))
        return tuple(means.tolist()) if isinstance(losses, tuple) else means.item()

    def set_reduce_hook(self) -> None:
        """RecBole calls it before each batch to prepare torch's wrapper, which is not used."""

    def sync_grad_loss(self) -> Tensor:
        """RecBole adds it to each loss, that all processes may meet in the backward pass."""
        return after_backward(self._exchange, self.device)

    def _exchange(self) -> None:
        loss, at = self._own_loss
        self._pending = send(self._group.exchange(loss), at)

    def _may_defer(self, loop) -> bool:
        """Whether epochs are run by RecBole's plain loop, on a device that the host can precede."""
        return self.device.type == "cuda" and loop.__func__ is Trainer._train_epoch

    def _train_deferred(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        loss_func = deferred(loss_func or self.model.calculate_loss)
        total = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self._stop_if_not_finite()
        return settled(total)

    def _check_nan(self, loss) -> None:
        epoch, batch = self._at
        self._stop_if_not_finite()  # of the batch before, where a scaler left out its step
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
            return  # a scaler of mixed precision leaves such steps out by itself
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

    def _refuse_numbers(self, what: str) -> None:
        kept = self.last_file if self.last_file.is_file() else "none yet"
        raise NonFiniteLossError(
            f"{self.config['model']}: {what}. Lower learning_rate or set clip_grad_norm. "
            f"Last good checkpoint: {kept}"
        )

    def _valid_epoch(self, valid_data, show_progress=False):
        score, result = super()._valid_epoch(valid_data, show_progress)
        self._valid_result = result
        return score, result

    # --------------------------------------------------------------------- checkpoints

    def state(self, epoch: int) -> dict:
        """All that a run needs to go on after ``epoch`` as if it had never stopped.

        Raises:
            NonFiniteLossError: A parameter is not finite, so that the state is worth nothing.
        """
        for name, parameter in self.model.named_parameters():
            if not all_finite([parameter.detach()]):
                self._refuse_numbers(
                    f"{name} has numbers that are not finite after epoch {epoch}; no checkpoint "
                    "of it is written"
                )
        return {
            "model": getattr(self.config, "model_spelling", self.config["model"]),
            "dataset": self.config["dataset"],
            "data": self._data,
            "config": to_plain(dict(self.config.final_config_dict)),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "stopped_early": self.stopped_early,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": to_plain(self.best_valid_result),
            "train_loss": to_plain(self.train_loss_dict),
            "state_dict": to_plain(dict(self.model.state_dict())),
            "other_parameter": to_plain(self.model.other_parameter()),
            "plain_state": self._plain.changed(),
            "optimizers": {k: v.state_dict() for k, v in self._optimizers().items()},
            "schedulers": {k: to_plain(v.state_dict()) for k, v in self.schedulers.items()},
            "extra": to_plain(self.extra_state()),
            "rng": rng_state(self._generators),
        }

    def extra_state(self) -> dict:
        """State of what a sub-class adds (the gates)."""
        return {}

    def load_extra_state(self, state: dict) -> None:
        """Inverse of :meth:`extra_state`."""

    def _save_last(self, epoch: int) -> None:
        if self._saving and self.writes:
            write_checkpoint(self.last_file, self.state(epoch))

    def _save_checkpoint(self, epoch, verbose=True, **kwargs) -> None:
        """RecBole calls this when validation improved, before it notes the result."""
        if not self.writes or (epoch < 0 < self.epochs):  # -1: nothing left to train
            return
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        known, self.best_valid_result = self.best_valid_result, self._valid_result
        write_checkpoint(path, self.state(epoch))
        self.best_valid_result = known
        if verbose:
            self.logger.info(f"Saving current: {path}")

    def resume_checkpoint(self, resume_file) -> None:
        """Go on from a checkpoint (``auto``: the newest with this model, data set and settings).

        Raises:
            CheckpointError: It is missing, damaged, or of another model, data set or size.
        """
        path = newest_checkpoint(self.config) if resume_file == "auto" else Path(resume_file)
        state = read_checkpoint(path)
        refuse_other_run(path, state, self.config)
        with fitting(path):
            self._load_weights(path, state)
            warn_of_differences(path, state, self.config)
            self._load_training_state(state)
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        best = state["best_valid_result"]
        self.best_valid_result = None if best is None else OrderedDict(best)  # as RecBole keeps it
        self.train_loss_dict = state["train_loss"]
        self.saved_model_file = str(path).replace(".last.pth", ".pth")
        self._resumed, self._resumed_file = state, path
        self.logger.info(f"Resuming {path} after epoch {state['epoch']}")

    def _load_training_state(self, state: dict) -> None:
        """All but the weights: optimizers, schedulers, gates, plain attributes of the model."""
        for name, optimizer in self._optimizers().items():
            if name in state["optimizers"]:
                load_state(optimizer, state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        self.load_extra_state(from_plain(state["extra"]))
        self._plain.restore(state["plain_state"], self.device)

    def _load_weights(self, path: Path, state: dict) -> None:
        ours = self.model.state_dict()
        theirs = from_plain(state["state_dict"])
        for name in sorted(ours.keys() | theirs.keys()):
            there, here = theirs.get(name), ours.get(name)
            if there is None or here is None or there.shape != here.shape:
                shapes = ["absent" if x is None else str(list(x.shape)) for x in (there, here)]
                raise CheckpointError(
                    f"{path}: {name} is {shapes[0]} in the checkpoint and {shapes[1]} in this run; "
                    "use the data and the settings it was trained with"
                )
        self.model.load_state_dict(theirs)
        others = from_plain(state["other_parameter"], self.device) or {}
        self.model.load_other_parameter({k: v for k, v in others.items() if v is not None})

    # ---------------------------------------------------------------------- evaluation

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        if load_best_model and eval_data:
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # another process may still be writing
            path = Path(model_file or self.saved_model_file)
            with fitting(path):
                self._load_weights(path, read_checkpoint(path))
            self.logger.info(f"Loading model structure and parameters from {path}")
        plan = getattr(eval_data, "plan", None)
        self.eval_collector.plan = self.evaluator.plan = plan
        with plain_words(self.config):
            return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _full_sort_batch_eval(self, batched_data):
        plan = self.eval_collector.plan
        if plan is None or not plan.sampled:
            return super()._full_sort_batch_eval(batched_data)
        interaction, rows = batched_data
        return interaction, *candidate_batch(self, plan, interaction, rows)


@cache
def compose(base: type) -> type:
    """``base`` with :class:`TrainerMixin` over it, under its own name."""
    if issubclass(base, TrainerMixin):
        return base
    staged = (PretrainingMixin,) if issubclass(base, PretrainTrainer) else ()
    return type(base.__name__, (*staged, TrainerMixin, base), {"__doc__": base.__doc__})
