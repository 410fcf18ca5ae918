"""A check of files before torch reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path


def refuse_packed(path: Path) -> None:
    """Refuse a zip file whose members unpack to more bytes than it has.

    torch never compresses, but does decompress, and a compressed file may hold a thousand times its
    length.

    Raises:
        OSError: It cannot be read.
        ValueError: It is compressed.
        zipfile.BadZipFile: Its directory is damaged.
    """
    if not zipfile.is_zipfile(path):  # torch's format of before 2020
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes")
