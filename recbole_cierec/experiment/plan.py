"""The runs and searches of an experiment, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from recbole_cierec.config.config import Config
from recbole_cierec.config.keys import CONFIG_DICT
from recbole_cierec.config.metrics import why_no_group, why_not_computed
from recbole_cierec.data.column_keys import Files
from recbole_cierec.data.demo import NAME as DEMO
from recbole_cierec.errors import ConfigError, UserError
from recbole_cierec.evaluation.names import ALL
from recbole_cierec.evaluation.significance import differences
from recbole_cierec.experiment.data_files import data_files, has_result
from recbole_cierec.experiment.rows import Row, latest
from recbole_cierec.experiment.spec import (
    GROUPS,
    Budget,
    DatasetSpec,
    Experiment,
    Keys,
    ModelSpec,
    merged,
)
from recbole_cierec.experiment.summary import far_behind, varied_keys
from recbole_cierec.trainer.start_checks import check_start
from recbole_cierec.tuning.search import Search as TuningSearch

_SLUG = re.compile(r"[^A-Za-z0-9.=+-]+")


@dataclass(frozen=True)
class Search:
    """A search of one model on one data set.

    Attributes:
        model: The model.
        dataset: The data set's name.
        protocol: The protocol whose validation part decides.
        keys: Fixed keys.
        digest: Digest of all that decides the trials, except the budget.
        budget: Processor seconds and trials.
        data: Digests of the files that it reads, as :func:`data_files` gives them.
    """

    model: ModelSpec
    dataset: str
    protocol: str
    keys: Keys
    digest: str
    budget: Budget
    data: Keys = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifies it in ``searches.jsonl`` and names its files."""
        return _key(("search", self.model.label, self.dataset, self.protocol), self.digest[:8])

    @property
    def study(self) -> str:
        """Names the files of its trials, which are all of the same data."""
        data = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()
        return f"{self.key}-{data[:8]}" if self.data else self.key

    def is_done(self, row: Row | None) -> bool:
        """Whether a row has this search's result."""
        budget = [self.budget.seconds, self.budget.trials]
        return row is not None and has_result(row, self.data) and row["budget"] == budget


@dataclass(frozen=True)
class Run:
    """One run: a model on a data set by a protocol with a seed.

    Attributes:
        search: Where its settings come from; None: it has only its keys.
        digest: Digest of all that decides the run, except the settings that the search finds.
        leader: An earlier run that trains the same model and only tests otherwise: this one tests
            its checkpoint. None: it trains.
        data: As for :class:`Search`.
    """

    model: ModelSpec
    dataset: str
    protocol: str
    seed: int
    keys: Keys
    digest: str
    search: Search | None = None
    leader: Run | None = None
    data: Keys = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifies it in ``rows.jsonl`` and names its files."""
        names = self.model.label, self.dataset, self.protocol
        return _key(names, f"{self.seed}-{self.digest[:8]}")  # the digest is of all seeds

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model.label} on {self.dataset}, {self.protocol}, seed {self.seed}"

    def is_done(self, row: Row | None, settings: Keys | None) -> bool:
        """Whether a row has this run's result.

        Args:
            row: The last row with its key.
            settings: What its search found; None: it has not ended.
        """
        if row is None or not has_result(row, self.data):
            return False
        return self.search is None or (settings is not None and row["settings"] == settings)


def _key(names: Iterable[str], end: str) -> str:
    """Words for file names, which must not be too long, and what distinguishes the runs."""
    slug = "-".join(_SLUG.sub("_", name).strip("_") for name in names)
    return f"{slug[:115]}-{end}"


@dataclass(frozen=True)
class Plan:
    """All searches and runs; runs are in the order in which they start: seed by seed.

    Attributes:
        drop_below: As in the file.
        kept: Labels of models that it does not drop.
    """

    searches: tuple[Search, ...]
    runs: tuple[Run, ...]
    drop_below: float | None = None
    kept: frozenset[str] = frozenset()

    @property
    def tasks(self) -> Iterator[Search | Run]:
        """Each search right before the first run that needs it, so that rows come early."""
        begun = set()
        for run in self.runs:
            if run.search is not None and run.search.key not in begun:
                begun.add(run.search.key)
                yield run.search
            yield run

    def left(self, done: Done) -> list[Run]:
        """Runs without a row that are not dropped."""
        dropped = self.dropped(done)
        return [run for run in self.runs if run.key not in dropped and not done.run(run)]

    def dropped(self, done: Done) -> set[str]:
        """Keys of runs that the first seed makes needless."""
        if self.drop_below is None:
            return set()
        behind = {
            (*place, label)
            for place, runs in self._of_first_seed().items()
            for label in far_behind(
                [done.runs[run.key] for run in runs if done.run(run)], self.drop_below
            )
        }
        return {
            run.key
            for run in self.runs
            if run.seed != self.runs[0].seed
            and run.model.label not in self.kept
            and (run.dataset, run.protocol, run.model.label) in behind
            and not done.run(run)
        }

    def undecided(self, done: Done, failed: Collection[str] = ()) -> set[str]:
        """Keys of runs of further seeds that have to wait for the first seed of other models."""
        if self.drop_below is None:
            return set()
        open_places = {
            place
            for place, runs in self._of_first_seed().items()
            if any(run.key not in failed and not done.run(run) for run in runs)
        }
        first = self.runs[0].seed
        return {
            run.key
            for run in self.runs
            if run.seed != first and (run.dataset, run.protocol) in open_places
        }

    def _of_first_seed(self) -> dict[tuple[str, str], list[Run]]:
        """The runs of the first seed, by data set and protocol."""
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            if run.seed == self.runs[0].seed:
                found.setdefault((run.dataset, run.protocol), []).append(run)
        return found


class Done:
    """What the rows in a folder say is done.

    Args:
        runs: Rows of ``rows.jsonl``.
        searches: Rows of ``searches.jsonl``.
    """

    def __init__(self, runs: list[Row], searches: list[Row]) -> None:
        self.runs, self.searches = latest(runs), latest(searches)

    def search(self, search: Search) -> bool:
        """Whether a search has ended within its present budget."""
        return search.is_done(self.searches.get(search.key))

    def settings(self, run: Run) -> Keys | None:
        """The settings to run with: those that its search found; None: it has not ended."""
        if run.search is None:
            return {}
        return self.searches[run.search.key]["settings"] if self.search(run.search) else None

    def run(self, run: Run) -> bool:
        """Whether a run has its row."""
        return run.is_done(self.runs.get(run.key), self.settings(run))

    def task(self, task: Search | Run) -> bool:
        """Whether a search or a run is done."""
        return self.search(task) if isinstance(task, Search) else self.run(task)


def make_plan(experiment: Experiment, starts: bool = True) -> Plan:
    """List and check everything.

    Args:
        experiment: The file.
        starts: Whether runs may start, whose data and places must then exist.

    Raises:
        UserError: A model, data set, key, place or range is wrong, models of one table are ranked
            by different protocols, or no run computes what the report shows; the line names file,
            model and data.
    """
    searches: dict[str, Search] = {}
    configs = []
    leaders: dict[tuple[Any, ...], Run] = {}
    compared: dict[tuple[str, str], tuple[str, Keys]] = {}
    runs = []
    for dataset, model, protocol in product(
        experiment.datasets, experiment.models, experiment.protocols
    ):
        keys = keys_of(experiment, model, dataset, protocol)
        where = f"{experiment.path}: {model.label} on {dataset.name}, {protocol}"
        # One seed for all, as the digest is of what runs of several seeds have in common.
        keys_of_all = {**keys, "seed": 0}
        config = _config(where, model, dataset.name, keys_of_all, starts, experiment.given)
        configs.append(config)
        others = compared.setdefault((dataset.name, protocol), (model.label, config.compared()))
        _refuse_incomparable(where, config.compared(), *others, varied_keys(experiment))
        search = None
        if model.search is not None and experiment.budget is not None:
            search = _search(experiment, where, model, dataset, protocol, starts)
            search = searches.setdefault(search.key, search)
        digest = _digest(config, None if search is None else search.digest)
        data = data_files(config) if starts else {}
        trained = (model.label, dataset.name, search and search.key, _training_digest(config))
        for seed in experiment.seeds:
            leader = leaders.get((*trained, seed))
            with_seed = {**keys, "seed": seed}
            run = Run(model, dataset.name, protocol, seed, with_seed, digest, search, leader, data)
            leaders.setdefault((*trained, seed), run)
            runs.append(run)
    _check_report(experiment, configs)
    runs.sort(key=lambda run: experiment.seeds.index(run.seed))
    found = tuple(searches.values()), tuple(runs)
    return Plan(*found, experiment.drop_below, experiment.kept)


def _check_report(experiment: Experiment, configs: list[Config]) -> None:
    """Refuse metrics and groups of the report that no run will have; some may lack them."""
    report, first = experiment.report, configs[0].final_config_dict
    for metric in report.metrics:
        if all(why_not_computed(metric, config.final_config_dict) for config in configs):
            why = why_not_computed(metric, first)
            raise ConfigError(f"{experiment.path}: report: metric '{metric}' {why}")
    chosen = report.groups if report.groups != GROUPS else ()  # the default fits all protocols
    for group in chosen:
        if group != ALL and all(why_no_group(group, one.final_config_dict) for one in configs):
            why = why_no_group(group, first)
            raise ConfigError(f"{experiment.path}: report: group '{group}' {why}")


def _refuse_incomparable(
    where: str, ours: Keys, label: str, theirs: Keys, varied: frozenset[str]
) -> None:
    """Refuse what the tests of the tables would refuse after all runs."""
    for key, own, other in differences(ours, theirs):
        if key not in varied:
            raise ConfigError(
                f"{where}: {key} is {own}, and {other} for {label}; one table cannot hold both: "
                "set it in protocols"
            )


def _training_digest(config: Config) -> str:
    """Of all that decides the trained model: equal for runs that differ in their test alone."""
    args = config["eval_args"]
    of_test = {"eval_args": {**args, "mode": args["mode"]["valid"]}, "eval_repeats": None}
    values = config.decisive() | of_test
    return json.dumps(values, sort_keys=True, default=str)


def _config(
    where: str, model: ModelSpec, dataset: str, keys: Keys, starts: bool, given: Collection[str]
) -> Config:
    try:
        config = Config(model.name, dataset, None, {**keys, "show_progress": False})
        if starts:
            _check_run(config)
    except UserError as error:
        text = str(error).removeprefix(f"{CONFIG_DICT}: ")
        by_flag = any(f"'{key}'" in text for key in given)
        raise type(error)(f"{'--set' if by_flag else where}: {text}") from error
    for key in model.keys:
        if why := config.without_effect.get(key):
            raise ConfigError(f"{where}: {why.removeprefix(f'{CONFIG_DICT}: ')}")
    return config


def _check_run(config: Config) -> None:
    """What a run checks at its start."""
    folder = Path(config["data_path"])
    if config["dataset"] != DEMO or folder.is_dir():  # else a run makes it
        Files(config, folder, config["dataset"]).check(config.origins)
    check_start(config)


def _search(
    experiment: Experiment,
    where: str,
    model: ModelSpec,
    dataset: DatasetSpec,
    protocol: str,
    starts: bool,
) -> Search:
    """The search of a model, on the protocol that the budget names."""
    budget = experiment.budget
    assert budget is not None  # noqa: S101 (for type checkers)
    protocol = budget.protocol or protocol
    keys = {**keys_of(experiment, model, dataset, protocol), "seed": budget.seed}
    try:
        search = TuningSearch(
            model.name, dataset.name, flags=keys, trials=budget.trials, search=space_of(model)
        )
    except UserError as error:
        line = str(error).removeprefix("command line: ")
        raise type(error)(f"{where}: {line}; 'search: none' trains without a search") from error
    if budget.protocol:
        _refuse_other_values(experiment, where, search.space)
    ranges = {key: range_.plain() for key, range_ in search.space.items()}
    rules = [ranges, budget.sampler, budget.pruner, budget.seed]
    digest = _digest(search.base, json.dumps(rules, sort_keys=True, default=str))
    data = data_files(search.base) if starts else {}
    return Search(model, dataset.name, protocol, keys, digest, budget, data)


def _refuse_other_values(experiment: Experiment, where: str, searched: Iterable[str]) -> None:
    """Refuse keys that one protocol gives and the search of another one finds for all."""
    for name, keys in experiment.protocols.items():
        for key in sorted(keys.keys() & set(searched)):
            raise ConfigError(
                f"{where}: protocol {name} gives '{key}', which is searched for all protocols; set "
                "'protocol: each' under search, or give the key in overrides"
            )


def space_of(model: ModelSpec) -> str | Keys | None:
    """The argument ``search`` of :class:`recbole_cierec.tuning.search.Search`."""
    return None if model.search == "default" else model.search


_SET_HERE = ("seed", "checkpoint_dir", "resume", "model", "dataset", "show_progress")


def keys_of(experiment: Experiment, model: ModelSpec, dataset: DatasetSpec, protocol: str) -> Keys:
    """All keys of a run except its seed.

    Raises:
        ConfigError: One of them is set by the experiment itself.
    """
    layers = (experiment.overrides, dataset.keys, experiment.protocols[protocol], model.keys)
    keys = merged(*layers, experiment.given)
    for key in _SET_HERE:
        if key in keys:
            raise ConfigError(f"{experiment.path}: '{key}' is set by the experiment; remove it")
    return keys


def _digest(config: Config, more: str | None) -> str:
    return hashlib.sha256(f"{config.digest()} {more}".encode()).hexdigest()
