"""Runs an experiment: hands out its searches and runs, and writes the tables."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from recbole_cierec.distributed.launch import MOST_PROCESSES
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.experiment.data_files import of_several
from recbole_cierec.experiment.estimate import describe
from recbole_cierec.experiment.folder import Folder
from recbole_cierec.experiment.plan import Done, Plan, Run, make_plan
from recbole_cierec.experiment.plots import write_plots
from recbole_cierec.experiment.processes import Slot
from recbole_cierec.experiment.rows import Row, append_row, latest, read_rows
from recbole_cierec.experiment.spec import Experiment, read_experiment
from recbole_cierec.experiment.summary import summarize
from recbole_cierec.experiment.tables import terminal_text, write_tables
from recbole_cierec.experiment.work import Task, perform
from recbole_cierec.files.atomic_write import check_output, replacing
from recbole_cierec.logs import shared_warnings, warnings_on_terminal
from recbole_cierec.terminal import say

POLL = 2.0  # seconds between two looks at the rows while other machines work
STARTS = 2  # give a task up when so many of its processes died
_WHY = {True: " (killed: memory?)", False: " (see its output)"}  # by whether a signal ended it


def run_experiment(
    file: str | Path,
    out: str | Path | None = None,
    workers: int = 1,
    dry_run: bool = False,
    tables: bool = False,
    keys: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run an experiment, or resume it; machines that share ``out`` share its runs.

    Args:
        file: A YAML file, or the name of a shipped one; docs/experiments.md describes it.
        out: The folder for all results; None: ``saved/experiments/NAME``.
        workers: Processes at once; 0: everything in this process, for debugging. A script that
            uses more needs the usual ``if __name__ == "__main__"``.
        dry_run: Only check and describe the plan.
        tables: Only write the tables from the rows in ``out``.
        keys: Keys for every run; they override those of the file.

    Returns:
        ``plan`` (its description), ``folder``, ``rows`` (one a run, in the order of the plan),
        ``failed`` (rows with an error, those of searches included), ``text`` (the main tables) and
        ``files`` (tables and plots, by name).

    Raises:
        UserError: The file, a model, a data set or a key is wrong; nothing was started.
    """
    if type(workers) is not int or not 0 <= workers <= MOST_PROCESSES:
        raise ConfigError(f"--workers must be from 0 to {MOST_PROCESSES}, not '{workers}'")
    experiment = read_experiment(file, keys)
    folder = Folder(out or Path("saved", "experiments", experiment.path.stem))
    plan = make_plan(experiment, starts=not tables)
    text = describe(experiment, plan, read_rows(folder.rows), folder.done(), workers)
    if dry_run:
        nothing = {"rows": [], "failed": [], "text": "", "files": {}}
        return {"plan": text, "folder": folder.path, **nothing}
    if tables:
        _refuse_no_rows(plan, folder)
    check_output(folder.rows)
    if not tables:
        _say(text)
        _copy_file(experiment, folder)
        _Runner(experiment, plan, folder).work(workers)
    return {"plan": text, "folder": folder.path, **_results(experiment, plan, folder)}


def _refuse_no_rows(plan: Plan, folder: Folder) -> None:
    done = folder.done()
    keys = {run.key for run in plan.runs} | {search.key for search in plan.searches}
    if not keys & (done.runs.keys() | done.searches.keys()):
        raise DataError(
            f"{folder.path}: no rows of this experiment in {folder.rows.name}; give the folder of "
            "its results by --out, or run it without --tables"
        )


def _copy_file(experiment: Experiment, folder: Folder) -> None:
    with replacing(folder.path / "experiment.yaml") as file:
        file.write(experiment.path.read_bytes())


def _results(experiment: Experiment, plan: Plan, folder: Folder) -> dict[str, Any]:
    done = folder.done()
    rows = [done.runs[run.key] for run in plan.runs if done.run(run)]
    failed = [row for row in done.searches.values() if row.get("error")]
    failed = [row for row in failed if row["key"] in {one.key for one in plan.searches}]
    found = [done.runs[run.key] for run in plan.runs if run.key in done.runs]
    failed += [row for row in found if row.get("error")]
    if several := of_several(rows):
        _say(
            f"warning: rows of other contents of {', '.join(several)} than later rows: the command "
            "without --tables repeats those that do not suit the files as they are"
        )
    blocks = summarize(experiment, rows, folder.path)
    files = write_tables(experiment, blocks, folder.path) if blocks else {}
    try:
        files |= write_plots(experiment, blocks, folder.path)
    except ConfigError as error:  # without matplotlib there are tables
        _say(f"{error} (or 'recbole-cierec[report]')")
    text = terminal_text(experiment, blocks)
    return {"rows": rows, "failed": failed, "text": text, "files": files}


def _say(line: str) -> None:
    say(line, sys.stderr)


# ------------------------------------------------------------------------------------- runner


@dataclass
class _Runner:
    """What is left to do, and who does it."""

    experiment: Experiment
    plan: Plan
    folder: Folder
    killed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Errors of earlier commands are tried again; those of this one are final.
        self._before = Counter(row["key"] for row in self._rows())

    def _rows(self) -> list[Row]:
        return [*read_rows(self.folder.searches), *read_rows(self.folder.rows)]

    def left(self) -> tuple[list[Task], list[Task]]:
        """Tasks without a result, in their order: those that can start, and those that wait."""
        done = self.folder.done()
        failed = self._failed()
        gone = failed | self.plan.dropped(done)
        undecided = self.plan.undecided(done, failed)
        ready: list[Task] = []
        waiting: list[Task] = []
        for task in self.plan.tasks:
            if task.key in gone or done.task(task):
                continue
            waits = isinstance(task, Run) and (task.key in undecided or _waits(task, done, gone))
            (waiting if waits else ready).append(task)
        return ready, waiting

    def _failed(self) -> set[str]:
        """Keys of what has failed since this command began, with the runs of failed searches."""
        rows = self._rows()
        now = Counter(row["key"] for row in rows)
        failed = {
            key
            for key, row in latest(rows).items()
            if row.get("error") and now[key] > self._before[key]
        }
        of_search = {run.key: run.search.key for run in self.plan.runs if run.search is not None}
        return failed | {run for run, search in of_search.items() if search in failed}

    def clean(self) -> None:
        """Remove the checkpoints of runs that are done, unless another run will test them."""
        if self.experiment.keep_checkpoints:
            return
        done = self.folder.done()
        needed = {run.leader.key for run in self.plan.left(done) if run.leader}
        for run in self.plan.runs:
            if run.key not in needed and done.run(run) and self.folder.run(run.key).exists():
                self.folder.remove_run(run.key)

    def work(self, workers: int) -> None:
        """Do everything that is left, also what other machines leave."""
        self.clean()
        if workers == 0:
            self._work_here()
        else:
            with shared_warnings() as said:
                self._work_in_processes(workers, said)
        self.clean()
        if not self.plan.left(self.folder.done()):
            self.folder.remove_locks(task.key for task in self.plan.tasks)

    def _work_here(self) -> None:
        warnings_on_terminal()
        while ready := self.left()[0]:
            for task in ready:
                if perform(self.folder, task, self.experiment.keep_checkpoints, {}):
                    self.report(task)
                    break
            else:
                time.sleep(POLL)  # another machine does them

    def report(self, task: Task) -> None:
        """Say in one line how a task has ended."""
        done = self.folder.done()
        row = done.runs.get(task.key) or done.searches.get(task.key)
        if row is None or self._is_old(row):
            return
        self.clean()
        total = len(self.plan.runs) - len(self.plan.dropped(done))
        failed = self._failed()
        count = sum(done.run(run) or run.key in failed for run in self.plan.runs)
        what = "" if isinstance(task, Run) else "search, "
        name = f"{what}{row['model']} on {row['dataset']}, {row['protocol']}, seed {row['seed']}"
        if row.get("error"):
            _say(f"[{count}/{total}] {name}: failed: {row['error']}")
            return
        score = f"{row.get('valid_metric', 'validation')} {_number(row['valid_score'])}"
        if isinstance(task, Run):
            score = f"validation {score}, {_test_text(row)}"
        _say(f"[{count}/{total}] {name}: {score}; {row['seconds']['wall']:.0f} s")

    def _is_old(self, row: Row) -> bool:
        """Whether a row is the error of an earlier command: another machine has the task now."""
        count = sum(one["key"] == row["key"] for one in self._rows())
        return bool(row.get("error")) and count <= self._before[row["key"]]

    # ---------------------------------------------------------------------------- processes

    def _work_in_processes(self, workers: int, said: Path) -> None:
        # Respects OMP_NUM_THREADS: more threads than free cores wait for each other.
        threads = max(1, torch.get_num_threads() // workers)
        slots = [Slot(number, workers, said) for number in range(workers)]
        try:
            while True:
                busy = {slot.task.key for slot in slots if slot.task is not None}
                free = [slot for slot in slots if slot.task is None]
                ready, waiting = self.left()
                left = bool(ready or waiting)
                ready = [task for task in ready if task.key not in busy]
                for slot in free:
                    task = next((t for t in ready if self._is_free(t)), None)
                    if task is not None:
                        ready.remove(task)
                        keep = self.experiment.keep_checkpoints
                        slot.start(self.folder.path, task, keep, threads)
                running = [slot for slot in slots if slot.process is not None]
                if not running and not left:
                    return
                if running:
                    wait([slot.process.sentinel for slot in running], POLL)
                else:
                    time.sleep(POLL)  # other machines do what is left
                for slot in running:
                    self._collect(slot)
        finally:
            for slot in slots:
                slot.stop()

    def _is_free(self, task: Task) -> bool:
        """Whether no other process works on a task now; saves the start of a process."""
        with self.folder.claimed(task.key) as free:
            return free

    def _collect(self, slot: Slot) -> None:
        ended = slot.ended()
        if ended is None:
            return
        task, code = ended
        if code == 0:
            self.report(task)
            return
        deaths = self.killed[task.key] = self.killed.get(task.key, 0) + 1
        if deaths < STARTS:
            _say(f"{task.key}: its process ended with code {code}{_WHY[code < 0]}; once more")
            return
        error = f"its process ended {deaths} times, with code {code}{_WHY[code < 0]}"
        row = {"key": task.key, "model": task.model.label, "dataset": task.dataset}
        row |= {"protocol": task.protocol, "seed": task.keys["seed"], "error": error}
        path = self.folder.rows if isinstance(task, Run) else self.folder.searches
        append_row(path, {**row, "seconds": {"wall": 0.0}})
        self.report(task)


def _waits(run: Run, done: Done, gone: Set[str]) -> bool:
    """Whether a run waits for its search, or for the run whose model it tests.

    Args:
        run: The run.
        done: What is done.
        gone: Keys of tasks that will not be done.
    """
    if run.search is not None and not done.search(run.search):
        return True
    return run.leader is not None and run.leader.key not in gone and not done.run(run.leader)


def _test_text(row: Row) -> str:
    name, value = next(iter(row["test"].items()), ("test", None))
    return f"test {name} {_number(value)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
