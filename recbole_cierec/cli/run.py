"""Train and evaluate a model: ``python -m recbole_cierec [run] --model=NAME --dataset=NAME``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.flags import whole_number
from recbole_cierec.errors import ConfigError
from recbole_cierec.registry import MODELS, recbole_model_names

USAGE = """\
usage: run_recbole.py [--model=NAME] [--dataset=NAME] [--config_files="A.yaml B.yaml"] [--key=value]
       python -m recbole_cierec ...          (the same, from anywhere)

Trains a model on a data set and prints its metrics for all, cold and warm users, next to chance.
Without arguments: CIERec on the demo data, compared with a plain model.

  -m, --model         a model of the lists below (default: CIERec)
  -d, --dataset       a folder under data_path, default dataset/ (default: demo, made when absent)
  --config_files      yaml files, separated by blanks; later ones win
  --nproc             processes on this machine (default: 1)
  --world_size, --ip, --port, --group_offset
                      for runs on several machines, as RecBole's
  --key=value         any other key of properties/*.yaml or of RecBole; the value is read as YAML
  --verbose           print everything that goes to the log file, as RecBole does
  --version           print the version of the package
  -h, --help          print this

examples:
  run_recbole.py
  run_recbole.py --model=CIERec --backbone=VBPR --dataset=hm-week --data_path=../data
  run_recbole.py --model=LightGCN --dataset=hm-week --epochs=50 --learning_rate=1e-3
  run_recbole.py -m BPR --eval_args="{mode: user500}" --eval_repeats=5 --topk="[5, 10]"

other commands (each has --help):
  python -m recbole_cierec extract      pictures and features of a data set ahead of runs
  python -m recbole_cierec tune         search of hyper-parameters on the validation part
  python -m recbole_cierec experiment   models x data sets x protocols x seeds from one file
  python -m recbole_cierec compare      whether finished runs differ, tested over users
  python -m recbole_cierec recommend    lists for users from a checkpoint, users for new items
  python -m recbole_cierec export       vectors of a checkpoint for an index such as FAISS
  python -m recbole_cierec report       a page on a trained model, or on two
  python -m recbole_cierec serve        a page and a JSON API over trained models
  python -m recbole_cierec convert      published data sets and any table as data sets
  python -m recbole_cierec doctor       check of the installation, for bug reports
"""
_SHORT = {"-m": "--model", "-d": "--dataset"}


def usage() -> str:
    """The text of ``--help``, with all models."""
    lists = {"models:": list(MODELS), "models of RecBole:": recbole_model_names()}
    lines = [USAGE]
    for title, names in lists.items():
        lines += [title, fill(" ".join(names), 98, initial_indent="  ", subsequent_indent="  "), ""]
    return "\n".join(lines)


def split_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Arguments of :func:`recbole_cierec.quick_start.run` from a command line.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        Keyword arguments; ``cmd_line`` holds all flags except those of the launch.

    Raises:
        ConfigError: The command line is malformed.
    """
    # Imported here so that ``doctor`` starts even if a package is missing.
    from recbole_cierec.config.yaml import parse_command_line

    words: list[str] = []
    for k, word in enumerate(argv):
        if word == "--verbose" and (k + 1 == len(argv) or argv[k + 1].startswith("-")):
            word = "--verbose=True"
        head, equals, value = word.partition("=")
        words.append(f"{_SHORT[head]}{equals}{value}" if head in _SHORT else word)
    flags = parse_command_line(words)
    arguments: dict[str, Any] = {key: flags.pop(key, None) for key in ("model", "dataset")}
    arguments["config_file_list"] = _files(flags.pop("config_files", ""))
    for key, default in (("ip", "localhost"), ("port", "5678")):
        arguments[key] = flags.pop(key, default)
    for key, default, low in (
        ("nproc", "1", 1),
        ("world_size", "-1", -1),
        ("group_offset", "0", 0),
    ):
        arguments[key] = whole_number(key, flags.pop(key, default), low)
    return {**arguments, "cmd_line": flags}


def _files(text: str) -> list[str]:
    files = text.split()
    for file in files:
        if "," in file and not Path(file).is_file():
            raise ConfigError(
                f"command line: --config_files={file}: no such file; separate files by blanks, "
                'as in --config_files="a.yaml b.yaml"'
            )
    return files


def _run(argv: Sequence[str]) -> None:
    if not argv:
        from recbole_cierec.cli.demo import run_demo

        with _says_how_to_continue(unsure=False):
            run_demo()
        return
    arguments = split_arguments(argv)
    # This import takes seconds, so the command line is checked first.
    from recbole_cierec.quick_start import run

    with _says_how_to_continue(arguments["nproc"] > 1):
        run(**arguments)


@contextmanager
def _says_how_to_continue(unsure: bool) -> Iterator[None]:
    """Within the block Ctrl-C says what continues the run.

    Args:
        unsure: Other processes train, and this one does not know whether they have saved an epoch.
    """
    how = "continue by the same command and --resume=auto"
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args:  # the checkpoint
            raise KeyboardInterrupt(how) from None
        if unsure:
            raise KeyboardInterrupt(f"after the first epoch, {how}") from None
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_run, argv, usage)
