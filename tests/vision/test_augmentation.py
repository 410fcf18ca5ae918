"""Random changes of pictures against the same changes made by numpy, picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_cierec.vision import augmentation
from recbole_cierec.vision.augmentation import Moves, apply, draw

SIDE = 24


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (40, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def by_hand(picture: np.ndarray, flip: bool, shift: tuple[int, int]) -> np.ndarray:
    """Pad by mirroring, cut the window out, mirror it."""
    reach = SIDE // 8
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    top, left = reach - shift[0], reach - shift[1]
    window = padded[top : top + SIDE, left : left + SIDE]
    return window[:, ::-1] if flip else window


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_pictures_are_changed_as_drawn(pictures, kind):
    torch.manual_seed(0)
    moves = draw(len(pictures), SIDE, kind)
    found = apply(pictures, moves)
    assert found.dtype is torch.uint8
    shifts = moves.shift.tolist() if kind == "crop_flip" else [(0, 0)] * len(pictures)
    for k, picture in enumerate(pictures.numpy()):
        expected = by_hand(picture, bool(moves.flip[k]), shifts[k])
        assert np.array_equal(found[k].numpy(), expected), k


def test_half_are_mirrored_and_every_shift_within_reach_comes():
    torch.manual_seed(0)
    moves = draw(4000, SIDE, "crop_flip")
    assert abs(float(moves.flip.float().mean()) - 0.5) < 0.04
    for axis in moves.shift.T:
        values, counts = axis.unique(return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert counts.min() > 4000 / 7 * 0.8


def test_no_move_is_the_picture_itself(pictures):
    still = Moves(torch.zeros(40, dtype=torch.bool), torch.zeros(40, 2, dtype=torch.int64))
    assert torch.equal(apply(pictures, still), pictures)


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
@pytest.mark.parametrize("block", [1, 7, 40])
def test_blocks_are_changed_as_the_whole_batch(pictures, kind, block):
    torch.manual_seed(3)
    moves = draw(len(pictures), SIDE, kind)
    parts = [apply(*pair) for pair in zip(pictures.split(block), moves.split(block), strict=True)]
    assert torch.equal(torch.cat(parts), apply(pictures, moves))


def test_draws_come_from_the_generator_that_a_checkpoint_holds(pictures):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw(40, SIDE, "crop_flip")
    second = draw(40, SIDE, "crop_flip")
    torch.set_rng_state(state)
    again = draw(40, SIDE, "crop_flip")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.shift, second.shift)


def test_a_picture_too_small_to_move_is_only_mirrored():
    torch.manual_seed(0)
    moves = augmentation.draw(50, 4, "crop_flip")
    assert not moves.shift.any()
