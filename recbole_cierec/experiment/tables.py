"""The tables of an experiment as Markdown, CSV and LaTeX, from its rows."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_cierec.console.result_table import WIDTH, aligned
from recbole_cierec.evaluation.names import LABELS, join_name
from recbole_cierec.evaluation.significance import p_text
from recbole_cierec.experiment.rows import Row
from recbole_cierec.experiment.spec import Experiment
from recbole_cierec.experiment.summary import Block, Cell, mean_ranks
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.markdown import markdown_table

SCALE = 100  # metrics are printed in percent
MARKDOWN = "**{}**", "<u>{}</u>"  # how the best and the second are stressed
DROPPED = " †"  # after the name of a model that has no further seeds
COSTS = ("epochs", "s an epoch", "test s", "MiB")
_LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "†": r"$\dagger$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
Table = list[list[str]]


def write_tables(experiment: Experiment, blocks: Sequence[Block], folder: Path) -> dict[str, Path]:
    """Write ``tables.md``, ``tables.csv``, ``tests.csv`` and ``tables.tex``."""
    texts = {
        "tables.md": markdown_page(experiment, blocks),
        "tables.csv": cells_csv(blocks),
        "tests.csv": tests_csv(blocks),
        "tables.tex": latex_page(experiment, blocks),
    }
    paths = {}
    for name, text in texts.items():
        paths[name] = folder / name
        with replacing(paths[name]) as file:
            file.write(text.encode())
    return paths


# ----------------------------------------------------------------------------------- content


class Style:
    """How a format writes a mean and stresses the best."""

    def __init__(self, best: str, second: str, digits: int) -> None:
        self.best, self.second, self.digits = best, second, digits

    def main_table(
        self,
        block: Block,
        escape: Any = str,
        columns: Sequence[str] | None = None,
        cost_names: Sequence[str] = COSTS,
    ) -> Table:
        """Means with the half interval over seeds, and costs.

        Args:
            block: The data set and protocol.
            escape: Makes text safe for the format.
            columns: Metrics; None: all.
            cost_names: Which costs.
        """
        columns = block.columns if columns is None else columns
        table = [[escape(word) for word in ("model", *columns, *cost_names)]]
        digits = self.digits + round(math.log10(SCALE))
        orders = {column: block.order(column, digits) for column in columns}
        for model in block.models:
            cells = [escape(f"{model}{DROPPED}" if model in block.dropped else model)]
            for column in columns:
                cell = block.cells.get((model, column))
                cells.append(self.stressed(cell, orders[column], digits, escape))
            found = dict(zip(COSTS, costs(block.rows[model]), strict=True))
            table.append([*cells, *(escape(found[name]) for name in cost_names)])
        if any(column in block.chance for column in columns):
            cells = [self.chance(block, column) for column in columns]
            table.append([escape(cell) for cell in ("chance", *cells, *["-"] * len(cost_names))])
        return table

    def chance(self, block: Block, column: str) -> str:
        """The mean of a random ranking; metrics that are no means over users have none."""
        mean = block.chance.get(column)
        return "-" if mean is None else f"{SCALE * mean:.{self.digits}f}"

    def stressed(self, cell: Cell | None, order: list[float], digits: int, escape: Any) -> str:
        if cell is None:
            return "-"
        text = escape(spread(cell, self.digits))
        for place, form in zip(order, (self.best, self.second), strict=False):
            if round(cell.mean, digits) == place:
                return form.format(text)
        return text


def spread(cell: Cell, digits: int) -> str:
    """``30.12 ± 0.41``: mean and half the interval over seeds, in percent."""
    text = f"{SCALE * cell.mean:.{digits}f}"
    return text if math.isnan(cell.half) else f"{text} ± {SCALE * cell.half:.{digits}f}"


def costs(rows: Sequence[Row]) -> list[str]:
    """Means over seeds; a resumed run's seconds are those of its last part and do not count."""
    whole = [row for row in rows if not row.get("resumed")]
    epochs = [str(round(float(np.mean([row["epochs"] for row in rows]))))]
    if any(row["epoch_cap"] for row in rows):
        epochs[0] += "*"
    each = [row["seconds"]["fit_cpu"] / max(row["epochs"], 1) for row in whole]
    test = np.mean([row["seconds"]["evaluate_cpu"] for row in rows])
    peak = [row["peak_mib"] for row in rows if row.get("peak_mib")]
    mean = f"{np.mean(each):.2f}" if each else "-"
    return [*epochs, mean, f"{test:.1f}", str(max(peak)) if peak else "-"]


def user_table(block: Block, digits: int, escape: Any = str) -> Table:
    """The intervals over users."""
    columns = [c for c in block.columns if any(_has_users(block, m, c) for m in block.models)]
    table = [[escape(word) for word in ("model", *columns)]]
    for model in block.models:
        cells = [escape(model)]
        for column in columns:
            cell = block.cells.get((model, column))
            if cell is None or math.isnan(cell.low):
                cells.append("-")
            else:
                low, high = (f"{SCALE * end:.{digits}f}" for end in (cell.low, cell.high))
                cells.append(f"{low} to {high}")
        table.append(cells)
    return table if columns else []


def _has_users(block: Block, model: str, column: str) -> bool:
    cell = block.cells.get((model, column))
    return cell is not None and not math.isnan(cell.low)


def significance_rows(block: Block, digits: int, escape: Any = str) -> Table:
    """All tests against the baseline."""
    head = "metric", "model", "difference", "95 % over users", "p t users", "p Wilcoxon users"
    table = [[escape(word) for word in (*head, "users", "p t seeds", "seeds")]]
    for test in block.tests:
        cells = [test.column, test.model, f"{SCALE * test.difference:+.{digits}f}"]
        ends = (f"{SCALE * end:+.{digits}f}" for end in (test.low, test.high))
        cells.append("-" if math.isnan(test.low) else " to ".join(ends))
        cells += [p_text(test.t_p), p_text(test.wilcoxon_p), str(test.users)]
        table.append([escape(cell) for cell in (*cells, p_text(test.seeds_p), str(test.seeds))])
    return table if block.tests else []


def rank_table(experiment: Experiment, blocks: Sequence[Block], escape: Any = str) -> Table:
    """Mean ranks by each metric over all items and users."""
    metrics = [m for m in experiment.report.metrics if any(m in b.columns for b in blocks)]
    ranks = {metric: mean_ranks(blocks, metric) for metric in metrics}
    if not any(found for found, _ in ranks.values()):
        return []
    head = [f"{metric} (of {count} rankings)" for metric, (_, count) in ranks.items()]
    table = [[escape(word) for word in ("model", *head)]]
    for model in (one.label for one in experiment.models):
        cells = [f"{found[model]:.2f}" if model in found else "-" for found, _ in ranks.values()]
        table.append([escape(model), *cells])
    return table


def notes(block: Block, baseline: str, cost_names: Sequence[str] = COSTS) -> dict[str, str]:
    """What each table of a block shows."""
    least = f"{block.fewest_seeds} to " if block.fewest_seeds < block.seeds else ""
    seeds = f"{least}{block.seeds} seeds" if block.seeds > 1 else "one seed"
    half = "± half the 95 % t-interval over seeds" if block.seeds > 1 else "without intervals"
    dropped = f"{DROPPED}: one seed, as its validation is far below the best."
    return {
        "main": f"Test metrics in percent: means over {seeds}, {half}. Best bold, second "
        "underlined. Epochs with *: a run reached the limit."
        + dropped * bool(block.dropped)
        + (" Seconds: processor time. MiB: peak." if "MiB" in cost_names else ""),
        "users": f"95 % bootstrap intervals over {block.users} users, each averaged over the "
        "seeds.",
        "tests": f"Against {baseline}. Over users: each user's metric is averaged over the seeds, "
        "then paired. Over seeds: the means of runs with the same seed are paired. p-values are "
        "corrected by Holm over this table, each test by itself."
        + "".join(f" {line}." for line in untested(block)),
    }


def untested(block: Block) -> list[str]:
    """A line for each model without tests."""
    base = block.baseline
    return [f"{model} is not tested against {base}: {why}" for model, why in block.untested.items()]


# ---------------------------------------------------------------------------------- formats


def terminal_text(experiment: Experiment, blocks: Sequence[Block]) -> str:
    """The first metric of each block, by group, in lines of at most ``WIDTH`` characters."""
    report = experiment.report
    parts = []
    for block in blocks:
        for metric in report.metrics:
            groups = [g for g in report.groups if join_name(metric, g) in block.columns]
            if groups:
                title = f"{block.dataset}, {block.protocol}: {metric} in percent"
                table = _group_table(block, metric, groups, report.digits)
                parts.append("\n".join([title, table, *untested(block)]))
                break
    return "\n\n".join(parts)


def _group_table(block: Block, metric: str, groups: Sequence[str], digits: int) -> str:
    """A row a model; the last groups are left out where lines would be too long."""
    columns = [join_name(metric, group) for group in groups]
    _, *rows = Style("{}", "{}", digits).main_table(block, columns=columns, cost_names=())
    table = [["model", *(LABELS[group] for group in groups)], *rows]
    table = [[textwrap.shorten(row[0], WIDTH // 2, placeholder="..."), *row[1:]] for row in table]
    text = aligned(table)
    while len(table[0]) > 2 and max(map(len, text.splitlines())) > WIDTH:
        table = [row[:-1] for row in table]
        text = aligned(table)
    return text


def markdown_page(experiment: Experiment, blocks: Sequence[Block]) -> str:
    """All tables."""
    digits = experiment.report.digits
    style = Style(*MARKDOWN, digits)
    parts = [f"# {experiment.title}"]
    for block in blocks:
        text = notes(block, experiment.report.baseline)
        parts += [f"## {block.dataset}, {block.protocol}", text["main"]]
        parts.append(markdown(style.main_table(block, escaped_bars)))
        for name, table in (
            ("users", user_table(block, digits, escaped_bars)),
            ("tests", significance_rows(block, digits, escaped_bars)),
        ):
            if table:
                parts += [text[name], markdown(table)]
    ranks = rank_table(experiment, blocks, escaped_bars)
    if ranks:
        parts += ["## Mean ranks", "1 is the best; over data sets, protocols and seeds."]
        parts.append(markdown(ranks))
    return "\n\n".join(parts) + "\n"


def escaped_bars(text: str) -> str:
    """Text for a cell in Markdown."""
    return text.replace("|", "\\|")


def markdown(table: Table) -> str:
    """A table of results: a column of text, and numbers."""
    return markdown_table(table, texts=1)


def escaped(text: str) -> str:
    r"""Text for LaTeX.

    >>> escaped("recall@10_cold, 5 %")
    'recall@10\\_cold, 5 \\%'
    """
    return "".join(_LATEX.get(char, char) for char in text)


def latex_page(experiment: Experiment, blocks: Sequence[Block]) -> str:
    r"""``table`` environments to be read by ``\input``; they need the package booktabs."""
    digits = experiment.report.digits
    style = Style(r"\textbf{{{}}}", r"\underline{{{}}}", digits)
    parts = ["% " + experiment.title.replace("\n", " ") + r"; needs \usepackage{booktabs}"]
    for block in blocks:
        text = notes(block, experiment.report.baseline)
        where = f"{block.dataset}, {block.protocol}. "
        tables = {
            "main": style.main_table(block, escaped),
            "users": user_table(block, digits, escaped),
            "tests": significance_rows(block, digits, escaped),
        }
        parts += [latex(table, where + text[name]) for name, table in tables.items() if table]
    ranks = rank_table(experiment, blocks, escaped)
    if ranks:
        parts.append(latex(ranks, "Mean ranks over data sets, protocols and seeds; 1 is the best."))
    return "\n\n".join(parts) + "\n"


def latex(table: Table, caption: str) -> str:
    """One table environment; cells are escaped already."""
    head, *body = (" & ".join(cells) + r" \\" for cells in table)
    columns = "l" + "r" * (len(table[0]) - 1)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if _is_nan(cell) else cell for cell in row] for row in rows])
    return text.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def cells_csv(blocks: Sequence[Block]) -> str:
    """One line a data set, protocol, model and metric; fractions, not percent."""
    head = "dataset protocol model metric mean seeds seeds_low seeds_high users_low users_high"
    rows = [
        (
            *(block.dataset, block.protocol, model, column, cell.mean),
            *(len(block.values(model, column)), cell.mean - cell.half, cell.mean + cell.half),
            *(cell.low, cell.high),
        )
        for block in blocks
        for (model, column), cell in block.cells.items()
    ]
    return _csv(head.split(), rows)


def tests_csv(blocks: Sequence[Block]) -> str:
    """One line a test."""
    names = "model column difference low high t_p wilcoxon_p seeds_p users seeds".split()
    rows = [
        (block.dataset, block.protocol, block.baseline, *(getattr(test, name) for name in names))
        for block in blocks
        for test in block.tests
    ]
    return _csv(["dataset", "protocol", "baseline", *names], rows)
