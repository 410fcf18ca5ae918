"""Small pictures of items for pages, through the same checks as the pictures of models."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from recbole_cierec.vision.picture_files import Locator
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

QUALITY = 80  # of JPEG


class Thumbnails:
    """Makes square JPEGs of picture files.

    Args:
        root: The picture folder.
        side: In pixels.
        max_pixels: Larger pictures are refused.
    """

    def __init__(self, root: Path, side: int, max_pixels: int) -> None:
        self._locator = Locator(root)
        self._spec = PictureSpec(side, "pad", max_pixels)

    def jpeg(self, relative: str) -> bytes:
        """The whole picture on white.

        Args:
            relative: Its path in the picture folder.

        Raises:
            PictureError: It is missing, outside of the folder, broken or too large.
        """
        found = self._locator.locate(relative, self._spec)
        pixels = decode_picture(Path(found.path), self._spec)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, optimize=True)
        return stream.getvalue()
