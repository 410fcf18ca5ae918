"""Unpack a .zip, .tar or .tar.gz that may have been made to do harm.

Only plain files and folders are accepted; one member of another kind, or with a name that could
lead out of the folder, refuses the archive as a whole. Nothing is taken from the archive but names
and contents: no owner, no mode, no link. Members are written below a new folder that gets its name
when all is there, and every byte is counted as it comes out, whatever the archive declares.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from tqdm import tqdm

from recbole_cierec.errors import DataError

from .relative_paths import path_fault

TEMPORARY = "tmp-archive-"  # prefix of a folder that is not complete yet
_BLOCK = 1 << 16
# Small archives may be packed tightly: the ratio counts above this.
_ALWAYS_ALLOWED = 16 << 20
# Long names and extended headers of one tar member; tarfile holds them in memory.
_MOST_HEADER = 4 << 20
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
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
    """What an archive may hold.

    Args:
        total_bytes: Of all files together.
        member_bytes: Of one file.
        members: Files and folders.
        ratio: Unpacked bytes per byte of the archive; pictures hardly pack at all.
    """

    total_bytes: int = 256 << 30
    member_bytes: int = 1 << 30
    members: int = 5_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class Extracted:
    """What was written.

    Args:
        files: How many.
        bytes: Their lengths together.
    """

    files: int
    bytes: int


def extract_archive(
    path: str | Path, into: str | Path, limits: ArchiveLimits | None = None
) -> Extracted:
    """Unpack an archive into a new or empty folder.

    Args:
        path: .zip, .tar or .tar.gz, recognised by its contents.
        into: The folder; it is complete or, after an error, not there (empty, if it was).
        limits: Upper bounds; None: the defaults.

    Returns:
        Counts.

    Raises:
        DataError: Not such an archive, damaged, above the limits, or with a member that could
            write elsewhere; names the member.
    """
    path, into = Path(path), Path(into)
    temporary = into.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        if into.is_symlink() or (into.exists() and any(into.iterdir())):
            raise DataError(f"{into}: not an empty folder; unpack {path.name} into a new one")
        unpack = _unpack_zip if _is_zip(path) else _unpack_tar
        temporary.mkdir(parents=True)
        with tqdm(desc=f"unpack {path.name}", unit=" files", disable=None, leave=False) as bar:
            writer = _Writer(path, temporary, limits or ArchiveLimits(), bar)
            unpack(path, writer)
        os.replace(temporary, into)
    except DataError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:100] or type(error).__name__
        message = f"{path}: damaged archive, or no .zip, .tar or .tar.gz ({text}); fetch it again"
        raise DataError(message) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Extracted(writer.files, writer.written)


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class _Writer:
    """Writes members below one new folder and keeps count."""

    def __init__(self, archive: Path, folder: Path, limits: ArchiveLimits, bar: tqdm) -> None:
        self.archive, self.folder, self.limits, self._bar = archive, folder, limits, bar
        tight = max(_ALWAYS_ALLOWED, int(limits.ratio * archive.stat().st_size))
        self.allowed = min(limits.total_bytes, tight)
        self.files = self.written = self._members = 0
        self._names: set[str] = set()

    def refuse(self, name: str, reason: str) -> DataError:
        return DataError(f"{self.archive}: member {name[:100]!r}: {reason}; nothing was unpacked")

    def bomb(self, unpacked: int) -> DataError:
        return DataError(
            f"{self.archive}: unpacks to {unpacked:,} bytes or more, above the limit of"
            f" {self.allowed:,} for an archive of its length; nothing was unpacked"
        )

    def admit(self, name: str, size: int) -> str:
        """Check one member by its header; returns its path, without "./" and a last "/"."""
        self._members += 1
        if self._members > self.limits.members:
            raise self.refuse(name, f"more than {self.limits.members:,} members")
        plain = name.removeprefix("./").removesuffix("/")
        fault = path_fault(plain)
        if fault:
            raise self.refuse(name, fault)
        if plain in self._names:
            raise self.refuse(name, "another member has the same name")
        self._names.add(plain)
        if not 0 <= size <= self.limits.member_bytes:
            most = self.limits.member_bytes
            raise self.refuse(name, f"declares {size:,} bytes, not 0 to {most:,}")
        return plain

    def add_folder(self, plain: str) -> None:
        (self.folder / plain).mkdir(parents=True, exist_ok=True)

    def add_file(self, plain: str, stream: IO[bytes]) -> None:
        target = self.folder / plain
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x": on a file system that ignores case, two names may be one file.
        with open(target, "xb") as file:
            while block := stream.read(_BLOCK):
                self.written += len(block)
                if self.written > self.allowed:
                    raise self.bomb(self.written)
                file.write(block)
        self.files += 1
        self._bar.update()


def _unpack_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(info, _admit_zipped(info, writer)) for info in archive.infolist()]
        declared = sum(info.file_size for info, _ in members)
        if declared > writer.allowed:
            raise writer.bomb(declared)
        for info, plain in members:
            if info.is_dir():
                writer.add_folder(plain)
            else:
                with archive.open(info) as stream:
                    writer.add_file(plain, stream)


def _admit_zipped(info: zipfile.ZipInfo, writer: _Writer) -> str:
    name = info.orig_filename  # zipfile cuts .filename at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise writer.refuse(name, "a link or device, not a file")
    if info.flag_bits & _ENCRYPTED:
        raise writer.refuse(name, "encrypted")
    if info.compress_type not in _METHODS:
        raise writer.refuse(name, "packed by another method than deflate")
    return writer.admit(name, info.file_size)


class _Meter:
    """Counts what is read of a tar stream, headers and padding too.

    tarfile reads an extended header whole, of whatever length it claims; a budget for each step
    keeps that from filling the memory.
    """

    def __init__(self, stream: IO[bytes] | BinaryIO, writer: _Writer) -> None:
        self._stream, self._writer = stream, writer
        self._left = self._total = 0

    def grant(self, size: int) -> None:
        self._left = size + _BLOCK  # tarfile reads a little ahead

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        self._total += len(data)
        if self._total > self._writer.allowed:
            raise self._writer.bomb(self._total)
        if self._left < 0:
            raise DataError(f"{self._writer.archive}: tar header of over {_MOST_HEADER:,} bytes")
        return data


class _StrictInfo(tarfile.TarInfo):
    """tarfile takes a damaged or missing header in the middle for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:
            raise  # the proper end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _unpack_tar(path: Path, writer: _Writer) -> None:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if packed else file as stream:
            meter = _Meter(stream, writer)
            meter.grant(_MOST_HEADER)
            with tarfile.open(
                fileobj=meter,  # type: ignore[arg-type]
                mode="r|",
                tarinfo=_StrictInfo,
                encoding="utf-8",
            ) as archive:
                _unpack_members(archive, meter, writer)
            while packed and meter.read(_BLOCK):  # to gzip's checksum, which lies at the very end
                meter.grant(_BLOCK)


def _unpack_members(archive: tarfile.TarFile, meter: _Meter, writer: _Writer) -> None:
    while (member := archive.next()) is not None:
        archive.members = []  # else tarfile keeps them all
        if not member.isfile() and not member.isdir():
            raise writer.refuse(member.name, "a link or device, not a file")
        if member.issparse():
            raise writer.refuse(member.name, "a sparse file")
        if member.isdir():
            if member.name not in (".", "./"):
                writer.add_folder(writer.admit(member.name, 0))
        else:
            plain = writer.admit(member.name, member.size)
            meter.grant(member.size)
            stream = archive.extractfile(member)
            if stream is None:
                raise writer.refuse(member.name, "no contents")
            writer.add_file(plain, stream)
        meter.grant(_MOST_HEADER)
