"""Progress bars, which disappear when they end."""

from __future__ import annotations

from tqdm import tqdm


def progress_bar(total: int, title: str, unit: str, shown: bool) -> tqdm:
    """A bar on stderr.

    Args:
        total: Steps until the end.
        title: In front of the bar.
        unit: Unit of a step.
        shown: Whether to draw it.
    """
    return tqdm(
        total=total, desc=title, unit=unit, disable=not shown, leave=False, dynamic_ncols=True
    )
