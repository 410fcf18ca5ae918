"""Which file names from outside are safe on every system."""

from __future__ import annotations

import re

_MOST_BYTES, _MOST_SEGMENT_BYTES = 1024, 255
# Devices in every folder of Windows, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def path_fault(name: str) -> str:
    """Why a relative path with ``/`` must not be used below a folder; empty if it is safe.

    Names that only Windows refuses are refused everywhere, so that data sets can be moved.
    """
    if not name:
        return "empty path"
    if _CONTROL.search(name):
        return "control character in the path"
    if name.startswith("/"):
        return "absolute path"
    if "\\" in name or ":" in name:
        return "backslash or colon in the path"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "the path is not UTF-8"
    if length > _MOST_BYTES:
        return f"path of more than {_MOST_BYTES} bytes"
    return next(filter(None, map(_segment_fault, name.split("/"))), "")


def _segment_fault(segment: str) -> str:
    if segment == "..":
        return "the path leaves the folder"
    if segment in ("", "."):
        return "empty part in the path"
    if segment[-1] in ". ":
        return "part of the path ends in a dot or a blank"
    if _DEVICE.fullmatch(segment):
        return f"{segment} is the name of a device on Windows"
    if len(segment.encode()) > _MOST_SEGMENT_BYTES:
        return f"part of the path has more than {_MOST_SEGMENT_BYTES} bytes"
    return ""
