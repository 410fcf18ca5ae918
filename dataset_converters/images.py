"""Download the pictures of a list, politely, and keep only files that decode.

Every file is written under another name and renamed when it is whole and checked, so that the
command can be killed at any moment and run again: files that are there and decode are not fetched
anew. Pictures that could not be had are listed with their reasons in failures.tsv.
robots.txt is not read: the list is yours, and so is the right to fetch what it names.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_cierec import __version__
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.vision.pictures import RESIZE_MODES

from .download.fetch_limits import FetchLimits, resizable
from .download.schedule import Pace
from .options import Parser

if TYPE_CHECKING:  # they need aiohttp, which --help does not
    from .download.downloads import Manner, Outcome
    from .download.picture_list import PictureList

# Smallest values that make sense; times and rates may be fractions.
_MINIMUM = {"workers": 1, "rate": 0, "host_rate": 0, "per_host": 1, "attempts": 1, "backoff": 0}
_MINIMUM |= {"max_wait": 0, "timeout": 0.01, "connect_timeout": 0.01, "max_redirects": 0}
_MINIMUM |= {"max_bytes": 1, "max_pixels": 1, "resize": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the download.

    Args:
        parser: Of the command line.
    """
    add = parser.add_argument
    add(
        "--list",
        type=Path,
        required=True,
        metavar="FILE",
        help="tab-separated, first line path<TAB>url (paths below FOLDER) or item_id<TAB>url",
    )
    add("--into", type=Path, required=True, metavar="FOLDER", help="where the files go")
    add("--dry-run", action="store_true", help="count only, ask no server")
    add("--trust-existing", action="store_true", help="do not decode files that are there already")
    add(
        "--contact",
        default="",
        metavar="TEXT",
        help="address or page for the User-Agent, so that you can be asked to slow down",
    )
    _add_pace(parser.add_argument_group("pace"))
    _add_limits(parser.add_argument_group("limits"))


def _add_pace(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--workers", type=int, default=8, metavar="N", help="downloads at a time (default: 8)")
    add(
        "--per-host",
        type=int,
        default=Pace.per_host,
        metavar="N",
        help="the same, from one host (default: %(default)s)",
    )
    add(
        "--rate",
        type=float,
        default=Pace.rate,
        metavar="X",
        help="requests a second (default: %(default)s; 0: no limit)",
    )
    add(
        "--host-rate",
        type=float,
        default=Pace.host_rate,
        metavar="X",
        help="the same, to one host (default: %(default)s)",
    )
    add(
        "--attempts",
        type=int,
        default=FetchLimits.attempts,
        metavar="N",
        help="requests for a picture before it counts as failed (default: %(default)s)",
    )
    add(
        "--backoff",
        type=float,
        default=FetchLimits.backoff,
        metavar="S",
        help="seconds before the second attempt, doubled from one to the next (default:"
        " %(default)s)",
    )
    add(
        "--max-wait",
        type=float,
        default=FetchLimits.max_wait,
        metavar="S",
        help="longest wait, even if the server's Retry-After says more (default: %(default)s)",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--timeout",
        type=float,
        default=FetchLimits.timeout,
        metavar="S",
        help="seconds for a request with its whole answer (default: %(default)s)",
    )
    add(
        "--connect-timeout",
        type=float,
        default=FetchLimits.connect_timeout,
        metavar="S",
        help="seconds to reach a server (default: %(default)s)",
    )
    add(
        "--max-redirects",
        type=int,
        default=FetchLimits.max_redirects,
        metavar="N",
        help="default: %(default)s",
    )
    add(
        "--max-bytes",
        type=int,
        default=FetchLimits.max_bytes,
        metavar="N",
        help="of one picture (default: %(default)s)",
    )
    add(
        "--max-pixels",
        type=int,
        default=FetchLimits.max_pixels,
        metavar="N",
        help="of one picture (default: %(default)s)",
    )
    add(
        "--any-type",
        action="store_true",
        help="take pictures that the server declares to be something else",
    )
    add(
        "--allow-private",
        nargs="*",
        metavar="NETWORK",
        help="allow addresses that are not public: these networks, or all if none is named",
    )
    add(
        "--resize",
        type=int,
        metavar="S",
        help="keep squares of S pixels, made as training makes them for image_size: S",
    )
    add(
        "--resize-mode",
        choices=RESIZE_MODES,
        default=FetchLimits.resize_mode,
        help="as image_resize (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: Without the names of program and converter; None: those of the process.

    Returns:
        The exit code: 0; 2 for an error that the user can mend, also if no picture could be had.
    """
    parser = Parser(
        prog="dataset_converters images",
        description=(__doc__ or "").split("\n")[0],
        allow_abbrev=False,
    )
    add_arguments(parser)
    argv = sys.argv[1:] if argv is None else argv
    return run_command(lambda words: print(run(parser.parse_args(words))), argv, parser.format_help)


def run(options: argparse.Namespace) -> str:
    """Download what a list names.

    Args:
        options: As of :func:`add_arguments`.

    Returns:
        The summary.

    Raises:
        ConfigError, DataError: Options or list are wrong; no picture could be had.
    """
    manner = _manner(options)
    from .download.downloads import Outcome, download, locked, missing_tasks, write_failures
    from .download.picture_list import read_list

    began = time.monotonic()
    rows = read_list(options.list)
    _check_suffixes(rows, options.resize)
    trust = options.trust_existing
    if options.dry_run:
        missing = missing_tasks(rows.tasks, options.into, manner.limits, trust=trust)
        hosts = len({task.host for task in missing})
        return (
            f"{len(rows.tasks) - len(missing):,} pictures are there, {len(missing):,} would be"
            f" fetched from {hosts:,} hosts, {len(rows.failures):,} rows are unusable"
        )
    outcome = Outcome(list(rows.failures))
    with locked(options.into):
        missing = missing_tasks(rows.tasks, options.into, manner.limits, trust=trust)
        try:
            download(missing, options.into, manner, outcome)
        finally:
            write_failures(options.into, outcome.failures)
    present = len(rows.tasks) - len(missing)
    return _summary(options.into, outcome, present, time.monotonic() - began)


def _manner(options: argparse.Namespace) -> Manner:
    for name, least in _MINIMUM.items():
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; use {least} or more")
    if not options.contact.isascii() or not options.contact.isprintable():
        raise ConfigError("--contact goes into a header; use plain ASCII letters")
    try:
        from .download.addresses import AddressPolicy
        from .download.downloads import Manner
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "yarl"):
            raise
        raise ConfigError(
            "downloads need aiohttp; install it with: pip install 'recbole-cierec[images]'"
        ) from error
    limits = FetchLimits(**{name: getattr(options, name) for name in FetchLimits.__annotations__})
    contact = f"; {options.contact}" if options.contact else ""
    return Manner(
        limits=limits,
        pace=Pace(options.rate, options.host_rate, options.per_host),
        policy=AddressPolicy.parse(options.allow_private),
        workers=options.workers,
        agent=f"recbole_cierec/{__version__} (pictures for a data set{contact})",
    )


def _check_suffixes(rows: PictureList, resize: int | None) -> None:
    for task in rows.tasks if resize else ():
        if not resizable(task.path):
            raise DataError(
                f"line {task.line} of the list: with --resize, {task.path} must end in"
                " .jpg, .jpeg, .png, .webp or .bmp"
            )


def _summary(folder: Path, outcome: Outcome, present: int, seconds: float) -> str:
    failed = len(outcome.failures)
    kinds = Counter(failure.reason for failure in outcome.failures).most_common(3)
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in kinds)
    if failed and not outcome.fetched and not present:
        raise DataError(
            f"none of {failed:,} pictures could be had ({reasons}); see {folder / 'failures.tsv'}"
        )
    text = (
        f"{outcome.fetched:,} pictures fetched ({outcome.bytes / 1e6:,.1f} MB),"
        f" {present:,} were there, {failed:,} failed, in {seconds:,.1f} s"
    )
    return f"{text}; {folder / 'failures.tsv'}: {reasons}" if failed else text
