"""Models that start from another trained model, in one command.

The registry names the stage (AMF starts from MF). The stage is trained first, on the same data,
split, protocol and seed, with its own yaml. Keys in the main model's yaml (``learning_rate``,
``reg_weight``, ...) do not affect its stage, so that tuning the main model leaves the stage as it
is; all other keys (``epochs``, ``seed``, ``loss``, data, protocol) apply to both; and
``pretrain: {key: value}`` sets keys of the stage. Its best epoch is kept as
``stage-MODEL-DIGEST.pth`` in ``checkpoint_dir``. The digest covers all that decides the result
(settings, interactions, features), so that a later run that needs the same stage reads it instead
of training it again; delete the file to train it again. ``pretrained: PATH`` starts from that
checkpoint instead.

``resume: auto`` resumes the main model if it has a checkpoint, else its stage; ``resume: PATH`` of
a stopped stage resumes that stage. The main model starts the same whether its stage was trained in
this run or read, because random generators are seeded again after the stage.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_cierec.config.config import COMMAND_LINE, Config
from recbole_cierec.config.keys import CONFIG_DICT
from recbole_cierec.config.properties import model_keys
from recbole_cierec.console.run_lines import model_line
from recbole_cierec.distributed.world import of_first, world
from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.files.atomic_write import replace
from recbole_cierec.files.by_age import by_age
from recbole_cierec.files.checkpoint import from_plain, peek_checkpoint, read_checkpoint
from recbole_cierec.files.run_files import LAST
from recbole_cierec.registry import nearest_known, stages_of
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.history import history_file
from recbole_cierec.trainer.resuming import data_of, newest_checkpoint, refuse_other_data

# These apply to the run as a whole; a stage has no values of its own.
_RUN_KEYS = frozenset("model dataset resume pretrained pretrain stage_model log_wandb".split())


@dataclass
class Start:
    """How the main model begins.

    Attributes:
        resume: The checkpoint from which the main model resumes, or ``auto``, or None.
        weights: The ``state_dict`` of the trained stage; None without a stage.
        data: Digests of the stage's training data.
        source: Where the weights came from, for messages.
        stages: The entry ``stages`` in the result of ``run``: model, checkpoint (path or None) and
            best_valid_score of the stage; empty without one.
    """

    resume: str | None = None
    weights: dict[str, Tensor] | None = None
    data: dict[str, str] = field(default_factory=dict)
    source: str = ""
    stages: tuple[dict[str, Any], ...] = ()

    def fill(self, model: Any, dataset: Any) -> nn.Module:
        """Load the stage's weights, if any, into a new model; returns the model.

        Raises:
            CheckpointError: They differ in size, or the stage was trained on other pictures or
                annotations than the model has read from ``dataset``.
        """
        if self.weights is None:
            return model
        path, advice = Path(self.source), "pretrain it on the same"
        refuse_other_data(path, self.data, data_of(dataset), advice)
        try:
            model.start_from(self.weights)
        except CheckpointError as error:
            raise CheckpointError(f"{self.source}: {error}") from None
        self.weights = None
        CONSOLE.info(f"{type(model).__name__} starts from {self.source}")
        return model


def stage_model(config: Config) -> str | None:
    """The name of the model to train before that of ``config``; None for most.

    Raises:
        ConfigError: The model cannot start from ``stage_model``.
    """
    stages = stages_of(config.model_class)
    if not stages:
        return None
    chosen = config["stage_model"] or stages[0]
    if chosen not in stages:
        choices = ", ".join(stages)
        raise ConfigError(f"stage_model: {config['model']} starts from {choices}, not {chosen}")
    return chosen


def stage_config(config: Config, model: str) -> Config:
    """The configuration of the stage.

    In rising priority: its yaml, the user's keys that apply to both models, ``pretrain``, and the
    keys that the main model determines.

    Raises:
        ConfigError: ``pretrain`` names a key that the stage does not read, or that the main model
            determines.
    """
    pretrain = dict(config["pretrain"] or {})
    fixed = config.model_class.stage_keys(config)
    for key, value in pretrain.items():
        if key in _RUN_KEYS:
            raise ConfigError(f"pretrain: '{key}' cannot be set for the stage {model} alone")
        if key in fixed and value != fixed[key]:
            raise ConfigError(
                f"pretrain: '{key}' of {model} must be {fixed[key]} to suit {config['model']}"
            )
    main = nearest_known(config.model_class)
    own = _RUN_KEYS | {key for key, owners in model_keys().items() if main in owners}
    own = own | pretrain.keys() | fixed.keys()
    flags = {key: text for key, text in config._flags.items() if key not in own}
    given = {
        key: value
        for key, value in config.external_config_dict.items()
        if key not in own and config.origins.get(key) != COMMAND_LINE
    }
    # Not config["eval_args"]: it has lost the cold split, which the stage must respect as well.
    flags.pop("eval_args", None)
    given["eval_args"] = config.protocol
    given.setdefault("show_progress", config["show_progress"])
    flags.pop("show_progress", None)
    try:
        made = Config(model, config["dataset"], None, {**given, **pretrain, **fixed}, flags)
    except ConfigError as error:
        # The other keys are the main model's, which has accepted them.
        text = str(error).replace(CONFIG_DICT, "pretrain", 1)
        raise ConfigError(f"{config['model']} starts from {model}: {text}") from error
    for key, note in made.unread.items():
        if key in pretrain:
            raise ConfigError(note.replace(CONFIG_DICT, "pretrain", 1))
        made.final_config_dict.pop(key, None)  # a third model's key: no effect here
    return made


def check_stage(config: Config) -> None:
    """Refuse, before any data are read, what :func:`begin` would refuse of a new run.

    Raises:
        UserError: The stage has wrong keys, or ``pretrained`` is no checkpoint of its model.
    """
    model = stage_model(config)
    if model is None or config["resume"]:
        return
    if config["pretrained"]:
        path = Path(config["pretrained"])
        _refuse_other_model(path, peek_checkpoint(path), model)
    else:
        stage_config(config, model)


def begin(config: Config, dataset: Any, prepare: Callable[..., Any], saved: bool = True) -> Start:
    """Decide where a run begins, and train or read the stage if the model needs one.

    Args:
        config: The configuration of the main model.
        dataset: The training data; the checkpoint ``pretrained`` must be of the same.
        prepare: :func:`recbole_cierec.quick_start.prepare`.
        saved: Whether the stage may leave a checkpoint; without one its last epoch counts.

    Raises:
        UserError: The stage cannot be trained, or the checkpoint does not fit.
    """
    model, resume = stage_model(config), config["resume"]
    if model is None:
        return Start(resume)
    if resume == "auto":
        own = _agree(lambda: _own_checkpoint(config, model))
        if own:
            return Start(own)
    elif resume and peek_checkpoint(Path(resume))["model"] != model:
        return Start(resume)
    if config["pretrained"]:
        return _from_checkpoint(Path(config["pretrained"]), model, data_of(dataset))
    return _Stage(config, model, prepare, data_of(dataset)).start(saved)


class _Stage:
    """The stage of one run, prepared and not yet trained."""

    def __init__(
        self, config: Config, model: str, prepare: Callable[..., Any], data: dict[str, str]
    ) -> None:
        self.main, self.model = config, model
        CONSOLE.info(f"Stage 1 of 2: {model}, from which {config['model']} starts")
        self.job = prepare(stage_config(config, model))
        self.data = data_of(self.job.loaders[0]._dataset)
        if self.data["interactions"] != data["interactions"]:
            raise ConfigError(
                f"{config['model']}: its stage {model} would train on other interactions than "
                f"{config['model']} itself, and could see what is held out; remove the keys of "
                "pretrain that choose or split the data"
            )
        trainer = self.job.trainer
        stem = f"stage-{model}-{_digest(self.job)}"
        self.done = Path(trainer.checkpoint_dir) / f"{stem}.pth"
        # A name of its own while it trains: two runs may train the same stage at once.
        unique = Path(trainer.saved_model_file).stem[-6:]
        trainer.saved_model_file = str(self.done.with_name(f"{stem}-{unique}.pth"))
        self._stopped = f"{stem}-*{LAST}"

    def start(self, saved: bool) -> Start:
        """The trained stage: read if it exists, else trained or resumed."""
        done, stopped = _agree(self._find)
        if done:
            CONSOLE.info(
                f"Stage 1 of 2, {self.model}: {self.done} was trained with the same settings on "
                "the same data and is used again"
            )
        else:
            self._train(stopped, saved)
        if done or saved:
            start = _from_checkpoint(self.done, self.model, self.data)
        else:
            weights = {k: v.detach().cpu() for k, v in self.job.model.state_dict().items()}
            stage = _result_entry(self.model, None, self.job.trainer.best_valid_score)
            source = f"{self.model} as trained in this run"
            start = Start(None, weights, self.data, source, (stage,))
        del self.job
        gc.collect()
        torch.cuda.empty_cache()
        return start

    def _find(self) -> tuple[bool, str | None]:
        """Whether the stage has been trained already, and else the checkpoint to resume it from."""
        if _newest_whole([self.done]):
            return True, None
        named = self.main["resume"]
        if named == "auto":
            return False, _newest_whole(self.done.parent.glob(self._stopped))
        if named and not Path(named).match(self._stopped):
            raise CheckpointError(
                f"{named}: is not the stopped {self.model} of these settings and data; "
                f"start from it by pretrained: {named}, or resume by auto"
            )
        return False, named

    def _train(self, stopped: str | None, saved: bool) -> None:
        job = self.job
        getLogger().info(job.config)
        CONSOLE.info(model_line(job.model, job.config))
        if stopped:
            job.trainer.resume_checkpoint(stopped)
        train, valid, _ = job.loaders
        job.trainer.fit(train, valid, saved=saved, show_progress=job.config["show_progress"])
        job.trainer.end_report(None)
        CONSOLE.info(f"Stage 1 of 2: {self.model} is trained; next is {self.main['model']}")
        if saved and job.trainer.writes:
            best, last = Path(job.trainer.saved_model_file), job.trainer.last_file
            replace(best if best.is_file() else last, self.done)
            last.unlink(missing_ok=True)
            history_file(best).unlink(missing_ok=True)
            job.trainer.history.write(history_file(self.done))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the others read what one has written


def _digest(job: Any) -> str:
    """Over all that decides a stage's result: settings, interactions, and the content it reads."""
    text = f"{job.config.digest()} {sorted(data_of(job.loaders[0]._dataset).items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _result_entry(model: str, checkpoint: Path | None, score: float) -> dict[str, Any]:
    path = checkpoint and str(checkpoint)
    return {"model": model, "checkpoint": path, "best_valid_score": float(score)}


def _from_checkpoint(path: Path, model: str, data: dict[str, str]) -> Start:
    """A start from a checkpoint of the stage's model, trained on the same data."""
    state = read_checkpoint(path)
    _refuse_other_model(path, state, model)
    refuse_other_data(path, state["data"], data, "pretrain it on the same")
    stage = _result_entry(model, path, state["best_valid_score"])
    weights = from_plain(state["state_dict"])
    return Start(None, weights, state["data"], str(path), (stage,))


def _refuse_other_model(path: Path, state: Mapping[str, Any], model: str) -> None:
    if state["model"] != model:
        raise CheckpointError(f"{path}: holds model {state['model']}, this run starts from {model}")


def _own_checkpoint(config: Config, model: str) -> str | None:
    """The main model's newest checkpoint; None if only its stage has one.

    Raises:
        CheckpointError: Neither has any.
    """
    try:
        return str(newest_checkpoint(config))
    except CheckpointError:
        stages = Path(config["checkpoint_dir"]).glob(f"stage-{model}-*.pth")
        if config["pretrained"] or not any(stages):
            raise
    return None


def _newest_whole(paths: Iterable[Path]) -> str | None:
    """The newest of the files that are whole checkpoints."""
    for path in reversed(by_age(path for path in paths if path.is_file())):
        with suppress(CheckpointError):
            read_checkpoint(path)
            return str(path)
    return None


def _agree(decide: Callable[[], Any]) -> Any:
    """The first process's decision, in all processes: files may appear between two looks."""
    return of_first(None if world()[0] else decide())
