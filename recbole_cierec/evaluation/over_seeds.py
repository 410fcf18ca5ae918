"""Runs of several seeds: intervals and paired tests over users, and over seeds.

Two questions are asked separately. *Over users*: would another sample of users show the difference?
Each user's metric is first averaged over the seeds, then users are paired. *Over seeds*: would
another seed show it? Each run counts once, by its mean over users, and runs with the same seed are
paired. The first test ignores how much seeds vary, the second how much users do; a claim should
hold in both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.bootstrap import LEVEL, mean_interval
from recbole_cierec.evaluation.per_user import SUFFIX, UserResults, read_per_user
from recbole_cierec.evaluation.significance import (
    by_user,
    check_comparable,
    holm_of_known,
    p_of_zero_mean,
    p_text,
    values_of,
    varies,
)
from recbole_cierec.files.markdown import markdown_table


@dataclass(frozen=True)
class SeedTest:
    """Some runs against a baseline on one metric.

    Attributes:
        difference: Mean over users and seeds; of users that all runs have, where results by user
            are known.
        low: Lower end of the 95 % bootstrap interval of the difference over users.
        high: Its upper end.
        users: Number of users.
        t_p: p-value of the paired t-test over users, each averaged over the seeds.
        wilcoxon_p: That of Wilcoxon's test.
        seeds: Number of seeds that both have.
        seeds_p: p-value of the paired t-test over seeds; nan with one seed.
    """

    difference: float
    low: float
    high: float
    users: int
    t_p: float
    wilcoxon_p: float
    seeds: int
    seeds_p: float


def seed_means(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Each user's mean over runs of several seeds, for the users that all runs have."""
    users = reduce(lambda a, b: a.intersection(b), (frame.index for frame in frames))
    return pd.concat([frame.loc[users] for frame in frames]).groupby(level=0).mean()


def t_interval(values: Sequence[float]) -> float:
    """Half the 95 % t-interval of a mean; nan for fewer than two values.

    >>> round(t_interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))


def seeds_test(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """p-value of the paired t-test over seeds; nan where it has nothing to test with."""
    difference = np.subtract(ours, theirs)
    if len(difference) < 2 or not np.isfinite(difference).all():
        return float("nan")
    if not varies(difference):
        return 1.0 if np.allclose(difference, 0.0, atol=1e-12) else float("nan")
    return float(stats.ttest_rel(ours, theirs).pvalue)


def both_tests(
    users: tuple[pd.DataFrame, pd.DataFrame] | None,
    metric: str,
    means: tuple[Sequence[float], Sequence[float]],
) -> SeedTest:
    """Runs against those of a baseline with the same seeds, over users and over seeds.

    Args:
        users: :func:`seed_means` of both, with a column of the metric; None: they have no results
            by user.
        metric: Its name.
        means: The metric of each seed over all users, of both, in the same order.
    """
    seeds = len(means[0]), seeds_test(*means)
    difference = np.empty(0)
    if users is not None:
        difference = (users[0][metric] - users[1][metric]).dropna().to_numpy()
    if not len(difference):
        mean = float(np.mean(means[0]) - np.mean(means[1]))
        return SeedTest(mean, math.nan, math.nan, 0, math.nan, math.nan, *seeds)
    low, high = mean_interval(difference)
    p_values = p_of_zero_mean(difference)
    return SeedTest(float(difference.mean()), low, high, len(difference), *p_values, *seeds)


def compare_seeds(
    runs: Sequence[UserResults], base: Sequence[UserResults], metric: str
) -> SeedTest:
    """Test runs against those of a baseline with the same seeds.

    Raises:
        DataError: Runs have different data or protocols, a seed occurs twice, no seed is common, or
            the metric has no values by user.
    """
    ours, theirs = _by_seed(runs), _by_seed(base)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise DataError(
            f"{runs[0].path} and {base[0].path} have no seed in common: {sorted(ours)} and "
            f"{sorted(theirs)}"
        )
    frames: list[list[pd.DataFrame]] = [[], []]
    for seed in seeds:
        check_comparable(ours[seed], theirs[seed])
        for side, results in enumerate((ours[seed], theirs[seed])):
            values_of(results, metric)  # raises if there are none
            frames[side].append(by_user(results, [metric]))
    of_runs, of_base = ([float(frame[metric].mean()) for frame in side] for side in frames)
    users = seed_means(frames[0]), seed_means(frames[1])
    return both_tests(users, metric, (of_runs, of_base))


def read_seeds(paths: Iterable[Path]) -> list[UserResults]:
    """The runs of one model: files, and all files of folders.

    Raises:
        DataError: There is none, or one is no file of results by user.
    """
    found = []
    for path in paths:
        if os.path.isdir(path):  # Path.is_dir may raise
            files = sorted(path.glob(f"*{SUFFIX}"))
            if not files:
                raise DataError(f"{path}: no *{SUFFIX} in this folder; runs write them to saved/")
            found += [read_per_user(file) for file in files]
        else:
            found.append(read_per_user(path))
    return found


def seeds_table(
    runs: Sequence[UserResults], base: Sequence[UserResults], metrics: Sequence[str]
) -> str:
    """Markdown table of some runs against those of a baseline, by metric.

    p-values of each test are corrected by Holm over the rows.
    """
    tests = [compare_seeds(runs, base, metric) for metric in metrics]
    names = [str(side[0].about.get("model")) for side in (runs, base)]
    apart = " - ".join(names if names[0] != names[1] else ("a", "b"))
    head = ["metric", apart, "95 % over users", "p t users", "p Wilcoxon users", "users"]
    table = [[*head, "p t seeds", "seeds"]]
    columns = [[getattr(test, key) for test in tests] for key in ("t_p", "wilcoxon_p", "seeds_p")]
    corrected = zip(*map(holm_of_known, columns), strict=True)
    for metric, test, (t, w, s) in zip(metrics, tests, corrected, strict=True):
        cells = [metric, f"{test.difference:+.5f}", f"{test.low:+.5f} to {test.high:+.5f}"]
        cells += [p_text(t), p_text(w), str(test.users), p_text(s), str(test.seeds)]
        table.append(cells)
    return markdown_table(table)


def _by_seed(runs: Sequence[UserResults]) -> dict[int, UserResults]:
    found: dict[int, UserResults] = {}
    for run in runs:
        seed = run.about.get("seed")
        if not isinstance(seed, int):
            raise DataError(f"{run.path}: does not say its seed")
        if seed in found:
            raise DataError(
                f"{found[seed].path} and {run.path} have the same seed {seed}; name one file for "
                "each seed, not their folder"
            )
        found[seed] = run
    return found
