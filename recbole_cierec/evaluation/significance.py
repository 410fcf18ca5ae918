"""Significance tests of differences between two runs, over users.

Both runs measure the same users, so the tests are paired: Student's t-test of the differences,
Wilcoxon's signed-rank test, both by SciPy, and a bootstrap interval of the mean difference. A user
counts once: the rows of a sequential model, one for each interaction, are averaged first. Holm's
step-down method corrects for several comparisons. A test over users says whether another sample of
users would show the difference; it says nothing about other seeds or data sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from recbole_cierec.errors import DataError, nearest
from recbole_cierec.evaluation.bootstrap import mean_interval
from recbole_cierec.evaluation.per_user import UserResults
from recbole_cierec.files.markdown import markdown_table


@dataclass(frozen=True)
class Comparison:
    """One run against the baseline on one metric.

    Attributes:
        run: Name of the run.
        mean: Mean of the run.
        base: Mean of the baseline.
        n: Number of users.
        t_p: p-value of the paired t-test.
        wilcoxon_p: p-value of Wilcoxon's test.
        low: Lower end of the 95 % bootstrap interval of the mean difference.
        high: Its upper end.
    """

    run: str
    mean: float
    base: float
    n: int
    t_p: float
    wilcoxon_p: float
    low: float
    high: float


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values [n].

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty_like(steps)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def by_user(results: UserResults, metrics: Iterable[str]) -> pd.DataFrame:
    """Values by user (index) and metric (columns); nan where a user has none.

    Args:
        results: Results of one run.
        metrics: As in a result: ``recall@10``, ``recall@10_cold`` (of the users of a group) or
            ``recall@10_among_cold`` (of a view). Those without values by user are left out.

    Returns:
        One row a user: several test cases of a user (sequential models) are averaged.
    """
    found = {metric: results.of(metric) for metric in metrics}
    columns = {metric: values for metric, values in found.items() if values is not None}
    frame = pd.DataFrame(columns, index=pd.Index(results.users, name="user"), dtype=float)
    return frame.groupby(level=0).mean()


def paired(run: UserResults, base: UserResults, metric: str) -> pd.DataFrame:
    """Values of both runs, columns ``run`` and ``base``, for the same users (index).

    Args:
        run: One run.
        base: The other.
        metric: As in the result of a run, of a group too (``recall@10_cold``).

    Raises:
        DataError: The runs have different data, protocols or users, or lack the metric.
    """
    check_comparable(run, base)
    sides = {"run": _known_by_user(run, metric), "base": _known_by_user(base, metric)}
    if not sides["run"].index.equals(sides["base"].index):
        raise DataError(f"{run.path} and {base.path} are not comparable: different users")
    return pd.DataFrame(sides)


def _known_by_user(run: UserResults, metric: str) -> pd.Series:
    values_of(run, metric)  # raises if there are none
    return by_user(run, [metric])[metric].dropna()


def values_of(run: UserResults, metric: str) -> np.ndarray:
    """Values [n] of a metric, NaN for users outside its group.

    Raises:
        DataError: The run lacks the metric.
    """
    values = run.of(metric)
    if values is not None:
        return values
    hint = nearest(metric, run.names, cutoff=0.9) or f"; it has {', '.join(run.names)}"
    raise DataError(f"{run.path}: has no {metric} by user{hint}")


def check_comparable(
    run: UserResults, base: UserResults, varied: frozenset[str] = frozenset()
) -> None:
    """Refuse two runs with other data or another protocol, but for the keys ``varied``.

    Raises:
        DataError: The line says what differs.
    """
    if why := why_incomparable(run, base, varied):
        raise DataError(f"{run.path} and {base.path} are not comparable: {why}")


def why_incomparable(
    run: UserResults, base: UserResults, varied: frozenset[str] = frozenset()
) -> str:
    """What two runs differ in, but for the keys ``varied``; empty where they are comparable."""
    sides = (run.about.get("protocol"), base.about.get("protocol"))
    apart = [each for each in differences(*sides) if each[0] not in varied]
    if apart:
        text = "; ".join(f"{key} is {ours} and {theirs}" for key, ours, theirs in apart)
        return f"different protocols, {text}"
    same = run.about.get("data_digest") == base.about.get("data_digest")
    return "" if same else _other_data(run, base)


def _other_data(run: UserResults, base: UserResults) -> str:
    ours, theirs = (side.about.get("dataset") for side in (run, base))
    if ours != theirs:
        return f"different data, {ours}, {theirs}"
    by_interaction = [len(np.unique(side.users)) < len(side.users) for side in (run, base)]
    if by_interaction[0] != by_interaction[1]:
        name = (run if by_interaction[0] else base).about.get("model")
        return f"{name} ranks once per interaction, the other once per user; use mode user500"
    return "different data, other interactions or candidates"


def differences(ours: Any, theirs: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(key, value, other value) of each difference at any depth; keys as ``eval_args.mode``."""
    if not isinstance(ours, dict) and not isinstance(theirs, dict):
        return [] if ours == theirs else [(key, ours, theirs)]
    ours, theirs = (side if isinstance(side, dict) else {} for side in (ours, theirs))
    names = sorted(ours.keys() | theirs.keys())
    found = (differences(ours.get(n), theirs.get(n), f"{key}.{n}".strip(".")) for n in names)
    return [difference for part in found for difference in part]


def varies(difference: np.ndarray) -> bool:
    """Whether paired differences [n] differ from each other by more than rounding."""
    if len(difference) < 2:
        return False
    return bool(np.ptp(difference) > 1e-12 * max(1.0, float(np.abs(difference).max())))


def p_of_zero_mean(difference: np.ndarray) -> tuple[float, float]:
    """p-values of the paired t-test and of Wilcoxon's test, of the differences of users [n]."""
    if not difference.any():
        return 1.0, 1.0
    t_p = float("nan")  # equal differences have no variance to test with
    if varies(difference):
        t_p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    return t_p, float(stats.wilcoxon(difference).pvalue)


def compare(run: UserResults, base: UserResults, metric: str) -> Comparison:
    """All three tests of ``run`` against ``base``."""
    both = paired(run, base, metric)
    return _tested(run.name, both["run"].to_numpy(), both["base"].to_numpy())


def compare_to_level(run: UserResults, metric: str, level: float) -> Comparison:
    """All three tests of ``run`` against one number for all users, such as the chance level."""
    ours = _known_by_user(run, metric).to_numpy()
    return _tested(run.name, ours, np.full(len(ours), level))


def _tested(name: str, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    difference = ours - theirs
    p_values, ends = p_of_zero_mean(difference), mean_interval(difference)
    return Comparison(name, ours.mean(), theirs.mean(), len(difference), *p_values, *ends)


def significance_table(runs: list[UserResults], base: UserResults, metrics: list[str]) -> str:
    """Markdown table of every run against the baseline on every metric.

    p-values of each test are corrected by Holm over all rows of the table.
    """
    rows = [(metric, compare(run, base, metric)) for metric in metrics for run in runs]
    t_p = holm_of_known([row.t_p for _, row in rows])
    w_p = holm_of_known([row.wilcoxon_p for _, row in rows])
    head = ["metric", "run", "mean", base.name, "difference", "95 % interval", "p t", "p Wilcoxon"]
    table = [[*head, "users"]]
    for (metric, row), t, w in zip(rows, t_p, w_p, strict=True):
        cells = [metric, row.run, f"{row.mean:.5f}", f"{row.base:.5f}"]
        cells += [f"{row.mean - row.base:+.5f}", f"{row.low:+.5f} to {row.high:+.5f}"]
        table.append([*cells, p_text(t), p_text(w), str(row.n)])
    return markdown_table(table)


def p_text(p: float) -> str:
    """A p-value with two digits; ``-`` where there is nothing to test with.

    >>> p_text(0.0312), p_text(2e-31), p_text(np.nan)
    ('0.031', '<0.0001', '-')
    """
    if np.isnan(p):
        return "-"
    # The tests' normal approximations say nothing about smaller values.
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def holm_of_known(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values that are not nan."""
    p = np.array(p_values, dtype=float)
    known = ~np.isnan(p)
    p[known] = holm(p[known])
    return p.tolist()
