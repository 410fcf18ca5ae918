"""Helpers for the tests of several models."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction


def shaken(model, scale=0.4, seed=3):
    """The model with random weights everywhere: parts that start at zero would have no effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def rows_of(users, items, negatives) -> Interaction:
    """A training batch."""
    columns = {"user_id": users, "item_id": items, "neg_item_id": negatives}
    return Interaction({k: torch.tensor(v) for k, v in columns.items()})
