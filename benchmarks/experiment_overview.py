"""The overview of an experiment with one data set: a table over its protocols, figure, searches.

For marks of docs/ (experiment_pages.py). A column is ``"held-out items"=cold-items/recall@10``: its
head, its protocol and its metric.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiment_rows import Results
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from recbole_cierec.errors import ConfigError
from recbole_cierec.experiment.estimate import counted
from recbole_cierec.experiment.summary import Block, Cell, columns_of
from recbole_cierec.experiment.tables import DROPPED, MARKDOWN, SCALE, Style, escaped_bars, markdown
from recbole_cierec.files.markdown import markdown_table

_DIGITS = 1
_OTHER_LOSS = "softmax"
IDS_ALONE = ("Pop", "ItemKNN", "BPR", "MF", "LightGCN", "MultiVAE", "AMF")
COLORS = {
    "ids alone": "#94a3b8",
    "pictures or annotations": "#4477aa",
    "CIERec": "#c2410c",
    "ContentPrior": "#228833",
}


@dataclass(frozen=True)
class Column:
    """A column of the overview.

    Attributes:
        head: Its head.
        block: Its data set and protocol.
        metric: As in a result.
    """

    head: str
    block: Block
    metric: str

    def cell(self, model: str) -> Cell | None:
        """What a model has; None: no run yet."""
        return self.block.cells.get((model, self.metric))


def columns(results: Results, words: str) -> list[Column]:
    """The columns that a mark names and that have a run.

    Raises:
        ConfigError: A word is not HEAD=PROTOCOL/METRIC, with a protocol and a metric of the file.
    """
    experiment = results.experiment
    blocks = {block.protocol: block for block in results.blocks}
    found = []
    for word in shlex.split(words):
        head, _, place = word.partition("=")
        protocol, _, metric = place.partition("/")
        if protocol not in experiment.protocols or metric not in columns_of(experiment.report):
            raise ConfigError(
                f"{experiment.path.stem}: {word}: a column is HEAD=PROTOCOL/METRIC, with a "
                "protocol and a metric of its report"
            )
        if protocol in blocks:
            found.append(Column(head, blocks[protocol], metric))
    return found


def overview_part(results: Results, words: str) -> list[str]:
    """A row for each model with a run, the best of the first column on top."""
    shown = columns(results, words)
    if not shown:
        return _lacking(results)
    style = Style(*MARKDOWN, _DIGITS)
    digits = _DIGITS + round(math.log10(SCALE))
    table = [["model", *(column.head for column in shown)]]
    for model in best_first(results, shown):
        cells = [escaped_bars(model)]
        if any(model in column.block.dropped for column in shown):
            cells[0] += DROPPED
        for column in shown:
            order = column.block.order(column.metric, digits)
            cell = column.cell(model)
            cells.append(style.stressed(cell, order, digits, str) if cell else "")
        table.append(cells)
    if any(column.metric in column.block.chance for column in shown):
        table.append(["chance", *(style.chance(column.block, column.metric) for column in shown)])
    note = "Recall in percent; the best of a column is bold, the second underlined."
    if any(DROPPED in row[0] for row in table):
        share = results.experiment.drop_below
        note += f" †: no further seeds by a protocol where validation is below {share} of the best."
    return [note, markdown(table), *_lacking(results)]


def best_first(results: Results, shown: Sequence[Column]) -> list[str]:
    """Models with a run, by the first column."""
    models = [
        model.label
        for model in results.experiment.models
        if any(c.cell(model.label) for c in shown)
    ]
    return sorted(models, key=lambda model: -_mean(shown[0].cell(model)))


def _mean(cell: Cell | None) -> float:
    return -math.inf if cell is None else cell.mean


def _lacking(results: Results) -> list[str]:
    """How many runs there are of each number of seeds."""
    made, missing = len(results.rows), len(results.missing)
    if not missing:
        return []
    return [f"{made} of {counted(made + missing, 'run')} are made; blank: no run yet."]


def searches_part(results: Results, _words: str = "") -> list[str]:
    """What each search found."""
    table = [["model", "trials", "stopped early", "core seconds", "validation", "settings"]]
    for model in results.experiment.models:
        row = results.searches.get(model.label)
        if row is None:
            continue
        settings = ", ".join(f"`{key}: {value}`" for key, value in row["settings"].items())
        numbers = [str(row["trials"]), str(row["pruned"])]
        numbers.append(f"{row['seconds']['trials_cpu']:.0f}")
        numbers.append(f"{SCALE * row['valid_score']:.{_DIGITS}f}")
        table.append([escaped_bars(model.label), *numbers, settings or "defaults"])
    return [markdown_table(table, texts=1)] if len(table) > 1 else []


# ------------------------------------------------------------------------------------- figure


def kind(family: str) -> str:
    """What a model reads; the models of this package's own pages stand for themselves."""
    first = family.split(" ")[0]
    if first in COLORS:
        return first
    return "ids alone" if first in IDS_ALONE else "pictures or annotations"


def cells(results: Results, shown: Sequence[Column]) -> dict[tuple[str, str], Cell]:
    """All that the figure shows."""
    return {
        (model, column.head): cell
        for model in best_first(results, shown)
        for column in shown
        if (cell := column.cell(model))
    }


def draw(results: Results, shown: Sequence[Column]) -> Figure:
    """A panel each column, a bar each model; of two losses softmax is a diamond."""
    families: dict[str, dict[str, str]] = {}
    by_label = {model.label: model for model in results.experiment.models}
    for label in best_first(results, shown):
        model = by_label[label]
        families.setdefault(model.family, {})[model.variant] = label
    figure = Figure(figsize=(7.6, 0.235 * len(families) + 1.3), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, column in zip(panels, shown, strict=True):
        for height, (family, variants) in enumerate(families.items()):
            _bar(axis, height, family, variants, column)
        axis.set_title(column.head, fontsize="medium")
        axis.set_xlabel(f"{column.metric.partition('_')[0]}, %")
        axis.grid(axis="x", color="#e2e8f0")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(families)), families)
    panels[0].set_ylim(len(families) - 0.4, -0.6)  # the best on top
    handles: list[Any] = [Patch(color=color, label=name) for name, color in COLORS.items()]
    handles.append(Line2D([], [], marker="D", color="black", ls="", ms=4, label="with softmax"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _bar(axis: Any, height: int, family: str, variants: Mapping[str, str], column: Column) -> None:
    """A family's bar, its diamond, and the intervals over seeds."""
    for variant, label in variants.items():
        cell = column.cell(label)
        if cell is None:
            continue
        mean, half = SCALE * cell.mean, SCALE * cell.half
        if variant == _OTHER_LOSS:
            axis.plot(mean, height, "D", color="black", markersize=4)
        else:
            axis.barh(height, mean, color=COLORS[kind(family)], height=0.72)
        if not math.isnan(half):
            axis.plot([mean - half, mean + half], [height, height], color="black", lw=1)
