"""The plots of an experiment as SVG: bars of models, and lines over a key that varies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.experiment.spec import Experiment, ModelSpec
from recbole_cierec.experiment.summary import Block, Cell
from recbole_cierec.experiment.tables import SCALE
from recbole_cierec.files.atomic_write import replacing

# Inches: width of a panel, of a bar, height of a panel of lines, of a line of the legend.
_WIDTH, _BAR, _LINE, _LEGEND = 4.2, 0.24, 2.6, 0.22
_FEW_SEEDS = 3
_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")


def write_plots(experiment: Experiment, blocks: Sequence[Block], folder: Path) -> dict[str, Path]:
    """Write ``bars-DATASET-PROTOCOL.svg`` and, for numeric variants, ``lines-...``.

    Raises:
        ConfigError: matplotlib is missing.
    """
    require("matplotlib", "rcParams", "plots")
    paths = {}
    for block in blocks:
        for kind, figure in figures(experiment, block).items():
            name = f"{kind}-{block.dataset}-{block.protocol}.svg".replace("/", "_")
            paths[name] = folder / name
            save(figure, paths[name])
    return paths


def save(figure: Any, path: Path, about: str | None = None) -> None:
    """Write a figure as SVG, with ``about`` in its metadata."""
    with replacing(path) as file:
        metadata = {"Date": None, "Description": about}
        figure.savefig(file, format="svg", bbox_inches="tight", metadata=metadata)


def figures(
    experiment: Experiment, block: Block, columns: Sequence[str] | None = None
) -> dict[str, Any]:
    """``bars`` and, for variants whose one key is a number, ``lines``.

    Args:
        experiment: Its models say which key varies.
        block: The data set and protocol.
        columns: Metrics, one panel each; None: all.
    """
    columns = block.columns if columns is None else columns
    if not columns:
        return {}
    found = {"bars": _bars(block, columns)}
    if lines := _swept(experiment, block):
        keys = {model.varied for model in experiment.models if model.family in lines}
        found["lines"] = _lines(block, columns, lines, ", ".join(sorted(keys - {""})))
    return found


def _panels(count: int, height: float) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure

    columns = min(count, 2)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def _bars(block: Block, columns: Sequence[str]) -> Any:
    """One panel a metric, one bar a model, with the interval over seeds, or else over users."""
    height = max(1.6, _BAR * len(block.models) + 0.8)
    figure, axes = _panels(len(columns), height)
    for number, (axis, column) in enumerate(zip(axes, columns, strict=True)):
        for place, model in enumerate(block.models):
            cell = block.cells.get((model, column))
            if cell is None:
                continue
            color = _COLORS[1] if model == block.baseline else _COLORS[0]
            axis.barh(place, SCALE * cell.mean, color=color, height=0.7)
            low, high = _ends(block, cell)
            if not math.isnan(low):
                axis.plot([SCALE * low, SCALE * high], [place, place], color="black", lw=1)
        labels = block.models if number % 2 == 0 else []  # the panel on the left has them
        axis.set_yticks(range(len(block.models)), labels or [""] * len(block.models))
        axis.set_ylim(len(block.models) - 0.4, -0.6)  # the first model on top
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{column}, %")
    figure.suptitle(f"{_title(block)}; red: {block.baseline}", fontsize="medium")
    return figure


def _title(block: Block) -> str:
    where = f"{block.dataset}, {block.protocol}"
    if block.seeds >= _FEW_SEEDS:
        return f"{where}; 95 % intervals over {block.seeds} seeds"
    if block.users:
        return f"{where}; 95 % intervals over {block.users} users"
    return f"{where}; {'mean of two seeds' if block.seeds > 1 else 'one seed'}, no intervals"


def _ends(block: Block, cell: Cell) -> tuple[float, float]:
    """The interval over seeds; of few seeds, whose t-interval is wide, the one over users."""
    if block.seeds < _FEW_SEEDS:
        return cell.low, cell.high
    return cell.mean - cell.half, cell.mean + cell.half


def _swept(experiment: Experiment, block: Block) -> dict[str, list[tuple[float, str]]]:
    """Values and labels of each family whose variants are numbers of one key, two or more."""
    families: dict[str, list[ModelSpec]] = {}
    for model in experiment.models:
        families.setdefault(model.family, []).append(model)
    found = {}
    for family, models in families.items():
        points = sorted(
            (model.value, model.label)
            for model in models
            if model.value is not None and model.label in block.models
        )
        numbers = all(model.value is not None for model in models)
        if numbers and len({model.varied for model in models}) == 1 and len(points) > 1:
            found[family] = points
    return found


def _lines(
    block: Block, columns: Sequence[str], lines: dict[str, list[tuple[float, str]]], varied: str
) -> Any:
    """One panel a metric, one line a family, and a dashed line for a model without variants."""
    swept = {label for points in lines.values() for _, label in points}
    constant = [model for model in block.models if model not in swept]
    figure, axes = _panels(len(columns), _LINE)
    for axis, column in zip(axes, columns, strict=True):
        colors = itertools.cycle(_COLORS)
        for (family, points), color in zip(lines.items(), colors, strict=False):
            known = [(x, block.cells[m, column]) for x, m in points if (m, column) in block.cells]
            if not known:
                continue
            at = [x for x, _ in known]
            axis.plot(at, [SCALE * c.mean for _, c in known], "o-", color=color, label=family)
            ends = [_ends(block, cell) for _, cell in known]
            low, high = ([SCALE * end[side] for end in ends] for side in (0, 1))
            axis.fill_between(at, low, high, color=color, alpha=0.15, lw=0)
        for model, color in zip(constant, colors, strict=False):
            if (model, column) in block.cells:
                mean = SCALE * block.cells[model, column].mean
                axis.axhline(mean, color=color, ls="--", lw=1, label=model)
        _value_axis(axis, sorted({x for points in lines.values() for x, _ in points}))
        axis.set_xlabel(varied)
        axis.set_title(f"{column}, %", fontsize="medium")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.set_figheight(figure.get_figheight() + _LEGEND * math.ceil(len(labels) / 2))
    figure.suptitle(_title(block), fontsize="medium")
    return figure


def _value_axis(axis: Any, values: Sequence[float]) -> None:
    """Ticks at the values; a logarithm if they range over more than a factor of 20."""
    if values[0] > 0 and values[-1] / values[0] >= 20:
        axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    axis.set_ylim(bottom=0)
