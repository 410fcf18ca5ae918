"""The log of a run: one file and one stream, closed before the next run.

RecBole's ``init_logger`` cannot start a second log in one process, gives the files of two runs in
one second the same name, and writes colour codes into pipes.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import colorlog

from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import printable

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_COLORS = {"DEBUG": "cyan", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_GROUP = re.compile(r"(?P<metric>.+@[0-9]+)_(?P<group>[a-z_]+)")

_ours: list[logging.Handler] = []


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


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def start_log(config: Any) -> Path | None:
    """Start the log of a run and close that of the previous run.

    As with RecBole, a program that has set up logging keeps its stream; the file is added to it.

    Args:
        config: The run's configuration (``state``, ``model``, ``dataset``, ``local_rank``).

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
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[0].setFormatter(_stream_formatter(sys.stderr))
    path = None
    if config["local_rank"] == 0:
        path = _log_path(config)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"{path.parent}: the log cannot be written ({error.strerror or error}); start the "
                "run in a writable folder, where log/ and log_tensorboard/ are made"
            ) from error
        handlers[-1].setFormatter(
            PlainFormatter("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S")
        )
    for handler in handlers:
        handler.setLevel(level)
        root.addHandler(handler)
    root.setLevel(level)
    _ours.extend(handlers)
    return path


def stop_log() -> None:
    """Close and remove the handlers that :func:`start_log` added, and no others."""
    while _ours:
        handler = _ours.pop()
        logging.getLogger().removeHandler(handler)
        handler.close()


class _Once(logging.Filter):
    """Passes a message once: every trial of a search repeats those about its settings."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.getMessage() not in self._seen
        self._seen.add(record.getMessage())
        return new


def warnings_on_terminal() -> None:
    """Show only warnings on the terminal, each once; the log files have everything."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(PlainFormatter("%(levelname)s  %(message)s"))
        handler.addFilter(_Once())
        root.addHandler(handler)


def _stream_formatter(stream: TextIO) -> logging.Formatter:
    if wants_color(stream):
        return _ColorFormatter(
            "%(log_color)s%(asctime)-15s %(levelname)s  %(message)s",
            "%d %b %H:%M",
            log_colors=_COLORS,
        )
    return PlainFormatter("%(asctime)-15s %(levelname)s  %(message)s", "%d %b %H:%M")


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


def result_table(result: Mapping[str, float]) -> str:
    """Lay out a result with a row for each metric and a column for each group.

    Args:
        result: Metrics, keyed as ``recall@10`` for all users, ``recall@10_cold`` for a group, and
            with the suffix ``_std`` for standard deviations over repeats, which get a separate row.

    Returns:
        Lines of text; a group without a value shows ``-``.

    Example:
        >>> print(result_table({"recall@10": 0.5, "recall@10_cold": 0.25, "recall@10_std": 0.01}))
        metric         all     cold
        recall@10  0.50000  0.25000
          std      0.01000        -
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    groups = ["all"]
    for key, value in result.items():
        name = key.removesuffix("_std")
        match = _GROUP.fullmatch(name)
        metric, group = (match["metric"], match["group"]) if match else (name, "all")
        rows.setdefault((metric, key[len(name) :]), {})[group] = value
        if group not in groups:
            groups.append(group)
    width = max([len("metric"), *(len(metric) for metric, _ in rows)])
    column = max(7, *map(len, groups))

    def cell(value: float | None) -> str:
        known = value is not None and not math.isnan(value)  # nan: the group is empty
        return f"{value:>{column}.5f}" if known else f"{'-':>{column}}"

    lines = ["  ".join([f"{'metric':<{width}}", *(f"{group:>{column}}" for group in groups)])]
    order = {metric: k for k, (metric, _) in enumerate(reversed(list(rows)))}
    for metric, spread in sorted(rows, key=lambda row: (-order[row[0]], row[1])):
        cells = [cell(rows[metric, spread].get(group)) for group in groups]
        lines.append("  ".join([f"{'  std' if spread else metric:<{width}}", *cells]))
    return "\n".join(lines)
