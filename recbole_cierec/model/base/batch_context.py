"""What a model knows of the whole batch that it trains on.

Several processes share a batch: each trains on some of its rows. Random numbers and means over a
batch must be those of the whole, so that the processes together train as one would. Models ask a
:class:`BatchContext` for them; here is that of one process, whose rows are the whole batch.
:class:`recbole_cierec.distributed.batch_share.SharedBatch` answers for several.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class BatchContext:
    """The batch of a single process."""

    def begin(self, shared_negatives: Tensor | None) -> None:
        """Note the negatives [N] that all rows of the batch share; None: each row has its own."""

    def uniform(self, items: Tensor) -> Tensor:
        """Uniform random numbers [m] for distinct items [m] of the batch."""
        return torch.rand(len(items), device=items.device)

    def item_draws(self, items: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
        """Rows [m, ...] that ``draw(m)`` makes for distinct items [m] of the batch."""
        return draw(len(items))

    def item_mean(self, values: Tensor, items: Tensor, among: Tensor) -> Tensor:
        """The mean over distinct items of the batch.

        Args:
            values: [m, n, ...].
            items: Ids [m].
            among: bool [n_items]; only these count, and ``items`` are among them.

        Returns:
            []; zero of no items, attached to the graph of ``values``.
        """
        return values.mean() if len(items) else values.sum()

    def item_gradient(self, gradient: Tensor, items: Tensor) -> Tensor:
        """Gradients [m, k] by distinct items [m] of the batch's mean loss."""
        return gradient

    def user_gradient(self, gradient: Tensor, users: Tensor) -> Tensor:
        """Gradients [m, k] by distinct users [m] of the batch's mean loss."""
        return gradient

    def column(self, name: str, own: Tensor) -> Tensor:
        """A column [B] of the whole batch; ``own`` has this process's rows of it."""
        return own

    def own_rows(self, values: Tensor) -> Tensor:
        """This process's rows of what was made for the whole batch [B, ...]."""
        return values
