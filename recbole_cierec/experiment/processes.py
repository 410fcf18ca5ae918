"""The processes of an experiment, one for each run or search.

A separate process gives each run an honest peak of memory, and a crash ends one run only. They are
forked from a server that has imported the package, so that each starts in a moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from recbole_cierec.distributed.workers import begin_worker, gpu_of, interrupts_ignored
from recbole_cierec.experiment.folder import Folder
from recbole_cierec.experiment.work import Task, perform
from recbole_cierec.logs import warnings_on_terminal

_PRELOADED = ["recbole_cierec.experiment.work"]


class Slot:
    """A place for one process at a time.

    Args:
        number: Of the place, from 0.
        workers: The number of places.
        said: The folder of :func:`recbole_cierec.logs.shared_warnings`.

    Attributes:
        task: What its process does; None: it is free.
        process: None before the first task, and after a task's end.
    """

    def __init__(self, number: int, workers: int, said: Path | None = None) -> None:
        self.number, self.workers, self.said = number, workers, said
        self.task: Task | None = None
        self.process: Any = None

    def start(self, folder: Path, task: Task, keep: bool, threads: int) -> None:
        """Start a process that performs a task."""
        place = gpu_of(task.keys.get("gpu_id", ""), self.number) if self.workers > 1 else {}
        arguments = (folder, task, keep, place, threads, self.said)
        self.task = task
        self.process = _context(threads).Process(target=_work, args=arguments)
        self.process.start()

    def ended(self) -> tuple[Task, int] | None:
        """The task of a process that has ended, and the exit code."""
        if self.process is None or self.task is None or self.process.is_alive():
            return None
        self.process.join()
        ended = self.task, self.process.exitcode or 0
        self.task = self.process = None
        return ended

    def stop(self) -> None:
        """End the process, if there is one; its run can be resumed."""
        if self.process is not None and self.process.pid is not None:  # interrupted at its start
            self.process.terminate()
            self.process.join()


def _context(threads: int) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when the server imports
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with interrupts_ignored():  # Ctrl-C reaches all; the parent stops its processes
        forkserver.ensure_running()
    return context


def _work(
    folder: Path,
    task: Task,
    keep: bool,
    place: dict[str, Any],
    threads: int,
    said: Path | None,
) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin_worker()
    import torch

    torch.set_num_threads(threads)
    warnings_on_terminal(said)
    perform(Folder(folder), task, keep, place)
