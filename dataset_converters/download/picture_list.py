"""The list of pictures to download: which rows are usable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recbole_cierec.errors import DataError
from recbole_cierec.files.leftovers import TEMPORARY

from ..pictures.relative_paths import path_fault
from ..tables.picture_names import target_of
from .addresses import checked_url

FAILURES = "failures.tsv"
LOCK = ".downloading.lock"
_MAX_LINE = 1 << 16  # bytes
_RESERVED = (FAILURES, ".downloading", TEMPORARY)  # beginnings of names


@dataclass(frozen=True)
class Task:
    """One picture to fetch.

    Args:
        line: Line number in the list.
        path: Path of the result, relative to the target folder.
        url: As written in the list.
        host: Host name of the URL.
    """

    line: int
    path: str
    url: str
    host: str


@dataclass(frozen=True)
class Failure:
    """A row without a picture; path and url are as written in the list."""

    line: int
    path: str
    url: str
    reason: str


@dataclass
class PictureList:
    """What the list asks for.

    Args:
        tasks: Usable rows, in order, without exact repetitions.
        failures: The other rows.
    """

    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def read_list(file: Path) -> PictureList:
    """Read a tab-separated list with the header ``path<TAB>url`` or ``item_id<TAB>url``.

    Paths are used unchanged, below the target folder. Ids never become paths: the file of such a
    row gets the name that the converters give to the picture of that item.

    Raises:
        DataError: The file cannot be read, has another header or no row.
    """
    result = PictureList()
    known: dict[str, Task] = {}
    rows = _rows(file)
    header = next(rows, (0, b""))[1].removeprefix(b"\xef\xbb\xbf")
    if header not in (b"path\turl", b"item_id\turl"):
        raise DataError(
            f"{file}: the first line must be path<TAB>url or item_id<TAB>url, with a tab"
        )
    for line, content in rows:
        path = url = ""
        try:
            path, url = _cells(content)
            if header.startswith(b"item_id"):
                if not path:
                    raise ValueError("empty id")
                path = target_of(path, url)
            task = _task(line, path, url)
            earlier = known.setdefault(path, task)
            if earlier.url != url:
                raise ValueError(f"line {earlier.line} has another URL for this path")
            if earlier is task:
                result.tasks.append(task)
        except ValueError as error:
            shown = path or content[:200].decode("utf-8", "backslashreplace")
            result.failures.append(Failure(line, shown, url, str(error)))
    if not result.tasks and not result.failures:
        raise DataError(f"{file}: no rows below the header")
    return result


def _rows(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(file, "rb") as stream:
            number = 0
            while content := stream.readline(_MAX_LINE):
                number += 1
                if len(content) == _MAX_LINE:
                    raise DataError(f"{file}, line {number}: more than {_MAX_LINE:,} bytes")
                content = content.rstrip(b"\r\n")
                if content:
                    yield number, content
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _cells(content: bytes) -> tuple[str, str]:
    try:
        cells = content.decode("utf-8").split("\t")
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    if len(cells) != 2:
        raise ValueError(f"{len(cells)} cells, not 2")
    return cells[0], cells[1].strip(" ")


def _task(line: int, path: str, url: str) -> Task:
    """Raises ValueError with the reason if the row is unusable."""
    reason = path_fault(path)
    if not reason and path.casefold().startswith(_RESERVED):
        reason = "the download itself uses this name"
    if reason:
        raise ValueError(reason)
    return Task(line, path, url, checked_url(url).host or "")
