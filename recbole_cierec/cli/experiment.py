"""Models x data sets x protocols x seeds from one file: ``python -m recbole_cierec experiment``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_cierec.cli.exit_codes import continued_by, run_command
from recbole_cierec.cli.flags import whole_number
from recbole_cierec.errors import ConfigError, UserError, nearest
from recbole_cierec.logs import warnings_on_terminal
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec experiment FILE.yaml [--out=DIR] [--workers=N] [--set key=value]

Trains and tests every model of a file on every data set, by every protocol, with every seed, after
a search of its settings where the file says so, and writes tables with intervals and tests. Repeat
the command to resume; start it on several machines that share DIR to share the runs.

  FILE.yaml           the experiment (docs/experiments.md), or the name of a shipped one: demo,
                      paper-table-2, paper-table-3, gates, annotations-missing and others
  --out=DIR           folder for all results (default: saved/experiments/NAME)
  --workers=N         processes at once; each takes its share of the cores (default: 1; 0: none, all
                      in this process)
  --set key=value     a key for every run, over those of the file; may be repeated
  --dry-run           check everything and print the plan, with an estimate of its hours
  --tables            only write the tables again, from the rows in DIR
  -h, --help          print this

It leaves in DIR: rows.jsonl (a line a run), searches.jsonl, users/ (results by user, for
compare), search/ (the trials), and the tables as .md, .csv and .tex.

examples:
  python -m recbole_cierec experiment demo
  python -m recbole_cierec experiment mine.yaml --dry-run
  python -m recbole_cierec experiment paper-table-3 --set data_path=../data --workers=4
"""
_FLAGS = ("out", "workers", "set", "dry-run", "tables")


def split_experiment_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Arguments of :func:`recbole_cierec.experiment.run_experiment` from a command line.

    Raises:
        ConfigError: It is malformed.
    """
    from recbole_cierec.config.yaml import parse_value

    found: dict[str, Any] = {"keys": {}}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            if "file" in found:
                raise ConfigError(f"command line: one file at a time, not '{word}' too")
            found["file"] = word
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("_", "-")
        if name not in _FLAGS:
            hint = nearest(name, _FLAGS) or "; key=value goes into --set key=value"
            raise ConfigError(f"command line: unknown flag {word}{hint}")
        if name in ("dry-run", "tables"):
            found[name.replace("-", "_")] = True
            continue
        if not equals and words:
            value = words.pop(0)
        if not value:
            raise ConfigError(f"command line: --{name} has no value")
        if name == "set":
            key, equals, text = value.partition("=")
            if not equals:
                raise ConfigError(f"command line: --set takes key=value, not '{value}'")
            found["keys"][key] = parse_value(text)
        else:
            found[name] = value
    if "file" not in found:
        raise ConfigError("command line: name a file or a shipped experiment; --help says more")
    if "workers" in found:
        found["workers"] = whole_number("workers", found["workers"], 0)
    return found


def _experiment(argv: Sequence[str]) -> None:
    arguments = split_experiment_arguments(argv)
    warnings_on_terminal()
    from recbole_cierec.experiment import run_experiment  # takes seconds

    with continued_by("the same command"):
        result = run_experiment(**arguments)
    if arguments.get("dry_run"):
        say(result["plan"])
        return
    if result["text"]:
        say(f"{result['text']}\n\nall tables, plots and rows: {result['folder']}")
    if failed := result["failed"]:
        names = f"{failed[0]['model']} on {failed[0]['dataset']}: {failed[0]['error']}"
        raise UserError(f"{len(failed)} of the runs and searches failed, the first: {names}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_experiment, argv, lambda: USAGE)
