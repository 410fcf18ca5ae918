"""Lists for users from a checkpoint: ``python -m recbole_cierec recommend --help``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.flags import refuse_unknown_flags, whole_number
from recbole_cierec.errors import ConfigError
from recbole_cierec.logs import warnings_on_terminal
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec recommend CHECKPOINT --out=FILE [--users=all|FILE] [--topk=20]

Ranks items for users, with the exact scores of the model. NAME.inter and NAME.item are not
needed; a model over pictures needs their folder, even where the cache has their features.

  --out=FILE          ends in .csv, .jsonl (a line for each user) or .parquet; it appears complete
  --users=FILE        user ids, one a line; all: every user of the data (default)
  --topk=N            length of a list (default: 20)
  --items=FILE        choose among these item ids, one a line
  --where=CONDITIONS  choose among items by columns of NAME.item: "color=red & price<20"
  --with_seen=True    keep items that the user has in training or validation (default: False)
  --new_items=FILE    a CSV file with the columns of NAME.item (item_id, image_path, annotations),
                      or a picture: for each new item the users with the highest scores and the
                      nearest known items
  --new_features=FILE features of the new items (.npy), for a model trained on features_file
  --neighbours=N      nearest known items of each new one (default: 10)
  --nproc=N           processes; torchrun works too, and the file is the same
  --key=value         what differs from the run: --data_path, --image_dir, --use_gpu and other
                      keys with "use" in docs/keys.md; what decided training stays
  -h, --help          print this

Columns: user, user_status, rank, item, score. Users without training interactions share one list;
they are marked in user_status, and so are ids that the model does not know.

examples:
  python -m recbole_cierec recommend saved/VBPR-X.pth --out=recs.parquet
  python -m recbole_cierec recommend saved/VBPR-X.pth --where="price<20" --out=recs.csv
  python -m recbole_cierec recommend saved/VBPR-X.pth --new_items=photo.jpg --out=new.csv
"""
_TEXTS = ("users", "items", "where", "new_items", "new_features", "out")
_NUMBERS = {"topk": 1, "neighbours": 0, "nproc": 1}


def names_first(argv: Sequence[str]) -> list[str]:
    """The words before the first flag."""
    return list(takewhile(lambda word: not word.startswith("-"), argv))


def split_flags(
    argv: Sequence[str],
    texts: Sequence[str],
    numbers: Mapping[str, int],
    switches: Sequence[str] = (),
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """A command line with one checkpoint.

    Args:
        argv: The words.
        texts: The command's own flags whose value is text.
        numbers: Those that count, with the smallest number.
        switches: Those that are True or False.

    Returns:
        (the checkpoint, the command's own flags, the other flags).

    Raises:
        ConfigError: It is malformed, or a flag is misspelt.
    """
    from recbole_cierec.config.yaml import parse_command_line

    if not argv or argv[0].startswith("-"):
        raise ConfigError("command line: name the checkpoint first; --help says more")
    names = names_first(argv)
    if len(names) > 1:
        raise ConfigError(f"command line: this takes one checkpoint, not {len(names)}")
    flags = parse_command_line(argv[1:])
    own: dict[str, Any] = {name: flags.pop(name) for name in texts if name in flags}
    for name, low in numbers.items():
        if name in flags:
            own[name] = whole_number(name, flags.pop(name), low)
    for name in switches:
        if name in flags:
            text = flags.pop(name)
            if text.lower() not in ("true", "false"):
                raise ConfigError(f"command line: --{name} must be True or False, not '{text}'")
            own[name] = text.lower() == "true"
    refuse_unknown_flags(flags, (*texts, *numbers, *switches))
    return argv[0], own, flags


def _recommend(argv: Sequence[str]) -> None:
    checkpoint, own, flags = split_flags(argv, _TEXTS, _NUMBERS, ("with_seen",))
    if "out" not in own:
        raise ConfigError("command line: --out=FILE is missing; --help says more")
    warnings_on_terminal()
    from recbole_cierec.serving.recommend import recommend  # takes seconds

    done = recommend(checkpoint, cmd_line=flags, **own)
    if done is not None:
        say(f"written: {done}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_recommend, argv, lambda: USAGE)
