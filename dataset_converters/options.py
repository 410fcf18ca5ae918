"""The options that all converters share."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from recbole_cierec.errors import ConfigError

PROGRAM = "python -m recbole_cierec convert"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MEMORY = re.compile(r"\d+(\.\d+)?\s*(MB|GB|MiB|GiB)")


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations whose errors are one line with exit code 2."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        command = self.prog.partition(" convert ")[2]
        raise ConfigError(f"convert {command}: {message} (see --help)")


def add_shared_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options of every converter.

    Args:
        parser: The converter's parser.
        name: Default name of the data set.
    """
    out = parser.add_argument_group("output")
    out.add_argument(
        "--output",
        type=Path,
        default=Path("dataset"),
        metavar="DIR",
        help="parent folder (default: dataset)",
    )
    out.add_argument("--name", type=_name, default=name, help=f"data set's name (default: {name})")
    out.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the folder of an earlier conversion; its pictures are kept",
    )
    out.add_argument("--dry-run", action="store_true", help="count only, write nothing")
    out.add_argument(
        "--all-items",
        action="store_true",
        help="write items without interactions too (item_vocabulary: all)",
    )
    out.add_argument(
        "--pictures",
        choices=("link", "copy"),
        default="link",
        help="hard-link local pictures where the disk allows it, or copy them",
    )
    out.add_argument(
        "--no-picture",
        nargs="+",
        default=[],
        type=_text,
        metavar="TEXT",
        help="ignore pictures whose address contains one of these texts, such as a shop's icon",
    )
    _add_filters(parser.add_argument_group("filters, applied in this order"))
    _add_annotations(parser.add_argument_group("annotations"))
    _add_limits(parser.add_argument_group("limits"))


def add_folder(group: Any, what: str) -> None:
    """Add the required option for a release's folder.

    Args:
        group: The converter's own options.
        what: What the folder is, or what it holds.
    """
    group.add_argument("--folder", type=Path, required=True, metavar="DIR", help=what)


def add_images(group: Any, what: str) -> None:
    """Add the option for local pictures.

    Args:
        group: The converter's own options.
        what: Which pictures, how they are named, and what happens without the option.
    """
    group.add_argument(
        "--images",
        type=Path,
        metavar="PLACE",
        help=f"folder or archive (.zip, .tar, .tar.gz) of {what}; or the output of img2dataset",
    )


def _add_filters(group: Any) -> None:
    add = group.add_argument
    add(
        "--after",
        type=_moment,
        metavar="T",
        help="drop interactions before T (2014-05-01 or seconds)",
    )
    add("--before", type=_moment, metavar="T", help="drop interactions at T or later")
    add(
        "--duplicates",
        choices=("first", "last", "all"),
        default="last",
        help="which interactions of a user with the same item to keep (default: %(default)s)",
    )
    add("--min-rating", type=float, metavar="X", help="drop lower ratings")
    add(
        "--require",
        nargs="*",
        default=[],
        choices=("metadata", "picture", "annotations"),
        help="drop items that lack these",
    )
    add(
        "--sample-users",
        type=_positive,
        metavar="N",
        help="keep a random sample of N users, or a share of them if N is below 1",
    )
    add("--seed", type=int, default=2020, help="of the sample (default: 2020)")
    add("--user-core", type=_count, default=1, metavar="K", help="interactions per user: K or more")
    add(
        "--item-core",
        type=_count,
        default=1,
        metavar="K",
        help="interactions per item: K or more; both are repeated until they hold",
    )


def _add_annotations(group: Any) -> None:
    group.add_argument(
        "--min-annotation-items",
        type=_count,
        default=1,
        metavar="N",
        help="drop annotations of fewer than N of the kept items (default: 1)",
    )
    group.add_argument(
        "--stop", nargs="*", default=[], metavar="LABEL", help="annotations to drop, in any case"
    )
    group.add_argument("--stop-file", type=Path, metavar="F", help="the same, one per line")


def _add_limits(group: Any) -> None:
    group.add_argument(
        "--max-bad-share",
        type=_share,
        default=0.01,
        metavar="X",
        help="of unusable records in a file (default: 0.01)",
    )
    group.add_argument(
        "--min-match",
        type=_share,
        default=0.05,
        metavar="X",
        help="when two files are joined by ids: share of the ids of the side with fewer ids that "
        "the other must have too (default: 0.05; 0: any)",
    )
    group.add_argument(
        "--memory",
        type=_memory,
        default="1200MB",
        help="DuckDB's limit (default: 1200MB); the rest goes to disk",
    )
    group.add_argument("--threads", type=_count, default=2, help="DuckDB's threads (default: 2)")


def check_options(options: argparse.Namespace) -> None:
    """Raise ConfigError if options contradict each other."""
    if options.after is not None and options.before is not None and options.after >= options.before:
        raise ConfigError("--after must be earlier than --before")
    if options.min_rating is not None and not math.isfinite(options.min_rating):
        raise ConfigError("--min-rating must be a finite number")


def _typed(
    kind: Callable[[str], Any], good: Callable[[Any], bool], what: str
) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not good(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


_count = _typed(int, lambda value: value >= 1, "a whole number of at least 1")
_share = _typed(float, lambda value: 0 <= value <= 1, "a share between 0 and 1")
_positive = _typed(float, lambda value: 0 < value < math.inf, "a number above 0")
_text = _typed(str, lambda value: bool(value.strip()), "a text")
_name = _typed(str, lambda value: bool(_NAME.fullmatch(value)), "a name of letters, digits, ._-")
_memory = _typed(str, lambda value: bool(_MEMORY.fullmatch(value)), "a size such as 1500MB or 2GB")


def _moment(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            value = math.nan
        else:
            value = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a date (2014-05-01) nor seconds")
    return value
