"""The interface between a model and the whole batch that it trains on.

Several processes can share a batch, each training on some of its rows. Random numbers and means
over a batch must then be those of the whole batch, so that together the processes train as one
would. Models get them from a :class:`BatchContext`. The one here is for a single process,
whose rows are the whole batch; for several there is
:class:`recbole_cierec.distributed.batch_share.SharedBatch`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class BatchContext:
    """The batch of a single process."""

    def begin(self, shared_negatives: Tensor | None) -> None:
        """Start a batch whose rows share the negatives [N]; None: each row has separate ones."""

    def uniform(self, items: Tensor) -> Tensor:
        """Uniform random numbers [m] for distinct items [m] of the batch."""
        return torch.rand(len(items), device=items.device)

    def item_draws(self, items: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
        """Random rows [m, ...] from ``draw(m)`` for distinct items [m] of the batch."""
        return draw(len(items))

    def item_mean(self, values: Tensor, items: Tensor, among: Tensor) -> Tensor:
        """The mean over distinct items of the batch.

        Args:
            values: [m, n, ...].
            items: Ids [m].
            among: bool [n_items], the items that count; ``items`` must be among them.

        Returns:
            []; without items zero, still part of the graph of ``values``.
        """
        return values.mean() if len(items) else values.sum()

    def item_gradient(self, gradient: Tensor, items: Tensor) -> Tensor:
        """Gradients [m, k] by distinct items [m] of the batch's mean loss."""
        return gradient

    def user_gradient(self, gradient: Tensor, users: Tensor) -> Tensor:
        """Gradients [m, k] by distinct users [m] of the batch's mean loss."""
        return gradient

    def column(self, name: str, own: Tensor) -> Tensor:
        """A column [B] of the whole batch; ``own`` holds this process's rows."""
        return own

    def own_rows(self, values: Tensor) -> Tensor:
        """This process's rows of values [B, ...] of the whole batch."""
        return values
