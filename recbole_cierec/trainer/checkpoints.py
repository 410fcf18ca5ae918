"""Checkpoints of a trainer: the complete state after an epoch, written and restored."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recbole_cierec.distributed.random_state import rng_state, set_rng_state
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import CheckpointError, NonFiniteLossError
from recbole_cierec.files.checkpoint import (
    fitting,
    from_plain,
    read_checkpoint,
    to_plain,
    write_checkpoint,
)
from recbole_cierec.files.run_files import LAST, is_last, next_to
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.compat import TrainerCompat
from recbole_cierec.trainer.deferred_loss import all_finite
from recbole_cierec.trainer.history import History, history_file
from recbole_cierec.trainer.optimizers import load_state
from recbole_cierec.trainer.plain_state import PlainState
from recbole_cierec.trainer.provenance import provenance
from recbole_cierec.trainer.resuming import (
    newest_checkpoint,
    refuse_other_run,
    warn_of_differences,
)


class CheckpointMixin(TrainerCompat):
    """Safe checkpoints, from which a run resumes exactly.

    ``saved_model_file`` holds the best epoch, :attr:`last_file` the last complete one of a run that
    has not ended.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self._name_files()
        self._plain = PlainState(model)
        self.schedulers: dict[str, LRScheduler] = {}
        self.history = History()
        self.stopped_early = False
        self.writes = world()[0] == 0  # whether this process writes the run's files
        self._saving = True
        self._valid_result: dict[str, float] | None = None
        self._resumed: tuple[Path, dict[str, Any]] | None = None  # until training continues
        self._generators: list[torch.Generator] = []  # of the training loader
        self._data: dict[str, str] = {}  # digests of the training data
        # The data set as plain data, see recbole_cierec.data.stored; empty: the checkpoints of this
        # trainer cannot be loaded without the files.
        self.tables: dict[str, Any] = {}

    def _name_files(self) -> None:
        """RecBole names files by the second; two runs in one second would share them."""
        name = [str(next_to(Path(self.saved_model_file), f"-{uuid.uuid4().hex[:6]}.pth"))]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(name)
        self.saved_model_file = name[0]

    @property
    def last_file(self) -> Path:
        """The state at the end of the last complete epoch."""
        return next_to(Path(self.saved_model_file), LAST)

    def resumable(self) -> list[Path]:
        """The file of this run from which ``--resume=auto`` goes on, or none: its last epoch, or
        its best once training has ended."""
        files = (self.last_file, Path(self.saved_model_file))
        return [file for file in files if file.is_file()][:1]

    def _optimizers(self) -> dict[str, Optimizer]:
        """By attribute name; an optimizer with two names (RecVAE swaps its two) counts once."""
        named = sorted((n, v) for n, v in vars(self).items() if isinstance(v, Optimizer))
        return dict(sorted({id(v): (n, v) for n, v in named}.values()))

    def _refuse_numbers(self, what: str) -> NoReturn:
        kept = self.last_file if self.last_file.is_file() else "none yet"
        raise NonFiniteLossError(
            f"{self.config['model']}: {what}. Lower learning_rate or set clip_grad_norm. "
            f"Last good checkpoint: {kept}"
        )

    # ------------------------------------------------------------------------- writing

    def _refuse_bad_parameters(self, epoch: int) -> None:
        for name, parameter in self.model.named_parameters():
            if not all_finite([parameter.detach()]):
                self._refuse_numbers(
                    f"{name} has numbers that are not finite after epoch {epoch}; no checkpoint "
                    "of it is written"
                )

    @property
    def in_first_phase(self) -> bool:
        """Whether a trainer of two phases is in its first one."""
        return False

    def state(self, epoch: int) -> dict[str, Any]:
        """Everything that a run needs to continue after ``epoch`` as if never interrupted, and that
        a model needs to be used without the run's files.

        Raises:
            NonFiniteLossError: A parameter is not finite, which makes the state worthless.
        """
        self._refuse_bad_parameters(epoch)
        return {
            "model": getattr(self.config, "model_spelling", self.config["model"]),
            "dataset": self.config["dataset"],
            "data": self._data,
            "config": to_plain(dict(self.config.final_config_dict)),
            "given": to_plain(getattr(self.config, "given", dict)()),
            "tables": self.tables,
            "provenance": provenance(self.config),
            "ended": None,
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

    def extra_state(self) -> dict[str, Any]:
        """State that a subclass adds (the gates)."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`extra_state`."""

    def _save_last(self, epoch: int) -> None:
        if self._saving and self.writes:
            self._write(self.last_file, self.state(epoch))

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        """Write the history and then a checkpoint, whose epoch it covers at any time."""
        self.history.write(history_file(Path(self.saved_model_file)))
        write_checkpoint(path, state)

    def _save_end(self, epoch: int) -> None:
        """Note in the best checkpoint that the run has ended after ``epoch``, and drop the last.

        The best one holds all that a longer run needs: it trains again the epochs after the best.
        """
        best = Path(self.saved_model_file)
        if not (self._saving and self.writes):
            return
        if self.in_first_phase or self.config["keep_last_checkpoint"] or not best.is_file():
            self._save_last(epoch)
            return
        self._refuse_bad_parameters(epoch)
        ended = {
            "epochs": epoch + 1,
            "stopped_early": self.stopped_early,
            "train_loss": to_plain(self.train_loss_dict),
            "rng": rng_state(self._generators),
        }
        self._write(best, {**read_checkpoint(best), "ended": ended})
        self.last_file.unlink(missing_ok=True)

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """RecBole calls this when validation improved, before it keeps the result."""
        if not self.writes or (epoch < 0 < self.epochs):  # -1: nothing left to train
            return
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        known, self.best_valid_result = self.best_valid_result, self._valid_result
        self._write(path, self.state(epoch))
        self.best_valid_result = known
        if verbose:
            self.logger.info(f"Saving current: {path}")

    # ------------------------------------------------------------------------- reading

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Resume from a checkpoint (``auto``: the newest with this model, data set and settings).

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
        self.saved_model_file = str(next_to(path, ".pth") if is_last(path) else path)
        self.history = History.read(history_file(path))
        self._resumed = path, state

    def _had_ended(self, state: dict[str, Any]) -> bool:
        """Whether the resumed run has nothing left to train; then only its result is restored."""
        ended = state["ended"]
        if ended is None:
            self.stopped_early = state["stopped_early"]
            return self.stopped_early or self.start_epoch >= self.epochs
        if not ended["stopped_early"] and ended["epochs"] < self.epochs:
            CONSOLE.info(
                f"The run had ended after {ended['epochs']} epochs; it continues from its best, "
                f"epoch {state['epoch'] + 1}"
            )
            return False
        self.train_loss_dict = ended["train_loss"]
        self.stopped_early = ended["stopped_early"]
        return True

    def _load_training_state(self, state: dict[str, Any]) -> None:
        """Everything but the weights: optimizers, schedulers, gates, attributes of the model."""
        for name, optimizer in self._optimizers().items():
            if name in state["optimizers"]:
                load_state(optimizer, state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        self.load_extra_state(from_plain(state["extra"]))
        self._plain.restore(state["plain_state"], self.device)

    def _load_weights(self, path: Path, state: dict[str, Any]) -> None:
        load_weights(self.model, path, state, self.device)

    def _restore_rng(self, path: Path, state: dict[str, Any]) -> None:
        """Called when training continues: what is built until then draws random numbers."""
        with fitting(path):
            set_rng_state(state["rng"], self._generators)
        self._resumed = None


def load_weights(model: Any, path: Path, state: dict[str, Any], device: torch.device | str) -> None:
    """Fill a model, which is on ``device``, from the state in a checkpoint.

    Raises:
        CheckpointError: A tensor is absent or of another shape.
    """
    ours = model.state_dict()
    theirs = from_plain(state["state_dict"])
    for name in sorted(ours.keys() | theirs.keys()):
        there, here = theirs.get(name), ours.get(name)
        if there is None or here is None or there.shape != here.shape:
            shapes = ["absent" if x is None else str(list(x.shape)) for x in (there, here)]
            raise CheckpointError(
                f"{path}: {name} is {shapes[0]} in the checkpoint and {shapes[1]} in this run; "
                "use the data and the settings it was trained with"
            )
    model.load_state_dict(theirs)
    others = from_plain(state["other_parameter"], device) or {}
    model.load_other_parameter({k: v for k, v in others.items() if v is not None})
