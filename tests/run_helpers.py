"""Comparing the states and results of runs."""

from __future__ import annotations

from pathlib import Path

import torch

from recbole_cierec.files.checkpoint import read_checkpoint


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


def last_of(result) -> dict:
    return read_checkpoint(Path(result["checkpoint"]).with_suffix(".last.pth"))
