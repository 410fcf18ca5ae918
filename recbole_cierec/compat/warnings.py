"""Warnings that RecBole raises on current packages."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Harmless, and no user could act on them: (message, category, module).
KNOWN_WARNINGS = (
    # trainer/trainer.py:235, torch 2.4 renamed GradScaler; goes when RecBole takes the new name.
    (r"`torch.cuda.amp.GradScaler", FutureWarning, r"recbole\."),
    # data/dataset/dataset.py:2202 wraps read-only arrays of pandas 3.0, which nobody writes to;
    # goes when RecBole copies the array.
    (r"The given NumPy array is not writable", UserWarning, r"recbole\."),
)


@contextmanager
def quiet_recbole() -> Iterator[None]:
    """Silence warnings that RecBole's code raises on current packages at every run."""
    with warnings.catch_warnings():
        for message, category, module in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message, category, module)
        yield
