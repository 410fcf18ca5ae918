"""The best items of each user, in blocks of bounded memory, the same for any number of processes.

Blocks of users are fixed, so that a block's scores have the same bits whichever process computes
them, and of items with equal scores the first in the vocabulary comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.distributed.world import gathered, world
from recbole_cierec.errors import CheckpointError
from recbole_cierec.evaluation.candidates import look_up
from recbole_cierec.serving.trained import PADDING, TrainedModel

BLOCK_BYTES = 64 * 2**20  # of the scores of a block of users
MOST_USERS = 4096  # of a block


@dataclass
class Lists:
    """The lists of a block of users.

    Attributes:
        rows: The users' places [B] among all that were asked for.
        items: Internal item numbers [B, k], the best first; -1 where a list has ended.
        scores: float32 [B, k].
    """

    rows: np.ndarray
    items: np.ndarray
    scores: np.ndarray


def top_items(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row, and their columns; of equal ones the first columns.

    Args:
        scores: [B, n].
        k: At most n.

    Returns:
        (values, columns), both [B, k], sorted.
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    # topk takes any of the columns that are equal to the last value.
    cut = values[:, k - 1] == values[:, -1] if values.shape[1] > k else values.new_zeros(0)
    values, columns = values[:, :k].clone(), columns[:, :k].clone()
    for row in cut.nonzero().squeeze(1).tolist():
        found = scores[row].sort(descending=True, stable=True)
        values[row], columns[row] = found.values[:k], found.indices[:k]
    columns, order = columns.sort(dim=1)
    values = values.gather(1, order)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def users_per_block(trained: TrainedModel) -> int:
    """How many users' scores of all items fit a block; the same in every process."""
    return max(1, min(MOST_USERS, BLOCK_BYTES // (4 * len(trained.item_ids))))


def ranked_blocks(
    trained: TrainedModel,
    users: np.ndarray,
    topk: int,
    candidates: np.ndarray | None = None,
    hide_seen: bool = True,
) -> Iterator[Lists]:
    """The lists of all users, block by block and in order, in the first process; nothing elsewhere.

    All processes of a run must iterate; each computes a share of the blocks.

    Args:
        trained: The model.
        users: Internal numbers [U]; 0 for a user that the model does not know.
        topk: Length of a list; shorter where there are fewer items.
        candidates: Internal numbers of the items to choose from; None: all.
        hide_seen: Leave out the user's items of training and validation.
    """
    columns = candidates if candidates is not None else np.arange(len(trained.item_ids))
    columns = np.unique(columns[columns != PADDING])
    step = users_per_block(trained)
    starts = list(range(0, len(users), step))
    rank, size = world()
    for first in range(0, len(starts), size):
        mine = starts[first + rank : first + rank + 1]
        block = None
        if mine:
            rows = np.arange(mine[0], min(mine[0] + step, len(users)))
            block = _block(trained, users[rows], columns, topk, hide_seen)
            block.rows = rows
        yield from (lists for lists in gathered(block) if lists is not None)


def _block(
    trained: TrainedModel, users: np.ndarray, columns: np.ndarray, topk: int, hide_seen: bool
) -> Lists:
    whole = len(columns) == len(trained.item_ids) - 1
    chosen = torch.from_numpy(columns).to(trained.config["device"])
    scores = trained.scores(users, None if whole else chosen)
    scores = scores[:, 1:] if whole else scores  # less the padding
    if hide_seen:
        rows, items = trained.seen.take(users)
        places, there = look_up(columns, items)
        at = [torch.from_numpy(x[there]).to(scores.device) for x in (rows, places)]
        scores[at[0], at[1]] = -torch.inf
    values, found = top_items(scores, min(topk, len(columns)))
    if bool(values.isnan().any()):  # topk puts them first
        raise CheckpointError(f"{trained.path}: {trained.name} gives scores that are no numbers")
    listed = chosen[found].masked_fill(values == -torch.inf, -1)
    return Lists(users, listed.cpu().numpy(), values.float().cpu().numpy())
