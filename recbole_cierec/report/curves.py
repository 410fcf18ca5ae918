"""Figures of a run's history: losses, metrics of validation, and gradient gates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recbole_cierec.evaluation.names import ALL, LABELS, split_name
from recbole_cierec.report.blocks import Figure, Figures, Note, Section
from recbole_cierec.report.drawing import FAINT, MARKERS, SERIES, Drawing, number
from recbole_cierec.report.source import Source
from recbole_cierec.trainer.history import Row

MOST_METRICS = 24  # figures of validation
_SHADES = (0.15, 0.35, 0.55, 0.78, 1.0)  # of the scales of a gate, the smallest first
_GATE_VALUES = {
    "scale": "Mean scale", "reward": "Mean reward", "q": "Value q", "norm": "Length of gradient",
    "cosine": "Cosine of both gradients", "conflict": "Share of conflicts",
}  # fmt: skip
_PROBABILITY = "the gate's probability"
Series = dict[str, list[tuple[int, float]]]  # (epoch from 1, value) by name


def _mark_best(drawing: Drawing, best: int | None) -> None:
    if best is not None:
        drawing.axes.axvline(best, color=FAINT, linestyle=":", linewidth=1.2)
        drawing.axes.annotate(
            "best", (best, 1), xycoords=("data", "axes fraction"), xytext=(3, -9),
            textcoords="offset points", color=FAINT, fontsize=8.5,
        )  # fmt: skip


def line_figure(name: str, title: str, series: Series, best: int | None = None) -> Figure:
    """Values over epochs."""
    with Drawing(name, title) as drawing:
        for k, (label, points) in enumerate(series.items()):
            x, y = zip(*points, strict=True)
            drawing.axes.plot(
                x, y, label=label, color=SERIES[k % 6], marker=MARKERS[k % 6],
                linestyle="-" if k < 3 else "--",
                markevery=max(1, len(x) // 12),
            )  # fmt: skip
        epochs = sorted({epoch for points in series.values() for epoch, _ in points})
        drawing.epochs(epochs)
        _mark_best(drawing, best)
        if len(series) > 1:
            drawing.legend()
        ends = [
            f"{label} from {number(p[0][1])} to {number(p[-1][1])}" for label, p in series.items()
        ]
        drawing.alt = f"{title} over epochs {epochs[0]} to {epochs[-1]}: {'; '.join(ends)}."
    return drawing.made


def _points(rows: Iterable[Row], value: Any) -> list[tuple[int, float]]:
    found = ((row["epoch"] + 1, value(row)) for row in rows)
    return [(epoch, number) for epoch, number in found if number is not None]


def loss_figures(source: Source) -> list[Figure]:
    """The training loss of each phase, by part where it has several."""
    figures = []
    best = source.best_epoch
    for phase in dict.fromkeys(row.get("phase", "training") for row in source.rows):
        rows = [row for row in source.rows if row.get("phase", "training") == phase]
        series = {"loss": _points(rows, lambda row: row["loss"])}
        count = max(len(row["losses"]) for row in rows)
        for k in range(count if count > 1 else 0):
            part = _points(rows, lambda row, k=k: (row["losses"][k : k + 1] or [None])[0])
            series[f"part {k + 1}"] = part
        series = {label: points for label, points in series.items() if points}
        if series:
            title = f"Loss of {phase}"
            shown = best if any(row["epoch"] + 1 == best for row in rows) else None
            figures.append(line_figure(f"loss-{phase}", title, series, shown))
    return figures


def valid_series(rows: list[Row]) -> dict[str, Series]:
    """The groups of each metric of validation, by metric."""
    found: dict[str, Series] = {}
    for name in dict.fromkeys(name for row in rows for name in row.get("valid", {})):
        metric, group = split_name(name)
        points = _points(rows, lambda row, name=name: row.get("valid", {}).get(name))
        if points and not name.endswith("_std"):
            found.setdefault(metric, {})[group] = points
    return {
        metric: {label: groups[group] for group, label in LABELS.items() if group in groups}
        for metric, groups in found.items()
    }


def curves_section(source: Source) -> Section:
    """Loss and validation over epochs."""
    lead = "One point an epoch; the dotted line is the best epoch by validation, which is kept."
    section = Section("training", "Training", "Training", lead)
    if not source.rows:
        section.parts.append(
            Note("The run has no history (NAME.history.jsonl next to the checkpoint).")
        )
        return section
    best, metrics = source.best_epoch, valid_series(source.rows)
    first = str(source.settings["valid_metric"]).lower()
    order = sorted(metrics, key=lambda metric: metric != first)[:MOST_METRICS]
    made = [
        line_figure(f"valid-{metric}", f"{metric}, validation", metrics[metric], best)
        for metric in order
    ]
    section.parts.append(Figures(loss_figures(source) + made[:1]))
    if not made:
        section.parts.append(Note("The run had no validation."))
    if made[1:]:
        section.parts.append(Figures(made[1:], f"The other {len(made) - 1} metrics of validation"))
    return section


# --------------------------------------------------------------------------- gates


def gates_section(source: Source) -> Section | None:
    """Actions, scales and rewards of the gradient gates; None where the model has none."""
    rows = [row for row in source.rows if row.get("gates")]
    if not rows:
        return None
    names, mode = list(rows[0]["gates"]), source.settings["gr_mode"]
    lead = (
        f"Mode {mode}. Once a batch each gate picks the factor on the "
        "gradient that flows from its branch back into the item's embedding (Eq. 6). Shown are "
        "shares of batches, and means over the batches of an epoch. The reward is exp(-L) of the "
        f"next batch; q is {'the mean reward' if mode == 'bandit' else _PROBABILITY} of what it "
        "picked."
    )
    if "actions" not in rows[0]["gates"][names[0]]:
        lead = (
            f"Mode {mode} joins the gradients that flow from both branches back into the item's "
            "embedding. Shown are means over the batches of an epoch."
        )
    section = Section("gates", "Gates", "Gradient gates", lead)
    figures = [_actions(name, rows) for name in names if "actions" in rows[0]["gates"][name]]
    for key, title in _GATE_VALUES.items():
        series = {
            name: _points(rows, lambda row, name=name, key=key: row["gates"][name].get(key))
            for name in names
        }
        if all(series.values()):
            figures.append(line_figure(f"gates-{key}", title, series))
    section.parts.append(Figures(figures))
    return section


def _actions(name: str, rows: list[Row]) -> Figure:
    """Shares of the actions of one gate, stacked."""
    scales = sorted(rows[0]["gates"][name]["actions"], key=float)
    epochs = [row["epoch"] + 1 for row in rows]
    counts = [[row["gates"][name]["actions"].get(s, 0) for s in scales] for row in rows]
    shares = [[count / max(1, sum(line)) for count in line] for line in counts]
    with Drawing(f"gates-actions-{name}", f"Actions, {name} gate") as drawing:
        bottom = [0.0] * len(rows)
        for k, scale in enumerate(scales):
            height = [line[k] for line in shares]
            drawing.axes.bar(
                epochs, height, 0.86, bottom, color=SERIES[0], linewidth=0,
                alpha=_SHADES[min(len(_SHADES) - 1, k * len(_SHADES) // len(scales))], label=scale,
            )  # fmt: skip
            bottom = [a + b for a, b in zip(bottom, height, strict=True)]
        drawing.epochs(epochs)
        drawing.axes.grid(False)
        drawing.axes.set_ylim(0, 1)
        drawing.axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        drawing.legend(len(scales))
        last = ", ".join(f"{s}: {x:.0%}" for s, x in zip(scales, shares[-1], strict=True))
        drawing.alt = f"Shares of the scales of the {name} gate by epoch; in the last one {last}."
    return drawing.made


def best_curves(sources: tuple[Source, Source]) -> Figure | None:
    """The validation metric of two runs."""
    first = str(sources[0].settings["valid_metric"]).lower()
    label = LABELS[ALL]
    series = {
        f"{letter}: {source.name}": valid_series(source.rows).get(first, {}).get(label, [])
        for letter, source in zip("AB", sources, strict=True)
    }
    series = {name: points for name, points in series.items() if points}
    return line_figure("valid", f"{first}, validation", series) if series else None
