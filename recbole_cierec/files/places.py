"""Whether a folder can be written, found without making it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    above = Path.cwd() / folder
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    return above


def why_not_writable(folder: Path) -> str:
    """Why nothing can be written in a folder, or it cannot be made; empty: it can."""
    try:
        with tempfile.TemporaryFile(dir=existing_part(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)
