"""The k best columns of each row of scores, faster than ``torch.topk`` where rows are long."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 24  # most columns of a group, if there are more groups for it
MOST_GROUPS = 2**14
# torch.topk is fast where it selects at most one of this many values.
SELECTED = 64
SMALLEST = 4  # columns of a group below which grouping does not pay


def top_k(scores: Tensor, k: int) -> Tensor:
    """The columns [B, k] of the k largest ``scores`` [B, W] of each row, the largest first.

    Exactly those of ``torch.topk``. The columns are divided into strided groups, and the k + 1
    groups with the largest maxima hold the k + 1 largest scores. If these differ from each other,
    there is only one answer; rows with ties, and with NaN, go to ``torch.topk``.
    """
    n_groups = _groups(scores.shape[1], k)
    if scores.is_cuda or not n_groups:
        return torch.topk(scores, k, dim=-1).indices
    top, unique = _grouped(scores, k, n_groups)
    if not bool(unique.all()):
        tied = (~unique).nonzero().squeeze(1)
        top[tied] = torch.topk(scores[tied], k, dim=-1).indices
    return top


def _groups(width: int, k: int) -> int:
    """The number of groups of ``width`` columns; 0 where grouping does not pay."""
    n = 1 << (SELECTED * (k + 1) - 1).bit_length()
    if width < SMALLEST * n:
        return 0
    while n < MOST_GROUPS and width > COLUMNS * n:
        n *= 2
    return n


def _grouped(scores: Tensor, k: int, n_groups: int) -> tuple[Tensor, Tensor]:
    """(the k best columns [B, k], whether the k + 1 largest scores of a row differ [B])."""
    n_rows, width = scores.shape
    each = width // n_groups
    whole = each * n_groups  # the columns after these belong to no group
    maxima = scores[:, :whole].view(n_rows, each, n_groups).amax(1)
    groups = torch.topk(maxima, k + 1, dim=-1, sorted=False).indices
    steps = torch.arange(0, whole, n_groups)
    columns = (groups.unsqueeze(2) + steps).view(n_rows, -1)
    rest = torch.arange(whole, width).expand(n_rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    values, places = torch.topk(scores.gather(1, columns), k + 1, dim=-1)
    unique = (values[:, :-1] > values[:, 1:]).all(1)  # False with NaN
    return columns.gather(1, places[:, :k]), unique
