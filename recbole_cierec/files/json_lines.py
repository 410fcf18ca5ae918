"""JSON lines that runs append to: values that JSON has, and no line that was cut short."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO


def json_plain(value: Any) -> Any:
    """The value in types of JSON; nan and infinity, which it lacks, are null, and other objects
    their text."""
    if isinstance(value, Mapping):
        return {str(key): json_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_plain(part) for part in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def cut_torn_line(file: BinaryIO) -> bool:
    """Remove the incomplete last line of a process that was killed while it wrote.

    Args:
        file: Open for reading and writing.

    Returns:
        Whether there was one.
    """
    end = file.seek(0, os.SEEK_END)
    if not end:
        return False
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return False
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    return True
