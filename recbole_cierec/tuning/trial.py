"""One trial of a study: its settings, and what validation says of a model trained with them.

A trial takes the path of ``run`` (stages, phases, log, TensorBoard), but stops before the test
part and leaves no checkpoint. The stage of a model that has one (AMR starts from VBPR) is kept
while the study lasts, because the keys of the main model leave it as it is: trained once, it serves
all trials.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.config.config import COMMAND_LINE, Config
from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.errors import CheckpointError, DataError, PictureError
from recbole_cierec.logs import start_log, stop_log
from recbole_cierec.quick_start import prepare
from recbole_cierec.tuning.ranges import (
    Choice,
    Space,
    defaults,
    draws,
    range_files,
    read_space,
    same,
    size,
)
from recbole_cierec.tuning.study import Board

FIRST_RANDOM = 10  # tpe: as many trials are drawn at random, for it to learn from


@dataclass
class Plan:
    """A study as its command line gives it; each process makes its own of the same words.

    Attributes:
        model: The model's name; None: as for ``run``.
        dataset: The data set's name; None likewise.
        files: The user's yaml files.
        flags: Keys and texts of the command line, tune's own apart.
        trials: N.
        sampler: ``random`` or ``tpe``.
        search: A file of ranges; None: the project's.
        out: Where everything goes.
        name: The study's name; empty: DATASET-MODEL.
        storage: URL or journal; empty: a journal in ``out``.
        base: The configuration of trial 0.
        space: The ranges.
        first: The settings of trial 0, the defaults.
        count: N, or how many different settings there are, if that is less.
    """

    model: str | None
    dataset: str | None
    files: list[str]
    flags: dict[str, str]
    trials: int
    sampler: str = "random"
    search: str | None = None
    out: Path = Path("saved/tune")
    name: str = ""
    storage: str = ""
    base: Config = field(init=False, repr=False)
    space: Space = field(init=False, repr=False)
    first: dict[str, Any] = field(init=False, repr=False)
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.base = Config(self.model, self.dataset, self.files, None, self.flags)
        base = self.base
        self.model, self.dataset = base.model_spelling, base["dataset"]
        self.name = self.name or f"{self.dataset}-{base['model']}"
        self.storage = self.storage or str(self.out / f"{self.name}.journal")
        given = [key for key, origin in base.origins.items() if origin == COMMAND_LINE]
        files = [Path(self.search)] if self.search else range_files(base)
        self.space = read_space(base, files, given)
        self.first = defaults(self.space, base)
        self.count = int(min(self.trials, size(self.space, self.first)))

    def words(self) -> dict[str, Any]:
        """What makes the same plan in another process."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    @property
    def stages(self) -> Path:
        """Where stages are kept while the study lasts."""
        return self.out / f"{self.name}-stages"

    def board(self) -> Board:
        """The study, opened or begun."""
        base, given = self.base, self.base.external_config_dict
        settings = {
            "model": self.model,
            "dataset": self.dataset,
            "metric": base["valid_metric"],
            "sampler": self.sampler,
            "ranges": {key: range_.plain() for key, range_ in self.space.items()},
            "keys": {key: base[key] for key in sorted(given.keys() - PLACE_KEYS)},
            "digest": base.digest(),
        }
        bigger = bool(base["valid_metric_bigger"])
        return Board(self.storage, self.name, self.count, settings, bigger)

    def config(self, settings: Mapping[str, Any]) -> Config:
        """The configuration of a trial."""
        keys = {} if "show_progress" in self.base.origins else {"show_progress": False}
        flags = {**self.flags, "checkpoint_dir": str(self.stages)}
        return Config(self.model, self.dataset, self.files, {**keys, **settings}, flags)

    # ------------------------------------------------------------------------- settings

    def settings(self, board: Board, trial: Any) -> dict[str, Any]:
        """The settings of a trial that was claimed: 0 is the defaults, others as the sampler says.

        A trial that is run again has those it had.
        """
        number = trial.number
        if number and self.sampler == "tpe" and number > FIRST_RANDOM:
            return self._learned(board, trial)
        settings = draws(self.space, self.base["seed"], number + 1, self.first)[number]
        held = {k: v for k, v in settings.items() if self.space[k].holds(v)}
        encoded = {k: _encoded(self.space[k], v) for k, v in held.items()}
        board.set_params(trial, encoded, self._distributions())
        return settings

    def _learned(self, board: Board, trial: Any) -> dict[str, Any]:
        import optuna

        seed = int(sha256(f"{self.base['seed']}/{trial.number}".encode()).hexdigest()[:8], 16)
        board.study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=1, constant_liar=True
        )
        asked = optuna.trial.Trial(board.study, trial._trial_id)
        return {key: _suggested(asked, key, range_) for key, range_ in self.space.items()}

    def _distributions(self) -> dict[str, Any]:
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        made = {}
        for key, range_ in self.space.items():
            if isinstance(range_, Choice):
                made[key] = CategoricalDistribution([_encoded(range_, v) for v in range_.values])
            else:
                kind = IntDistribution if range_.whole else FloatDistribution
                made[key] = kind(range_.low, range_.high, log=range_.log)
        return made


def _encoded(range_: Any, value: Any) -> Any:
    """As Optuna keeps it: lists and mappings as text."""
    if isinstance(range_, Choice) and isinstance(value, list | dict):
        return repr(value)
    return value


def _suggested(asked: Any, key: str, range_: Any) -> Any:
    if isinstance(range_, Choice):
        names = [_encoded(range_, value) for value in range_.values]
        return range_.values[names.index(asked.suggest_categorical(key, names))]
    if range_.whole:
        return asked.suggest_int(key, range_.low, range_.high, log=range_.log)
    return asked.suggest_float(key, range_.low, range_.high, log=range_.log)


# ------------------------------------------------------------------------------- training


def run_trial(plan: Plan, settings: dict[str, Any], check_data: Callable[[str], None]) -> dict:
    """Train with some settings, and what validation said.

    Args:
        plan: The study.
        settings: Key to value; those of trial 0 are what the configuration has anyway.
        check_data: Is given the digest of the training data before the training.

    Returns:
        ``settings``, ``valid`` (None if the trial failed, and then ``reason``), ``metrics``,
        ``epochs``, ``best_epoch``, ``seconds``, ``cpu_seconds`` and ``log``.

    Raises:
        UserError: What would stop every other trial as well: the data, pictures, a checkpoint.
    """
    start, cpu = perf_counter(), process_time()
    outcome: dict[str, Any] = {"settings": settings, "valid": None}
    try:
        outcome |= _train(plan.config(settings), check_data)
    except (DataError, PictureError, CheckpointError):
        raise
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        # Not finite, out of memory, sizes that do not go together: of these settings alone.
        getLogger().info(f"the trial failed with {settings}", exc_info=True)
        outcome["reason"] = " ".join(str(error).split()) or type(error).__name__
    finally:
        stop_log()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    outcome["seconds"] = round(perf_counter() - start, 2)
    outcome["cpu_seconds"] = round(process_time() - cpu, 2)
    return outcome


def _train(config: Config, check_data: Callable[[str], None]) -> dict[str, Any]:
    log = start_log(config)
    getLogger().info(config)
    for note in config.notes:
        getLogger().warning(note)
    with quiet_recbole():
        job = prepare(config)  # its stage is saved, so that its best epoch counts as in a run
        train, valid, _ = job.loaders
        check_data(train._dataset.digest() if hasattr(train._dataset, "digest") else "")
        score, result = job.trainer.fit(
            train, valid, saved=False, show_progress=config["show_progress"]
        )
    told: dict[str, Any] = {"log": log and str(log)}
    if score is None or not math.isfinite(score):
        return {**told, "reason": f"{config['valid_metric']} of validation is {score}"}
    numbers = {name: float(value) for name, value in result.items()}
    epochs = max(job.trainer.train_loss_dict, default=-1) + 1
    step = job.trainer.eval_step
    return {
        **told,
        "valid": float(score),
        "metrics": {name: value for name, value in numbers.items() if math.isfinite(value)},
        "epochs": epochs,
        "best_epoch": (epochs // step - job.trainer.cur_step) * step,
    }


def repeated(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome of an earlier trial with the same settings, which would come out the same."""
    for row in rows:
        if row["state"] == "complete" and same(row["settings"], settings):
            kept = {k: v for k, v in row.items() if k not in ("trial", "state")}
            return {**kept, "repeats": row["trial"], "seconds": 0.0, "cpu_seconds": 0.0}
    return None
