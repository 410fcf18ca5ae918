"""Large .npy files, written as streams, and .npz files, read with their claims checked."""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from recbole_cierec.terminal import reason

_LONGEST_REASON = 200  # characters; zipfile quotes names of up to 64 KiB
# An .npz may unpack to so many times its length; deflate allows a thousand, ids and lists need less
# than 60.
_MOST_UNPACKED = 200
_LONGEST_END = 22 + 0xFFFF  # bytes of the last record of a zip file, with its comment
_UNPACKED_AT_LEAST = 1 << 28  # allowed for any file


def write_npy(path: Path, batches: Iterable[np.ndarray], shape: tuple[int, ...], dtype: str) -> str:
    """Write batches of rows as one .npy file and return its sha256 (hex).

    Written, not mapped: a full disk then raises OSError, while a write to a map kills the process.
    """
    header = io.BytesIO()
    form = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        with np.errstate(over="ignore"):  # overflow gives infinity, which callers refuse
            for block in chain([header.getvalue()], (b.astype(dtype).tobytes() for b in batches)):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def npz_names(path: Path) -> set[str]:
    """Names of the arrays of an .npz file.

    Raises:
        OSError, ValueError: As :func:`read_npz`.
    """
    return set(_read_npz(path, ()))


def read_npz(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file that may be damaged or malicious.

    Nothing is allocated before the stated sizes have been compared with the file's own.

    Args:
        path: The file.
        wanted: Names of the arrays to read, as far as they exist; None: all.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file; the text is one line.
    """
    return {name: array for name, array in _read_npz(path, wanted).items() if array is not None}


def _read_npz(path: Path, wanted: Collection[str] | None) -> dict[str, np.ndarray | None]:
    """All names, with the arrays of those that are wanted."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bombs(archive, path.stat().st_size)
            _refuse_lost_members(archive, path)
            return {
                info.filename.removesuffix(".npy"): _read_member(archive, info, wanted)
                for info in archive.infolist()
            }
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and numpy fail in many ways on damaged bytes
        raise ValueError(reason(error, _LONGEST_REASON)) from error


def _refuse_bombs(archive: zipfile.ZipFile, length: int) -> None:
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > max(_UNPACKED_AT_LEAST, _MOST_UNPACKED * length):
        raise ValueError(f"{unpacked:,} bytes of arrays in a file of {length:,}")
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is packed by an unusual method")


def _refuse_lost_members(archive: zipfile.ZipFile, path: Path) -> None:
    """A damaged length in the directory can hide the entries after it, which zipfile accepts."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _LONGEST_END), os.SEEK_END)
        _, _, stated = file.read().rpartition(b"PK\5\6")
    count = int.from_bytes(stated[6:8], "little")  # all ones: too many for this field
    if count not in (len(archive.infolist()), 0xFFFF):
        raise ValueError(f"{len(archive.infolist())} of {count} arrays are found")


def _read_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, wanted: Collection[str] | None
) -> np.ndarray | None:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:  # compares the name here with that in the directory
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{name} has a header of version {version}")
        shape, _, dtype = _HEADERS[version](stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not dtype.itemsize or size != info.file_size - stream.tell():
            raise ValueError(f"{name} states {dtype} {shape}, which does not fit its length")
    if wanted is not None and name not in wanted:
        return None
    with archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if dtype.kind == "U" and array.size:
        codes = array.astype(dtype.newbyteorder("=")).reshape(-1).view(np.uint32)
        if codes.max() > sys.maxunicode:
            raise ValueError(f"{name} holds numbers that are not characters")
    return array


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
