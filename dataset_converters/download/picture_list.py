"""The list of pictures to download: which rows are usable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recbole_cierec.errors import DataError

from ..pictures.folders import target_of
from ..pictures.relative_paths import path_fault
from .addresses import checked_url
from .schedule import Task

FAILURES = "failures.tsv"
PARTIAL = ".downloading"  # files on their way, below the target folder
_MOST_LINE = 1 << 16
_OURS = (FAILURES.casefold(), PARTIAL)


@dataclass(frozen=True)
class Failure:
    """A row without a picture.

    Args:
        line: Of the list.
        path: As written there.
        url: As written there.
        reason: In a few words.
    """

    line: int
    path: str
    url: str
    reason: str


@dataclass
class PictureList:
    """What the list asks for.

    Args:
        tasks: Usable rows, in order; a row that repeats an earlier one is left out.
        failures: The other rows.
    """

    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def read_list(file: Path) -> PictureList:
    """Read a tab-separated list with the header ``path<TAB>url`` or ``item_id<TAB>url``.

    Paths are used as they are, below the target folder. Ids never are: such a row's file gets the
    name that the converters give to the picture of that item.

    Args:
        file: UTF-8.

    Returns:
        Its rows.

    Raises:
        DataError: The file cannot be read, has another header or no row.
    """
    result, lines_of = PictureList(), {}
    rows = _rows(file)
    header = next(rows, (0, b""))[1].removeprefix(b"\xef\xbb\xbf").split(b"\t")
    if len(header) != 2 or header[0] not in (b"path", b"item_id") or header[1] != b"url":
        raise DataError(
            f"{file}: the first line must be path<TAB>url or item_id<TAB>url, with a tab"
        )
    for line, content in rows:
        path, url, reason = _cells(content)
        if not reason and header[0] == b"item_id":
            path, reason = (target_of(path, url), "") if path else (path, "empty id")
        task, reason = (None, reason) if reason else _task(line, path, url)
        if task:
            earlier = lines_of.setdefault(path, task)
            if earlier is task:
                result.tasks.append(task)
                continue
            if earlier.url == url:
                continue
            reason = f"line {earlier.line} has another URL for this path"
        result.failures.append(Failure(line, path, url, reason))
    if not result.tasks and not result.failures:
        raise DataError(f"{file}: no rows below the header")
    return result


def _rows(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(file, "rb") as stream:
            number = 0
            while content := stream.readline(_MOST_LINE):
                number += 1
                if len(content) == _MOST_LINE:
                    raise DataError(f"{file}, line {number}: more than {_MOST_LINE:,} bytes")
                content = content.rstrip(b"\r\n")
                if content:
                    yield number, content
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _cells(content: bytes) -> tuple[str, str, str]:
    try:
        cells = content.decode("utf-8").split("\t")
    except UnicodeDecodeError:
        return content[:200].decode("utf-8", "backslashreplace"), "", "the line is not UTF-8"
    if len(cells) != 2:
        return cells[0], " ".join(cells[1:]), f"{len(cells)} cells, not 2"
    return cells[0], cells[1].strip(" "), ""


def _task(line: int, path: str, url: str) -> tuple[Task | None, str]:
    reason = path_fault(path)
    if not reason and path.split("/")[0].casefold() in _OURS:
        reason = "the path is used by the download itself"
    if reason:
        return None, reason
    try:
        return Task(line, path, url, checked_url(url).host or ""), ""
    except ValueError as error:
        return None, str(error)
