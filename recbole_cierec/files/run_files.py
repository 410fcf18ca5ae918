"""The names of a run's files: NAME.pth (best epoch), NAME.last.pth, and others with that NAME."""

from __future__ import annotations

from pathlib import Path

LAST = ".last.pth"


def is_last(checkpoint: Path) -> bool:
    """Whether a checkpoint is that of the last epoch."""
    return checkpoint.name.endswith(LAST)


def next_to(checkpoint: Path, suffix: str) -> Path:
    """The file NAME + ``suffix`` of a run, for its best or its last checkpoint.

    NAME may have dots, which ``Path.with_suffix`` would take for suffixes.
    """
    name = checkpoint.name.removesuffix(LAST).removesuffix(".pth")
    return checkpoint.with_name(name + suffix)
