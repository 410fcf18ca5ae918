"""The figures of the experiments' pages (experiment_pages.py)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import experiment_overview as overview
from experiment_parts import Selection, select
from experiment_rows import Results
from matplotlib.figure import Figure

from recbole_cierec.experiment.plots import figures, save
from recbole_cierec.experiment.summary import Block, Cell

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True)
class Drawing:
    """A figure of a page.

    Attributes:
        path: Its file.
        about: What it shows: its title and metrics.
        state: Identifies the rows that it shows; it is in the file.
        figure: Draws it.
    """

    path: Path
    about: str
    state: str
    figure: Callable[[], Figure]

    @property
    def is_current(self) -> bool:
        """Whether the file shows the rows."""
        return self.path.is_file() and self.state in self.path.read_text(encoding="utf-8")

    def link(self, page: Path) -> str:
        """The picture in Markdown."""
        place = os.path.relpath(self.path, page.parent).replace(os.sep, "/")
        return f"![{self.about}]({place})"

    def save(self) -> None:
        """Draw it."""
        save(self.figure(), self.path, about=self.state)


def figure_of(selection: Selection, block: Block) -> Drawing:
    """NAME.svg, or NAME-DATASET-PROTOCOL.svg if the experiment has several of them."""
    experiment = selection.results.experiment
    several = len(experiment.datasets) * len(experiment.protocols) > 1
    place = f"-{block.dataset}-{block.protocol}" if several else ""
    shown = _shown(selection, block)

    def draw() -> Figure:
        made = figures(experiment, block, shown)
        return made.get("lines", made["bars"])

    path = DOCS / "experiments" / f"{experiment.path.stem}{place}.svg"
    cells = {key: cell for key, cell in block.cells.items() if key[1] in shown}
    return Drawing(path, f"{experiment.title}: {', '.join(shown)}", state(cells), draw)


def _shown(selection: Selection, block: Block) -> list[str]:
    """The metrics of a figure: those named, or the first one in all groups."""
    columns = selection.columns(block)
    if selection.metrics:
        return columns
    first = selection.results.experiment.report.metrics[0]
    return [column for column in columns if column.startswith(first)]


def panels_of(results: Results, words: str) -> Drawing:
    """The figure of an overview."""
    shown = overview.columns(results, words)
    experiment = results.experiment
    path = DOCS / "figures" / f"{experiment.path.stem}.svg"
    cells = overview.cells(results, shown)
    about = f"{experiment.title}: {', '.join(column.head for column in shown)}"
    return Drawing(path, about, state(cells), lambda: overview.draw(results, shown))


def state(cells: Mapping[tuple[str, str], Cell]) -> str:
    """Identifies what a figure shows."""
    values = [(key, f"{cell.mean:.6f}", f"{cell.half:.6f}") for key, cell in cells.items()]
    return f"rows {hashlib.sha256(repr(values).encode()).hexdigest()[:16]}"


def drawings_of(kind: str, results: Results, words: str) -> list[Drawing]:
    """The figures of a mark."""
    if kind == "panels":
        return [panels_of(results, words)] if overview.columns(results, words) else []
    if kind == "figure":
        selection = select(results, words.split())
        return [figure_of(selection, block) for block in selection.blocks]
    return []
