"""Files of a folder by their age, while other processes add and remove some."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def by_age(paths: Iterable[Path]) -> list[Path]:
    """Paths by the time of their last change, the oldest first.

    Paths that no longer exist are left out; equally old ones keep their order.
    """
    changed = {}
    for path in paths:
        with suppress(OSError):  # removed since the folder was listed, maybe elsewhere
            changed[path] = path.stat().st_mtime_ns
    return sorted(changed, key=changed.__getitem__)
