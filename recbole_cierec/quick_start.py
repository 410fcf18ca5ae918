"""Train and evaluate one model on one data set: what the command line and notebooks call."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from recbole.utils import get_environment, init_seed

from recbole_cierec.compat.optional_packages import named_where_missing
from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.config.config import Config
from recbole_cierec.config.keys import CONFIG_DICT
from recbole_cierec.config.paths import given_files, given_path
from recbole_cierec.config.properties import own_files
from recbole_cierec.config.values import given_mapping
from recbole_cierec.console.result_table import result_table
from recbole_cierec.console.run_lines import (
    data_lines,
    model_line,
    parameter_count,
    processes_line,
)
from recbole_cierec.data.recbole_errors import as_model_errors
from recbole_cierec.distributed.launch import launch
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.evaluation.per_user import save_per_user
from recbole_cierec.files.checkpoint import fitting, from_plain, read_checkpoint
from recbole_cierec.logs import run_log
from recbole_cierec.registry import get_model_class
from recbole_cierec.terminal import CONSOLE, RESULT
from recbole_cierec.trainer.checkpoint_folder import check_writable
from recbole_cierec.trainer.resuming import check_resume, data_of, refuse_other_data
from recbole_cierec.trainer.start_checks import check_start
from recbole_cierec.trainer.trainer_class import get_trainer_class
from recbole_cierec.trainer.warm_start_stages import begin

Files = Iterable[str | os.PathLike[str]]


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Files | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str | int = "5678",
    group_offset: int = 0,
    cmd_line: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Train a model, evaluate the best epoch on the test part, and report.

    Args:
        model: The name of a model of this package or of RecBole, a class, or ``module:Class``;
            None: CIERec, unless a file names another one.
        dataset: The data set's folder in ``data_path``; None: the embedded demo data, unless a file
            names another one.
        config_file_list: YAML files; later ones take precedence.
        config_dict: Keys and values that take precedence over the files.
        saved: Whether to keep checkpoints; without them the last epoch is evaluated.
        nproc: Number of processes on this machine; under torchrun, its processes are used instead.
        world_size: Number of processes on all machines; -1: ``nproc``.
        ip: Address of the first machine.
        port: Port of the first machine; another one is chosen if it is in use and all processes are
            on this machine.
        group_offset: Rank of this machine's first process.
        cmd_line: Flags, from :func:`recbole_cierec.config.yaml.parse_command_line`.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``, and also ``model``, ``dataset``, ``checkpoint`` (path or None), ``epochs``
        (number of trained epochs), ``stopped_early``, ``best_epoch`` (the one that was tested, from
        1; None if no checkpoint was saved), ``users`` (number of test users by group, ``all`` for
        all), ``rankings`` (the same of what means are over: a list for each user, or, where a
        sequential model ranks fully, for each interaction), ``chance`` (the expected
        ``test_result`` of a random ranking), ``seconds`` (wall time ``fit`` and ``evaluate``,
        processor time ``fit_cpu`` and ``evaluate_cpu``), ``parameters`` (number of trainable ones),
        ``config_digest``, ``log_file`` and ``stages`` (the models that were trained first, each
        with ``model``, ``checkpoint`` and ``best_valid_score``; empty if there are none, or if the
        model itself was resumed). None on machines that do not run the first process.

    Raises:
        UserError: For any input that the user can correct.
    """
    arguments = {
        "model": model,
        "dataset": dataset,
        "config_file_list": given_files("config_file_list", config_file_list),
        "config_dict": given_mapping(CONFIG_DICT, config_dict),
        "saved": saved,
        "cmd_line": given_mapping("cmd_line", cmd_line),
    }
    return launch(run_one, arguments, nproc, world_size, ip, port, group_offset)


def load(
    checkpoint: str | os.PathLike[str],
    config_file_list: Files | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> Job:
    """Load a trained model with its data, for ranking.

    The checkpoint holds settings, vocabularies and interactions, so the data set's files are not
    read. A model that reads pictures needs their folder, even where the cache has their features
    (``data_path`` or ``image_dir`` says where it is). The module of a model outside the package
    must be importable.

    Args:
        checkpoint: The ``checkpoint`` in the result of :func:`run`.
        config_file_list: YAML files with keys that override those of the run.
        config_dict: Keys that override them too; a warning names those that decide training.

    Returns:
        The model in evaluation mode, its configuration, and the three parts of the data.

    Raises:
        UserError: The checkpoint is missing or damaged, its model cannot be imported, or the
            pictures are missing or others.
    """
    path = given_path("checkpoint", checkpoint)
    state = read_checkpoint(path)
    with quiet_recbole():
        config = config_of(path, state, config_file_list, config_dict)
        dataset = dataset_of(path, state, config)
        job = prepare(config, dataset=dataset)
    data = data_of(job.loaders[0]._dataset)
    refuse_other_data(path, state["data"], data, "load it with its own data")
    job.trainer.end_report(None)
    job.model.eval()
    return job


def config_of(
    path: Path,
    state: Mapping[str, Any],
    config_file_list: Files | None = None,
    config_dict: Mapping[str, Any] | None = None,
    cmd_line: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in a checkpoint, with keys that override it; see :func:`load`.

    Raises:
        CheckpointError: The model's class cannot be imported.
    """
    try:
        get_model_class(state["model"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    keys = given_mapping(CONFIG_DICT, config_dict) | {"resume": str(path)}
    plain = {**state, "given": from_plain(state["given"])}
    return Config(state["model"], state["dataset"], config_file_list, keys, cmd_line, plain)


def dataset_of(path: Path, state: Mapping[str, Any], config: Config) -> Any:
    """The data set in a checkpoint, not yet split.

    Raises:
        CheckpointError: There is none.
    """
    from recbole_cierec.data.stored import stored_dataset

    if not state["tables"]:
        raise CheckpointError(f"{path}: holds no data; it was not written by a run")
    with fitting(path):
        return stored_dataset(config, state["tables"])


def run_one(
    model: str | type | None,
    dataset: str | None,
    config_file_list: Files | None,
    config_dict: Mapping[str, Any] | None,
    saved: bool,
    cmd_line: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The run of one process; arguments and result as for :func:`run`."""
    config = Config(model, dataset, config_file_list, config_dict, cmd_line)
    with run_log(config) as log_file:
        _log_start(config, cmd_line)
        # Some of RecBole's models import packages only when they are created.
        with quiet_recbole(), named_where_missing(config["model"]):
            job = prepare(config, saved, announce=True)
            result = {**job.train_and_evaluate(saved), "log_file": log_file and str(log_file)}
        _log_end(config, result)
    return result


@dataclass(repr=False)  # that of RecBole's Config has a line for each of its 160 keys
class Job:
    """Everything that a run needs, before training.

    Attributes:
        model: The model on its device.
        loaders: Training, validation and test data.
        stages: The models that were trained first, as in the result of :func:`run`.
    """

    config: Config
    model: torch.nn.Module
    trainer: Any
    loaders: tuple[Any, Any, Any]
    stages: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        data, size = self.loaders[0]._dataset, parameter_count(self.model)
        users, items = data.user_num - 1, data.item_num - 1  # less RecBole's padding
        return (
            f"Job({self.config['model']} on {self.config['dataset']}: {users:,} users, "
            f"{items:,} items, {size:,} parameters)"
        )

    def train_and_evaluate(self, saved: bool = True) -> dict[str, Any]:
        """Fit, evaluate on the test part, and collect the result (see :func:`run`)."""
        config, trainer = self.config, self.trainer
        train, valid, test = self.loaders
        show = config["show_progress"]
        start, test_result = _clocks(), None
        try:
            score, valid_result = trainer.fit(train, valid, saved=saved, show_progress=show)
            fitted = _clocks()
            test_result = trainer.evaluate(test, load_best_model=saved, show_progress=show)
            ended = _clocks()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*trainer.resumable()) from None
        finally:
            trainer.end_report(test_result)
        trainer.evaluator.log_shares()
        chance = trainer.evaluator.chance()
        if saved and trainer.writes:
            path = Path(trainer.saved_model_file)
            save_per_user(path, trainer.evaluator, test._dataset, config, chance)
        losses = trainer.train_loss_dict
        ranked = trainer.evaluator.ranked
        return {
            "best_valid_score": score,
            "valid_score_bigger": config["valid_metric_bigger"],
            "best_valid_result": valid_result,
            "test_result": test_result,
            "model": config["model"],
            "dataset": config["dataset"],
            "checkpoint": str(trainer.saved_model_file) if saved else None,
            "epochs": max(losses, default=-1) + 1,
            "stopped_early": trainer.stopped_early,
            "best_epoch": trainer.tested_epoch,
            "users": {group or "all": part.users for group, part in ranked.items()},
            "rankings": {group or "all": len(part.positives) for group, part in ranked.items()},
            "chance": chance,
            "seconds": _seconds(start, fitted, ended),
            "parameters": parameter_count(self.model),
            "config_digest": config.digest(),
            "stages": [dict(stage) for stage in self.stages],
        }


_Clocks = tuple[float, float]  # wall time and processor time


def _clocks() -> _Clocks:
    return perf_counter(), process_time()


def _seconds(start: _Clocks, fitted: _Clocks, ended: _Clocks) -> dict[str, float]:
    """Seconds of fit and test, of wall time and of processor time."""
    return {
        "fit": fitted[0] - start[0],
        "evaluate": ended[0] - fitted[0],
        "fit_cpu": fitted[1] - start[1],
        "evaluate_cpu": ended[1] - fitted[1],
    }


def prepare(config: Config, saved: bool = True, dataset: Any = None, announce: bool = False) -> Job:
    """Load the data, split it, and make model and trainer; resume both if ``resume`` is set.

    The stage of a model that has one is trained here, see
    :mod:`recbole_cierec.trainer.warm_start_stages`.

    Args:
        saved: Whether the stage, and the training of the job, may write a checkpoint.
        dataset: The data set of a checkpoint; None: it is read from its files.
        announce: Whether to describe data and model on the console.

    Returns:
        The job, ready to train.

    Raises:
        UserError: As for :func:`recbole_cierec.trainer.start_checks.check_start`, before any work.
    """
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.data.sampling import make_loaders
    from recbole_cierec.data.stored import dataset_tables

    logger = getLogger()
    if dataset is None:
        check_writable(Path(config["checkpoint_dir"]))  # before the work; RecBole fails after it
    check_start(config)
    if world()[0] == 0:  # other processes may not see the first one's new files yet
        check_resume(config)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config) if dataset is None else dataset
    logger.info(dataset)
    tables = dataset_tables(dataset) if saved and config["local_rank"] == 0 else {}
    interactions = dataset.inter_num  # the split of a sequential model changes it
    loaders = make_loaders(config, dataset)
    for line in data_lines(config, interactions, loaders) if announce else ():
        CONSOLE.info(line)
    start = begin(config, loaders[0]._dataset, prepare, saved)
    # RecBole gives each process a different seed. Here all have the same one, and the package
    # `distributed` decides what differs between processes.
    init_seed(config["seed"], config["reproducibility"])
    data = loaders[0]._dataset
    with as_model_errors(config):
        model = config.model_class(config, data)
    model = start.fill(model, data).to(config["device"])
    logger.info(model)
    for each in (model_line, processes_line) if announce else ():
        if text := each(model, config):
            CONSOLE.info(text)
    trainer = get_trainer_class(config)(config, model)
    trainer.tables = tables
    if start.resume:
        trainer.resume_checkpoint(start.resume)
    return Job(config, model, trainer, tuple(loaders), start.stages)


def _log_start(config: Config, cmd_line: Mapping[str, str] | None) -> None:
    logger = getLogger()
    if not sys.stderr.isatty() and "show_progress" not in config.origins:
        config["show_progress"] = False  # in a file, progress bars are control codes
    if cmd_line:
        logger.info("Command line: " + " ".join(f"--{k}={v}" for k, v in cmd_line.items()))
    logger.info(config)
    for shipped in own_files("", config["dataset"]):
        CONSOLE.info(f"Settings of the data set: properties/dataset/{shipped.name} of the package")
    if config.folder_file is not None:
        CONSOLE.info(f"Settings of the data set: {config.folder_file}")
    for note in config.notes:
        logger.warning(note)


def _log_end(config: Config, result: Mapping[str, Any]) -> None:
    logger = getLogger()
    if result["best_valid_result"]:
        logger.info("Best validation result\n" + result_table(result["best_valid_result"]))
    if result["test_result"]:
        RESULT.info(_report(config, result))
    table = get_environment(config).draw()
    logger.info("The running environment of this training is as follows:\n" + table)


def _report(config: Config, result: Mapping[str, Any]) -> str:
    """The end of a run: the test result by group, and where its files are."""
    title = f"\nTest result of {result['model']} on {result['dataset']}"
    if result["best_epoch"] and result["best_valid_result"]:
        score = f"{config['valid_metric'].lower()} {result['best_valid_score']:.5f}"
        title += f", epoch {result['best_epoch']} of {result['epochs']} ({score} in validation)"
        title += "; stopped early" * result["stopped_early"]
    lines = [title, result_table(result["test_result"], result["users"], result["chance"])]
    rankings, users = (result[name].get("all", 0) for name in ("rankings", "users"))
    if rankings > users:
        lines.append(f"means over {rankings:,} interactions, each ranked separately")
    if result["chance"]:
        lines.append("chance: expected result of a random ranking of the same candidates")
    for name in ("checkpoint", "log_file"):
        if result[name]:
            lines.append(f"{name.removesuffix('_file')}: {result[name]}")
    return "\n".join(lines)
