"""Which picture files a data set names, and what they hold, found without decoding any.

Contents are known by their SHA-256. Reading a million files at each start would be slow, so hashes
are kept between runs and only files whose size, times or inode changed are read again.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from recbole_cierec.errors import PictureError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.npy import read_npz
from recbole_cierec.vision.pictures import PictureSpec, check_file, describe_failure

ADDRESS = "a web address, not a file"
_IS_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
REFUSED = "refused"  # stands where the content hash of a usable file would
TEMPORARY = "tmp-pictures-"  # prefix of whatever is not complete yet
# A file that changes within the clock tick in which it was hashed keeps its time stamp; FAT ticks
# every 2 s. Such young files are hashed again next time.
_YOUNG_NS = 2_000_000_000

Stamp = tuple[int, int, int, int]
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
    ) -> Iterator[_Out]:
        """Apply a function to all items, with only a few results unfinished or unread at any time.

        Args:
            function: Called in the threads; what it raises, the iterator raises.
            items: Its arguments.
            title: Stands before the progress bar.

        Yields:
            The results, in the order of the items.
        """
        executor = ThreadPoolExecutor(self.workers)
        hidden = None if self.progress else True  # None: hidden unless on a terminal
        bar = tqdm(total=len(items), desc=title, unit="file", disable=hidden, dynamic_ncols=True)
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
        paths: Relative paths; empty and repeated ones are passed over.
        spec: Its ``max_pixels`` bounds the length of a file.
        cache_dir: Where hashes are kept between runs.
        pool: Threads that read.

    Returns:
        What was found; unusable files are in ``reasons``, in the order of ``paths``.
    """
    distinct = list(dict.fromkeys(path for path in paths if path))
    index, locator, scan = _HashIndex(cache_dir, root), _Locator(root), Scan()
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


def _hash_unknown(files: dict[str, PictureFile], index: _HashIndex, pool: Pool) -> dict[str, str]:
    """Bring the index up to date; returns the files that cannot be read, with reasons."""
    unknown = [file for file in files.values() if not index.knows(file)]
    reasons = {}
    with closing(pool.map(_hash_file, unknown, "Hashing pictures")) as results:
        for file, result in zip(unknown, results, strict=True):
            if isinstance(result, PictureError):
                reasons[file.relative] = result.reason
            else:
                index.put(file, *result)
    index.save()
    return reasons


class _Locator:
    """Finds files, and refuses paths that lead out of the picture folder before touching them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}  # resolving every file's folder anew is slow

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
        return PictureFile(relative, path, stamp_of(status))

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


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes whenever a file does.

    Args:
        status: Its ``os.stat``.

    Returns:
        Size, mtime and ctime (ns), inode.
    """
    inode = status.st_ino & (2**63 - 1)  # some file systems use all 64 bits; kept as int64
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def _hash_file(file: PictureFile) -> tuple[str, int] | PictureError:
    """Content hash, and when its reading began (ns); errors are returned, so that all are seen."""
    began = time.time_ns()
    digest = sha256()
    try:
        with open(file.path, "rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError as error:
        return PictureError(file.relative, describe_failure(error))
    return digest.hexdigest(), began


class _HashIndex:
    """Content hashes of earlier runs, valid as long as a file's stamp stays the same.

    Kept as plain arrays in an .npz; one that cannot be read is ignored and written anew.
    """

    def __init__(self, cache_dir: Path, root: Path) -> None:
        name = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self.file = cache_dir / f"picture-hashes-{name}.npz"
        self.content: dict[str, str] = {}
        self._stamps: dict[str, Stamp] = {}
        self._young: set[str] = set()
        self._changed = False
        with suppress(FileNotFoundError):
            self._load()

    def _load(self) -> None:
        try:
            arrays = read_npz(self.file)
            names = arrays["names"].tobytes().decode("utf-8", "surrogatepass").split("\0")
            stamps, hashes = arrays["stamps"], arrays["hashes"]
            if stamps.shape != (len(names), 4) or hashes.shape != (len(names), 32):
                raise ValueError("lengths differ")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, LookupError) as error:
            getLogger().warning("%s is damaged (%s): pictures are hashed anew", self.file, error)
            return
        self._stamps = dict(zip(names, map(tuple, stamps.tolist()), strict=True))
        self.content = {name: row.tobytes().hex() for name, row in zip(names, hashes, strict=True)}

    def knows(self, file: PictureFile) -> bool:
        return self._stamps.get(file.relative) == file.stamp

    def put(self, file: PictureFile, content: str, began: int) -> None:
        self.content[file.relative], self._stamps[file.relative] = content, file.stamp
        self._changed = True
        if max(file.stamp[1:3]) > began - _YOUNG_NS:
            self._young.add(file.relative)

    def save(self) -> None:
        names = [name for name in self.content if name not in self._young]
        if not self._changed or not names:
            return
        encoded = "\0".join(names).encode("utf-8", "surrogatepass")
        hashes = bytes.fromhex("".join(self.content[name] for name in names))
        with replacing(self.file, TEMPORARY) as stream:
            np.savez(
                stream,
                names=np.frombuffer(encoded, np.uint8),
                stamps=np.array([self._stamps[name] for name in names], np.int64),
                hashes=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            )
