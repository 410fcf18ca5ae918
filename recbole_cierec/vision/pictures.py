"""Decode one picture file to an RGB array of fixed size.

The file comes from outside and may be anything, so every step is bounded: the kind and length of
the file are checked first, then the size in its header, and only then are pixels allocated; what
Pillow reads meanwhile is limited (:mod:`recbole_cierec.vision.picture_limits`).
Whatever the file holds, the result is a uint8 array or a :class:`PictureError`.

Colour profiles are ignored: catalogue pictures are nearly always sRGB, and encoders were trained on
pictures read without profiles.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageFilter, UnidentifiedImageError

from recbole_cierec.errors import ConfigError, PictureError
from recbole_cierec.terminal import reason
from recbole_cierec.vision import fast_resize
from recbole_cierec.vision.picture_limits import (
    BYTES_PER_PIXEL,
    METADATA_BYTES,
    limited,
    open_picture,
)

# Part of the key of every picture store: raise it when the same file would give other pixels.
DECODER_VERSION = 1
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
RESIZE_MODES = ("squash", "crop", "pad")
DEGRADED = ("none", "blur", "8x8")
DECODINGS = ("exact", "fast")
WHITE = (255, 255, 255)

# A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at little cost; this many times the target
# size is kept. Twice leaves the antialiasing filter enough, so that the result stays close to that
# of the full picture.
_DRAFT_MARGINS = {"exact": 2, "fast": 1}
_REDUCING_GAP = 3.0
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

_HEXADECIMAL = "Raw profile type exif"  # key of a PNG's text
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")
_ORIENTATION_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_WHOLE_NUMBERS = {3: "H", 4: "I", 8: "h", 9: "i"}  # type of an EXIF entry -> its format
# EXIF orientation -> what undoes it.
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
        degrade: ``none``, ``blur`` (Gaussian, with a deviation of 1/32 of the size) or ``8x8``
            (means of as many squares, drawn large again).

    Raises:
        ConfigError: A value is out of range.
    """

    size: int
    resize: str = "squash"
    max_pixels: int = 89_478_485
    degrade: str = "none"
    decode: str = "exact"

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_MODES:
            raise ConfigError(
                f"image_resize is {self.resize!r}; use one of {', '.join(RESIZE_MODES)}"
            )
        for key, value in (("image_size", self.size), ("max_image_pixels", self.max_pixels)):
            if value < 1:
                raise ConfigError(f"{key} is {value}; use a positive number")
        if self.degrade not in DEGRADED:
            raise ConfigError(
                f"picture_degrade is {self.degrade!r}; use one of {', '.join(DEGRADED)}"
            )
        if self.decode not in DECODINGS:
            raise ConfigError(f"image_decode is {self.decode!r}; use one of {', '.join(DECODINGS)}")

    @classmethod
    def of(cls, config: Any) -> PictureSpec:
        """What the keys of a configuration say."""
        keys = ("image_size", "image_resize", "max_image_pixels", "picture_degrade", "image_decode")
        return cls(*(config[key] for key in keys))

    def recipe(self) -> dict[str, Any]:
        """What decides the pixels, for the key of a store."""
        values = asdict(self)
        # The first stores had neither.
        if self.degrade == "none":
            del values["degrade"]
        if self.decode == "exact":
            del values["decode"]
        return values


def decode_picture(path: Path, spec: PictureSpec) -> np.ndarray:
    """Decode the (first) picture of a file; see :func:`open_decoded`.

    Args:
        path: A JPEG, PNG, WebP, GIF or BMP file, whatever its name.
        spec: Size and limits.

    Returns:
        uint8 [S, S, 3], RGB.
    """
    picture = open_decoded(path, spec)
    if spec.resize == "pad":
        picture = _pad(picture, spec.size)
    if spec.degrade != "none":
        picture = degraded(picture, spec.degrade)
    return np.array(picture, dtype=np.uint8)


def degraded(picture: Image.Image, how: str) -> Image.Image:
    """A square picture as ``picture_degrade`` describes it, of the same size."""
    if how == "blur":
        return picture.filter(ImageFilter.GaussianBlur(picture.width / 32))
    small = picture.resize((8, 8), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.NEAREST)


def open_decoded(path: Path, spec: PictureSpec) -> Image.Image:
    """Decode the (first) picture of a file, as RGB; with ``pad`` without borders: the longer side
    has ``spec.size`` pixels.

    Greyscale, palette, CMYK and 16-bit pictures become 8-bit RGB, the EXIF orientation is applied,
    and transparent parts become white.

    Raises:
        PictureError: The file cannot be read, is no whole picture, or is too large.
        OSError, MemoryError: The machine is at fault (no memory, too many open files), which says
            nothing about the picture.
    """
    try:
        check_file(path, os.stat(path), spec)
        with _whole_files_only(), open(path, "rb") as file:
            reader = limited(path, file)
            with open_picture(reader, FORMATS) as image:
                _check_size(path, image.size, spec)
                reader.begin_pixels(image.size)
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


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture of :data:`FORMATS`, whatever its name; it may be damaged.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb") as file, open_picture(limited(path, file), FORMATS):
            return True
    except UnidentifiedImageError:
        return False
    except (PictureError, Image.DecompressionBombError, Image.DecompressionBombWarning, *_DAMAGE):
        return True


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
    if status.st_size > BYTES_PER_PIXEL * spec.max_pixels + METADATA_BYTES:
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
    return f"damaged ({reason(error, 100)})"


def _check_size(path: Path, size: tuple[int, int], spec: PictureSpec) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(path, f"{width} x {height} pixels")
    # Pillow only warns between its limit and twice that; here the limit is the limit.
    limit = min(spec.max_pixels, Image.MAX_IMAGE_PIXELS or spec.max_pixels)
    if width * height > limit:
        raise PictureError(path, f"{width} x {height} pixels, above the limit of {limit:,}")


_switch_lock = threading.Lock()
_switch_users = 0
_switch_before = False


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Keep Pillow's process-wide LOAD_TRUNCATED_IMAGES off while any thread decodes.

    Other libraries switch it on; half a picture would then count as a whole one.
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


def _decode(image: ImageFile.ImageFile, spec: PictureSpec) -> Image.Image:
    target = _content_size(image.size, spec)
    # draft() lets libjpeg decode at a fraction of the size; the box is the picture's place in that,
    # in fractions of a pixel, so that sides that are no multiple keep their proportions.
    margin = _DRAFT_MARGINS[spec.decode]
    drafted = image.draft(None, (margin * target[0], margin * target[1]))
    image.load()
    box: fast_resize.Box = drafted[1] if drafted else (0, 0, *image.size)
    turn = _TURNS.get(_orientation(image.info) or 1)
    if spec.resize == "crop":
        box = _middle_square(box)
    picture = _to_rgb(image)
    if spec.decode == "fast" and fast_resize.can_resize(target, box):
        picture = fast_resize.resize(picture, target, box)
    else:
        picture = picture.resize(
            target, Image.Resampling.BILINEAR, box=box, reducing_gap=_REDUCING_GAP
        )
    if turn is not None:  # turning the small picture costs less than turning the large one
        picture = picture.transpose(turn)
    return picture


def _content_size(size: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """Width and height of the picture itself in the result, before it is turned."""
    if spec.resize != "pad":
        return spec.size, spec.size
    width, height = (max(1, round(side * spec.size / max(size))) for side in size)
    return width, height


def _middle_square(box: fast_resize.Box) -> fast_resize.Box:
    _, _, width, height = box
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _pad(picture: Image.Image, size: int) -> Image.Image:
    square = Image.new("RGB", (size, size), WHITE)
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square


def _orientation(info: Mapping[Any, Any]) -> int | None:
    """The orientation (1 to 8) that EXIF data or, failing these, XMP data name.

    Pillow's ``getexif`` is avoided: it first copies what all entries point to (see
    :mod:`recbole_cierec.vision.picture_limits`).

    Args:
        info: Metadata of a picture that has been read: PNG may hold some after the pixels.
    """
    exif = info.get("exif")
    if exif is None and _HEXADECIMAL in info:  # ImageMagick's way: text of three lines, then bytes
        with suppress(ValueError):
            exif = bytes.fromhex("".join(info[_HEXADECIMAL].split("\n")[3:]))
    found = _exif_orientation(exif) if isinstance(exif, bytes) else None
    if found is None:
        xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
        match = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
        found = int(match[1]) if match else None
    return found


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of EXIF data; None where there is none, or damage."""
    for _ in range(2):  # some programs write the prefix twice
        exif = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(exif[:4])
    found = None
    if order is None:
        return None
    try:
        start = struct.unpack_from(f"{order}I", exif, 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", exif, start)[0]):
            at = start + 2 + 12 * entry
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, at)
            if tag == _ORIENTATION_TAG and kind in _WHOLE_NUMBERS and count:
                found = struct.unpack_from(order + _WHOLE_NUMBERS[kind], exif, at + 8)[0]
    except struct.error:  # cut off, or no EXIF data at all
        pass
    return found


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
