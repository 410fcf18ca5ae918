"""Search hyper-parameters on the validation part: ``python -m recbole_cierec tune --help``.

It stands on Optuna, not on RecBole's ``HyperTuning``, for these facts of November 2026. Optuna had
releases in June (4.9) and September (5.0); it has storages that processes and machines share, and
its ask-and-tell interface lets a trial be claimed, given back and run again. RecBole's
``HyperTuning`` keeps its trials in the memory of one process, so a stopped search is lost; its
files of ranges go through ``eval``; its objective evaluates the test part in every trial and
reports that to ray; its default search, ``exhaustive``, dies with hyperopt 0.3.0, which draws from
numpy's ``Generator``; and ray 2.6.3 of 2023 has no build for Python 3.12 and later.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.distributed.launch import MOST_PROCESSES
from recbole_cierec.errors import ConfigError, UserError
from recbole_cierec.logs import PlainFormatter
from recbole_cierec.terminal import say

if TYPE_CHECKING:
    from recbole_cierec.tuning.study import Board
    from recbole_cierec.tuning.trial import Plan

USAGE = """\
usage: python -m recbole_cierec tune --model=NAME --dataset=NAME [--trials=N] [--key=value ...]

Trains a model with N settings of its hyper-parameters and keeps those that are best on the
validation part. The test part is not read. Trial 0 is the defaults. The same command again goes
on where a search was stopped, whatever stopped it.

  -m, --model         a model of ours or RecBole's (default: CIERec)
  -d, --dataset       a folder under data_path (default: demo)
  --trials=N          trials in all, those of earlier commands included (default: 20)
  --search=FILE.yaml  the ranges (default: properties/search/MODEL.yaml, where there is one):
                        learning_rate: [0.01, 0.1]                    one of these
                        reg_weight: {low: 1.0e-4, high: 0.1, log: true}  a number between these
  --sampler=NAME      random: no two trials alike, trial k the same however many processes there
                      are and for every model with these ranges (default); tpe: learns after ten
                      random trials, worth it from some thirty
  --processes=P       processes on this machine (default: 1)
  --out=DIR           where all results go (default: saved/tune)
  --name=NAME         of the study and its files (default: DATASET-MODEL)
  --storage=WHERE     what several machines share: a file on a common disk, or the URL of a
                      PostgreSQL or MySQL database (default: DIR/NAME.journal)
  --config_files      yaml files, separated by blanks; their values are the defaults of trial 0
  --key=value         any other key is fixed in all trials, and not searched if it is in the ranges
  -h, --help          print this

It leaves DIR/NAME.yaml (the best settings, for --config_files), NAME.md and NAME.jsonl (all
trials) and NAME.journal (the study), and prints the best trials and the command that tests them.

examples:
  python -m recbole_cierec tune --model=VBPR --dataset=mine --trials=20 --processes=2
  python -m recbole_cierec tune --model=CIERec --backbone=VBPR --dataset=mine --name=mine-VBPR
  python -m recbole_cierec tune --model=MF --loss=softmax --dataset=mine --name=mine-MF-softmax
  python -m recbole_cierec tune --model=LightGCN --dataset=mine --storage=/shared/mine.journal
"""
SAMPLERS = ("random", "tpe")
_OWN = ("trials", "search", "sampler", "processes", "out", "name", "storage")
_OF_RUN = ("resume", "nproc", "world_size", "ip", "port", "group_offset")


def split_tune_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The words of a plan and the number of processes, from a command line.

    Raises:
        ConfigError: For anything malformed.
    """
    arguments = split_arguments(argv)
    flags: dict[str, str] = arguments["cmd_line"]
    for key in _OF_RUN:
        if key in flags or any(word.lstrip("-").split("=")[0] == key for word in argv):
            raise ConfigError(
                f"command line: --{key} is not for tune; --processes=P runs P trials at once, "
                "and the same command goes on with a stopped search"
            )
    own = {key: flags.pop(key) for key in _OWN if key in flags}
    numbers = {}
    for key, default, most in (("trials", "20", 10**6), ("processes", "1", MOST_PROCESSES)):
        text = own.get(key, default)
        if not text.isdecimal() or not 1 <= int(text[:20]) <= most:
            raise ConfigError(f"command line: --{key} must be from 1 to {most}, not '{text[:20]}'")
        numbers[key] = int(text)
    sampler = own.get("sampler", "random")
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"command line: --sampler must be one of {', '.join(SAMPLERS)}, not '{sampler}'"
        )
    if Path(own.get("name", "x")).name != own.get("name", "x"):
        raise ConfigError(f"command line: --name is no path, as '{own['name']}' is; see --out")
    words = {
        "model": arguments["model"],
        "dataset": arguments["dataset"],
        "files": arguments["config_file_list"],
        "flags": flags,
        "trials": numbers["trials"],
        "sampler": sampler,
        "search": own.get("search"),
        "out": Path(own.get("out", "saved/tune")),
        "name": own.get("name", ""),
        "storage": own.get("storage", ""),
    }
    return words, numbers["processes"]


def tune(
    model: str | None = None,
    dataset: str | None = None,
    trials: int = 20,
    processes: int = 1,
    **words: Any,
) -> dict[str, Any]:
    """Search, or go on with a search that was stopped.

    Args:
        model: The model's name.
        dataset: The data set's name.
        trials: N, in all.
        processes: How many on this machine; more than one are started anew, so a program that
            calls this needs the usual ``if __name__ == "__main__"``.
        **words: More of :class:`recbole_cierec.tuning.trial.Plan`.

    Returns:
        ``best`` (its row), ``rows`` (all trials), ``files`` (``yaml``, ``table``, ``rows``),
        ``command`` (which tests the best settings) and ``plan``.

    Raises:
        UserError: For any input that the user can mend, and if every trial failed.
    """
    from recbole_cierec.tuning import report
    from recbole_cierec.tuning.trial import Plan

    words = {"files": [], "flags": {}, **words}
    plan = Plan(model=model, dataset=dataset, trials=trials, **words)
    board = plan.board()
    report.check_places(plan)
    board.fill()
    if plan.count < plan.trials:
        _say(f"the ranges of {plan.model} hold {plan.count} settings; all are tried")
    if board.left():
        _say(f"{board.left()} of {plan.count} trials of {plan.name} are left; {plan.storage}")
        if processes > 1:
            _workers(plan, board, min(processes, board.left()))
        else:
            work(plan, board)
    rows = board.rows()
    best = board.best(rows)
    files = report.save(plan, rows, best)
    _remove_stages(plan.stages)
    if best is None:
        raise UserError(f"all {len(rows)} trials failed, the first by: {rows[0].get('reason')}")
    command = report.best_command(plan, files["yaml"])
    return {"best": best, "rows": rows, "files": files, "command": command, "plan": plan}


def _remove_stages(folder: Path) -> None:
    """Remove the stages of the trials, and nothing else that lies there."""
    from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers

    clear_leftovers(folder, TEMPORARY)
    for path in folder.glob("stage-*.pth"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty, or was never made
        folder.rmdir()


def work(plan: Plan, board: Board) -> None:
    """Run waiting trials until none is left."""
    from recbole_cierec.tuning import report
    from recbole_cierec.tuning.trial import repeated, run_trial

    while (trial := board.claim()) is not None:
        with board.held(trial):
            settings = plan.settings(board, trial)
            board.note(trial, "settings", settings)
            outcome = repeated(board.rows(), settings)
            outcome = outcome or run_trial(plan, settings, board.check_data)
        if board.finish(trial, outcome):
            rows = board.rows()
            report.save(plan, rows, board.best(rows))
            row = next(row for row in rows if row["trial"] == trial.number)
            _say(report.trial_line(plan, row))


# ----------------------------------------------------------------------------- processes


def _workers(plan: Plan, board: Board, count: int) -> None:
    """Run the study in ``count`` new processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_worker, args=(words, count, queue), name=f"worker {k}")
        for k, words in enumerate(_words(plan, count))
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:  # after SIGTERM or Ctrl-C they would run on
            if process.pid is not None and process.is_alive():
                process.terminate()
                process.join()
    if not queue.empty():
        raise ConfigError(queue.get())
    dead = [f"{p.name} ended with code {p.exitcode}" for p in processes if p.exitcode]
    if dead and board.left():
        raise UserError(f"{', '.join(dead)} (-9: memory?); the same command goes on")
    for line in dead:
        _say(f"{line}; the others ran its trial")


def _words(plan: Plan, count: int) -> Iterator[dict[str, Any]]:
    """The plan's words for each of ``count`` processes, which take the GPUs in turn.

    Its GPU must be in the words: the first configuration that a process makes asks for the GPUs,
    and from then on the process keeps those that it saw.
    """
    devices = str(plan.base["gpu_id"]).split(",")
    for rank in range(count):
        words = plan.words()
        if len(devices) > 1:
            words["flags"] = {**words["flags"], "gpu_id": devices[rank % len(devices)].strip()}
        yield words


def _worker(words: dict[str, Any], count: int, queue: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=leave_with_parent, daemon=True).start()
    import torch

    from recbole_cierec.tuning.trial import Plan

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        _quiet_terminal()
        plan = Plan(**words)
        work(plan, plan.board())
    except UserError as error:
        queue.put(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


# --------------------------------------------------------------------------- command line


def _say(line: str) -> None:
    say(line, sys.stderr)


class _Once(logging.Filter):
    """Lets a message pass once: what is said of the settings, each trial would say again."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.getMessage() not in self.said
        self.said.add(record.getMessage())
        return new


def _quiet_terminal() -> None:
    """A trial's log has everything; the terminal has only what may need the user."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(PlainFormatter("%(levelname)s  %(message)s"))
        handler.addFilter(_Once())
        root.addHandler(handler)


def _tune(argv: Sequence[str]) -> None:
    words, processes = split_tune_arguments(argv)
    _quiet_terminal()
    result = tune(processes=processes, **words)
    from recbole_cierec.tuning import report

    failed = sum(row["state"] == "failed" for row in result["rows"])
    plan, files = result["plan"], result["files"]
    said = f"{len(result['rows'])} trials" + (f", {failed} of them failed" if failed else "")
    say(f"{plan.model} on {plan.dataset}: {said}; the best are\n")
    say(report.table(plan, result["rows"], report.TOP))
    say(f"\nall trials: {files['table']}, {files['rows']}\nbest settings: {files['yaml']}\n")
    say(f"to train them, keep the checkpoint and test:\n{result['command']}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code (:mod:`recbole_cierec.cli.exit_codes`)."""
    return run_command(_tune, argv, lambda: USAGE)


if __name__ == "__main__":
    sys.exit(main())
