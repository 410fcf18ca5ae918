"""Who would like a new item, and which known items are like it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_cierec.distributed.world import gathered, world
from recbole_cierec.serving.new_items import NewItems
from recbole_cierec.serving.ranking import top_items, users_per_block
from recbole_cierec.serving.trained import TrainedModel

Best = tuple[np.ndarray, np.ndarray]  # values and numbers, both [m, k], the best first


def audience(
    trained: TrainedModel,
    users: np.ndarray,
    added: NewItems,
    topk: int,
    progress: Callable[[int], object],
) -> Best | None:
    """The users with the highest scores for each new item, in the first process; else None.

    Scores are trained to compare items for a user, not users for an item: a high score says that a
    user prefers the item to others, on the scale of that user's scores.

    Args:
        trained: The model with the new items.
        users: Internal numbers, ascending, of users with training interactions.
        added: The new items.
        topk: k.
        progress: Called with the number of users done.
    """
    items = torch.arange(added.first, added.first + len(added.ids)).to(trained.config["device"])
    step = users_per_block(trained)
    rank, size = world()
    best, who = torch.empty(len(items), 0), torch.empty(len(items), 0, dtype=torch.long)
    for start in range(rank * step, len(users), size * step):
        block = users[start : start + step]
        scores = trained.scores(block, items).T.float().cpu()
        numbers = torch.from_numpy(block).expand(len(items), -1)
        best, who = _merged(torch.cat([best, scores], 1), torch.cat([who, numbers], 1), topk)
        progress(len(block))
    parts = gathered((best, who))
    if not parts:
        return None
    values, numbers = (torch.cat([part[k] for part in parts], 1) for k in (0, 1))
    numbers, order = numbers.sort(dim=1)  # of equal scores the first user comes first
    values, numbers = _merged(values.gather(1, order), numbers, topk)
    return values.numpy(), numbers.numpy()


def _merged(values: Tensor, numbers: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    if not values.shape[1]:
        return values, numbers
    values, places = top_items(values, min(topk, values.shape[1]))
    return values, numbers.gather(1, places)


def nearest_items(trained: TrainedModel, added: NewItems, count: int) -> Best:
    """The known items most similar to each new one, by cosine.

    Of the features of their pictures, or, in a model without pictures, of their item vectors; -1
    stands for the neighbours of an item that has none.
    """
    with torch.no_grad():
        vectors = F.normalize(trained.dataset.content.vectors(trained.model))
        cosines = vectors[added.first :] @ vectors[1 : added.first].T
    values, places = top_items(cosines, min(count, cosines.shape[1]))
    empty = ~vectors[added.first :].any(1, keepdim=True)
    return values.numpy(), (places + 1).masked_fill(empty, -1).numpy()
