"""Unpack a .zip, .tar or .tar.gz that may be malicious.

Only regular files and folders are accepted; a member of any other kind, or with a name that could
lead out of the folder, refuses the archive as a whole. ``tarfile`` (with its ``data`` filter) and
``zipfile`` do the reading and writing; here are the limits and the names that they do not check.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recbole_cierec.errors import DataError
from recbole_cierec.terminal import reason

from .relative_paths import path_fault

_BLOCK = 1 << 20
_ALWAYS_ALLOWED = 16 << 20  # bytes; the ratio counts above this, since small archives pack well
_MAX_HEADER = 4 << 20  # bytes of the long name or extended header of a tar member
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Kinds of tar headers that tarfile reads into memory whole, however long they claim to be.
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,  # RecursionError too: headers that announce headers
    struct.error,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """Upper bounds.

    Args:
        total_bytes: Of all files together.
        member_bytes: Of one file.
        members: Files and folders.
        ratio: Unpacked bytes per byte of the archive; pictures hardly compress at all.
    """

    total_bytes: int = 256 << 30
    member_bytes: int = 1 << 30
    members: int = 5_000_000
    ratio: float = 100.0


@dataclass
class Extracted:
    """Counts of what was written."""

    files: int = 0
    bytes: int = 0


def extract_archive(path: Path, into: Path, limits: ArchiveLimits | None = None) -> Extracted:
    """Unpack an archive into a new folder.

    Args:
        path: .zip, .tar or .tar.gz, recognised by its contents.
        into: The folder. It is removed after an error; a killed process leaves it behind, so it
            belongs into a temporary folder that the next run clears.
        limits: None: the defaults.

    Raises:
        DataError: No such archive, damaged, above the limits, or with a member that could write
            elsewhere; names the member.
    """
    try:
        into.mkdir(parents=True)
    except FileExistsError:
        raise DataError(f"{into}: exists; unpack {path.name} into a new folder") from None
    try:
        guard = _Guard(path, into, limits or ArchiveLimits())
        with open(path, "rb") as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        bar = tqdm(desc=f"unpack {path.name}", unit=" files", disable=None, leave=False)
        with bar:
            for size in _unzip(path, guard) if is_zip else _untar(path, guard):
                guard.done.files += 1
                guard.done.bytes += size
                bar.update()
        return guard.done
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(error, DataError):
            raise
        if isinstance(error, _DAMAGE):
            raise DataError(
                f"{path}: damaged archive, or no .zip, .tar or .tar.gz ({reason(error, 100)}); "
                "download it again"
            ) from error
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
        raise


class _Guard:
    """Checks the members of one archive by their headers, before they are written."""

    def __init__(self, archive: Path, folder: Path, limits: ArchiveLimits) -> None:
        self.archive, self.folder, self.limits = archive, folder, limits
        tight = max(_ALWAYS_ALLOWED, int(limits.ratio * archive.stat().st_size))
        self.allowed = min(limits.total_bytes, tight)
        self.done = Extracted()
        self._members = self._declared = 0

    def refusal(self, name: str, reason: str) -> DataError:
        return DataError(f"{self.archive}: member {name[:100]!r}: {reason}; nothing was unpacked")

    def count(self, size: int) -> None:
        """Add bytes to the total; both formats never yield more than their headers declare."""
        self._declared += size
        if self._declared > self.allowed:
            raise DataError(
                f"{self.archive}: unpacks to {self._declared:,} bytes or more, above the limit of"
                f" {self.allowed:,} for an archive of its size; nothing was unpacked"
            )

    def admit(self, name: str, size: int) -> Path:
        """Check one member; returns the path that it will have."""
        self._members += 1
        if self._members > self.limits.members:
            raise self.refusal(name, f"more than {self.limits.members:,} members")
        plain = name.removeprefix("./").removesuffix("/")
        if fault := path_fault(plain):
            raise self.refusal(name, fault)
        most = self.limits.member_bytes
        if not 0 <= size <= most:
            raise self.refusal(name, f"declares {size:,} bytes, not 0 to {most:,}")
        self.count(size)
        return self.folder / plain

    def check_new(self, name: str, target: Path) -> None:
        """Refuse a second file of the same name, also where the file system ignores case."""
        if target.exists():
            raise self.refusal(name, "another member has the same name")


def _unzip(path: Path, guard: _Guard) -> Iterator[int]:
    """Yields the size of each file after writing it."""
    with zipfile.ZipFile(path) as archive:
        targets = [_admit_zipped(info, guard) for info in archive.infolist()]
        for info, target in zip(archive.infolist(), targets, strict=True):
            if not info.is_dir():
                guard.check_new(info.filename, target)
            archive.extract(info, guard.folder)
            if not info.is_dir():
                yield info.file_size


def _admit_zipped(info: zipfile.ZipInfo, guard: _Guard) -> Path:
    name = info.orig_filename  # zipfile cuts .filename at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise guard.refusal(name, "a link or device, not a file")
    if info.flag_bits & _ENCRYPTED:
        raise guard.refusal(name, "encrypted")
    if info.compress_type not in _METHODS:
        raise guard.refusal(name, "compressed by another method than deflate")
    return guard.admit(name, info.file_size)


def _strict_info(guard: _Guard) -> type[tarfile.TarInfo]:
    """The class of an archive's members: intact headers, and not too long before any member.

    tarfile takes a damaged or missing header in the middle for the end of the archive, and reads
    extended headers whole, of whatever length they claim, one after another.
    """
    pending = 0  # bytes of extended headers since the last member

    class StrictInfo(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictInfo:
            nonlocal pending
            try:
                info = super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the proper end
                raise
            except tarfile.HeaderError as error:
                raise tarfile.ReadError(str(error)) from error
            pending = pending + info.size if info.type in _HEADERS else 0
            if pending > _MAX_HEADER:
                raise tarfile.ReadError(f"tar header of over {_MAX_HEADER:,} bytes")
            guard.count(pending)
            return info

    return StrictInfo


def _untar(path: Path, guard: _Guard) -> Iterator[int]:
    """Yields the size of each file after writing it."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        with tarfile.open(
            fileobj=stream, mode="r|", tarinfo=_strict_info(guard), encoding="utf-8"
        ) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or tarfile keeps them all
                if member.issparse() or not (member.isfile() or member.isdir()):
                    raise guard.refusal(member.name, "a link, device or sparse file")
                if member.isdir() and member.name in (".", "./"):
                    continue
                target = guard.admit(member.name, member.size)
                if member.isfile():
                    guard.check_new(member.name, target)
                archive.extract(member, guard.folder, set_attrs=False, filter="data")
                if member.isfile():
                    yield member.size
        while packed and (block := stream.read(_BLOCK)):  # to gzip's checksum, at the very end
            guard.count(len(block))
