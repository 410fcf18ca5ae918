"""A batch that several processes share: each knows the whole batch and trains on a part of it.

The processes draw the same order and the same negatives from the same state, so the batch is the
one that a single process would have. Random numbers and means over distinct items refer to the
items of the whole batch (:class:`WholeSide`), whichever process has their rows. Models do not see
this: they call their batch context, here :class:`SharedBatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

_SPREAD = 0x9E3779B1  # 2^32 / golden ratio: Fibonacci hashing


class Share:
    """This process's rows of a batch.

    If a batch has fewer rows than there are processes, processes without a row get its first row
    with weight 0, since all must take part in every exchange.

    Args:
        whole: The batch of all processes: ``copies`` equal blocks, RecBole's layout of several
            negatives. Row k of every block goes to the same process.
        rank: Rank of this process.
        size: Number of processes.
        copies: Number of blocks.
        by: A number for each row of a block [B], here its item. Rows with equal numbers go to the
            same process, as far as the parts are equally large: models compute once for each
            distinct item, and a process more has fewer of them. None: consecutive rows.
    """

    def __init__(
        self,
        whole: Interaction,
        rank: int,
        size: int,
        copies: int = 1,
        by: Tensor | None = None,
    ) -> None:
        self.whole, self.size = whole, size
        block = len(whole) // copies
        # In the order of a hash: ids may be in order of popularity, and the process with the
        # frequent items would have fewer of them.
        order = torch.arange(block) if by is None else (by * _SPREAD % 2**32).argsort(stable=True)
        self._bounds = [block * k // size for k in range(size + 1)]
        self._copies, self._order = copies, order
        self._known: dict[tuple[str, ...], WholeSide] = {}
        begin, end = self._bounds[rank : rank + 2]
        # The weight of this part's mean loss in the mean over processes.
        self.weight = (end - begin) * size / block
        begin, end = (begin, end) if begin < end else (0, 1)
        rows = order[begin:end].sort().values
        self.rows = torch.cat([rows + k * block for k in range(copies)])  # among the whole

    @property
    def own(self) -> Interaction:
        """This process's part of the batch."""
        return self.whole[self.rows]

    @cached_property
    def owners(self) -> Tensor:
        """The process of each row of the whole batch [B]."""
        counts = torch.tensor(self._bounds).diff()
        owners = torch.empty_like(self._order)
        owners[self._order] = torch.arange(self.size).repeat_interleave(counts)
        return owners.repeat(self._copies)

    def distinct(self, fields: list[str], shared: Tensor | None = None) -> WholeSide:
        """The distinct items (or users) of the whole batch, computed once.

        Args:
            fields: Names of their columns.
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

    Has the methods of :class:`recbole_cierec.model.base.batch_context.BatchContext`.

    Args:
        share: This process's share of the batch.
        user: Name of the user column.
        items: Names of the item columns.
        common: Generator of random numbers that are equal in all processes; None: torch's
            default generator, if it has the same state in all processes.
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
        ids: Ids [n], with repetitions, on the CPU.
        owners: The process of each [n].
        share: This process's share of the batch.
    """

    def __init__(self, ids: Tensor, owners: Tensor, share: Share) -> None:
        pairs = torch.unique(ids * share.size + owners) // share.size
        self.ids, self._holders = torch.unique_consecutive(pairs, return_counts=True)
        # From a process's part of a sum to its term in a loss that is a mean over its rows.
        self._scale = share.size / share.weight if share.weight else 0.0
        self._part = share.weight / share.size

    def at(self, ids: Tensor) -> Tensor:
        """Places [m] of ids [m] among all distinct ids."""
        return torch.searchsorted(self.ids.to(ids.device), ids)

    def mean(self, values: Tensor, ids: Tensor, among: Tensor | None = None) -> Tensor:
        """This process's term of the mean over all distinct items.

        Args:
            values: Values [m, n, ...] of this process's items; m may be 0.
            ids: Their distinct ids [m].
            among: bool [n_items]; the mean is over these items only, and ``ids`` must be among
                them. None: all.

        Returns:
            [], whose weighted mean over the processes is the mean over the items.
        """
        count = len(self.ids) if among is None else int(among[self.ids.to(among.device)].sum())
        each = self._holders.to(ids.device)[self.at(ids)]
        total = (values.flatten(1).mean(1) / each).sum()
        return total * (self._scale / max(1, count))

    def total(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Gradients [m, k] of the whole batch's mean, from those of this process's mean.

        All processes must call it. It is not differentiable.
        """
        everywhere = rows.new_zeros(len(self.ids), rows.shape[1])
        at = self.at(ids)
        everywhere[at] = rows * self._part
        torch.distributed.all_reduce(everywhere)
        return everywhere[at]
