"""The two sides of a batch: the tensors of its users and of its items that scoring needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FLAGS_RATIO = 100  # up to this largest id for each id, a flag for every id is faster than a sort


@dataclass(frozen=True)
class Side:
    """Tensors of n users or of n items; row k of each belongs to the same user or item.

    Attributes:
        vector: [n, k].
        bias: [n]; None in models without biases.
        more: Further tensors [n, ...] by name; ``side["name"]`` reads one.
    """

    vector: Tensor
    bias: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.more[name]

    def __contains__(self, name: str) -> bool:
        return name in self.more

    def __len__(self) -> int:
        return len(self.vector)

    @property
    def required_bias(self) -> Tensor:
        """The bias [n], of a model that has biases."""
        if self.bias is None:
            raise ValueError("this model has no biases; set has_biases = True in its class")
        return self.bias

    def tensors(self) -> list[Tensor]:
        """All tensors, the vector first."""
        return [self.vector, *([] if self.bias is None else [self.bias]), *self.more.values()]

    def map(self, change: Callable[[Tensor], Tensor]) -> Side:
        """A side with ``change`` applied to every tensor."""
        bias = None if self.bias is None else change(self.bias)
        more = {name: change(value) for name, value in self.more.items()}
        return Side(change(self.vector), bias, more)

    def take(self, rows: Tensor) -> Side:
        """The given rows; the shape of ``rows`` replaces the first dimension."""
        flat = rows.reshape(-1)
        # The backward pass of value[rows] would add up element by element.
        return self.map(
            lambda value: value.index_select(0, flat).view(*rows.shape, *value.shape[1:])
        )

    def blocks(self, step: int) -> list[Side]:
        """Consecutive blocks of at most ``step`` rows, as views."""
        starts = range(0, len(self), step)
        return [self.map(partial(_rows, start=k, stop=k + step)) for k in starts]

    def scoring(self) -> Side:
        """The side with vector and bias only."""
        return replace(self, more={})

    def without(self, *names: str) -> Side:
        """The side without some of its further tensors."""
        return replace(self, more={k: v for k, v in self.more.items() if k not in names})

    def moved(self, vector: Tensor | None = None, bias: Tensor | None = None) -> Side:
        """The side with another vector or bias."""
        vector = self.vector if vector is None else vector
        return replace(self, vector=vector, bias=self.bias if bias is None else bias)


def _rows(value: Tensor, start: int, stop: int) -> Tensor:
    return value[start:stop]


def joined(sides: Iterable[Side]) -> Side:
    """Concatenate the rows of several sides."""
    sides = list(sides)
    first = sides[0]
    biases = [side.bias for side in sides if side.bias is not None]
    bias = torch.cat(biases) if biases else None
    more = {name: torch.cat([side[name] for side in sides]) for name in first.more}
    return Side(torch.cat([side.vector for side in sides]), bias, more)


class PairScores(NamedTuple):
    """Scores of pairs, whose leading dimensions are those of the two sides, broadcast.

    Attributes:
        score: [...].
        norm: Squared length [...] of the item's part of the score, if it depends on the user.
        branches: Scores [...] of single branches by name, for the gradient gates.
    """

    score: Tensor
    norm: Tensor | None = None
    branches: Mapping[str, Tensor] = {}


class Rows(NamedTuple):
    """A training batch as row numbers of its two sides."""

    user: Tensor  # [B]
    positive: Tensor  # [B]
    negative: Tensor  # [B], one per positive; with softmax [N], shared by all rows
    items: Tensor  # item ids, which ``positive`` and ``negative`` index
    users: Tensor  # user ids, which ``user`` indexes


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ids, ascending, and the index of each of ``ids`` among them."""
    if ids.is_cuda:
        return torch.unique(ids, return_inverse=True)
    numbers = ids.numpy()
    if not len(numbers) or (last := int(numbers.max())) > FLAGS_RATIO * len(numbers):
        # numpy sorts by vector instructions, which torch does not.
        values, rows = np.unique(numbers, return_inverse=True)
        return torch.from_numpy(values), torch.from_numpy(rows)
    flags = np.zeros(last + 1, dtype=bool)
    flags[numbers] = True
    values = np.flatnonzero(flags)
    rows = np.empty(last + 1, dtype=np.int64)
    rows[values] = np.arange(len(values))
    return torch.from_numpy(values), torch.from_numpy(rows[numbers])
