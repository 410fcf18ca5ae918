"""Small functions that many models share."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-12  # the paper's epsilon in Eq. 3 and 4
SLOPE = 0.01  # of every LeakyReLU


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean [] of -log sigmoid(positive - negative) over pairs [B]."""
    if positive.shape != negative.shape or positive.dim() != 1:
        raise ValueError(f"scores must be [B] and [B], got {positive.shape}, {negative.shape}")
    return F.softplus(negative - positive).mean()


def added(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors of one shape."""
    return reduce(torch.add, terms)


def divisor(norm: Tensor) -> Tensor:
    """Norms to divide by: infinite where a norm is zero, so that such rows and their gradients are.

    Dividing by ``EPS`` instead would multiply these gradients by 1e12.
    """
    return norm.masked_fill(norm <= EPS, torch.inf)


def squared_norm(tensors: list[Tensor]) -> Tensor | float:
    """Sum of squares of all entries of all tensors []."""
    return sum((t.square().sum() for t in tensors), 0.0)


def mean_rows(table: nn.Embedding, tokens: Tensor) -> Tensor:
    """Mean row of the real tokens: tokens [m, L] with padding 0 -> [m, d], zero without any."""
    real = (tokens > 0).unsqueeze(2)
    return (table(tokens) * real).sum(1) / real.sum(1).clamp(min=1)


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor, low_precision: bool) -> Tensor:
    """x W^T + bias of a D x D map; CIERec spends most of its training time in them.

    Args:
        x: [m, D].
        weight: W [D, D].
        bias: [D].
        low_precision: Whether factors and product are rounded to bfloat16.
    """
    if not low_precision:
        return F.linear(x, weight, bias)
    with torch.autocast(x.device.type, torch.bfloat16):
        product = F.linear(x, weight)
    return product + bias  # float32: a gate's bias is one, and its product a small part of it


def unit_linear(in_size: int, out_size: int, gain: float, bias: bool = True) -> nn.Linear:
    """Linear layer for unit-norm rows: outputs start with standard deviation ``gain``.

    torch's default assumes unit variance per coordinate. The coordinates of a unit-norm row are
    sqrt(D) times smaller, so with the default the bias would dominate the output.
    """
    layer = nn.Linear(in_size, out_size, bias=bias)
    nn.init.normal_(layer.weight, std=gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
