"""Test results by group, with intervals over users."""

from __future__ import annotations

from recbole_cierec.evaluation.bootstrap import RESAMPLES
from recbole_cierec.evaluation.names import ALL, LABELS, USER_GROUPS
from recbole_cierec.report.blocks import Figure, Figures, Note, Section, Table
from recbole_cierec.report.drawing import INK, SERIES, Drawing, number
from recbole_cierec.report.metrics import Mean, group_means, shown_metrics
from recbole_cierec.report.source import Source


def bar_figure(metric: str, means: list[Mean]) -> Figure:
    """Means as bars, intervals as lines."""
    with Drawing(f"test-{metric}", f"{metric}, test", (4.0, 0.9 + 0.32 * len(means))) as drawing:
        labels = [LABELS[mean.group] for mean in means]
        colours = [
            SERIES[0] if m.group == ALL else SERIES[1] if m.group in USER_GROUPS else SERIES[2]
            for m in means
        ]
        drawing.axes.barh(labels, [m.mean for m in means], 0.62, color=colours, alpha=0.85)
        spread = [[m.mean - m.low for m in means], [m.high - m.mean for m in means]]
        drawing.axes.errorbar(
            [m.mean for m in means], range(len(means)), xerr=spread, fmt="none", ecolor=INK,
            elinewidth=1.2, capsize=3,
        )  # fmt: skip
        places = [(m.chance, row) for row, m in enumerate(means) if m.chance is not None]
        if places:
            x, y = zip(*places, strict=True)
            drawing.axes.scatter(x, y, s=90, color=SERIES[4], marker="|", zorder=3)
        drawing.axes.set_xlim(left=0)
        drawing.intervals(f"{metric} on the test part", labels, means, sign=False)
    return drawing.made


def metric_names(source: Source) -> list[str]:
    """The metrics that are shown."""
    names = list(source.results.values) if source.results is not None else []
    return shown_metrics(names, str(source.settings["valid_metric"]))


def protocol(source: Source) -> str:
    """What is ranked in the test, as words."""
    mode = source.settings["eval_args"]["mode"]
    mode = mode.get("test", mode) if isinstance(mode, dict) else mode
    if mode == "full":
        return "all items that a user does not have"
    return f"the candidates of mode {mode}"


def shown_means(source: Source) -> dict[str, list[Mean]]:
    """By metric; empty where the run has not been tested."""
    results = source.results
    if results is None:
        return {}
    return {metric: group_means(results, metric) for metric in metric_names(source)}


def bars_section(source: Source, by_metric: dict[str, list[Mean]]) -> Section:
    """Figures and a table of the :func:`shown_means`."""
    title = "test", "Results", "Test results by group"
    if source.results is None:
        why = "There are no results by user (NAME.users.npz): the run has not been tested."
        return Section(*title, "", [Note(why)])
    lead = (
        f"Means over users; each user's test items rank among {protocol(source)}. Lines are 95 % "
        f"intervals: percentiles of {RESAMPLES:,} bootstrap samples of the group's users. They say "
        "how much other users would change the mean, and nothing about other seeds or splits. "
        "The red tick is chance, the mean of a random ranking. "
        "Results of item groups count users with a test item in the group."
    )
    section = Section(*title, lead)
    section.parts.append(Figures([bar_figure(m, means) for m, means in by_metric.items() if means]))
    rows = [
        [f"{metric}, {LABELS[m.group]}", number(m.mean), f"{number(m.low)} to {number(m.high)}",
         "-" if m.chance is None else number(m.chance), f"{m.users:,}"]
        for metric, means in by_metric.items()
        for m in means
    ]  # fmt: skip
    head = ["metric, group", "mean", "95 % interval", "chance", "users"]
    section.parts.append(Table("Test results by group", head, rows, "The same as a table"))
    return section
