"""Limits on what decoding a picture may cost.

A few bytes can be expensive: a scan of a progressive JPEG decodes every pixel again, a compressed
text in a PNG inflates a thousandfold, and Pillow skips stray bytes one at a time. All limits are
applied to what Pillow actually reads, while it reads, so that no second parser has to agree with
Pillow's about where a segment begins.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from recbole_cierec.errors import PictureError

# No format stores more than 8 bytes a pixel (16-bit RGBA), plus room for metadata.
BYTES_PER_PIXEL = 8
METADATA_BYTES = 64 * 2**20
# Calls of read(), since each may return a single byte.
_HEADER_READS = 50_000
_PIXELS_PER_READ = 2  # runs of a compressed BMP; other formats read thousands of pixels at a time
# Pillow joins the EXIF segments of a JPEG one by one, in quadratic time.
_EXIF_BYTES = 2**20
_EXIF = b"Exif\0\0"
# Each may inflate to 1 MiB; Pillow bounds the sum for some of them only.
_PACKED_CHUNKS = 100
_PACKED = (b"iCCP", b"zTXt", b"iTXt")
_PIXEL_CHUNKS = (b"IDAT", b"fdAT")
# libjpeg writes up to 18 scans (CMYK), other encoders about as many. The cost of a scan is
# proportional to the number of pixels, so small pictures may have more.
_FEW_SCANS = 25
_SCANNED_PIXELS = 2**30
_SCAN = 0xDA  # after 0xFF
# Pillow unpacks compressed BMPs in Python, at 0.1 us a pixel.
_RLE_PIXELS = 2**24


class PictureReader:
    """A file object for Pillow that enforces the limits.

    Until :meth:`begin_pixels` is called only header and metadata can be read.

    Args:
        path: For messages.
        file: The open file, at its start.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self._bytes_left, self._reads_left = METADATA_BYTES, _HEADER_READS
        self._what = "header and metadata"

    def begin_pixels(self, size: tuple[int, int]) -> None:
        """Allow as much as a picture of this width and height may need.

        The allowance for metadata is renewed, because a JPEG is read from its start again.
        """
        pixels = size[0] * size[1]
        self._bytes_left = METADATA_BYTES + BYTES_PER_PIXEL * pixels
        self._reads_left = _HEADER_READS + pixels // _PIXELS_PER_READ
        self._what = f"a picture of {size[0]} x {size[1]} pixels"

    def read(self, size: int = -1) -> bytes:
        """Read like a file.

        Raises:
            PictureError: A limit is exceeded.
        """
        most = self._bytes_left + 1
        data = self._file.read(min(size, most) if size >= 0 else most)
        self._bytes_left -= len(data)
        self._reads_left -= 1
        if self._bytes_left < 0:
            raise self._error(f"too many bytes for {self._what}")
        if self._reads_left < 0:
            raise self._error(f"too many small pieces for {self._what}")
        self._count(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _count(self, data: bytes) -> None:
        """Limits of one format."""

    def _error(self, reason: str) -> PictureError:
        return PictureError(self.path, reason)


class _JpegReader(PictureReader):
    """Bounds EXIF data and the number of scans."""

    _exif_bytes, _scans, _most_scans = 0, 1, 0
    _first_scan, _last = 0, b""

    def begin_pixels(self, size: tuple[int, int]) -> None:
        super().begin_pixels(size)
        self._most_scans = max(_FEW_SCANS, _SCANNED_PIXELS // (size[0] * size[1]))
        self._first_scan = self.tell()  # Pillow's header ends with the marker of the first scan

    def _count(self, data: bytes) -> None:
        if not self._first_scan:
            self._count_exif(data)
            return
        # Count every pair of bytes that libjpeg might read as the marker of a scan; entropy-coded
        # data contain none, and those before the first scan belong to thumbnails.
        new = data[max(0, len(data) - (self.tell() - self._first_scan)) :]
        codes = np.frombuffer(self._last + new, np.uint8)  # six times as fast as bytes.count
        self._scans += int(np.count_nonzero((codes[:-1] == 0xFF) & (codes[1:] == _SCAN)))
        self._last = new[-1:] or self._last
        if self._scans > self._most_scans:
            raise self._error(f"more than {self._most_scans:,} scans of {self._what}")

    def _count_exif(self, data: bytes) -> None:
        if data.startswith(_EXIF):
            self._exif_bytes += len(data)
            if self._exif_bytes > _EXIF_BYTES:
                raise self._error(f"more than {_EXIF_BYTES:,} bytes of EXIF data")


class _PngReader(PictureReader):
    """Bounds all chunks except pixels, before and after these."""

    _next_chunk, _metadata_bytes, _packed = 8, 0, 0

    def _count(self, data: bytes) -> None:
        if len(data) != 8 or self.tell() - 8 != self._next_chunk:
            return
        length, kind = struct.unpack(">I4s", data)
        self._next_chunk += 12 + length  # length, kind and checksum
        if kind not in _PIXEL_CHUNKS:
            self._metadata_bytes += length
        if self._metadata_bytes > METADATA_BYTES:
            raise self._error(f"more than {METADATA_BYTES:,} bytes of metadata")
        self._packed += kind in _PACKED
        if self._packed > _PACKED_CHUNKS:
            raise self._error(f"more than {_PACKED_CHUNKS} compressed texts and profiles")


_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def limited(path: Path, file: BinaryIO) -> PictureReader:
    """A reader with the limits of the file's format.

    Args:
        path: For messages.
        file: An open file of any kind, at its start.
    """
    magic = file.read(8)
    file.seek(0)
    if magic.startswith(_JPEG):
        return _JpegReader(path, file)
    return (_PngReader if magic == _PNG else PictureReader)(path, file)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF data Pillow does not parse.

    It would, to find the resolution, and copy the value of each of up to 65,535 entries, which may
    all point to the same bytes: 1 MiB of EXIF could take 40 GiB of memory.
    """

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def open_picture(reader: PictureReader, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Read a picture's header.

    Args:
        reader: Reader of the file.
        formats: Pillow's names of those to try.

    Raises:
        PictureError: A limit is exceeded.
        Exception: Of any kind, by Pillow, where the file is damaged.
    """
    file = cast(IO[bytes], reader)
    if isinstance(reader, _JpegReader) and "JPEG" in formats:
        return _Jpeg(file)
    image = Image.open(file, formats=formats)
    pixels = image.width * image.height
    if image.tile and image.tile[0][0] == "bmp_rle" and pixels > _RLE_PIXELS:
        raise PictureError(
            reader.path,
            f"{pixels:,} pixels in a compressed BMP, above its limit of {_RLE_PIXELS:,}",
        )
    return image
