"""The command line: ``python -m recbole_cierec [COMMAND] ...``, one entry for all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from recbole_cierec import __version__
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import ConfigError, nearest

# The first word of a command line -> the module whose main() it is for; without a word: run.
COMMANDS = {
    "run": "recbole_cierec.cli.run",
    "extract": "recbole_cierec.cli.extract",
    "tune": "recbole_cierec.cli.tune",
    "experiment": "recbole_cierec.cli.experiment",
    "compare": "recbole_cierec.cli.compare",
    "recommend": "recbole_cierec.cli.recommend",
    "export": "recbole_cierec.cli.export",
    "report": "recbole_cierec.cli.report",
    "serve": "recbole_cierec.cli.serve",
    "doctor": "recbole_cierec.cli.doctor",
    "convert": "recbole_cierec.dataset_converters.__main__",
}


def _unknown(argv: Sequence[str]) -> None:
    hint = nearest(argv[0], COMMANDS, cutoff=0.6) or f"; known are {', '.join(COMMANDS)}"
    raise ConfigError(f"command line: there is no command '{argv[0]}'{hint}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; :func:`recbole_cierec.cli.exit_codes.run_command` has the exit codes.

    Args:
        argv: The arguments without the program's name; None: those of this process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--version"]:
        return run_command(lambda _: print(__version__), argv, str)
    if argv[:1] == ["help"]:  # help, help tune
        argv = [*argv[1:2], "--help"]
    word, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else ("run", argv)
    if word not in COMMANDS:
        return run_command(_unknown, argv, str)
    return import_module(COMMANDS[word]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
