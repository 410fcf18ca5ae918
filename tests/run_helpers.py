"""Stopping runs, and comparing their states and results."""

from __future__ import annotations

from pathlib import Path

import torch

from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.registry import get_model_class

PAIRS = 219  # training pairs of the tiny data set


def same(a, b, where="") -> None:
    """Equal to the last bit, for nested dicts, lists, tensors and numbers."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for k, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, f"{where}/{k}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), where


class Killed(BaseException):
    """Simulates a kill."""


def kill_before(monkeypatch, model: str, epoch: int) -> None:
    """A run of this model that starts anew ends at the first batch of an epoch."""
    model_class, trained = get_model_class(model), []
    plain = model_class.calculate_loss

    def calculate_loss(self, interaction):
        if type(self) is model_class:
            if sum(trained) == PAIRS * epoch:
                raise Killed
            trained.append(len(interaction))
        return plain(self, interaction)

    monkeypatch.setattr(model_class, "calculate_loss", calculate_loss)


def last_of(result) -> dict:
    return read_checkpoint(Path(result["checkpoint"]).with_suffix(".last.pth"))
