"""Download the pictures of a list, politely, and keep only files that decode.

Every file gets its name only when it is complete and checked, so the command can be killed at any
moment and run again: valid existing files are skipped. Pictures that could not be fetched are
listed with the reason in failures.tsv. robots.txt is not read: make sure that you may fetch what
you list.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_cierec import __version__
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import ConfigError, DataError

from .download.limits import add_limits, limits_of
from .options import PROGRAM, Parser

if TYPE_CHECKING:  # it needs aiohttp, which --help does not
    from .download.run import Download

_PACKAGES = ("aiohttp", "aiolimiter", "tenacity", "yarl")


def make_parser() -> Parser:
    """The parser of this command."""
    parser = Parser(prog=f"{PROGRAM} images", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add(
        "--list",
        type=Path,
        required=True,
        metavar="FILE",
        help="tab-separated, first line path<TAB>url (paths below FOLDER) or item_id<TAB>url",
    )
    add("--into", type=Path, required=True, metavar="FOLDER", help="where the files go")
    add("--dry-run", action="store_true", help="count only, send no request")
    add("--trust-existing", action="store_true", help="do not decode existing files")
    add(
        "--contact",
        default="",
        metavar="TEXT",
        help="e-mail address or page for the User-Agent, so that servers' owners can reach you",
    )
    add(
        "--allow-private",
        nargs="*",
        metavar="NETWORK",
        help="allow addresses that are not public: these networks, or all if none is given",
    )
    add_limits(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the names of program and converter.

    Returns:
        The exit code: 0, or 2 for an error that the user can fix; also if no picture at all could
        be fetched.
    """
    parser = make_parser()
    argv = sys.argv[1:] if argv is None else argv
    return run_command(lambda words: print(run(parser.parse_args(words))), argv, parser.format_help)


def run(options: argparse.Namespace) -> str:
    """Download the pictures of a list.

    Args:
        options: From :func:`make_parser`.

    Returns:
        The summary, one line.

    Raises:
        ConfigError, DataError: Options or list are wrong; no picture could be fetched.
    """
    limits = limits_of(options)
    if not options.contact.isascii() or not options.contact.isprintable():
        raise ConfigError("--contact becomes part of a header; use plain ASCII letters")
    try:
        from .download.fetch import SAVE  # isort: skip  # aiohttp first: it needs yarl too
        from .download.addresses import AddressPolicy
        from .download.picture_list import read_list
        from .download.run import Download, locked
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise ConfigError(
            f"downloads need {error.name}; install it with: pip install 'recbole-cierec[images]'"
        ) from error
    contact = f"; {options.contact}" if options.contact else ""
    agent = f"recbole_cierec/{__version__} (pictures for a data set{contact})"
    policy = AddressPolicy.parse(options.allow_private)

    began = time.monotonic()
    rows = read_list(options.list)
    for task in rows.tasks if limits.resize else ():
        if not task.path.lower().endswith(tuple(SAVE)):
            raise DataError(
                f"{options.list}, line {task.line}: with --resize, {task.path} must end in"
                f" {', '.join(SAVE)}"
            )
    download = Download(options.into, limits, policy, agent, list(rows.failures))
    if options.dry_run:
        missing = download.missing(rows.tasks, trust=options.trust_existing)
        hosts = len({task.host for task in missing})
        return (
            f"{len(rows.tasks) - len(missing):,} pictures exist, {len(missing):,} would be"
            f" fetched from {hosts:,} hosts, {len(rows.failures):,} rows are unusable"
        )
    with locked(options.into):
        missing = download.missing(rows.tasks, trust=options.trust_existing)
        try:
            download.fetch(missing)
        finally:
            download.write_failures()
    return _summary(download, len(rows.tasks) - len(missing), time.monotonic() - began)


def _summary(download: Download, present: int, seconds: float) -> str:
    failed, file = len(download.failures), download.folder / "failures.tsv"
    kinds = Counter(failure.reason for failure in download.failures).most_common(3)
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in kinds)
    if failed and not download.fetched and not present:
        raise DataError(f"none of {failed:,} pictures could be fetched ({reasons}); see {file}")
    text = (
        f"{download.fetched:,} pictures fetched ({download.bytes / 1e6:,.1f} MB),"
        f" {present:,} existed, {failed:,} failed, in {seconds:,.1f} s"
    )
    return f"{text}; {file}: {reasons}" if failed else text
