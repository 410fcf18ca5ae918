"""The limits of a download: pace, attempts, sizes. Each field is an option of the command line."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field, fields
from typing import Any

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.pictures import RESIZE_MODES, PictureSpec

_CHECK_SIZE = 32  # pixels; the whole file is decoded to check it, a small result costs least


def _number(default: float, least: float, text: str) -> Any:
    return field(default=default, metadata={"least": least, "help": text})


@dataclass(frozen=True)
class Limits:
    """What a download may do; the texts below are those of ``--help``.

    Args:
        any_type: Accept pictures that the server declares as text/html or the like.
        resize: Side of the squares to store, in pixels; None: store the files unchanged.
        resize_mode: As ``image_resize``.

    Raises:
        ConfigError: A number is below its minimum or not finite.
    """

    workers: int = _number(8, 1, "downloads at a time")
    per_host: int = _number(4, 1, "downloads at a time from one host")
    rate: float = _number(20.0, 0, "requests per second; 0: no limit")
    host_rate: float = _number(10.0, 0, "requests per second to one host; 0: no limit")
    attempts: int = _number(5, 1, "requests for a picture before it counts as failed")
    backoff: float = _number(1.0, 0, "seconds before the second attempt, doubled for each further")
    max_wait: float = _number(120.0, 0, "longest wait in seconds, whatever Retry-After says")
    timeout: float = _number(60.0, 0.01, "seconds for a request with its whole answer")
    connect_timeout: float = _number(10.0, 0.01, "seconds to reach a server")
    max_redirects: int = _number(5, 0, "redirects to follow for a picture")
    max_bytes: int = _number(20_000_000, 1, "bytes of a picture, declared or sent")
    max_pixels: int = _number(89_478_485, 1, "pixels of a picture, by its header")
    any_type: bool = False
    resize: int | None = field(default=None, metadata={"least": 1})
    resize_mode: str = "squash"

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata.get("least")
            if least is not None and value is not None and not least <= value < math.inf:
                option = one.name.replace("_", "-")
                raise ConfigError(f"--{option} is {value}; use {least} or more")

    @property
    def spec(self) -> PictureSpec:
        """How pictures are decoded to check them."""
        return PictureSpec(self.resize or _CHECK_SIZE, self.resize_mode, self.max_pixels)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add one option per field of :class:`Limits`."""
    group = parser.add_argument_group("limits")
    for one in fields(Limits):
        if "help" in one.metadata:
            group.add_argument(
                f"--{one.name.replace('_', '-')}",
                type=type(one.default),
                default=one.default,
                metavar="N",
                help=f"{one.metadata['help']} (default: %(default)s)",
            )
    group.add_argument(
        "--any-type",
        action="store_true",
        help="accept pictures that the server declares to be something else",
    )
    group.add_argument(
        "--resize",
        type=int,
        metavar="S",
        help="store squares of S pixels, as training makes them for image_size: S",
    )
    group.add_argument(
        "--resize-mode",
        choices=RESIZE_MODES,
        default=Limits.resize_mode,
        help="as image_resize (default: %(default)s)",
    )


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits that the options state.

    Raises:
        ConfigError: A number is out of range.
    """
    return Limits(**{one.name: getattr(options, one.name) for one in fields(Limits)})
