"""The tables of the experiments' pages (experiment_pages.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_rows import Place, Results, is_path

from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.significance import p_text
from recbole_cierec.experiment.estimate import counted
from recbole_cierec.experiment.plan import keys_of
from recbole_cierec.experiment.rows import Row
from recbole_cierec.experiment.spec import Experiment, ModelSpec
from recbole_cierec.experiment.summary import Block, Test, columns_of
from recbole_cierec.experiment.tables import (
    MARKDOWN,
    SCALE,
    Style,
    Table,
    escaped_bars,
    markdown,
    notes,
    spread,
)

_VERSIONS = ("recbole-cierec", "recbole", "torch", "Python")
_SIGNIFICANT = 0.05
_COSTS = ("epochs",)


@dataclass(frozen=True)
class Selection:
    """What the words of a mark select: places of the file, and metrics."""

    results: Results
    places: list[Place]
    metrics: list[str]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the places that have rows."""
        return [b for b in self.results.blocks if (b.dataset, b.protocol) in self.places]

    def columns(self, block: Block) -> list[str]:
        """The metrics of a block, in the order of the words."""
        return [metric for metric in self.metrics if metric in block.columns] or block.columns

    def headed(self, block: Block, parts: list[str]) -> list[str]:
        """Parts, after the name of the block if there are several."""
        return [f"**{block.dataset}, {block.protocol}**"] * (len(self.places) > 1) + parts

    def missing(self) -> list[str]:
        """A line that names the runs without a row."""
        experiment = self.results.experiment
        lacks: dict[str, list[int]] = {}
        for model, *place, seed in self.results.missing:
            if tuple(place) in self.places:
                name = f"{model} ({', '.join(place)})" if len(self.places) > 1 else model
                lacks.setdefault(name, []).append(seed)
        by_seeds: dict[tuple[int, ...], list[str]] = {}
        for name, seeds in lacks.items():
            by_seeds.setdefault(tuple(seeds), []).append(name)
        if not by_seeds:
            return []
        rest = len(lacks) == len(experiment.models) * len(self.places)
        parts = []
        for which, names in sorted(by_seeds.items(), key=lambda one: len(one[1])):
            text = "all seeds" if len(which) == len(experiment.seeds) else _seeds(which)
            others = "all others" if len(by_seeds) > 1 else "all models"
            largest = rest and names is max(by_seeds.values(), key=len)
            parts.append(f"{text} of {others if largest else '; '.join(names)}")
        return [f"Not run yet: {'. Also '.join(parts)}."]


def select(results: Results, words: Sequence[str]) -> Selection:
    """What the words of a mark select.

    Raises:
        ConfigError: A word is neither a metric nor a data set or protocol of the file.
    """
    experiment = results.experiment
    names = {one.name for one in experiment.datasets}, set(experiment.protocols)
    metrics = [word for word in words if "@" in word]
    others = {word for word in words if "@" not in word}
    unknown = (others - names[0] - names[1]) | (set(metrics) - {*columns_of(experiment.report)})
    if unknown:
        raise ConfigError(
            f"{experiment.path.stem}: {', '.join(sorted(unknown))}: no data set, protocol or "
            "metric of its report"
        )
    places = [
        (dataset, protocol)
        for dataset in (one.name for one in experiment.datasets)
        for protocol in experiment.protocols
        if dataset in (others & names[0] or names[0])
        and protocol in (others & names[1] or names[1])
    ]
    return Selection(results, places, metrics)


def main_part(selection: Selection) -> list[str]:
    """The main table of each block, and which runs it lacks."""
    report = selection.results.experiment.report
    parts = []
    for block in selection.blocks:
        style = Style(*MARKDOWN, report.digits)
        table = style.main_table(block, escaped_bars, selection.columns(block), _COSTS)
        note = notes(block, report.baseline, _COSTS)["main"]
        parts += selection.headed(block, [note, markdown(table)])
    return parts + selection.missing()


def tests_part(selection: Selection) -> list[str]:
    """Differences from the baseline, a column each metric."""
    report = selection.results.experiment.report
    parts = []
    for block in selection.blocks:
        columns = selection.columns(block)
        tests = {(test.model, test.column): test for test in selection.results.tests(block)}
        if not tests:
            continue
        table = [["model", "seeds", *columns]]
        for model in block.models:
            own = [tests.get((model, column)) for column in columns]
            seeds = {str(test.seeds) for test in own if test is not None}
            if seeds:
                cells = [_difference(test, report.digits) for test in own]
                table.append([escaped_bars(model), ", ".join(seeds), *cells])
        shown = [test for (_, column), test in tests.items() if column in columns]
        note = _note_of_tests(block, report.baseline, shown)
        parts += selection.headed(block, [note, markdown(table)])
    return parts


def _difference(test: Test | None, digits: int) -> str:
    if test is None:
        return "-"
    text = f"{SCALE * test.difference:+.{digits}f}"
    if test.users:
        text += f" ({SCALE * test.low:+.{digits}f} to {SCALE * test.high:+.{digits}f})"
    p = test.t_p if test.users else test.seeds_p
    if math.isnan(p):
        return text
    return f"**{text}, p {p_text(p)}**" if p < _SIGNIFICANT else f"{text}, p {p_text(p)}"


def _note_of_tests(block: Block, baseline: str, tests: Sequence[Test]) -> str:
    users = max(test.users for test in tests)
    if users:
        kind = (
            f"with 95 % bootstrap intervals over {users} users, each averaged over the seeds, and "
            "p of the paired t-test over them."
        )
        if not all(test.users for test in tests):
            kind += " Cells without an interval: p of the paired t-test over seeds."
    elif block.seeds > 1:
        kind = (
            "with p of the paired t-test over seeds. The results by user are not in the "
            "repository, so there are no intervals over users."
        )
    else:
        kind = "of one seed. The results by user are not in the repository, so there is no test."
    note = f"Differences from {baseline} in points, of runs with the same seed, {kind}"
    if users or block.seeds > 1:
        note += " p is corrected by Holm over all models and metrics of the data set and protocol; "
        note += f"bold: below {_SIGNIFICANT}."
    return note


def sweep_part(selection: Selection) -> list[str]:
    """One metric of each family, over its variants."""
    if len(selection.metrics) != 1:
        raise ConfigError(f"{selection.results.experiment.path.stem}: a sweep needs one metric")
    (metric,) = selection.metrics
    parts = []
    for block in selection.blocks:
        table = _sweep_table(selection.results.experiment, block, metric)
        least = f"{block.fewest_seeds} to " if block.fewest_seeds < block.seeds else ""
        means = f": means over {least}{block.seeds} seeds, ± half the 95 % t-interval"
        blank = " A blank cell has no run yet." if selection.missing() else ""
        note = f"{metric}, %{means if block.seeds > 1 else ', one seed'}.{blank}"
        parts += selection.headed(block, [note, markdown(table)])
    return parts


def _sweep_table(experiment: Experiment, block: Block, metric: str) -> Table:
    families: dict[str, dict[str, ModelSpec]] = {}
    for model in experiment.models:
        families.setdefault(model.family, {})[model.variant] = model
    columns = list(dict.fromkeys(model.variant for model in experiment.models if model.variant))
    if any("" in variants for variants in families.values()):
        columns.append("")
    keys = dict.fromkeys(model.varied for model in experiment.models if model.varied)
    table = [[", ".join(f"`{key}`" for key in keys) or "model", *columns]]
    for family, variants in families.items():
        labels = [variants[column].label if column in variants else "" for column in columns]
        cells = [block.cells.get((label, metric)) for label in labels]
        texts = [spread(cell, experiment.report.digits) if cell else "" for cell in cells]
        table.append([escaped_bars(family), *texts])
    if columns[-1:] == [""]:
        table[0][-1] = "without variants"
    return table


def cost_part(selection: Selection) -> list[str]:
    """How many runs there are, and what they took."""
    results = selection.results
    rows = list(results.rows.values())
    planned = len(rows) + len(results.missing)
    if not rows:
        return [f"0 of {counted(planned, 'run')}."]
    seeds = _seeds(sorted({row["seed"] for row in rows}))
    seconds = sum(row["seconds"]["cpu"] for row in rows)
    wall = sum(row["seconds"]["wall"] for row in rows)
    time = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    versions = [
        f"{name} {_listed(sorted({row['versions'][name.lower()] for row in rows}))}"
        for name in _VERSIONS
    ]
    line = (
        f"{len(rows)} of {counted(planned, 'run')}, {seeds}; {time} of processor time on "
        f"{_listed(_machines(rows))}, wall time {wall / max(seconds, 0.01):.1f} times that; "
        f"{', '.join(versions)}."
    )
    resumed = sum(bool(row.get("resumed")) for row in rows)
    if resumed:
        line += f" Interrupted and resumed, with the time of the last part: {resumed}."
    if results.failed:
        line += f" Failed: {'; '.join(', '.join(map(str, run)) for run in sorted(results.failed))}."
    changed = sorted(_changed_keys(results))
    return [line + (f" Set for these runs: {', '.join(changed)}." if changed else "")]


def _machines(rows: Sequence[Row]) -> list[str]:
    found = []
    for machine in (row["machine"] for row in rows):
        gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
        cores, threads = counted(machine["cores"], "core"), counted(machine["threads"], "thread")
        found.append(f"{cores} ({threads} a run{gpu})")
    return sorted(set(found))


def _changed_keys(results: Results) -> set[str]:
    """Keys of rows that differ from the file's, by the command or since: ``epochs 30``."""
    experiment, found = results.experiment, set()
    models = {model.label: model for model in experiment.models}
    datasets = {dataset.name: dataset for dataset in experiment.datasets}
    for (label, dataset, protocol, _), row in results.rows.items():
        keys = keys_of(experiment, models[label], datasets[dataset], protocol)
        for key, value in row["keys"].items():
            if key not in PLACE_KEYS | {"seed"} and keys.get(key) != value:
                found.add(f"`{key}: {Path(value).name if is_path(value) else value}`")
    return found


def times_part(selection: Selection) -> list[str]:
    """Seconds and memory of each model."""
    parts = []
    for block in selection.blocks:
        table = Style(*MARKDOWN, 0).main_table(block, escaped_bars, [])
        note = "Processor seconds, means over the seeds; MiB: peak of the process."
        parts += selection.headed(block, [note, markdown(table)])
    return parts


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {_listed(seeds)}"


def _listed(values: Sequence[Any]) -> str:
    """``1``, ``1 and 2``, ``1, 2 and 3``."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
