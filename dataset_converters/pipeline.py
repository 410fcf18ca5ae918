"""One conversion, from options to the finished folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from recbole_cierec import __version__
from recbole_cierec.errors import DataError
from recbole_cierec.terminal import one_line

from .options import check_options
from .pictures.items import check_pictures
from .tables.bad_records import BadRecords
from .tables.matching import Ids, check_match
from .tables.output import (
    Writer,
    check_target,
    file_digest,
    publish,
    temporary_folder,
    write_manifest,
)
from .tables.steps import Steps
from .tables.workspace import Workspace, duckdb

# Where results go and how the machine is used: these options do not change the result.
_PLACE_OPTIONS = ("output", "overwrite", "dry_run", "memory", "threads", "pictures", "converter")


class Converter(Protocol):
    """What a module must define to be a converter.

    It may also define ``ICONS``, regular expressions of the addresses that a shop gives to items
    without a picture, and ``expected(options)``, published counts to print next to ours.
    """

    NAME: str  # default name of the data set

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the converter's options; ``parser.set_defaults`` may change shared ones."""

    def load(self, space: Workspace, options: argparse.Namespace) -> None:
        """Fill the tables interactions and items (see :mod:`.tables.steps`)."""


def convert(name: str, converter: Converter, options: argparse.Namespace) -> list[str]:
    """Convert.

    Args:
        name: Of the converter, for the manifest.
        converter: A module.
        options: From its parser.

    Returns:
        The report, as lines.

    Raises:
        UserError: Options, files or disks are at fault; nothing has the final name then.
    """
    check_options(options)
    target = options.output / options.name
    if not options.dry_run:
        check_target(target, options.overwrite)
    try:
        return _convert(name, converter, options, target)
    except OSError as error:  # a full disk, a file without permission
        place = error.filename or target
        raise DataError(f"{place}: {error.strerror or error}") from error


def _convert(
    name: str, converter: Converter, options: argparse.Namespace, target: Path
) -> list[str]:
    cancelled = Event()
    with temporary_folder(target, options.dry_run) as temp, ThreadPoolExecutor(1) as pool:
        space = Workspace(temp, options.memory, options.threads, BadRecords(options.max_bad_share))
        try:
            converter.load(space, options)
            check_match(
                space,
                options,
                Ids("interactions", "item_id", "items of the interactions"),
                Ids("items", "item_id", "the files of items"),
                dropped="metadata" in options.require,
            )
            check_pictures(space, options, getattr(converter, "ICONS", ()))
            # Inputs are hashed in parallel with the rest; hashing releases the interpreter's lock.
            inputs = [] if options.dry_run else space.inputs
            digests = [pool.submit(file_digest, path, cancelled) for path in inputs]
            steps = Steps(space, options)
            steps.run()
            facts = {"annotation tokens (elements)": steps.elements}
            if not options.dry_run:
                made = temp / "made"
                made.mkdir()
                facts = Writer(space, steps, options, made).write()
                hashes = [digest.result() for digest in digests]
                manifest = _manifest(options, space, steps, facts, hashes)
                write_manifest(made, {"converter": name, **manifest})
        except BaseException:
            cancelled.set()  # or leaving the pool would wait for the hashes
            raise
        finally:
            space.close()
        if not options.dry_run:
            publish(made, target)
    expected: dict[str, int] = getattr(converter, "expected", lambda options: {})(options)
    return _report(expected, options, space, steps, facts)


def _manifest(
    options: argparse.Namespace,
    space: Workspace,
    steps: Steps,
    facts: dict[str, int],
    hashes: Sequence[str],
) -> dict[str, Any]:
    chosen = {key: value for key, value in vars(options).items() if key not in _PLACE_OPTIONS}
    return {
        "versions": {"recbole_cierec": __version__, "duckdb": duckdb.__version__},
        "options": {key: _plain(value) for key, value in sorted(chosen.items())},
        "inputs": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
            for path, digest in zip(space.inputs, hashes, strict=True)
        ],
        "bad_records": space.bad.files,
        "notes": space.notes,
        "steps": [vars(count) for count in steps.counts],
        "items": facts,
    }


def _plain(value: Any) -> Any:
    """An option as JSON; of a path only the last part, since a machine's folders mean nothing."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.name if isinstance(value, Path) else value


def _report(
    expected: dict[str, int],
    options: argparse.Namespace,
    space: Workspace,
    steps: Steps,
    facts: dict[str, int],
) -> list[str]:
    lines = [f"{'step':<52}{'interactions':>14}{'users':>12}{'items':>12}"]
    for count in steps.counts:
        lines.append(
            f"{count.step:<52}{count.interactions:>14,}{count.users:>12,}{count.items:>12,}"
        )
    lines += [f"{key}: {value:,}" for key, value in facts.items()]
    ours = {**vars(steps.counts[-1]), "elements": steps.elements}
    for key, value in expected.items():
        lines.append(f"{key}: {ours[key]:,}; the paper's Table I: {value:,}")
    lines += space.notes
    if space.bad.total:
        lines.append(f"records that could not be used: {space.bad.total:,}")
        lines += [f"  {line}" for line in space.bad.lines()]
    lines.append(
        "nothing written (--dry-run)"
        if options.dry_run
        else f"written: {options.output / options.name}"
    )
    return [one_line(line) for line in lines]
