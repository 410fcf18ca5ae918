"""Do runs differ, over users?  ``python -m recbole_cierec compare BASELINE RUN [RUN ...]``

Each is a ``*.users.npz`` file that a run left in ``saved/``, or a folder, whose newest one is read.
The table gives means, the difference, its 95 % bootstrap interval, and the p-values of a paired
t-test and Wilcoxon's test, corrected by Holm over the table.
``--metrics=recall@10,ndcg@10`` chooses the metrics.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import say


def compare(argv: Sequence[str]) -> None:
    """Print the table for a command line."""
    from recbole_cierec.evaluation.per_user import read_per_user
    from recbole_cierec.evaluation.significance import significance_table

    metrics, paths = ["recall@10", "ndcg@10"], []
    for word in argv:
        if word.startswith("--metrics="):
            metrics = word.split("=", 1)[1].split(",")
        elif word.startswith("--"):
            raise ConfigError(
                f"command line: unknown flag {word}; the only flag is --metrics=NAME,NAME"
            )
        else:
            paths.append(Path(word))
    if len(paths) < 2:
        raise ConfigError("command line: name a baseline and at least one run; --help says more")
    base, *runs = (read_per_user(path) for path in paths)
    say(significance_table(runs, base, metrics))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(compare, argv, lambda: __doc__)


if __name__ == "__main__":
    sys.exit(main())
