"""A batch that several processes share: each knows the whole of it and trains on a part.

The processes draw the same order and the same negatives from the same state, so that the batch is
the one that a single process would have. What is random or averaged over the distinct items of a
batch is so over those of the whole (:class:`WholeSide`), wherever their rows went. Models see none
of it: they ask their batch context, for which :class:`SharedBatch` answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from recbole.data.interaction import Interaction
from torch import Tensor


class Share:
    """This process's rows of a batch.

    Where a batch has fewer rows than there are processes, those that come off empty take its first
    row with the weight 0: they must answer in every exchange.

    Args:
        whole: The batch of all processes. It is made of ``copies`` equal blocks, as RecBole lays
            several negatives out, and a block's row goes where its fellows of other blocks go.
        rank: Of this process.
        size: The number of processes.
        copies: Blocks in the batch.
    """

    def __init__(self, whole: Interaction, rank: int, size: int, copies: int = 1) -> None:
        self.whole, self.size = whole, size
        block = len(whole) // copies
        self._bounds = [block * k // size for k in range(size + 1)]
        self._copies = copies
        self._known: dict[tuple[str, ...], WholeSide] = {}
        begin, end = self._bounds[rank : rank + 2]
        # What the mean over this part counts in the mean of all processes' means.
        self.weight = (end - begin) * size / block
        begin, end = (begin, end) if begin < end else (0, 1)
        rows = torch.arange(begin, end)
        self.rows = torch.cat([rows + k * block for k in range(copies)])  # among the whole

    @property
    def own(self) -> Interaction:
        """The part itself."""
        return self.whole[self.rows]

    @cached_property
    def owners(self) -> Tensor:
        """The process of each row of the whole [B]."""
        counts = torch.tensor(self._bounds).diff()
        return torch.arange(self.size).repeat_interleave(counts).repeat(self._copies)

    def distinct(self, fields: list[str], shared: Tensor | None = None) -> WholeSide:
        """The distinct items (or users) of the whole batch; asked again, the same object.

        Args:
            fields: Names of the columns that hold them.
            shared: Items [N] that every process has as well.
        """
        key = tuple(fields)
        if key not in self._known:
            self._known[key] = self._distinct(fields, shared)
        return self._known[key]

    def _distinct(self, fields: list[str], shared: Tensor | None) -> WholeSide:
        ids = torch.cat([self.whole[field] for field in fields])
        owners = self.owners.repeat(len(fields))
        if shared is not None:
            shared, busy = shared.cpu(), owners.unique()
            ids = torch.cat([ids, shared.repeat(len(busy))])
            owners = torch.cat([owners, busy.repeat_interleave(len(shared))])
        return WholeSide(ids, owners, self)


class SharedBatch:
    """The batch context of one of several processes.

    Answers as :class:`recbole_cierec.model.base.batch_context.BatchContext` does, for the whole.

    Args:
        share: This process's share of the batch.
        user: The name of the column of users.
        items: The names of the columns of items.
        common: The generator of random numbers that are equal in all processes; None: torch's own,
            which all processes have in the same state.
    """

    def __init__(
        self, share: Share, user: str, items: list[str], common: torch.Generator | None
    ) -> None:
        self.share, self.common = share, common
        self._user, self._items = user, items
        self._shared: Tensor | None = None

    def begin(self, shared_negatives: Tensor | None) -> None:
        self._shared = shared_negatives

    @cached_property
    def _all_items(self) -> WholeSide:
        columns = self._items if self._shared is None else self._items[:1]
        return self.share.distinct(columns, self._shared)

    def uniform(self, items: Tensor) -> Tensor:
        device = items.device if self.common is None else torch.device("cpu")
        count = len(self._all_items.ids)
        draws = torch.rand(count, generator=self.common, device=device)
        return draws.to(items.device)[self._all_items.at(items)]

    def item_draws(self, items: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
        return draw(len(self._all_items.ids))[self._all_items.at(items)]

    def item_mean(self, values: Tensor, items: Tensor, among: Tensor) -> Tensor:
        return self._all_items.mean(values, items, among)

    def item_gradient(self, gradient: Tensor, items: Tensor) -> Tensor:
        return self._all_items.total(gradient, items)

    def user_gradient(self, gradient: Tensor, users: Tensor) -> Tensor:
        return self.share.distinct([self._user]).total(gradient, users)

    def column(self, name: str, own: Tensor) -> Tensor:
        return self.share.whole[name].to(own.device)

    def own_rows(self, values: Tensor) -> Tensor:
        return values[self.share.rows]


class WholeSide:
    """The distinct items (or users) of a whole batch, of which this process has some.

    Args:
        ids: Ids [n], repeated as they come, in the host's memory.
        owners: The process that has each [n].
        share: This process's share of the batch.
    """

    def __init__(self, ids: Tensor, owners: Tensor, share: Share) -> None:
        pairs = torch.unique(ids * share.size + owners) // share.size
        self.ids, self._holders = torch.unique_consecutive(pairs, return_counts=True)
        # Turns a process's part of a sum into what it must add to a mean over its rows.
        self._scale = share.size / share.weight if share.weight else 0.0
        self._part = share.weight / share.size

    def at(self, ids: Tensor) -> Tensor:
        """Places [m] of ids [m] among all."""
        return torch.searchsorted(self.ids.to(ids.device), ids)

    def mean(self, values: Tensor, ids: Tensor, among: Tensor | None = None) -> Tensor:
        """The mean over all distinct items, of which this process knows some.

        Args:
            values: Of this process's items [m, n, ...]; m may be 0.
            ids: Their ids [m], distinct.
            among: bool, of every item of the data set; the mean is over those only, and so must
                ``ids`` be. None: all.

        Returns:
            [], such that the weighted mean over the processes is the mean wanted.
        """
        count = len(self.ids) if among is None else int(among[self.ids.to(among.device)].sum())
        each = self._holders.to(ids.device)[self.at(ids)]
        total = (values.flatten(1).mean(1) / each).sum()
        return total * (self._scale / max(1, count))

    def total(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Gradients [m, k] of a mean over this process's rows -> those of the mean over all.

        Every process must call it; nothing flows back through it.
        """
        everywhere = rows.new_zeros(len(self.ids), rows.shape[1])
        at = self.at(ids)
        everywhere[at] = rows * self._part
        torch.distributed.all_reduce(everywhere)
        return everywhere[at]
