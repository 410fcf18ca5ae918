"""State of a model outside parameters and buffers is found, saved and restored."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from recbole_cierec.trainer.plain_state import PlainState


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.counts = np.zeros(3)


class Outer(nn.Module):
    other_parameter_name = ("restored_apart",)

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.table = nn.Embedding(2, 2)
        self.register_buffer("known", torch.zeros(2))
        self.updates, self.rate, self.name = 0, 0.5, "same"
        self.history = torch.zeros(4)
        self.centres = None
        self.counted = 0  # a tensor once training has counted
        self.lists = {"a": [torch.ones(2), 3]}
        self.restored_apart = torch.zeros(1)
        self._cache = None
        self.network = nn.Linear(1, 1)
        self.function = print


def changed_model() -> tuple[Outer, PlainState]:
    model = Outer()
    state = PlainState(model)
    assert state.changed() == {}
    model.updates += 1
    model.history[1] = 7.0  # in place
    model.centres = torch.arange(3.0)
    model.counted = torch.arange(2)
    model.lists["a"][0] += 1
    model.inner.counts[2] = 5
    model.restored_apart = torch.ones(1)
    model._cache = torch.ones(1)
    model.known += 1
    return model, state


def test_all_that_changed_is_found_and_nothing_else():
    _, state = changed_model()
    found = {"updates", "history", "centres", "counted", "lists", "inner.counts"}
    assert state.changed().keys() == found


def test_it_comes_back_in_a_new_model():
    model, state = changed_model()
    other = Outer()
    again = PlainState(other)
    again.restore(state.changed(), "cpu")
    assert (other.updates, other.rate) == (1, 0.5)
    assert torch.equal(other.history, model.history)
    assert torch.equal(other.counted, torch.arange(2))
    assert torch.equal(other.centres, model.centres)
    assert torch.equal(other.lists["a"][0], torch.full((2,), 2.0))
    assert np.array_equal(other.inner.counts, [0, 0, 5])
    assert again.changed().keys() == state.changed().keys()  # and is saved from then on


def test_a_value_that_is_set_anew_and_equal_is_harmless_and_nan_equals_nan():
    model = Outer()
    model.rate = float("nan")
    state = PlainState(model)
    model.rate, model.name = float("nan"), "sa" + "me"
    assert state.changed() == {}
