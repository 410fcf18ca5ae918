"""Runs a search: one process hands out the trials, to itself or to workers that it starts.

Only this process reads and writes the study. A worker receives settings and sends the outcome back;
if it is killed, its trial is run again by a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_cierec.distributed.launch import MOST_PROCESSES, error_of, message_of
from recbole_cierec.distributed.workers import begin_worker, gpu_of, interrupts_ignored
from recbole_cierec.errors import ConfigError, UserError
from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers
from recbole_cierec.logs import shared_warnings, warnings_on_terminal
from recbole_cierec.terminal import say
from recbole_cierec.tuning import report
from recbole_cierec.tuning.search import Search, whole_number
from recbole_cierec.tuning.study import Row, SharedStudy
from recbole_cierec.tuning.trial import repeated, run_trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

POLL = 2.0  # seconds between two looks at the study while other machines run the last trials


def tune(
    model: str | None = None,
    dataset: str | None = None,
    trials: int | str = 20,
    processes: int | str = 1,
    **options: Any,
) -> dict[str, Any]:
    """Search hyper-parameters on the validation part, or resume a search.

    Args:
        model: The model's name.
        dataset: The data set's name.
        trials: Trials in all, those of earlier calls included; fewer than have ended drop none.
        processes: How many trials to run at once. More than one start new processes, so a script
            needs the usual ``if __name__ == "__main__"``.
        **options: More of :class:`recbole_cierec.tuning.search.Search`: ``files``, ``flags``,
            ``sampler``, ``search``, ``out``, ``name``, ``storage``, ``seconds``, ``pruner``,
            ``capped``.

    Returns:
        ``best`` (its row), ``rows`` (all trials), ``files`` (``yaml``, ``table``, ``rows``),
        ``command`` (tests the best settings) and ``search``.

    Raises:
        UserError: The input is wrong, or every trial failed.
    """
    count = whole_number("processes", processes, MOST_PROCESSES)
    search = Search(model, dataset, trials=trials, **options)
    if count > 1 and search.pruner != "none":
        raise ConfigError("--pruner needs --processes=1: a trial is compared with those before it")
    study = search.study()
    report.check_places(search)
    study.fill()
    if search.count < int(search.trials):
        _say(f"the ranges of {search.model} hold {search.count} settings; all are tried")
    search.count = study.total()
    if left := search.left(study):
        _say(f"{left} of {search.count} trials of {search.name} are left; {search.storage}")
        try:
            if count > 1:
                with shared_warnings() as said:
                    _run_in_workers(search, study, min(count, left), said)
            else:
                _run_here(search, study)
        finally:
            study.release()
    rows = study.rows()
    best = study.best(rows)
    files = report.save(search, rows, best)
    _remove_stages(search.stages)
    if best is None:
        raise UserError(f"all {len(rows)} trials failed, the first by: {rows[0].get('reason')}")
    command = report.best_command(search, files["yaml"])
    return {"best": best, "rows": rows, "files": files, "command": command, "search": search}


def _run_here(search: Search, study: SharedStudy) -> None:
    while search.left(study):
        trial = study.claim()
        if trial is None:
            time.sleep(POLL)
            continue
        settings, outcome = _begin(search, study, trial)
        watch = None if search.pruner == "none" else partial(study.is_hopeless, trial)
        outcome = outcome or run_trial(search, settings, study.check_data, watch)
        _end(search, study, trial, outcome)


def _begin(
    search: Search, study: SharedStudy, trial: FrozenTrial
) -> tuple[dict[str, Any], Row | None]:
    """A trial's settings, and its outcome if an earlier one had the same settings."""
    settings = search.settings(study, trial)
    study.note(trial, "settings", settings)
    return settings, repeated(study.rows(), settings)


def _end(search: Search, study: SharedStudy, trial: FrozenTrial, outcome: Row) -> None:
    study.finish(trial, outcome)
    rows = study.rows()
    report.save(search, rows, study.best(rows))
    row = next(row for row in rows if row["trial"] == trial.number)
    _say(report.trial_line(search, row))


def _remove_stages(folder: Path) -> None:
    """Remove the pretrained models of the trials, and nothing else in the folder."""
    clear_leftovers(folder, TEMPORARY)
    for path in folder.glob("stage-*.pth"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or never made
        folder.rmdir()


def _say(line: str) -> None:
    say(line, sys.stderr)


# ------------------------------------------------------------------------------- workers


class _Worker:
    """A process that runs one trial after the other."""

    def __init__(self, arguments: Mapping[str, Any], threads: int, said: Path) -> None:
        self._arguments = arguments, threads, said
        self.trial: FrozenTrial | None = None
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_work, args=(other_end, *self._arguments))
        with interrupts_ignored():  # Ctrl-C reaches all processes; this one stops its workers
            self.process.start()
        other_end.close()  # else the pipe would not end with the worker

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def _run_in_workers(search: Search, study: SharedStudy, count: int, said: Path) -> None:
    threads = max(1, torch.get_num_threads() // count)  # those that this process may use
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(keys, threads, said) for keys in _with_gpus(search, count))
        while search.left(study) or any(worker.trial is not None for worker in workers):
            for worker in workers:
                if worker.trial is None and search.left(study):
                    _hand_out(search, study, worker)
            busy: dict[Any, tuple[_Worker, FrozenTrial]] = {
                w.pipe: (w, w.trial) for w in workers if w.trial is not None
            }
            for pipe in wait(list(busy), POLL):
                _receive(search, study, *busy[pipe])
    finally:
        for worker in workers:
            worker.stop()


def _with_gpus(search: Search, count: int) -> Iterator[dict[str, Any]]:
    """The search's arguments for each of ``count`` workers, which take the GPUs in turn.

    A process keeps the GPUs that it saw when it made its first configuration, so the worker's own
    must be among the arguments.
    """
    for rank in range(count):
        arguments = search.arguments()
        arguments["flags"] = {**arguments["flags"], **gpu_of(search.base["gpu_id"], rank)}
        yield arguments


def _hand_out(search: Search, study: SharedStudy, worker: _Worker) -> None:
    trial = study.claim()
    if trial is None:
        return
    settings, outcome = _begin(search, study, trial)
    if outcome is not None:
        _end(search, study, trial, outcome)
        return
    worker.trial = trial
    with suppress(OSError):  # it has died: the end of its pipe is read next
        worker.pipe.send(settings)


def _receive(search: Search, study: SharedStudy, worker: _Worker, trial: FrozenTrial) -> None:
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        if code > 0:  # an error of the program, whose traceback the worker has printed
            raise UserError(
                f"a worker ended with code {code}; repeat the command to resume"
            ) from None
        _say(f"the process of trial {trial.number} was killed (code {code}: memory?)")
        study.interrupted(trial)
        worker.trial = None
        worker.start()
        return
    if kind == "data":
        study.check_data(content)
    elif kind == "outcome":
        _end(search, study, trial, content)
        worker.trial = None
    else:
        raise error_of(kind, content)


def _work(pipe: Connection, arguments: dict[str, Any], threads: int, said: Path) -> None:
    """What a worker does until its parent stops it."""
    begin_worker()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    warnings_on_terminal(said)
    try:
        search = Search(**arguments)
        while True:
            settings = pipe.recv()
            outcome = run_trial(search, settings, lambda digest: pipe.send(("data", digest)))
            pipe.send(("outcome", outcome))
    except UserError as error:
        pipe.send(message_of(error))
    except (EOFError, BrokenPipeError):
        pass  # the parent has ended
