"""The elementwise part of the gates (Eq. 3 and 4) in training, in blocks that fit into the cache.

Apart from its maps, a gate multiplies, normalises and adds up rows of D numbers. Autograd does each
in a pass over memory and keeps every result. Here a block of rows goes through all of them while it
is in the CPU's cache, and the backward pass computes the block again instead of reading it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_cierec.model.base.layers import EPS, divisor

BLOCK_ROWS_BYTES = 2**19  # of one tensor of a block, which has about three


def _blocks(rows: int, like: Tensor) -> Iterator[slice]:
    """Slices of rows; on a GPU a single one."""
    width = like.shape[1] * like.element_size()
    step = max(1, rows if like.is_cuda else BLOCK_ROWS_BYTES // width)
    return (slice(k, k + step) for k in range(0, rows, step))


def _in_one_precision(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the widest of their types: autocast makes products of matrices narrower."""
    widest = max((x.dtype for x in tensors), key=lambda dtype: torch.finfo(dtype).bits)
    return [x.to(widest) for x in tensors]


def unit_product(e: Tensor, gate: Tensor) -> Tensor:
    """normalise(e * gate) [m, D], rows of unit norm (zero rows stay zero)."""
    with torch.autocast(e.device.type, enabled=False):
        return _UnitProduct.apply(*_in_one_precision(e, gate))


class _UnitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, gate: Tensor) -> Tensor:
        unit = torch.empty_like(e)
        norm = e.new_empty(len(e), 1)
        for rows in _blocks(len(e), e):
            x = torch.mul(e[rows], gate[rows], out=unit[rows])
            norm[rows] = divisor(torch.linalg.vector_norm(x, dim=1, keepdim=True))
            x /= norm[rows]
        ctx.save_for_backward(e, gate, unit, norm)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        e, gate, unit, norm = ctx.saved_tensors
        on_e, on_gate = torch.empty_like(e), torch.empty_like(e)
        for rows in _blocks(len(e), e):
            # d(x / |x|) = (dx - u (u . dx)) / |x|
            u, g = unit[rows], grad[rows]
            along = torch.linalg.vecdot(u, g).unsqueeze(1)
            x = torch.addcmul(g, u, along, value=-1).div_(norm[rows])
            torch.mul(x, gate[rows], out=on_e[rows])
            torch.mul(x, e[rows], out=on_gate[rows])
        return on_e, on_gate


def pair_products(
    e: Tensor,
    item_part: Tensor,
    user_part: Tensor,
    weight: Tensor,
    items: Tensor,
    users: Tensor,
    sigmoid: bool = False,
) -> tuple[Tensor, Tensor]:
    """W x and |x| of pairs, where x = e * delta(item part + user part).

    Args:
        e: [m, D] of distinct items.
        item_part: Item part of the gate's argument [m, D].
        user_part: User part of the gate's argument [n, D], by distinct user.
        weight: W [d, D].
        items: Row of each pair's item [P].
        users: Row of each pair's user [P].
        sigmoid: Whether delta is the sigmoid, and not linear.

    Returns:
        W x [P, d] and |x| [P, 1]. No tensor of P rows and D columns is kept.
    """
    parts = _in_one_precision(e, item_part, user_part, weight)
    with torch.autocast(e.device.type, enabled=False):
        return _PairProducts.apply(*parts, items, users, sigmoid)


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        e: Tensor,
        item_part: Tensor,
        user_part: Tensor,
        weight: Tensor,
        items: Tensor,
        users: Tensor,
        sigmoid: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.sigmoid = sigmoid
        mapped, norm = e.new_empty(len(items), len(weight)), e.new_empty(len(items), 1)
        for rows in _blocks(len(items), e):
            gate = _gate(item_part, user_part, items[rows], users[rows], sigmoid)
            x = e.index_select(0, items[rows]).mul_(gate)
            torch.mm(x, weight.T, out=mapped[rows])
            norm[rows] = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        ctx.save_for_backward(e, item_part, user_part, weight, items, users, norm)
        return mapped, norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on_mapped: Tensor, on_norm: Tensor) -> tuple[Tensor | None, ...]:
        e, item_part, user_part, weight, items, users, norm = ctx.saved_tensors
        on_e, on_item, on_user, on_weight = (
            torch.zeros_like(x) for x in (e, item_part, user_part, weight)
        )
        by_length = on_norm / norm.clamp(min=EPS)  # d|x| = (x / |x|) . dx
        for rows in _blocks(len(items), e):
            i, u = items[rows], users[rows]
            gate = _gate(item_part, user_part, i, u, ctx.sigmoid)
            own = e.index_select(0, i)
            x = own * gate
            on_weight.addmm_(on_mapped[rows].T, x)
            on_x = (on_mapped[rows] @ weight).addcmul_(x, by_length[rows])
            if ctx.sigmoid:
                on_e.index_add_(0, i, on_x * gate)
                on_gate = own.mul_(gate).mul_(gate.neg_().add_(1.0)).mul_(on_x)
            else:
                on_gate = own.mul_(on_x)
                on_e.index_add_(0, i, on_x.mul_(gate))
            on_item.index_add_(0, i, on_gate)
            on_user.index_add_(0, u, on_gate)
        return on_e, on_item, on_user, on_weight, None, None, None


def _gate(
    item_part: Tensor, user_part: Tensor, items: Tensor, users: Tensor, sigmoid: bool
) -> Tensor:
    gate = item_part.index_select(0, items).add_(user_part.index_select(0, users))
    return gate.sigmoid_() if sigmoid else gate
