"""The plots of an experiment as SVG: bars of models, and lines over a key that varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.experiment.spec import Experiment
from recbole_cierec.experiment.summary import Block, Cell
from recbole_cierec.experiment.tables import SCALE
from recbole_cierec.files.atomic_write import replacing

_WIDTH, _BAR, _LINE = 6.4, 0.32, 4.0  # inches: of a panel, of a bar, height of a panel of lines
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
        if not block.columns:
            continue
        figures = {"bars": _bars(block)}
        if lines := _swept(experiment, block):
            keys = {model.varied for model in experiment.models if model.family in lines}
            figures["lines"] = _lines(block, lines, ", ".join(sorted(keys - {""})))
        for kind, figure in figures.items():
            name = f"{kind}-{block.dataset}-{block.protocol}.svg".replace("/", "_")
            paths[name] = folder / name
            with replacing(paths[name]) as file:
                figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return paths


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


def _bars(block: Block) -> Any:
    """One panel a metric, one bar a model, with the interval over seeds, or else over users."""
    height = max(1.6, _BAR * len(block.models) + 0.9)
    figure, axes = _panels(len(block.columns), height)
    for axis, column in zip(axes, block.columns, strict=True):
        for place, model in enumerate(block.models):
            cell = block.cells.get((model, column))
            if cell is None:
                continue
            color = _COLORS[1] if model == block.baseline else _COLORS[0]
            axis.barh(place, SCALE * cell.mean, color=color, height=0.7)
            low, high = _ends(block, cell)
            if not math.isnan(low):
                axis.plot([SCALE * low, SCALE * high], [place, place], color="black", lw=1)
        axis.set_yticks(range(len(block.models)), block.models)
        axis.set_ylim(len(block.models) - 0.4, -0.6)  # the first model on top
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{column}, %")
    figure.suptitle(f"{_title(block)}; red: {block.baseline}")
    return figure


def _title(block: Block) -> str:
    over = f"{block.seeds} seeds" if block.seeds >= _FEW_SEEDS else f"{block.users} users"
    return f"{block.dataset}, {block.protocol}; 95 % intervals over {over}"


def _ends(block: Block, cell: Cell) -> tuple[float, float]:
    """The interval over seeds; of few seeds, whose t-interval is wide, the one over users."""
    if block.seeds < _FEW_SEEDS:
        return cell.low, cell.high
    return cell.mean - cell.half, cell.mean + cell.half


def _swept(experiment: Experiment, block: Block) -> dict[str, list[tuple[float, str]]]:
    """Values and labels of the variants of each family that has two numbers or more."""
    found: dict[str, list[tuple[float, str]]] = {}
    for model in experiment.models:
        if model.value is not None and model.label in block.models:
            found.setdefault(model.family, []).append((model.value, model.label))
    return {family: sorted(points) for family, points in found.items() if len(points) > 1}


def _lines(block: Block, lines: dict[str, list[tuple[float, str]]], varied: str) -> Any:
    figure, axes = _panels(len(block.columns), _LINE)
    for axis, column in zip(axes, block.columns, strict=True):
        for (family, points), color in zip(lines.items(), _repeat(_COLORS), strict=False):
            known = [(x, block.cells[m, column]) for x, m in points if (m, column) in block.cells]
            if not known:
                continue
            at = [x for x, _ in known]
            axis.plot(at, [SCALE * c.mean for _, c in known], "o-", color=color, label=family)
            ends = [_ends(block, cell) for _, cell in known]
            low, high = ([SCALE * end[side] for end in ends] for side in (0, 1))
            axis.fill_between(at, low, high, color=color, alpha=0.15, lw=0)
        values = sorted({x for points in lines.values() for x, _ in points})
        if values[0] > 0 and values[-1] / values[0] >= 20:
            axis.set_xscale("log")
        axis.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axis.set_xlabel(varied)
        axis.set_ylabel(f"{column}, %")
        axis.legend(frameon=False)
    figure.suptitle(_title(block))
    return figure


def _repeat(colors: Sequence[str]) -> list[str]:
    return [*colors] * 20
