"""Command lines in new processes that start at once, and processes of a run that do.

A new Python spends three seconds of processor time on imports before a run begins. These processes
are forks of a server that has done the imports. What a test says about imports, the interpreter's
flags or torchrun still needs a new Python.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
_get_context = multiprocessing.get_context
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
_context: Any = _get_context("forkserver" if _FORKS else "spawn")


def start_server() -> None:
    """Start the server of imports, unless it runs."""
    if not _FORKS:
        return
    from multiprocessing import forkserver

    _context.set_forkserver_preload(["warm_imports"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(HERE)  # which, unlike the folder of a test, stays
        forkserver.ensure_running()


def _in_child(
    job: Callable[..., Any], words: tuple, cwd: str, environ: dict[str, str], outputs: list[str]
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(job(*words))


def command_line(*argv: str) -> int:
    """``recbole-cierec ARGV`` in this process."""
    from recbole_cierec.__main__ import main

    sys.argv = ["recbole-cierec", *argv]
    return main()


def get_context(method: str | None = None) -> Any:
    """As multiprocessing's, with forks of the server instead of new Pythons."""
    if method != "spawn":
        return _get_context(method)
    start_server()
    return _context


@dataclass
class Program:
    """A started process, with the part of Popen's interface that tests use."""

    process: BaseProcess
    outputs: list[str]

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    @property
    def stdout(self) -> str:
        return Path(self.outputs[0]).read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return Path(self.outputs[1]).read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float = 120) -> int:
        """The exit code.

        Raises:
            AssertionError: It did not end in time; it is killed.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"no end within {timeout} seconds: {self.stderr[-2000:]}")
        return self.process.exitcode

    def wait_for(self, pattern: str, folder: Path, timeout: float = 120) -> Path:
        """The first file of a pattern, as soon as it exists."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.returncode is None:
            if found := next(folder.glob(pattern), None):
                return found
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"no {pattern}: {self.stderr[-2000:]}")


def start(*argv: Any, cwd: Path, job: Callable[..., Any] = command_line, **environ: str) -> Program:
    """Start ``recbole-cierec ARGV``, or another function, in a process of a folder."""
    start_server()
    files = tempfile.mkdtemp(dir=cwd.parent)
    outputs = [os.path.join(files, name) for name in ("stdout", "stderr")]
    for path in outputs:
        Path(path).touch()
    full = {**os.environ, "OMP_NUM_THREADS": "1", **environ}
    process = _context.Process(target=_in_child, args=(job, argv, str(cwd), full, outputs))
    process.daemon = True  # ends with the tests
    process.start()
    return Program(process, outputs)


def finished(*argv: str, cwd: Path) -> Program:
    """As :func:`start`, at its end."""
    program = start(*argv, cwd=cwd)
    program.wait()
    return program
