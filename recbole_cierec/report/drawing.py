"""Figures by matplotlib's object-oriented interface, for a page with a light and a dark scheme.

A figure is drawn once with the colours of the light scheme. In the page each of these is replaced
by a CSS variable, so that the scheme of the reader's browser decides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Protocol

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from recbole_cierec.report.blocks import Figure

# Light and dark scheme, by the name of the CSS variable. Neighbours differ in lightness too.
COLOURS = {
    "ink": ("#24292e", "#e4e7eb"),
    "faint": ("#6b7480", "#98a2ae"),
    "grid": ("#dde1e6", "#39404a"),
    "s1": ("#2266aa", "#6cb0f2"),
    "s2": ("#d9772b", "#f2a65a"),
    "s3": ("#2b8a5a", "#63c794"),
    "s4": ("#8a55b0", "#c49ae8"),
    "s5": ("#bf3355", "#f0829c"),
    "s6": ("#77751d", "#c9c759"),
}
INK, FAINT, GRID = (COLOURS[name][0] for name in ("ink", "faint", "grid"))
SERIES = [COLOURS[f"s{k}"][0] for k in range(1, 7)]
MARKERS = "osD^vP"
SIZE = (4.0, 2.7)  # inches; narrow, so that text stays legible on a telephone
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "recbole_cierec",  # the same bytes for the same figure
    "text.parse_math": False,  # a name may contain $
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}


class Interval(Protocol):
    """A mean and the ends of its interval."""

    @property
    def mean(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


class Drawing:
    """One figure with one pair of axes; use as a context, then read :attr:`made`.

    Args:
        name: Name of the files.
        title: What it shows.
        size: Width and height in inches.
    """

    made: Figure

    def __init__(self, name: str, title: str, size: tuple[float, float] = SIZE) -> None:
        self.name, self.title, self.alt, self.caption = name, title, "", ""
        # The reader's own settings of matplotlib must not change the page.
        settings: Any = {**matplotlib.rcParamsDefault, **_SETTINGS}
        self._context = matplotlib.rc_context(settings)
        self._size = size

    def __enter__(self) -> Drawing:
        self._context.__enter__()
        self.canvas = Canvas(figsize=self._size, layout="constrained", facecolor="white")
        self.axes = self.canvas.add_subplot()
        self.axes.set_facecolor("none")
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._finish()
        finally:
            self._context.__exit__(*error)

    def epochs(self, numbers: list[int]) -> None:
        """Label the horizontal axis."""
        self.axes.set_xlabel("epoch")
        self.axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        margin = max(0.4, 0.03 * len(numbers))
        self.axes.set_xlim(min(numbers) - margin, max(numbers) + margin)

    def intervals(self, what: str, labels: list[str], rows: Sequence[Interval], sign: bool) -> None:
        """One labelled row for each interval, the first on top; the same in words.

        Args:
            what: What the intervals are of.
            sign: Whether numbers have their sign.
        """
        self.axes.invert_yaxis()
        self.axes.grid(visible=False, axis="y")
        self.axes.tick_params(axis="y", length=0)
        self.alt = f"{what}. " + "; ".join(
            f"{label} {number(r.mean, sign)} ({number(r.low, sign)} to {number(r.high, sign)})"
            for label, r in zip(labels, rows, strict=True)
        )

    def legend(self, columns: int = 3) -> None:
        """Names of the series, above the axes."""
        self.canvas.legend(
            *self.axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns
        )

    def _finish(self) -> None:
        stream = io.BytesIO()
        FigureCanvasAgg(self.canvas)
        self.canvas.savefig(stream, format="png", dpi=160, metadata={"Software": None})
        png = stream.getvalue()
        stream = io.BytesIO()
        FigureCanvasSVG(self.canvas)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.canvas.savefig(stream, format="svg", metadata=nothing)
        svg = stream.getvalue()
        self.made = Figure(
            name=self.name,
            title=self.title,
            alt=self.alt,
            svg=inline(svg.decode(), self.name),
            files={".svg": svg, ".png": png},
            caption=self.caption,
        )


def inline(svg: str, name: str) -> str:
    """The markup of an SVG file for a page.

    Args:
        svg: From matplotlib.
        name: Makes its ids different from those of other figures.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    # The background is the page's.
    body = re.sub(r"fill: ?#ffffff", "fill: none", body)
    for variable, (light, _) in COLOURS.items():
        body = body.replace(light, f"var(--{variable})")
    body = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg {box[0] if box else ""} aria-hidden="true" focusable="false">{body.strip()}'


def number(value: float | None, signed: bool = False) -> str:
    """A number for a table or a text: four decimals for metrics, fewer for larger ones."""
    if value is None or value != value:
        return "-"
    places = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:{'+' if signed else ''},.{places}f}"
