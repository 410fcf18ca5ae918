"""What defines a search: its model, data set and ranges, and from these the settings of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_cierec.config.config import COMMAND_LINE, Config
from recbole_cierec.config.paths import given_files
from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.config.values import given_mapping
from recbole_cierec.errors import ConfigError
from recbole_cierec.tuning.ranges import (
    Choice,
    Interval,
    Space,
    defaults,
    draws,
    range_files,
    read_space,
    size,
)
from recbole_cierec.tuning.study import SharedStudy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

SAMPLERS = ("random", "tpe")
PRUNERS = ("none", "median", "hyperband")
MOST_TRIALS = 10**6
FIRST_RANDOM = 10  # tpe learns from as many trials drawn at random


def whole_number(key: str, value: int | str, most: int) -> int:
    """A number from 1 to ``most``, as such or as the text of a command line.

    Raises:
        ConfigError: It is not a whole number in that range.
    """
    text = str(value)[:20]
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(f"--{key} must be from 1 to {most}, not '{text}'")
    return int(text)


def positive_number(key: str, value: float | str) -> float:
    """A number above 0, as such or as the text of a command line.

    Raises:
        ConfigError: It is not a number above 0.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"--{key} must be a number above 0, not '{value}'")
    return number


@dataclass
class Search:
    """A search as the user defines it.

    Attributes:
        model: The model's name; None: as for ``run``.
        dataset: The data set's name; None: as for ``run``.
        files: The user's yaml files.
        flags: Fixed keys, with their values as text, as on a command line, or as such.
        trials: Trials in all.
        sampler: ``random`` or ``tpe``.
        search: A file of ranges, or ranges; None: the package's.
        out: The folder for all results.
        name: The study's name; empty: DATASET-MODEL.
        storage: The file that keeps the trials; empty: NAME.journal in ``out``.
        seconds: Processor seconds of all trials after which none starts; None: no limit.
        pruner: Stops trials that validate worse than others at the same epoch: ``median``,
            ``hyperband`` or ``none``. It needs the trials to run in this process.
        capped: Whether trials that an earlier call with more of them left do not count, so that
            models are compared by equal budgets.
        base: The configuration of trial 0.
        space: The ranges.
        first: The settings of trial 0, the defaults.
        count: ``trials``, or how many different settings there are, if that is less; in
            :func:`recbole_cierec.tuning.tune` more, if the study has more that have ended.

    Raises:
        ConfigError: A key, a value or a range is wrong.
    """

    model: str | None
    dataset: str | None
    files: Sequence[str | Path] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    trials: int | str = 20
    sampler: str = "random"
    search: str | Mapping[str, Any] | None = None
    out: str | Path = "saved/tune"
    name: str = ""
    storage: str | Path = ""
    seconds: float | str | None = None
    pruner: str = "none"
    capped: bool = False
    base: Config = field(init=False, repr=False)
    space: Space = field(init=False, repr=False)
    first: dict[str, Any] = field(init=False, repr=False)
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.trials = whole_number("trials", self.trials, MOST_TRIALS)
        for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in known:
                words = ", ".join(known)
                raise ConfigError(f"--{key} must be one of {words}, not '{getattr(self, key)}'")
        if self.seconds is not None:
            self.seconds = positive_number("seconds", self.seconds)
        if Path(self.name).name != self.name:
            raise ConfigError(
                f"--name must not be a path ('{self.name}'); use --out for the folder"
            )
        if "://" in str(self.storage):
            raise ConfigError(f"--storage must be a file, not '{self.storage}'")
        self.files = given_files("files", self.files)
        self.flags = given_mapping("flags", self.flags)
        self.base = Config(self.model, self.dataset, self.files, None, self.flags)
        self.model, self.dataset = self.base.model_spelling, self.base["dataset"]
        self.name = self.name or f"{self.dataset}-{self.base['model']}"
        self.storage = self.storage or Path(self.out, f"{self.name}.journal")
        fixed = [key for key, origin in self.base.origins.items() if origin == COMMAND_LINE]
        source: Sequence[Path] | Mapping[str, Any]
        if isinstance(self.search, Mapping):
            source = self.search
        else:
            source = [Path(self.search)] if self.search else range_files(self.base)
        self.space = read_space(self.base, source, fixed)
        self.first = defaults(self.space, self.base)
        self.count = int(min(self.trials, size(self.space, self.first)))

    def arguments(self) -> dict[str, Any]:
        """What makes the same search in another process."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    @property
    def stages(self) -> Path:
        """Where pretrained models are kept while the study lasts."""
        return Path(self.out, f"{self.name}-stages")

    def study(self) -> SharedStudy:
        """The study, opened or begun."""
        base, given = self.base, self.base.external_config_dict
        settings = {
            **{key: base[key] for key in sorted(given.keys() - PLACE_KEYS)},
            **{f"range of {key}": range_.plain() for key, range_ in self.space.items()},
            "model": self.model,
            "dataset": self.dataset,
            "metric": base["valid_metric"],
            "sampler": self.sampler,
            "digest": base.digest(),
        }
        maximize = bool(base["valid_metric_bigger"])
        if self.pruner != "none":
            settings["pruner"] = self.pruner
        study = SharedStudy(
            Path(self.storage), self.name, self.count, settings, maximize, self.capped
        )
        study.prune_by(self.pruner)
        return study

    def left(self, study: SharedStudy) -> int:
        """How many trials are left within the budget; one always completes."""
        rows = study.rows()
        spent = sum(row.get("cpu_seconds", 0.0) for row in rows)
        if self.seconds is not None and spent >= float(self.seconds) and study.best(rows):
            return 0
        return study.left()

    def config(self, settings: Mapping[str, Any]) -> Config:
        """The configuration of a trial."""
        keys = {} if "show_progress" in self.base.origins else {"show_progress": False}
        flags = {**self.flags, "checkpoint_dir": str(self.stages)}
        return Config(self.model, self.dataset, list(self.files), {**keys, **settings}, flags)

    def settings(self, study: SharedStudy, trial: FrozenTrial) -> dict[str, Any]:
        """The settings of a claimed trial: the defaults for trial 0, others from the sampler.

        A trial that is run again keeps its settings.
        """
        import optuna

        seed, number = self.base["seed"], trial.number
        if self.sampler == "tpe" and number > FIRST_RANDOM:
            seed = int(sha256(f"{seed}/{number}".encode()).hexdigest()[:8], 16)
            study.study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=1, constant_liar=True
            )
            asked = optuna.trial.Trial(study.study, trial._trial_id)
            return {key: _suggested(asked, key, range_) for key, range_ in self.space.items()}
        settings = draws(self.space, seed, number + 1, self.first)[number]
        # Tell Optuna the settings, as far as the ranges hold them.
        held = {key: value for key, value in settings.items() if self.space[key].holds(value)}
        study.study.sampler = optuna.samplers.PartialFixedSampler(
            {key: _encoded(self.space[key], value) for key, value in held.items()},
            optuna.samplers.RandomSampler(),
        )
        asked = optuna.trial.Trial(study.study, trial._trial_id)
        for key in held:
            _suggested(asked, key, self.space[key])
        return settings


def _encoded(range_: Choice | Interval, value: Any) -> Any:
    """As Optuna keeps it: lists and mappings as text."""
    if isinstance(range_, Choice) and isinstance(value, list | dict):
        return repr(value)
    return value


def _suggested(trial: Trial, key: str, range_: Choice | Interval) -> Any:
    if isinstance(range_, Choice):
        names = [_encoded(range_, value) for value in range_.values]
        return range_.values[names.index(trial.suggest_categorical(key, names))]
    if range_.whole:
        return trial.suggest_int(key, int(range_.low), int(range_.high), log=range_.log)
    return trial.suggest_float(key, range_.low, range_.high, log=range_.log)
