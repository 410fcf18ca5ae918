"""Search hyper-parameters on the validation part: ``python -m recbole_cierec tune --help``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_cierec.cli.exit_codes import continued_by, flags_of_command, run_command
from recbole_cierec.cli.flags import require
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.errors import ConfigError
from recbole_cierec.logs import warnings_on_terminal
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec tune --model=NAME --dataset=NAME [--trials=N] [--key=value ...]

Trains a model with N settings of its hyper-parameters and keeps those that are best on the
validation part. The test part is not read. Trial 0 is the defaults. Repeat the command to resume a
search, however it was stopped.

  -m, --model         a model of this package or of RecBole
  -d, --dataset       a folder under data_path; demo for the demo data
  --trials=N          trials in all, those of earlier commands included (default: 20)
  --search=FILE.yaml  the ranges (default: properties/search/MODEL.yaml, where there is one):
                        learning_rate: [0.01, 0.1]                    one of these
                        reg_weight: {low: 1.0e-4, high: 0.1, log: true}  a number between these
  --sampler=NAME      random: no two trials alike, trial k the same for any number of processes and
                      for every model with these ranges (default); tpe: learns after ten random
                      trials, worth it from about thirty
  --seconds=S         no trial starts after S processor seconds of trials, but one completes
  --pruner=NAME       stop a trial that validates worse than those before it at the same epoch:
                      median or hyperband (default: none; only with one process)
  --processes=P       trials to run at once on this machine (default: 1)
  --out=DIR           folder for all results (default: saved/tune)
  --name=NAME         of the study and its files (default: DATASET-MODEL)
  --storage=FILE      the study; on a common disk several machines can share it
                      (default: DIR/NAME.journal)
  --config_files      yaml files, separated by blanks; their values are the defaults of trial 0, and
                      they may give model and dataset
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
_OWN = "trials search sampler seconds pruner processes out name storage".split()
_OF_RUN = ("resume", "nproc", "world_size", "ip", "port", "group_offset")


def split_tune_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Arguments of :func:`recbole_cierec.tuning.tune` from a command line.

    Raises:
        ConfigError: It is malformed, or names no model or data set.
    """
    arguments = split_arguments(argv)
    flags: dict[str, str] = arguments["cmd_line"]
    for key in _OF_RUN:
        if key in flags or any(word.lstrip("-").split("=")[0] == key for word in argv):
            raise ConfigError(
                f"command line: --{key} is not for tune; --processes=P runs P trials at once, "
                "and repeating the command resumes a search"
            )
    own = {key: flags.pop(key) for key in _OWN if key in flags}
    files = arguments["config_file_list"]
    require(("model", "dataset"), arguments, flags, _OWN)
    keys = {key: arguments[key] for key in ("model", "dataset")}
    return {**keys, "files": files, "flags": flags, **own}


def _tune(argv: Sequence[str]) -> None:
    arguments = split_tune_arguments(argv)
    warnings_on_terminal()
    from recbole_cierec.tuning import report, tune  # takes seconds

    with flags_of_command(_OWN), continued_by("the same command"):
        result = tune(**arguments)
    search, files, rows = result["search"], result["files"], result["rows"]
    failed = sum(row["state"] == "failed" for row in rows)
    count = f"{len(rows)} trials" + (f", {failed} of them failed" if failed else "")
    say(f"{search.model} on {search.dataset}: {count}; the best are\n")
    say(report.table(search, rows, report.TOP))
    say(f"\nall trials: {files['table']}, {files['rows']}\nbest settings: {files['yaml']}\n")
    say(f"to train with them, keep the checkpoint and test:\n{result['command']}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_tune, argv, lambda: USAGE)
