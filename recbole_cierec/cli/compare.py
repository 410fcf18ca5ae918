"""Do runs differ, over users?  ``python -m recbole_cierec compare --help``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.flags import value_of
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec compare BASELINE RUN [RUN ...] [--metrics=NAME,NAME]
       python -m recbole_cierec compare --a RUN [RUN ...] --b RUN [RUN ...] [--metrics=NAME,NAME]

Tests whether finished runs differ, over users. The table gives means, the difference (run minus
baseline), its 95 % bootstrap interval, and the p-values of a paired t-test and Wilcoxon's test,
corrected by Holm over the table.

  BASELINE, RUN       a *.users.npz file that a run left in saved/, or a folder: its newest one
  --a RUN [RUN ...], --b RUN [RUN ...]
                      two models that each ran with several seeds, a minus b; here a folder stands
                      for all its files. Two tests are stated: over users, each averaged over the
                      seeds, and over seeds, runs with the same seed paired
  --metrics=NAME,NAME metrics of the table, those of groups (recall@10_cold) too
                      (default: recall@10,ndcg@10)
  -h, --help          print this

examples:
  python -m recbole_cierec compare saved/VBPR-X.users.npz saved/CIERec-Y.users.npz
  python -m recbole_cierec compare --a runs/CIERec --b runs/VBPR --metrics=recall@10_cold
"""
LEGEND = "p-values are corrected by Holm over the table; intervals are not corrected."


def compare(argv: Sequence[str]) -> None:
    """Print the table for a command line."""
    from recbole_cierec.evaluation.over_seeds import read_seeds, seeds_table
    from recbole_cierec.evaluation.per_user import read_per_user
    from recbole_cierec.evaluation.significance import significance_table

    metrics, paths = _split(argv)
    if "a" in paths or "b" in paths:
        if paths.keys() != {"a", "b"}:
            raise ConfigError("command line: --a RUN [RUN ...] --b RUN [RUN ...] go together")
        a, b = read_seeds(paths["a"]), read_seeds(paths["b"])
        _refuse_twice([run.path for run in (*a, *b)])
        say(f"{seeds_table(a, b, metrics)}\n\n{LEGEND}")
        return
    if len(paths.get("", [])) < 2:
        raise ConfigError("command line: name a baseline and at least one run; --help says more")
    base, *runs = (read_per_user(path) for path in paths[""])
    _refuse_twice([run.path for run in (base, *runs)])
    say(f"{significance_table(runs, base, metrics)}\n\n{LEGEND}")


def _refuse_twice(paths: Sequence[Path]) -> None:
    for place, path in enumerate(paths):
        if any(os.path.samefile(path, other) for other in paths[:place]):
            raise ConfigError(f"{path}: named twice; a run does not differ from itself")


def _split(argv: Sequence[str]) -> tuple[list[str], dict[str, list[Path]]]:
    """The metrics, and the paths after ``--a``, ``--b`` or neither."""
    metrics = ["recall@10", "ndcg@10"]
    paths: dict[str, list[Path]] = {}
    side = ""
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if flag == "--metrics":
            value = value_of(equals, value, words)
            if not value:
                raise ConfigError("command line: --metrics has no value; write --metrics=NAME,NAME")
            metrics = list(dict.fromkeys(value.split(",")))  # Holm counts every test
        elif flag in ("--a", "--b"):
            side = flag[2:]
            paths.setdefault(side, []).extend([Path(value)] if value else [])
        elif flag.startswith("--"):
            raise ConfigError(
                f"command line: unknown flag {word}; flags are --metrics=NAME,NAME, --a and --b"
            )
        else:
            paths.setdefault(side, []).append(Path(word))
    if not all(paths.get(side, [""]) for side in ("a", "b")):
        raise ConfigError("command line: --a and --b need at least one run each")
    return metrics, paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(compare, argv, lambda: USAGE)
