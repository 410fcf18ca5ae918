"""Random changes of training pictures, on the device that computes, before conversion to floats.

Random numbers come from torch's CPU generator, in one draw for all pictures of a batch: a run is
the same on any device and with any ``encoder_batch_size``, and resumes bit for bit from a
checkpoint, which holds that generator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

REACH = 8  # a picture moves by up to 1/8 of its side


class Moves(NamedTuple):
    """What happens to each of n pictures."""

    flip: Tensor  # bool [n], mirrored left to right
    shift: Tensor | None  # int64 [n, 2], pixels down and to the right, before mirroring

    def split(self, size: int) -> list[Moves]:
        """Split into the moves of ``size`` pictures each."""
        flips = self.flip.split(size)
        shifts = [None] * len(flips) if self.shift is None else self.shift.split(size)
        return [Moves(f, s) for f, s in zip(flips, shifts, strict=True)]


def draw(count: int, size: int, kind: str) -> Moves:
    """Draw what happens to ``count`` pictures.

    Args:
        count: n.
        size: Width and height in pixels.
        kind: ``flip``: each is mirrored with probability 1/2. ``crop_flip``: it is moved by up to
            an eighth of its side as well, in whole pixels, with its border mirrored outwards:
            the random crop that needs no resampling.
    """
    flip = torch.rand(count) < 0.5
    if kind == "flip":
        return Moves(flip, None)
    reach = size // REACH
    return Moves(flip, torch.randint(-reach, reach + 1, (count, 2)))


def apply(pictures: Tensor, moves: Moves) -> Tensor:
    """Change pictures [n, S, S, 3] of any type; returns new ones of that type."""
    flip = moves.flip.to(pictures.device)
    if moves.shift is None:
        return torch.where(flip.view(-1, 1, 1, 1), pictures.flip(2), pictures)
    shift, last = moves.shift.to(pictures.device), pictures.shape[1] - 1
    pixels = torch.arange(last + 1, device=pictures.device)
    down, right = (_mirrored(pixels - by.unsqueeze(1), last) for by in shift.T)
    right = torch.where(flip.unsqueeze(1), right.flip(1), right)
    n = torch.arange(len(pictures), device=pictures.device)
    return pictures[n[:, None, None], down[:, :, None], right[:, None, :]]


def _mirrored(places: Tensor, last: int) -> Tensor:
    """Places outside 0 to ``last`` reflected inwards, the border pixel not repeated."""
    return last - (last - places.abs()).abs()
