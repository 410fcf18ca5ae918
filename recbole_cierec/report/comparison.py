"""Two runs on the same data: where they differ, and for whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.evaluation.names import LABELS, join_name
from recbole_cierec.evaluation.per_user import UserResults
from recbole_cierec.evaluation.significance import compare, p_text, paired
from recbole_cierec.report.bars import metric_names
from recbole_cierec.report.blocks import Card, Figure, Figures, Note, Section, Table
from recbole_cierec.report.curves import best_curves
from recbole_cierec.report.drawing import INK, SERIES, Drawing, number
from recbole_cierec.report.people import list_strip, rank, training_strip
from recbole_cierec.report.source import Source
from recbole_cierec.report.tiles import Tiles

USERS = 5  # at each end
Pair = tuple[Source, Source]


@dataclass(frozen=True)
class Difference:
    """Run B less run A over the users of a group, with its 95 % bootstrap interval."""

    metric: str
    group: str
    a: float
    b: float
    low: float
    high: float
    p: float
    users: int

    @property
    def mean(self) -> float:
        """Of B less A."""
        return self.b - self.a


def results_of(pair: Pair) -> tuple[UserResults, UserResults]:
    """The results by user of both.

    Raises:
        DataError: One has none, or they are of other data or of another protocol.
    """
    a, b = (source.required_results for source in pair)
    metric = metric_names(pair[0])[0]
    paired(b, a, metric)  # refuses other data
    return a, b


def _of_group(results: UserResults, metric: str, group: str) -> UserResults | None:
    values = results.of(join_name(metric, group))
    if values is None or np.isnan(values).all():
        return None
    kept = ~np.isnan(values)
    return replace(results, users=results.users[kept], values={metric: values[kept]})


def differences(pair: Pair) -> list[Difference]:
    """Of every shown metric and group."""
    a, b = results_of(pair)
    found = []
    for metric in [m for m in metric_names(pair[0]) if m in b.values]:
        for group in LABELS:
            sides = [_of_group(side, metric, group) for side in (a, b)]
            if sides[0] is None or sides[1] is None:
                continue
            c = compare(sides[1], sides[0], metric)
            found.append(
                Difference(metric, group, c.base, c.mean, c.low, c.high, c.wilcoxon_p, c.n)
            )
    return found


def _forest(metric: str, rows: list[Difference]) -> Figure:
    title = f"{metric}: B less A"
    with Drawing(f"difference-{metric}", title, (4.0, 0.9 + 0.32 * len(rows))) as drawing:
        labels = [LABELS[row.group] for row in rows]
        means = [row.mean for row in rows]
        spread = [
            [r.mean - r.low for r in rows],
            [r.high - r.mean for r in rows],
        ]
        drawing.axes.axvline(0, color=INK, linewidth=1)
        drawing.axes.errorbar(
            means, labels, xerr=np.maximum(spread, 0), fmt="o", color=SERIES[0], ecolor=SERIES[0],
            elinewidth=1.6, capsize=3, markersize=5,
        )  # fmt: skip
        drawing.axes.margins(y=0.15)
        drawing.intervals(title, labels, rows, sign=True)
    return drawing.made


def _histogram(metric: str, apart: np.ndarray) -> Figure:
    with Drawing("difference-users", f"{metric} by user: B less A") as drawing:
        changed = apart[apart != 0]
        drawing.axes.hist(
            changed, bins=np.linspace(-1, 1, 41).tolist(), color=SERIES[0], alpha=0.85
        )
        drawing.axes.axvline(0, color=INK, linewidth=1)
        drawing.axes.set_xlabel("difference")
        drawing.axes.set_ylabel("users")
        better, worse = int((apart > 0).sum()), int((apart < 0).sum())
        drawing.caption = (
            f"B is better for {better:,} users, A for {worse:,}; {len(apart) - better - worse:,} "
            "users without a difference are not drawn."
        )
        drawing.alt = drawing.caption
    return drawing.made


def metrics_section(pair: Pair, rows: list[Difference]) -> Section:
    """Figures and a table of the :func:`differences`."""
    lead = (
        f"A is {pair[0].name}, B is {pair[1].name}. Both rank the same for the same users, so "
        "differences are paired. Lines are 95 % bootstrap intervals of the mean difference over "
        "users; p is of Wilcoxon's signed-rank test, not corrected for the number of rows."
    )
    section = Section("comparison", "Results", "B against A", lead)
    metrics = list(dict.fromkeys(row.metric for row in rows))
    figures = [_forest(m, [row for row in rows if row.metric == m]) for m in metrics]
    curve = best_curves(pair)
    section.parts.append(Figures([*figures, *([curve] if curve else [])]))
    cells = [
        [f"{r.metric}, {LABELS[r.group]}", number(r.a), number(r.b), number(r.mean, True),
         f"{number(r.low, True)} to {number(r.high, True)}", p_text(r.p), f"{r.users:,}"]
        for r in rows
    ]  # fmt: skip
    head = ["metric, group", "A", "B", "B less A", "95 % interval", "p", "users"]
    section.parts.append(Table("Test results of both runs", head, cells))
    return section


def settings_section(pair: Pair) -> Section:
    """Settings that differ."""
    a, b = (source.settings for source in pair)
    keys = sorted((a.keys() & b.keys()) - PLACE_KEYS)
    apart = [[key, str(a[key]), str(b[key])] for key in keys if a[key] != b[key]]
    rows = [
        ["checkpoint", *(source.path.name for source in pair)],
        ["kept epoch", *(str(source.best_epoch) for source in pair)],
        *apart,
    ]
    section = Section(
        "settings", "Settings", "Settings that differ", "Keys that only one model has are left out."
    )
    section.parts.append(Table("Settings", ["key", "A", "B"], rows))
    return section


def _by_user(pair: Pair) -> tuple[str, np.ndarray, np.ndarray]:
    """The metric, the users' external ids [n], and B less A of each [n]."""
    a, b = results_of(pair)
    metric = metric_names(pair[0])[0]
    both = paired(b, a, metric)
    return metric, both.index.to_numpy(), (both["run"] - both["base"]).to_numpy()


def users_section(pair: Pair, tiles: Tiles) -> Section:
    """Those who gain most and lose most, with both lists."""
    metric, names, apart = _by_user(pair)
    lead = (
        f"The {USERS} users for whom {metric} differs most in each direction (of equal ones, in a "
        f"random order by the seed {pair[0].seed}): chosen by the result, so they show extremes. "
        "Lists rank all items; the metric may rank candidates only."
    )
    section = Section(
        "users", "Users", "Who gains and who loses", lead, [Figures([_histogram(metric, apart)])]
    )
    shuffled = np.random.default_rng([pair[0].seed, 5]).permutation(len(apart))
    order = shuffled[np.argsort(apart[shuffled], kind="stable")]
    ends = [("gain", order[::-1][:USERS]), ("lose", order[:USERS])]
    for word, rows in ends:
        sign = 1 if word == "gain" else -1
        chosen = [int(row) for row in rows if sign * apart[row] > 0]
        if not chosen:
            section.parts.append(Note(f"No user {word}s with B."))
        users = pair[0].trained.numbers_of("user", [str(names[row]) for row in chosen])
        lists = [rank(source, users) for source in pair]
        for k, row in enumerate(chosen):
            strips = [training_strip(pair[0], tiles, int(users[k]))]
            strips += [
                list_strip(tiles, f"{letter}: {source.name}", one.lists[k], one.hits[k])
                for letter, source, one in zip("AB", pair, lists, strict=True)
            ]
            tags = [f"{word}s", f"{metric} {number(float(apart[row]), True)}"]
            section.parts.append(Card(f"User {names[row]}", tags, strips))
    return section
