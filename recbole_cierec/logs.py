"""The log of a run: one file and the console, closed at its end.

The file has every record. The console has warnings, errors and the records of the logger
``CONSOLE`` on stderr, and those of ``RESULT`` on stdout, so that ``> result.txt`` keeps the table
alone; with ``verbose: True`` stderr has everything else too.

RecBole's ``init_logger`` cannot start a second log in one process, gives the files of two runs in
one second the same name, and writes colour codes into pipes.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import colorlog
from tqdm import tqdm

from recbole_cierec.errors import ConfigError, UserError
from recbole_cierec.files.places import why_not_writable
from recbole_cierec.terminal import CONSOLE, RESULT, printable

_TENSORBOARD = Path("log_tensorboard")  # of RecBole
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_COLORS = {"DEBUG": "cyan", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}

_ours: list[logging.Handler] = []
_levels: list[int] = []  # that of the root logger before ours


def _clean(record: logging.LogRecord) -> logging.LogRecord:
    """A copy without control codes in its message: RecBole's colours removed, others escaped."""
    clean = copy.copy(record)
    clean.msg, clean.args = printable(_COLOR.sub("", record.getMessage())), None
    return clean


class PlainFormatter(logging.Formatter):
    """Formats without terminal control codes; does not change the record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(_clean(record))


class _ColorFormatter(colorlog.ColoredFormatter):
    """Colours a line by its level; the message cannot change the colour."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(_clean(record))


class _ConsoleFormatter(logging.Formatter):
    """Lines for users as they are, other records with their level; all with the time if the
    console is verbose. The result is a table and never gets either."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        super().__init__()
        time = "%(asctime)-15s " if verbose else ""
        self._records = _stream_formatter(stream, f"{time}%(levelname)s  %(message)s")
        self._lines = PlainFormatter("%(message)s")
        self._plain = {RESULT.name} if verbose else {RESULT.name, CONSOLE.name}

    def format(self, record: logging.LogRecord) -> str:
        plain = record.name in self._plain and record.levelno < logging.WARNING
        return (self._lines if plain else self._records).format(record)


class _ConsoleHandler(logging.StreamHandler):
    """Writes above progress bars; ends the run if the reader of the output has ended."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def _console(verbose: bool) -> list[logging.Handler]:
    """The handlers of stderr and stdout."""

    def for_stderr(record: logging.LogRecord) -> bool:
        wanted = verbose or record.name == CONSOLE.name or record.levelno >= logging.WARNING
        return wanted and record.name != RESULT.name

    handlers: list[logging.Handler] = []
    for stream, wanted in (
        (sys.stderr, for_stderr),
        (sys.stdout, lambda record: record.name == RESULT.name),
    ):
        handler = _ConsoleHandler(stream)
        handler.setFormatter(_ConsoleFormatter(stream, verbose))
        handler.addFilter(wanted)
        handlers.append(handler)
    return handlers


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


@contextmanager
def run_log(config: Any) -> Iterator[Path | None]:
    """The log of a run, until the block ends; then logging is as it was before.

    The file ends with the error that ended the run. A run within another one has a separate log.

    Args:
        config: As for :func:`start_log`, whose result is yielded.
    """
    root = logging.getLogger()
    outer, level = _ours[:], root.level
    _ours.clear()
    for handler in outer:
        root.removeHandler(handler)
    try:
        yield start_log(config)
    except Exception as error:
        _write_error(error)
        raise
    finally:
        stop_log()
        for handler in outer:
            root.addHandler(handler)
        _ours.extend(outer)
        root.setLevel(level)


def _write_error(error: Exception) -> None:
    """Write an error to the file; the caller decides what the console shows of it."""
    trace = None if isinstance(error, UserError) else (type(error), error, error.__traceback__)
    text = "The run failed" if trace else str(error)
    record = logging.LogRecord("root", logging.ERROR, __file__, 0, text, None, trace)
    for handler in _ours:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def start_log(config: Any) -> Path | None:
    """Start the log of a run, and close that of a run before it that is still open.

    As with RecBole, a program that has set up logging keeps its stream; the file is added to it.

    Args:
        config: The run's configuration (``state``, ``verbose``, ``model``, ``dataset``,
            ``local_rank``).

    Returns:
        The log file; None except in the first of several processes.

    Raises:
        ConfigError: The working folder cannot be written.
    """
    stop_log()
    root = logging.getLogger()
    level = getattr(logging, str(config["state"] or "info").upper(), logging.INFO)
    handlers: list[logging.Handler] = []
    if not root.handlers:
        handlers += _console(config["verbose"])
    path = None
    if config["local_rank"] == 0:
        path = _log_path(config)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise _unwritable(path.parent, error.strerror or str(error)) from error
        handlers[-1].setFormatter(
            PlainFormatter("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S")
        )
    for handler in handlers:
        handler.setLevel(level)
        root.addHandler(handler)
    _levels.append(root.level)
    root.setLevel(level)
    _ours.extend(handlers)
    return path


def check_tensorboard() -> None:
    """Refuse, before any work, a working folder where RecBole cannot write for TensorBoard.

    Raises:
        ConfigError: In one line.
    """
    if why := why_not_writable(_TENSORBOARD):
        raise _unwritable(_TENSORBOARD, why)


def _unwritable(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{folder}: the log cannot be written ({why}); start the run in a writable folder, where "
        "log/ and log_tensorboard/ are made"
    )


def stop_log() -> None:
    """Undo :func:`start_log`: close and remove its handlers, and restore the level."""
    root = logging.getLogger()
    while _ours:
        handler = _ours.pop()
        root.removeHandler(handler)
        handler.close()
    if _levels:
        root.setLevel(_levels.pop())


class _Once(logging.Filter):
    """Passes a message once: every trial of a search repeats those about its settings.

    Args:
        shared: A folder of :func:`shared_warnings`, for once among several processes.
    """

    def __init__(self, shared: Path | None = None) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self.shared = shared

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._seen and self._is_first(message)
        self._seen.add(message)
        return new

    def share(self, folder: Path | None) -> None:
        """From now on tell other processes, by a folder, what is passed and was passed before."""
        self.shared = folder
        for message in self._seen:
            self._is_first(message)

    def _is_first(self, message: str) -> bool:
        """Whether no other process has passed a message; the system lets one make the file."""
        if self.shared is None:
            return True
        name = hashlib.sha256(message.encode(errors="replace")).hexdigest()
        try:
            (self.shared / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:
            pass  # a full disk: twice is better than never
        return True


def warnings_on_terminal(shared: Path | None = None) -> None:
    """Show only warnings on the terminal, each once; the log files have everything.

    Args:
        shared: A folder of :func:`shared_warnings`, in a process that another one has started.
    """
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(PlainFormatter("%(levelname)s  %(message)s"))
        handler.addFilter(_Once(shared))
        root.addHandler(handler)


@contextmanager
def shared_warnings() -> Iterator[Path]:
    """A folder by which this process and those that it starts show each warning once in all."""
    filters = [one for handler in logging.getLogger().handlers for one in handler.filters]
    once = [one for one in filters if isinstance(one, _Once)]
    with TemporaryDirectory(prefix="recbole-cierec-", ignore_cleanup_errors=True) as folder:
        try:
            for one in once:
                one.share(Path(folder))
            yield Path(folder)
        finally:
            for one in once:
                one.share(None)


def _stream_formatter(stream: TextIO, layout: str) -> logging.Formatter:
    if wants_color(stream):
        return _ColorFormatter(f"%(log_color)s{layout}", "%d %b %H:%M", log_colors=_COLORS)
    return PlainFormatter(layout, "%d %b %H:%M")


def _log_path(config: Any) -> Path:
    # The random part distinguishes two runs in the same second.
    name = "-".join(
        (
            config["model"],
            config["dataset"],
            datetime.now().strftime("%b-%d-%Y_%H-%M-%S"),
            uuid.uuid4().hex[:6],
        )
    )
    return Path("log") / config["model"] / f"{name}.log"
