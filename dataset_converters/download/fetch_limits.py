"""What one download may take, and how long to wait before another attempt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from random import SystemRandom

from recbole_cierec.vision.pictures import PictureSpec

_CHECK_SIZE = 32  # a small result is cheap, and the whole file is read for it all the same
# What a resized picture is saved as; JPEG is the only one that loses anything.
SAVE = {
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}


@dataclass(frozen=True)
class FetchLimits:
    """What a download may take.

    Args:
        max_bytes: Of one picture, declared or sent.
        max_pixels: Of one picture, by its header.
        timeout: Seconds for one request with its whole answer.
        connect_timeout: Seconds to reach the server.
        max_redirects: Hops after the first request.
        attempts: Requests for a picture before it counts as failed.
        backoff: Seconds before the second attempt; doubles from one to the next, with jitter.
        max_wait: Most seconds before an attempt, whatever the server asks for.
        any_type: Take pictures that the server calls text/html or the like.
        resize: Side of the squares to keep; None: files stay as they are.
        resize_mode: As ``image_resize``.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 89_478_485
    timeout: float = 60.0
    connect_timeout: float = 10.0
    max_redirects: int = 5
    attempts: int = 5
    backoff: float = 1.0
    max_wait: float = 120.0
    any_type: bool = False
    resize: int | None = None
    resize_mode: str = "squash"

    @property
    def spec(self) -> PictureSpec:
        """How pictures are decoded to check them."""
        return PictureSpec(self.resize or _CHECK_SIZE, self.resize_mode, self.max_pixels)

    def pause(self, attempts: int, asked: float) -> float:
        """Seconds before the next attempt.

        Args:
            attempts: Made so far.
            asked: What the server asks for.

        Returns:
            The larger of both, with jitter so that clients do not come back together.
        """
        backoff = self.backoff * 2.0 ** min(attempts - 1, 30) * SystemRandom().uniform(0.5, 1.0)
        return min(self.max_wait, max(asked, backoff))


def retry_after(text: str, now: float) -> float:
    """Read a Retry-After header.

    Args:
        text: Seconds or an HTTP date.
        now: Seconds since 1970.

    Returns:
        Seconds from now; 0 if it is past or unreadable.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:  # "-0000"
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - now)


def resizable(path: str) -> bool:
    """Whether a resized picture can be saved under a name.

    Args:
        path: Its path.

    Returns:
        True for .png, .bmp, .webp, .jpg and .jpeg.
    """
    return os.path.splitext(path)[1].lower() in SAVE
