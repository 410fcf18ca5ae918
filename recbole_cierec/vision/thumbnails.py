"""Small JPEG pictures of items, for pages."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from recbole_cierec.errors import PictureError
from recbole_cierec.vision.picture_files import Locator
from recbole_cierec.vision.pictures import PictureSpec, open_decoded

SIDE = 320  # pixels of the longer side
MOST_BYTES = 96 * 1024
_QUALITIES = (85, 70, 50, 25)  # of the JPEG, the first whose file is small enough


def thumbnail(
    root: Path, relative: str, side: int = SIDE, max_pixels: int = PictureSpec.max_pixels
) -> bytes:
    """A picture file as a small JPEG, turned upright, without any metadata of the file.

    Args:
        root: The picture folder; a file outside of it is refused, whichever way it is named.
        relative: The path in the folder, as NAME.item has it.
        side: Pixels of the longer side; the proportions are kept.
        max_pixels: Larger pictures are refused.

    Returns:
        The bytes of the JPEG file, at most ``MOST_BYTES``.

    Raises:
        PictureError: There is none that can be shown; its ``reason`` says why.
    """
    if not relative:
        raise PictureError(root, "no picture is named")
    spec = PictureSpec(side, "pad", max_pixels)
    picture = open_decoded(Path(Locator(root).locate(relative, spec).path), spec)
    for quality in _QUALITIES:
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MOST_BYTES:
            return stream.getvalue()
    raise PictureError(relative, f"more than {MOST_BYTES:,} bytes at {side} pixels")
