"""Tables and figures of the experiments' pages, from the rows in benchmarks/runs/experiments/.

    python benchmarks/experiment_pages.py              # writes the tables, draws the figures
    python benchmarks/experiment_pages.py --add=DIR    # first copies the rows of an experiment
    python benchmarks/experiment_pages.py --check      # exit code 1 if anything is out of date

A part begins with a line ``<!-- KIND: NAME WORDS -->`` and ends with ``<!-- end -->``. NAME is a
shipped experiment; of WORDS, those with ``@`` are metrics (``recall@10_cold``), the others a data
set and a protocol. Without them a part shows all. Kinds are ``experiment`` (the main table),
``tests`` (differences from the baseline), ``sweep`` (one metric, a row for each family of variants,
a column for each variant), ``times`` (seconds and memory), ``cost`` (one line), ``figure``
(docs/experiments/NAME.svg) and ``list`` (all pages in docs/experiments/; its NAME is ``pages``).
``overview`` and ``panels`` (docs/figures/NAME.svg) show several protocols at once, ``searches``
what the searches found (experiment_overview.py).

Rows are found by model, data set, protocol and seed, not by the digest of their settings: a default
that has changed since does not hide them. The results by user are not in the repository; intervals
over users come from tests.csv, which an experiment writes next to its rows.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import experiment_overview as overview
import experiment_parts as parts
import matplotlib as mpl
from experiment_figures import DOCS, Drawing, drawings_of
from experiment_parts import Selection, select
from experiment_rows import RUNS, Results, add, load, runs_of

from recbole_cierec.errors import ConfigError
from recbole_cierec.experiment.tables import markdown

ROOT = DOCS.parent
_MARK = re.compile(r"(<!-- (\w+): ([\w.-]+)([^>\n]*?) -->\n)(.*?)(<!-- end -->)", re.S)


def list_part(page: Path, runs: Path) -> list[str]:
    """All pages of experiments, those with rows as links."""
    table = [["file", "question", "data", "runs", "processor time"]]
    for path in sorted((DOCS / "experiments").glob("*.md")):
        results = load(path.stem, runs / path.stem)
        experiment, rows = results.experiment, results.rows.values()
        link = os.path.relpath(path, page.parent).replace(os.sep, "/")
        name = f"[`{path.stem}`]({link})" if rows else f"`{path.stem}`"
        question = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        seconds = sum(row["seconds"]["cpu"] for row in rows)
        time = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
        data = ", ".join(dataset.name for dataset in experiment.datasets)
        count = f"{len(rows)} of {len(runs_of(experiment))}"
        table.append([name, question, data, count, time if rows else ""])
    return [markdown(table).replace("---:", "---")]


def parts_of(kind: str, results: Results, words: str, page: Path) -> list[str]:
    """What stands between a mark and its end.

    Raises:
        ConfigError: The kind or a word is unknown.
    """
    if kind in _SELECTED:
        return _SELECTED[kind](select(results, words.split()))
    if kind in ("figure", "panels"):
        return [drawing.link(page) for drawing in drawings_of(kind, results, words)]
    if kind in _WHOLE:
        return _WHOLE[kind](results, words)
    known = ", ".join([*_SELECTED, *_WHOLE, "figure", "panels", "list"])
    raise ConfigError(f"{page}: {kind}: known kinds are {known}")


_SELECTED: dict[str, Callable[[Selection], list[str]]] = {
    "experiment": parts.main_part,
    "tests": parts.tests_part,
    "sweep": parts.sweep_part,
    "times": parts.times_part,
    "cost": parts.cost_part,
}
_WHOLE: dict[str, Callable[[Results, str], list[str]]] = {
    "overview": overview.overview_part,
    "searches": overview.searches_part,
}


def drawings(text: str, runs: Path = RUNS) -> Iterator[Drawing]:
    """The figures of a page."""
    for match in _MARK.finditer(text):
        _, kind, name, words, *_ = match.groups()
        if kind != "list":
            yield from drawings_of(kind, load(name, runs / name), words)


def page(text: str, path: Path, runs: Path = RUNS) -> str:
    """The text of a page with all its parts written again."""

    def part(match: re.Match[str]) -> str:
        begin, kind, name, words, _, end = match.groups()
        if kind == "list":
            made = list_part(path, runs)
        else:
            made = parts_of(kind, load(name, runs / name), words, path)
        return begin + "\n\n".join(made) + "\n" * bool(made) + end

    return _MARK.sub(part, text)


def pages() -> list[Path]:
    """Pages that may have parts."""
    folders = (DOCS / "experiments", DOCS / "models", DOCS / "results")
    return [
        DOCS / "experiments.md",
        DOCS / "results.md",
        *(path for one in folders for path in sorted(one.glob("*.md"))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", type=Path, metavar="DIR", help="the folder of an experiment")
    arguments = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "recbole_cierec"  # equal figures are equal files
    mpl.rcParams["font.size"] = 9
    if arguments.add:
        add(arguments.add)
    old = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        made = page(text, path)
        stale = [drawing for drawing in drawings(text) if not drawing.is_current]
        if made == text and not stale:
            continue
        old.append(path)
        if not arguments.check:
            path.write_text(made, encoding="utf-8")
            for drawing in stale:
                drawing.save()
    for path in old:
        print(path.relative_to(ROOT))
    return int(arguments.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
