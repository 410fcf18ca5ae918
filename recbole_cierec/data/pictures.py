"""Decode one picture file to an RGB array of fixed size.

The file comes from outside and may be anything, so every step is bounded: the kind and length of
the file are looked at first, then the size in its header, and only then are pixels allocated.
Whatever the file holds, the result is a uint8 array or a :class:`PictureError`.

Colour profiles are ignored: catalogue pictures are sRGB nearly always, and an encoder trained on
pictures read without profiles expects the same.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from recbole_cierec.errors import ConfigError, PictureError

# Part of the key of every picture store: raise it when the same file would give other pixels.
DECODER_VERSION = 1
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
RESIZE_MODES = ("squash", "crop", "pad")
WHITE = (255, 255, 255)

# A JPEG may be decoded at 1/2, 1/4 or 1/8 for little; half of the pixels each way are left for the
# antialiasing filter, so that the result stays close to that of the full picture.
_DRAFT_MARGIN = 2
_REDUCING_GAP = 3.0
# No format stores more than 8 bytes a pixel (16-bit RGBA), plus room for metadata.
_MOST_BYTES_PER_PIXEL = 8
_MOST_METADATA = 64 * 2**20
# Pillow joins the EXIF segments of a JPEG one by one: 100 MB of them take half a minute.
_MOST_EXIF = 8 * 2**20
_EXIF_SEGMENT, _START_OF_SCAN = 0xE1, 0xDA
_BARE_MARKERS = (0x00, 0x01, *range(0xD0, 0xD9))  # no length follows them

# Faults of the machine, not of the picture: marking the picture bad would hide them.
_MACHINE_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# What Pillow's readers raise on damaged files, besides OSError.
_DAMAGE = (
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)

# EXIF orientation -> what undoes it.
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PictureSpec:
    """How pictures are decoded.

    Args:
        size: Side S of the square result, in pixels.
        resize: ``squash`` (the whole picture, aspect ratio lost), ``crop`` (the middle square) or
            ``pad`` (the whole picture, white borders).
        max_pixels: Pictures with more pixels are refused. Pillow's own limit
            (``PIL.Image.MAX_IMAGE_PIXELS``) holds as well; the smaller one decides.

    Raises:
        ConfigError: A value is out of range.
    """

    size: int
    resize: str = "squash"
    max_pixels: int = 89_478_485

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_MODES:
            raise ConfigError(
                f"image_resize is {self.resize!r}; use one of {', '.join(RESIZE_MODES)}"
            )
        for key, value in (("image_size", self.size), ("max_image_pixels", self.max_pixels)):
            if value < 1:
                raise ConfigError(f"{key} is {value}; use a positive number")


def decode_picture(path: Path, spec: PictureSpec) -> np.ndarray:
    """Decode the (first) picture of a file.

    Greyscale, palette, CMYK and 16-bit pictures become 8-bit RGB, the EXIF orientation is applied,
    and transparent parts become white.

    Args:
        path: The file; JPEG, PNG, WebP, GIF or BMP whatever its name says.
        spec: Size and limits.

    Returns:
        uint8 [S, S, 3], RGB.

    Raises:
        PictureError: The file cannot be read, is no whole picture, or is too large.
        OSError, MemoryError: The machine is at fault (no memory, too many files open), so that
            nothing is known about the picture.
    """
    try:
        check_file(path, os.stat(path), spec)
        with _whole_files_only(), open(path, "rb") as file:
            _check_exif(path, file)
            with Image.open(file, formats=FORMATS) as image:
                _check_size(path, image.size, spec)
                return _decode(image, spec)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(path, "more pixels than Pillow's safety limit") from error
    except UnidentifiedImageError as error:
        raise PictureError(path, "not a JPEG, PNG, WebP, GIF or BMP picture") from error
    except OSError as error:
        raise PictureError(path, describe_failure(error)) from error
    except _DAMAGE as error:
        raise PictureError(path, _damage(error)) from error


def check_file(path: str | Path, status: os.stat_result, spec: PictureSpec) -> None:
    """Refuse what cannot be a picture without opening it (opening a pipe would block for ever).

    Args:
        path: The file, for the message.
        status: Its ``os.stat``.
        spec: Its ``max_pixels`` bounds the length of the file.

    Raises:
        PictureError: A folder, a device, an empty file or one of absurd length.
    """
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(path, "a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(path, "not a regular file")
    if status.st_size == 0:
        raise PictureError(path, "empty file")
    if status.st_size > _MOST_BYTES_PER_PIXEL * spec.max_pixels + _MOST_METADATA:
        raise PictureError(path, f"{status.st_size:,} bytes, too long for a picture")


def describe_failure(error: OSError) -> str:
    """Say in a few words why a file could not be read.

    Args:
        error: From the system, or from Pillow (then it has no error number).

    Returns:
        The reason.

    Raises:
        OSError: The same error, where the machine and not the file is at fault.
    """
    if error.errno in _MACHINE_FAULTS:
        raise error
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if error.errno not in (None, errno.EINVAL):  # EINVAL: damage sent seek() out of the file
        return (error.strerror or type(error).__name__).lower()
    return _damage(error)


def _damage(error: BaseException) -> str:
    text = " ".join(str(error).split())[:100]
    return f"damaged ({text or type(error).__name__})"


def _check_size(path: Path, size: tuple[int, int], spec: PictureSpec) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(path, f"{width} x {height} pixels")
    # Pillow only warns between its limit and twice that; here the limit is the limit.
    limit = min(spec.max_pixels, Image.MAX_IMAGE_PIXELS or spec.max_pixels)
    if width * height > limit:
        raise PictureError(path, f"{width} x {height} pixels, above the limit of {limit:,}")


def _check_exif(path: Path, file: BinaryIO) -> None:
    """Walk the segments of a JPEG header, reading little but their lengths, to size its EXIF."""
    total = 0
    walking = file.read(2) == b"\xff\xd8"
    while walking:
        head = file.read(4)
        walking = len(head) == 4 and head[0] == 0xFF and head[1] != _START_OF_SCAN
        if walking and head[1] == 0xFF:  # padding
            file.seek(-3, os.SEEK_CUR)
        elif walking and head[1] in _BARE_MARKERS:
            file.seek(-2, os.SEEK_CUR)
        elif walking:
            end = file.tell() + max(0, int.from_bytes(head[2:], "big") - 2)
            if head[1] == _EXIF_SEGMENT and file.read(4) == b"Exif":
                total += end - file.tell()
            file.seek(end)
        if total > _MOST_EXIF:
            raise PictureError(path, f"more than {_MOST_EXIF:,} bytes of EXIF data")


_switch_lock = threading.Lock()
_switch_users = 0
_switch_before = False


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Keep Pillow's process-wide LOAD_TRUNCATED_IMAGES off while any thread decodes.

    Other libraries switch it on; half a picture would then pass for a whole one.
    """
    global _switch_users, _switch_before
    with _switch_lock:
        if _switch_users == 0:
            _switch_before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _switch_users += 1
    try:
        yield
    finally:
        with _switch_lock:
            _switch_users -= 1
            if _switch_users == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _switch_before


def _decode(image: ImageFile.ImageFile, spec: PictureSpec) -> np.ndarray:
    target = _content_size(image.size, spec)
    # draft() lets libjpeg decode at a fraction; the box is where the picture then lies, to parts
    # of a pixel, so that sides which are no multiple of the fraction keep their proportions.
    drafted = image.draft(None, (_DRAFT_MARGIN * target[0], _DRAFT_MARGIN * target[1]))
    image.load()
    box = drafted[1] if drafted else (0, 0, *image.size)
    turn = _turn(image)  # after load(): PNG may hold its EXIF behind the pixels
    if spec.resize == "crop":
        box = _middle_square(box)
    picture = _to_rgb(image).resize(
        target, Image.Resampling.BILINEAR, box=box, reducing_gap=_REDUCING_GAP
    )
    if turn is not None:  # turning the small picture costs less than turning the large one
        picture = picture.transpose(turn)
    if spec.resize == "pad":
        picture = _pad(picture, spec.size)
    return np.array(picture, dtype=np.uint8)


def _content_size(size: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """Width and height that the picture itself takes in the result, before it is turned."""
    if spec.resize != "pad":
        return spec.size, spec.size
    width, height = (max(1, round(side * spec.size / max(size))) for side in size)
    return width, height


def _middle_square(box: tuple[float, ...]) -> tuple[float, ...]:
    _, _, width, height = box
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _pad(picture: Image.Image, size: int) -> Image.Image:
    square = Image.new("RGB", (size, size), WHITE)
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that undoes the EXIF orientation.

    ``ImageOps.exif_transpose`` would write the whole EXIF block anew, and fail on damaged ones.
    """
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG))
    except (OSError, *_DAMAGE):  # damaged EXIF: shown as it is stored, as browsers do
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB on white, of any mode that the formats above can have."""
    if image.mode.startswith("I"):
        return _sixteen_bit_to_rgb(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        rgba = image.convert("RGBA")
        picture = Image.new("RGB", rgba.size, WHITE)
        picture.paste(rgba, mask=rgba)
        return picture
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey as value / 257, rounded: 65535 -> 255 (``convert`` alone would clip at 255)."""
    values = image.convert("I")
    grey = values.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        clear = Image.fromarray(np.asarray(values) == transparent)
        grey.paste(WHITE[0], mask=clear)
    return grey.convert("RGB")
