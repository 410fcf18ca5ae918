"""What the rows of an experiment say: means, intervals, tests and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from recbole.evaluator.register import metrics_dict

from recbole_cierec.config.schema import noise_keys
from recbole_cierec.evaluation.bootstrap import bootstrap_means, interval
from recbole_cierec.evaluation.names import join_name, split_name
from recbole_cierec.evaluation.over_seeds import (
    SeedTest,
    both_tests,
    by_user,
    seed_means,
    t_interval,
)
from recbole_cierec.evaluation.per_user import UserResults, read_per_user
from recbole_cierec.evaluation.significance import holm_of_known, why_incomparable
from recbole_cierec.experiment.rows import Row
from recbole_cierec.experiment.spec import Experiment, Report

P_VALUES = ("t_p", "wilcoxon_p", "seeds_p")  # of a Test


@dataclass(frozen=True)
class Cell:
    """One metric of one model.

    Attributes:
        mean: Over seeds.
        half: Half the 95 % t-interval over seeds; nan with one seed.
        low: Lower end of the 95 % bootstrap interval over users, each averaged over the seeds; nan
            for metrics without values by user.
        high: Its upper end.
    """

    mean: float
    half: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Test(SeedTest):
    """A model against the baseline on one metric; p-values are corrected by Holm over the block."""

    model: str
    column: str


@dataclass
class Block:
    """One data set and protocol.

    Attributes:
        columns: Metrics that any model has, as in a result.
        models: Labels of models with a row, in the order of the file.
        rows: Their rows by label.
        dropped: Models far behind with the first seed, which have no further one.
        varied: Keys in which models may differ and still be tested: the damage that is compared.
    """

    dataset: str
    protocol: str
    columns: list[str]
    models: list[str]
    rows: dict[str, list[Row]]
    folder: Path
    baseline: str
    dropped: frozenset[str] = frozenset()
    varied: frozenset[str] = frozenset()
    _read: dict[str, dict[int, tuple[UserResults, pd.DataFrame]]] = field(default_factory=dict)
    _means: dict[tuple[str, tuple[int, ...]], pd.DataFrame] = field(default_factory=dict)

    def values(self, model: str, column: str) -> dict[int, float]:
        """The metric of each seed."""
        found = {row["seed"]: row["test"].get(column) for row in self.rows[model]}
        return {seed: value for seed, value in found.items() if value is not None}

    def frames(self, model: str) -> dict[int, pd.DataFrame]:
        """Values by user, of each seed."""
        return {seed: frame for seed, (_, frame) in self._by_user(model).items()}

    def _by_user(self, model: str) -> dict[int, tuple[UserResults, pd.DataFrame]]:
        """What a file of results by user is of, and its values, of each seed that has one."""
        if model not in self._read:
            self._read[model] = {}
            for row in self.rows.get(model, []):
                path = self.folder / row["users"] if row.get("users") else None
                if path is not None and path.is_file():
                    results = read_per_user(path)
                    values = by_user(results, self.columns)
                    # Of all metrics and groups the frame keeps the few that are shown.
                    self._read[model][row["seed"]] = replace(results, values={}), values
        return self._read[model]

    @property
    def seeds(self) -> int:
        """The largest number of seeds of a model."""
        return max(len(rows) for rows in self.rows.values())

    @property
    def fewest_seeds(self) -> int:
        """The smallest number of seeds of a model."""
        return min(len(rows) for rows in self.rows.values())

    @property
    def users(self) -> int:
        """Users over whom intervals are computed."""
        return max(
            (len(frame) for m in self.models for frame in self.frames(m).values()), default=0
        )

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """By model and column; absent where a model lacks the metric."""
        found = {}
        for model in self.models:
            frames = list(self.frames(model).values())
            ends = _user_intervals(seed_means(frames)) if frames else {}
            for column in self.columns:
                values = list(self.values(model, column).values())
                if values:
                    mean, half = float(np.mean(values)), t_interval(values)
                    found[model, column] = Cell(mean, half, *ends.get(column, (math.nan,) * 2))
        return found

    def order(self, column: str, digits: int) -> list[float]:
        """The best mean, and of three or more the second, rounded as they are printed."""
        means = {round(cell.mean, digits) for (_, c), cell in self.cells.items() if c == column}
        return sorted(means, reverse=not smaller_is_better(column))[: 2 if len(means) > 2 else 1]

    @cached_property
    def chance(self) -> dict[str, float]:
        """The means of a random ranking over seeds, by column; empty if no row has them."""
        for model in (self.baseline, *self.models):
            known = pd.DataFrame([row.get("chance") or {} for row in self.rows.get(model, [])])
            means = known.reindex(columns=self.columns).astype(float).mean().dropna()
            if len(means):
                return means.to_dict()
        return {}

    @cached_property
    def tests(self) -> list[Test]:
        """All models against the baseline."""
        if self.baseline not in self.models:
            return []
        found = [
            test
            for column in self.columns
            for model in self.models
            if model != self.baseline and model not in self.untested
            if (test := self._test(model, column)) is not None
        ]
        return _corrected(found)

    @cached_property
    def untested(self) -> dict[str, str]:
        """Why models are not tested against the baseline: they rank something else."""
        base, found = self._by_user(self.baseline), {}
        for model in self.models:
            sides = [(own, base[s][0]) for s, (own, _) in self._by_user(model).items() if s in base]
            whys = (why_incomparable(*pair, self.varied) for pair in sides)
            if why := next(filter(None, whys), ""):
                found[model] = why
        return found

    def _test(self, model: str, column: str) -> Test | None:
        ours, theirs = self.values(model, column), self.values(self.baseline, column)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        means = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
        users = None
        frames = [self.frames(one) for one in (model, self.baseline)]
        if all(seed in side and column in side[seed] for side in frames for seed in seeds):
            ours_by_user = self._seed_means(model, tuple(seeds))
            users = ours_by_user, self._seed_means(self.baseline, tuple(seeds))
        return Test(model=model, column=column, **vars(both_tests(users, column, means)))

    def _seed_means(self, model: str, seeds: tuple[int, ...]) -> pd.DataFrame:
        """Each user's means over some seeds, which the tests of all columns share."""
        if (model, seeds) not in self._means:
            self._means[model, seeds] = seed_means([self.frames(model)[seed] for seed in seeds])
        return self._means[model, seeds]


def _user_intervals(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    values = frame.to_numpy()
    if not values.size:  # no user, or no metric with values by user
        return {}
    low, high = interval(bootstrap_means(values))
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return {
        column: end
        for column, end in zip(frame.columns, ends, strict=True)
        if not math.isnan(end[0])
    }


def _corrected(tests: list[Test]) -> list[Test]:
    """Holm's correction of each kind of p-value over the block; nan takes no part."""
    fixed = [holm_of_known([getattr(test, key) for test in tests]) for key in P_VALUES]
    each = [dict(zip(P_VALUES, values, strict=True)) for values in zip(*fixed, strict=True)]
    return [replace(test, **values) for test, values in zip(tests, each, strict=True)]


def smaller_is_better(column: str) -> bool:
    """Whether a smaller value of a metric is better, as RecBole declares it."""
    metric = metrics_dict.get(split_name(column)[0].partition("@")[0])
    return bool(getattr(metric, "smaller", False))


def columns_of(report: Report) -> list[str]:
    """The metrics of a report in all its groups, as in a result."""
    return [join_name(metric, group) for metric in report.metrics for group in report.groups]


def varied_keys(experiment: Experiment) -> frozenset[str]:
    """Keys of the damage to data that models and variants set: what is compared."""
    set_here = {name for model in experiment.models for name in model.keys}
    return frozenset(key.name for key in noise_keys.KEYS if key.name in set_here)


def summarize(experiment: Experiment, rows: Sequence[Row], folder: Path) -> list[Block]:
    """A block for each data set and protocol that has a row."""
    labels = [model.label for model in experiment.models]
    wanted = columns_of(experiment.report)
    blocks = []
    varied = varied_keys(experiment)
    for dataset in experiment.datasets:
        for protocol in experiment.protocols:
            mine: dict[str, list[Row]] = {label: [] for label in labels}
            for row in rows:
                if (row["dataset"], row["protocol"]) == (dataset.name, protocol):
                    mine[row["model"]].append(row)
            mine = {label: found for label, found in mine.items() if found}
            has = {
                name
                for found in mine.values()
                for row in found
                for name, value in row["test"].items()
                if value is not None
            }
            columns = [name for name in wanted if name in has]
            if mine:
                baseline = experiment.report.baseline
                dropped = _dropped(experiment, mine)
                place = dataset.name, protocol
                blocks.append(
                    Block(*place, columns, list(mine), mine, folder, baseline, dropped, varied)
                )
    return blocks


def _dropped(experiment: Experiment, rows: Mapping[str, list[Row]]) -> frozenset[str]:
    if experiment.drop_below is None:
        return frozenset()
    seed = experiment.seeds[0]
    first = [row for found in rows.values() for row in found if row["seed"] == seed]
    behind = far_behind(first, experiment.drop_below) - experiment.kept
    return frozenset(label for label in behind if len(rows[label]) == 1)


def far_behind(rows: Sequence[Row], share: float) -> set[str]:
    """Labels of models whose validation is below a share of the best one's.

    Args:
        rows: One of each model, of the same data set, protocol and seed.
        share: ``drop_below`` of the file. Of a metric that is better when smaller: the models whose
            best rival is below this share of theirs. Models without validation (``epochs: 0``) are
            not compared.
    """
    scores = {row["model"]: row["valid_score"] for row in rows if row["valid_score"] is not None}
    if not scores:
        return set()
    smaller = smaller_is_better(rows[0]["valid_metric"].lower())
    best = (min if smaller else max)(scores.values())
    return {
        model
        for model, score in scores.items()
        if (best < share * score if smaller else score < share * best)
    }


def mean_ranks(blocks: Sequence[Block], column: str) -> tuple[dict[str, float], int]:
    """Mean rank of each model over data sets, protocols and seeds; 1 is the best.

    Only models that have every row take part; models without further seeds do not, and seeds that
    another model still lacks do not count.

    Returns:
        (rank by model, number of rankings).
    """
    scores: dict[str, dict[tuple[str, str, int], float]] = {}
    for block in blocks:
        for model in block.models:
            for seed, value in block.values(model, column).items():
                scores.setdefault(model, {})[block.dataset, block.protocol, seed] = value
    frame = pd.DataFrame(scores).T
    further = [model for model in frame.index if not any(model in b.dropped for b in blocks)]
    frame = frame[frame.loc[further].dropna(axis=1).columns].dropna()
    ranks = frame.rank(ascending=smaller_is_better(column)).mean(axis=1)
    return {str(model): float(rank) for model, rank in ranks.items()}, frame.shape[1]
