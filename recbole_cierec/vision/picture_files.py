"""Which picture files a data set names, and what they hold, found without decoding any.

Contents are known by their SHA-256. Reading a million files at each start would be slow, so hashes
are kept between runs (:mod:`recbole_cierec.vision.picture_index`) and only files whose size, times
or inode changed are read again.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from recbole_cierec.errors import PictureError
from recbole_cierec.files.digest import Stamp, file_digest, stamp
from recbole_cierec.vision.picture_index import PictureIndex
from recbole_cierec.vision.pictures import PictureSpec, check_file, describe_failure

ADDRESS = "a web address, not a file"
_IS_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
REFUSED = "refused"  # in place of the content hash of a usable file
TEMPORARY_PICTURES = "tmp-pictures-"  # starts the names of incomplete files and folders

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Pool:
    """Threads for work that mostly waits or is done in C.

    Args:
        workers: How many; each holds at most one file open.
        progress: Show progress bars, on a terminal.
    """

    workers: int
    progress: bool

    def map(
        self, function: Callable[[_In], _Out], items: Sequence[_In], title: str
    ) -> Generator[_Out, None, None]:
        """Apply a function to all items; only a few results wait to be read at any time.

        Args:
            function: Called in the threads; the iterator raises what it raises.
            items: Its arguments.
            title: Title of the progress bar.

        Yields:
            The results, in the order of the items.
        """
        executor = ThreadPoolExecutor(self.workers)
        hidden = None if self.progress else True  # None: shown on a terminal only
        bar = tqdm(
            total=len(items), desc=title, unit="file", disable=hidden, leave=False,
            dynamic_ncols=True,
        )  # fmt: skip
        waiting: deque[Future[_Out]] = deque()
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) >= 4 * self.workers:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
        finally:
            executor.shutdown(cancel_futures=True)
            bar.close()


@dataclass(frozen=True)
class PictureFile:
    """One file inside the picture folder.

    Args:
        relative: Its path as the data set has it.
        path: Its resolved path, the one that is opened.
        stamp: Size, times and inode when it was found.
    """

    relative: str
    path: str
    stamp: Stamp


@dataclass
class Scan:
    """What each path holds.

    Args:
        content: Path -> content hash, or REFUSED.
        reasons: Refused path -> why.
        sources: Content hash, in order of first use -> one file that has it.
    """

    content: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    sources: dict[str, PictureFile] = field(default_factory=dict)


def scan_files(
    root: Path, paths: Sequence[str], spec: PictureSpec, cache_dir: Path, pool: Pool
) -> Scan:
    """Find and hash the files.

    Args:
        root: The picture folder.
        paths: Relative paths; empty and repeated ones are skipped.
        spec: Its ``max_pixels`` bounds the length of a file.
        cache_dir: Where hashes are kept between runs.
        pool: Threads that read.

    Returns:
        What was found; unusable files are in ``reasons``, in the order of ``paths``.
    """
    distinct = list(dict.fromkeys(path for path in paths if path))
    index, locator, scan = PictureIndex(cache_dir, root, TEMPORARY_PICTURES), Locator(root), Scan()
    files: dict[str, PictureFile] = {}
    for relative in distinct:
        try:
            files[relative] = locator.locate(relative, spec)
        except PictureError as error:
            scan.reasons[relative] = error.reason
    scan.reasons.update(_hash_unknown(files, index, pool))
    for relative in distinct:
        if relative in scan.reasons:
            scan.content[relative] = REFUSED
        else:
            scan.content[relative] = index.content[relative]
            scan.sources.setdefault(index.content[relative], files[relative])
    return scan


def _hash_unknown(files: dict[str, PictureFile], index: PictureIndex, pool: Pool) -> dict[str, str]:
    """Update the index; returns the files that cannot be read, with reasons."""
    unknown = [file for file in files.values() if not index.knows(file.relative, file.stamp)]
    reasons: dict[str, str] = {}
    with closing(pool.map(_hash_file, unknown, "Hashing pictures")) as results:
        for file, result in zip(unknown, results, strict=True):
            if isinstance(result, PictureError):
                reasons[file.relative] = result.reason
            else:
                index.put(file.relative, file.stamp, *result)
    index.save()
    return reasons


class Locator:
    """Finds files, and refuses paths that lead out of the picture folder before touching them.

    Args:
        root: The picture folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}  # resolving each file's folder again is slow

    def locate(self, relative: str, spec: PictureSpec) -> PictureFile:
        """Find one regular, non-empty file; PictureError with the reason otherwise."""
        try:
            path = self._resolve(relative)
            status = os.stat(path)
        except PictureError:
            raise
        except OSError as error:
            reason = describe_failure(error)
            if os.path.islink(os.path.join(self.real_root, relative)):
                reason = "broken symbolic link"
            elif _IS_ADDRESS.match(relative):
                reason = ADDRESS
            raise PictureError(relative, reason) from error
        except ValueError as error:  # NUL or characters that no file name can hold
            raise PictureError(relative, "not a possible file name") from error
        check_file(relative, status, spec)
        return PictureFile(relative, path, stamp(status))

    def _resolve(self, relative: str) -> str:
        hint = "set image_dir to a folder above both"
        outside = PictureError(relative, f"leaves the picture folder {self.root}; {hint}")
        if os.path.isabs(relative):
            raise outside
        folder, name = os.path.split(relative)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(os.path.join(self.real_root, folder))
        path = os.path.join(self._real_folders[folder], name)
        if name in ("", ".", "..") or os.path.islink(path):
            path = os.path.realpath(path)
        if not path.startswith(self.real_root.rstrip(os.sep) + os.sep) and path != self.real_root:
            raise outside
        return path


def _hash_file(file: PictureFile) -> tuple[str, int] | PictureError:
    """Content hash, and when its reading began (ns); errors are returned, so that all are seen."""
    began = time.time_ns()
    try:
        return file_digest(file.path), began
    except OSError as error:
        return PictureError(file.relative, describe_failure(error))
