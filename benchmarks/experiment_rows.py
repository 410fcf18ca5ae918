"""Rows of experiments in benchmarks/runs/experiments/, as pages of docs/ show them."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.significance import holm_of_known
from recbole_cierec.experiment.rows import RUNS as ROWS
from recbole_cierec.experiment.rows import SEARCHES, Row, read_rows
from recbole_cierec.experiment.spec import Experiment, read_experiment
from recbole_cierec.experiment.summary import P_VALUES, Block, Test, summarize
from recbole_cierec.files.atomic_write import replacing

RUNS = Path(__file__).resolve().parent / "runs" / "experiments"
TESTS = "tests.csv"
_TEST = ["dataset", "protocol", "baseline", "model", "column"]
_P = list(P_VALUES)
Run = tuple[str, str, str, int]  # model, data set, protocol, seed
Place = tuple[str, str]  # data set, protocol


@dataclass(frozen=True)
class Results:
    """An experiment and its rows.

    Attributes:
        rows: The last row without an error of each run of the file.
        failed: Runs that have only rows with an error.
        over_users: The tests of tests.csv.
        searches: The last row without an error of each search, by model.
    """

    experiment: Experiment
    rows: dict[Run, Row]
    failed: set[Run]
    over_users: dict[Place, list[Test]]
    searches: dict[str, Row]

    @cached_property
    def blocks(self) -> list[Block]:
        """A block for each data set and protocol that has a row."""
        order = [run for run in runs_of(self.experiment) if run in self.rows]
        rows = [{**self.rows[run], "users": None} for run in order]  # files that are not here
        return summarize(self.experiment, rows, Path())

    @cached_property
    def missing(self) -> list[Run]:
        """Runs without a row, but for further seeds of models far behind."""
        dropped = {(m, b.dataset, b.protocol) for b in self.blocks for m in b.dropped}
        runs = runs_of(self.experiment)
        return [run for run in runs if run not in self.rows and run[:3] not in dropped]

    def tests(self, block: Block) -> list[Test]:
        """All models against the baseline, with what tests.csv says over users."""
        known = self.over_users.get((block.dataset, block.protocol), [])
        return [_over_users(test, known) for test in block.tests]


def load(name: str | Path, folder: Path) -> Results:
    """Read an experiment and its rows; without a file there are none.

    A row belongs to a run if model, data set, protocol and seed agree, and it has the keys that the
    file gives to its model.

    Args:
        name: As for the command ``experiment``.
        folder: With ``rows.jsonl`` and possibly ``tests.csv``.
    """
    experiment = read_experiment(name)
    keys = {model.label: model.keys for model in experiment.models}
    runs = set(runs_of(experiment))
    found: dict[Run, Row] = {}
    failed = set()
    for row in read_rows(folder / ROWS):
        run = _run(row)
        if run not in runs:
            continue
        if row.get("error") is not None:
            failed.add(run)
        elif all(row["keys"].get(key) == value for key, value in keys[run[0]].items()):
            found[run] = row
    searches = {
        row["model"]: row for row in read_rows(folder / SEARCHES) if row.get("error") is None
    }
    return Results(experiment, found, failed - found.keys(), _read_tests(folder / TESTS), searches)


def runs_of(experiment: Experiment) -> list[Run]:
    """All runs of a file."""
    return [
        (model.label, dataset.name, protocol, seed)
        for dataset in experiment.datasets
        for protocol in experiment.protocols
        for model in experiment.models
        for seed in experiment.seeds
    ]


def _read_tests(path: Path) -> dict[Place, list[Test]]:
    found: dict[Place, list[Test]] = {}
    if not path.is_file():
        return found
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            values: dict[str, Any] = {"model": line["model"], "column": line["column"]}
            values |= {key: int(line[key]) for key in ("users", "seeds")}
            for key in ("difference", "low", "high", *P_VALUES):
                values[key] = float(line[key] or "nan")
            found.setdefault((line["dataset"], line["protocol"]), []).append(Test(**values))
    return found


def _over_users(test: Test, known: Sequence[Test]) -> Test:
    """The test with what a known one of the same runs says over users."""
    for other in known:
        same = (other.model, other.column, other.seeds) == (test.model, test.column, test.seeds)
        if same and math.isclose(other.difference, test.difference, abs_tol=1e-6):
            return replace(other, seeds_p=test.seeds_p)
    return test


def add(folder: Path, runs: Path = RUNS) -> str:
    """Copy the rows and tests of an experiment's folder, without what names its machine.

    Of each run the last row counts. Rows of other runs that the repository has already stay, so
    folders can be added in turn.

    Returns:
        The name of the experiment: that of the folder.
    """
    name = folder.resolve().name
    if not read_rows(folder / ROWS):
        raise ConfigError(f"--add: {folder / ROWS}: no rows")
    (runs / name).mkdir(parents=True, exist_ok=True)
    for file in (ROWS, SEARCHES):
        _merge(folder / file, runs / name / file)
    source, target = folder / TESTS, runs / name / TESTS
    if source.is_file() and not target.is_file():
        shutil.copyfile(source, target)
    elif source.is_file() and target.resolve() != source.resolve():
        _merge_tests(source, target)
    return name


def _merge(source: Path, target: Path) -> None:
    """Add rows to those of the repository; the last one of each run stays."""
    rows = [*read_rows(target), *map(without_paths, read_rows(source))]
    if rows:
        kept = {_run(row): row for row in rows}.values()
        with replacing(target) as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in kept).encode())


def _merge_tests(source: Path, target: Path) -> None:
    """Add tests to those of the repository, which stay where the new ones lack results by user.

    Both are corrected by Holm in their own file, and here over all that remain.
    """
    new, old = (_uncorrected(pd.read_csv(path)) for path in (source, target))
    both = pd.concat([old, new]).sort_values("users", kind="stable", key=lambda n: n > 0)
    both = both.drop_duplicates(_TEST, keep="last").sort_values(_TEST, ignore_index=True)
    places = both.groupby(_TEST[:2])
    both[_P] = places[_P].transform(lambda p: holm_of_known(p.tolist()))
    with replacing(target) as file:
        file.write(both.to_csv(index=False).encode())


def _uncorrected(tests: pd.DataFrame) -> pd.DataFrame:
    """Tests with p before Holm's correction, or a bound above it where that made values equal."""
    places = tests.groupby(_TEST[:2])
    weights = places[_P].rank(ascending=False, method="first")
    return tests.assign(**(tests[_P] / weights))


def _run(row: Row) -> Run:
    return row["model"], row["dataset"], row["protocol"], row["seed"]


def without_paths(row: Row) -> Row:
    """A row without host, log and folders; of a file only its name."""
    row = {key: value for key, value in row.items() if key not in ("log", "checkpoint", "files")}
    for part in ("keys", "machine"):
        if part in row:
            kept = {k: v for k, v in row[part].items() if k not in PLACE_KEYS and k != "host"}
            row[part] = {k: Path(v).name if is_path(v) else v for k, v in kept.items()}
    return row


def is_path(value: Any) -> bool:
    """Whether a value is an absolute path."""
    return isinstance(value, str) and os.path.isabs(value)
