"""Exchange of gradients, losses and random states, so that several processes train as one.

After a backward pass each process has the gradient of its share of the batch. The mean over
processes, with losses weighted by their rows, is the gradient of the whole batch. This replaces
torch's DistributedDataParallel, with which RecBole makes every gradient dense: gradients of tables
are exchanged by row, so that several processes take the same row-wise steps as one. The loss is
exchanged as well: if it is not finite in one process, all stop with the same message.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_cierec.distributed.batch_share import Share, SharedBatch
from recbole_cierec.distributed.random_state import rng_state, set_rng_state
from recbole_cierec.distributed.world import world

LARGE = 2**16  # gradients with at least this many entries are sent without packing
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def followed_by(callback: Callable[[], None]) -> type[Tensor]:
    """A kind of tensor whose backward pass is followed by ``callback``.

    A number computed from one is of the same kind, so a zero of this kind, added to a loss, is
    enough.

    >>> Loss = followed_by(lambda: print("the gradient is", x.grad))
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> (x * x + torch.zeros(()).as_subclass(Loss)).backward()
    the gradient is tensor(6.)
    """

    class FollowedLoss(Tensor):
        def backward(self, *args: Any, **kwargs: Any) -> None:
            super().backward(*args, **kwargs)
            callback()

    return FollowedLoss


class ProcessGroup:
    """The processes of a run, from the perspective of one.

    Args:
        model: Its parameters must be equal in all processes.
        device: Device of the model.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.rank, self.size = world()
        self.weight = 1.0  # of this process's loss on the current batch
        # Only this package's models have a batch context.
        self._visual: Any = model if hasattr(model, "draws_per_row") else None
        self._alone = None if self._visual is None else self._visual.batch
        self._common: torch.Generator | None = None  # for draws that are equal in all processes
        self._by_row: set[int] | None = None  # tables whose gradients are sparse

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, in the shape of ``values``."""
        values = values.detach().clone()
        dist.all_reduce(values)
        return values / self.size

    def begin_batch(self, share: Share | None) -> float:
        """Set the model's batch context and return the weight of this process's loss.

        Args:
            share: This process's share of the batch; None with RecBole's loaders, which give
                each process separate rows, the same number for all.
        """
        self.weight = 1.0 if share is None else share.weight
        if self._visual is not None:
            model, items = self._visual, [self._visual.ITEM_ID, self._visual.NEG_ITEM_ID]
            shared = share and SharedBatch(share, model.USER_ID, items, self._common)
            model.batch = shared or self._alone
        return self.weight

    # ------------------------------------------------------------------ random numbers

    def begin_epoch(self, shared: bool) -> None:
        """Copy the random state of the first process, and derive those of the others from it.

        Most models draw everything for the whole batch: all processes continue in one state. A
        model with ``draws_per_row`` draws for single rows (dropout), which must differ between
        processes: each gets a different state at the start of every epoch, so the state of the
        first process in a checkpoint is enough. Draws that must be equal even then come from a
        common generator.

        Args:
            shared: Whether the processes share batches. With RecBole's other loaders each process
                has separate rows, and draws for them from numpy's and Python's generators.
        """
        state = [rng_state()]
        dist.broadcast_object_list(state)
        own = state[0]
        if "cuda" in own:  # of the first process's GPU
            own["cuda"] = own["cuda"][:1] * torch.cuda.device_count()
        set_rng_state(own)
        self._common = None
        if shared and not getattr(self.model, "draws_per_row", True):
            return
        source = torch.Generator().set_state(torch.get_rng_state())
        first, *others = torch.randint(2**32, (self.size,), generator=source).tolist()
        self._common = torch.Generator().manual_seed(first)
        if self.rank:
            own = others[self.rank - 1]
            torch.manual_seed(own)
            if not shared:
                np.random.seed(own)
                random.seed(own)

    def end_epoch(self) -> None:
        """Average the batch statistics, which gradients do not update."""
        self.begin_batch(None)
        for module in self.model.modules():
            if isinstance(module, _BATCH_NORMS) and module.track_running_stats:
                for name in ("running_mean", "running_var"):
                    buffer = getattr(module, name)
                    buffer.copy_(self.mean(buffer))

    # ----------------------------------------------------------------------- gradients

    def exchange(self, loss: Tensor) -> Tensor:
        """Replace every gradient by its mean over processes; returns the mean loss []."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        # Rows of sparse gradients [processes, parameters]; on a GPU all gradients are dense.
        counts = torch.zeros(self.size, len(parameters), dtype=torch.int64)
        if self.device.type == "cpu":
            counts = self._row_counts(parameters)
            used = (counts >= 0).any(0).tolist()  # without a gradient in any process: skip
            parameters = [p for p, u in zip(parameters, used, strict=True) if u]
            counts = counts[:, used]
        for parameter in (p for p in parameters if p.grad is None):
            # On a GPU torch's wrapper does the same; comparing counts would wait for the GPU.
            parameter.grad = self._no_gradient(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]  # by now all have one
        by_row = [k for k, gradient in enumerate(gradients) if gradient.is_sparse]
        dense = [gradient for gradient in gradients if not gradient.is_sparse]
        large = [g for g in dense if g.numel() >= LARGE and g.is_contiguous()]
        kept = {id(g) for g in large}
        waiting: list[Any] = [dist.all_reduce(gradient, async_op=True) for gradient in large]
        if by_row:
            joined = exchange_rows([gradients[k] for k in by_row], counts[:, by_row])
        loss = self._reduce_small(loss, [g for g in dense if id(g) not in kept])
        if by_row:
            for k, gradient in zip(by_row, joined(), strict=True):
                parameters[k].grad = gradient
        for work in waiting:
            work.wait()
        for gradient in large:
            gradient /= self.size
        return loss

    def _row_counts(self, parameters: list[nn.Parameter]) -> Tensor:
        """Rows of each sparse gradient in each process [processes, parameters].

        0 for a dense gradient, -1 without a gradient.
        """
        own = [
            -1 if p.grad is None else p.grad._nnz() if p.grad.is_sparse else 0 for p in parameters
        ]
        gathered = [torch.empty(len(own), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(gathered, torch.tensor(own))
        return torch.stack(gathered)

    def _no_gradient(self, parameter: nn.Parameter) -> Tensor:
        if self._by_row is None:
            tables = (m for m in self.model.modules() if isinstance(m, nn.Embedding))
            self._by_row = {id(table.weight) for table in tables if table.sparse}
        layout = torch.sparse_coo if id(parameter) in self._by_row else torch.strided
        return torch.zeros_like(parameter, layout=layout)

    def _reduce_small(self, loss: Tensor, gradients: list[Tensor]) -> Tensor:
        packed = torch.cat([loss.detach().reshape(1), *[g.reshape(-1) for g in gradients]])
        dist.all_reduce(packed)
        packed /= self.size
        loss, *parts = packed.split([1, *[g.numel() for g in gradients]])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
        return loss[0]


def exchange_rows(gradients: list[Tensor], counts: Tensor) -> Callable[[], list[Tensor]]:
    """Start the exchange of sparse gradients by row.

    torch's sum of sparse tensors, one table after the other, takes three times as long.

    Args:
        gradients: Sparse [n, k] each, of the same tables in every process.
        counts: Rows of each gradient in each process, -1 for none [processes, gradients].

    Returns:
        A function that waits, and returns the means over the processes. In each mean a row occurs
        once per process that has it.
    """
    counts = counts.clamp(min=0)
    widths = torch.tensor([gradient.shape[1] for gradient in gradients])
    rows = _fetch(torch.cat([g._indices()[0] for g in gradients]), counts)
    values = _fetch(torch.cat([g._values().reshape(-1) for g in gradients]), counts * widths)

    def joined() -> list[Tensor]:
        means = []
        tables = zip(gradients, zip(*rows(), strict=True), zip(*values(), strict=True), strict=True)
        for gradient, own_rows, own_values in tables:
            index = torch.cat(own_rows).unsqueeze(0)
            value = torch.cat(own_values).view(-1, gradient.shape[1]) / len(counts)
            means.append(
                torch.sparse_coo_tensor(index, value, gradient.shape, check_invariants=False)
            )
        return means

    return joined


def _fetch(mine: Tensor, lengths: Tensor) -> Callable[[], list[tuple[Tensor, ...]]]:
    """Start to gather a tensor from every process.

    Args:
        mine: The tensor [n] of this process.
        lengths: Lengths of the parts of each process's tensor [processes, parts].

    Returns:
        A function that waits, and returns the parts of each process's tensor.
    """
    totals = lengths.sum(1).tolist()
    padded = mine.new_zeros(max(totals))
    padded[: len(mine)] = mine
    gathered = [torch.empty_like(padded) for _ in totals]
    work = dist.all_gather(gathered, padded, async_op=True)

    def fetched() -> list[tuple[Tensor, ...]]:
        work.wait()
        whole = (part[:total] for part, total in zip(gathered, totals, strict=True))
        return [part.split(cuts) for part, cuts in zip(whole, lengths.tolist(), strict=True)]

    return fetched
