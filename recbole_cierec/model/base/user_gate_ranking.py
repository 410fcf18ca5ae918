"""Exact scores of all items where the item vector depends on the user (Eq. 3).

The visual gate reads the user, so v_i differs for each pair. With a linear gate
delta = A_i + B_u (A_i = W_e e_i + W_g g + b, B_u = W_p p_u) all terms factorise:

    x_ui      = e_i * (A_i + B_u)
    |x_ui|^2  = sum (e A)^2  +  2 (e^2 A) . B_u  +  (e^2) . (B_u^2)
    W_v x_ui  = W_v (e A)    +  e . (diag(B_u) W_v^T)

so no users x items x D tensor is needed. Moreover, B_u has only d degrees of freedom:

    W_v (e_i * B_u)   = M_i p_u          M_i = W_v diag(e_i) W_p               [d, d]
    (e_i^2) . (B_u^2) = p_u . N_i p_u    N_i = W_p^T diag(e_i^2) W_p           [d, d]

With M of every item, a pair of a full ranking costs d^2 multiplications for v, as many for the
fusion, and D + d for the norm, all as matrix products over users; elementwise work runs in place on
blocks that fit into the cache (``benchmarks/evaluation.py`` compares the time with that of the
literal form). Candidate lists take the norm from N, at d^2. If the maps exceed ``MAPS_BYTES``, the
first form is used. The expansion of the norm cancels if A is close to -B, so pairs that lose too
many digits are computed literally.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_cierec.model.base.gates import Fusion, VisualGate
from recbole_cierec.model.base.layers import EPS, SLOPE
from recbole_cierec.model.base.scoring import BLOCK_BYTES, CACHE_BYTES
from recbole_cierec.model.base.side import Side

MAPS_BYTES = 2**30  # limit for M and N of all items
CANCELLED = 1e-6  # below this share of its terms, |x|^2 in float64 is computed literally
CANCELLED_SINGLE = 0.05  # the same in float32


class FixedRanking:
    """Rankings of a CIERec model without gates, whose f_i is the same for every user.

    Args:
        fusion: Eq. 7.
        item: The side of all I items; its vector is q.
    """

    def __init__(self, fusion: Fusion, item: Side) -> None:
        self.vectors = fusion(item.vector, None, item["s"])  # [I, d]

    def scores(self, p: Tensor) -> Tensor:
        """p [B, d] -> p . f_i for all items [B, I]."""
        return p @ self.vectors.T

    def of_lists(self, p: Tensor, items: Tensor) -> Tensor:
        """p [B, d], a list of items for each user [B, C] -> p . f_i [B, C]."""
        return torch.einsum("bd,bcd->bc", p, self.vectors[items])


class UserGateRanking:
    """Rankings of a CIERec model with gates, and what they keep of the items.

    Args:
        fusion: Eq. 7.
        gate: Eq. 3.
        item: The side of all I items; its vector is q.
        maps_bytes: Limit for M and N of all items; None: ``MAPS_BYTES``.
    """

    def __init__(
        self, fusion: Fusion, gate: VisualGate, item: Side, maps_bytes: int | None = None
    ) -> None:
        self.fusion, self.gate, self.item = fusion, gate, item
        self.fixed = self.fusion.fixed(item.vector, item["s"])  # [I, d]
        self.maps: Tensor | None = None  # M [I, d, d]
        self._square_maps: Tensor | None = None
        if self.gate.activation == "linear":
            items, d = self.fixed.shape
            limit = MAPS_BYTES if maps_bytes is None else maps_bytes
            if items * 2 * d * d * self.fixed.element_size() <= limit:
                self.maps = self._prepare_maps()
            else:
                self._prepare_expansion()

    def _prepare_maps(self) -> Tensor:
        """M of every item [I, d, d]; sets the terms without p."""
        e, a = self.item["e"], self.item["gate"]
        w_v, w_p = self.gate.mlp.weight, self.gate.user_map.weight  # [d, D], [D, d]
        self.mapped = F.linear(e * a, w_v)  # W_v (e A) [I, d]
        self.square = e.square()  # [I, D]
        self.linear = (self.square * a) @ w_p  # [I, d]
        self.constant = (e * a).square().sum(1)  # [I]
        return _maps(e, w_v, w_p)

    @property
    def square_maps(self) -> Tensor:
        """N of every item [I, d, d], which lists read."""
        if self._square_maps is None:
            w_p = self.gate.user_map.weight
            self._square_maps = _maps(self.square, w_p.T, w_p)
        return self._square_maps

    def _prepare_expansion(self) -> None:
        e, a = self.item["e"], self.item["gate"]
        e64, a64 = e.double(), a.double()
        self.square = e64.square()  # e^2 [I, D]
        self.cross = self.square * a64  # e^2 A [I, D]
        self.constant = (e64 * a64).square().sum(1)  # [I]
        self.mapped = F.linear(e * a, self.gate.mlp.weight)  # W_v (e A) [I, d]

    def scores(self, p: Tensor) -> Tensor:
        """p [B, d] -> p . f_ui for all items [B, I]."""
        if self.maps is not None:
            return self._mapped(p, self.maps)
        score = self._expanded if self.gate.activation == "linear" else self._literal
        items, d = self.fixed.shape
        users = max(1, BLOCK_BYTES // (items * d * p.element_size()))
        return torch.cat([score(part) for part in p.split(users)])

    def of_lists(self, p: Tensor, items: Tensor) -> Tensor:
        """p [B, d], a list of items for each user [B, C] -> p . f_ui [B, C]."""
        if self.maps is not None:
            return self._mapped_lists(p, items, self.maps)
        return self._literal_lists(p, items)

    def _literal_lists(self, p: Tensor, items: Tensor) -> Tensor:
        """Pair by pair, in blocks that fit into the CPU's cache; W_e e + W_g g + b is still
        computed once per item."""
        width = self.item["e"].shape[1] * p.element_size()
        users = max(1, CACHE_BYTES // (items.shape[1] * width))
        parts = []
        for some, rows in zip(p.split(users), items.split(users), strict=True):
            flat = rows.reshape(-1)
            lists = rows.shape[1]
            b = self.gate.user_map(some)  # B_u
            e, a = self.item["e"][flat], self.item["gate"][flat]
            a = a.view(len(rows), lists, -1).add_(b.unsqueeze(1)).view_as(e)
            x = e.mul_(self.gate.activate(a))
            mapped = F.linear(x, self.gate.mlp.weight)
            norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=EPS)
            v = F.leaky_relu(mapped / norm + self.gate.mlp.bias, SLOPE)
            fixed, q, s = (y[flat] for y in (self.fixed, self.item.vector, self.item["s"]))
            f = self.fusion.finish(fixed, q, v, s).view(len(rows), lists, -1)
            parts.append(torch.einsum("bcd,bd->bc", f, some))
        return torch.cat(parts)

    def _mapped(self, p: Tensor, maps: Tensor) -> Tensor:
        """Scores [B, I] of all items, in blocks of items; users are columns."""
        columns = p.T.contiguous()  # [d, B]
        b = self.gate.user_map(p).T  # B_u [D, B]
        pure = torch.addmm(self.constant.unsqueeze(1), self.square, b.square())
        square = torch.addmm(pure, self.linear, columns, alpha=2.0)  # |x|^2 [I, B]
        inverse = square.clamp(min=EPS**2).rsqrt_().unsqueeze(1)
        step = max(1, CACHE_BYTES // (columns.numel() * p.element_size()))
        # One tensor for all blocks: thousands of small ones among the temporaries fragment memory.
        scores = torch.empty_like(square)
        for first in range(0, len(maps), step):
            rows = slice(first, first + step)
            v = (maps[rows].flatten(0, 1) @ columns).view(-1, *columns.shape)  # M_i p [m, d, B]
            v += self.mapped[rows].unsqueeze(2)
            torch.addcmul(self.gate.mlp.bias.unsqueeze(1), v, inverse[rows], out=v)
            f = self._fused_columns(F.leaky_relu_(v, SLOPE), rows)
            torch.sum(f.mul_(columns), 1, out=scores[rows])
        items, users = (square < CANCELLED_SINGLE * pure).nonzero(as_tuple=True)
        if len(items):
            scores[items, users] = self._pairs(p, users, items)
        return scores.T

    def _fused_columns(self, v: Tensor, rows: slice) -> Tensor:
        """f [m, d, B] from v [m, d, B] of a block of items; a new tensor."""
        fixed, q, s = (x[rows] for x in (self.fixed, self.item.vector, self.item["s"]))
        if self.fusion.kind != "mlp":
            fixed, q, s = (x.unsqueeze(1) for x in (fixed, q, s))
            return self.fusion.finish(fixed, q, v.transpose(1, 2), s).transpose(1, 2)
        weight = self.fusion.visual_weight
        argument = torch.bmm(weight.expand(len(v), -1, -1), v).add_(fixed.unsqueeze(2))
        return F.leaky_relu_(argument, SLOPE)

    def _mapped_lists(self, p: Tensor, items: Tensor, maps: Tensor) -> Tensor:
        """Scores [B, C]; all pairs of an item are one matrix product over its users."""
        flat = items.reshape(-1)
        order = flat.argsort()
        which, counts = flat[order].unique_consecutive(return_counts=True)
        first = counts.cumsum(0) - counts
        ranked = counts.argsort()  # a block has items with similar numbers of users
        scores = p.new_empty(len(flat))
        start, widths = 0, counts[ranked].tolist()
        while start < len(ranked):
            stop = start + 1
            cells = 2 * CACHE_BYTES // (2 * p.shape[1] * p.element_size())
            while stop < len(ranked) and widths[stop] * (stop + 1 - start) <= cells:
                stop += 1
            chosen = ranked[start:stop]
            inside = torch.arange(widths[stop - 1], device=p.device)
            real = inside < counts[chosen].unsqueeze(1)  # [g, w]
            pairs = order[(first[chosen].unsqueeze(1) + inside).clamp(max=len(flat) - 1)]
            users = p[pairs // items.shape[1]]  # [g, w, d]
            ids = which[chosen]
            visual, squares = (
                torch.bmm(users, one[ids].transpose(1, 2)) for one in (maps, self.square_maps)
            )
            scores[pairs[real]] = self._of_maps(ids, users, visual, squares)[real]
            start = stop
        return scores.view(items.shape)

    def _of_maps(self, items: Tensor, p: Tensor, visual: Tensor, squares: Tensor) -> Tensor:
        """Scores [m, w] of m items with w users each.

        Args:
            items: Ids [m].
            p: User vectors [m, w, d].
            visual: M_i p [m, w, d].
            squares: N_i p [m, w, d].
        """
        pure = (squares * p).sum(2) + self.constant[items].unsqueeze(1)  # the positive terms
        square = pure + 2.0 * torch.einsum("mwd,md->mw", p, self.linear[items])
        norm = square.clamp(min=0.0).sqrt().clamp(min=EPS).unsqueeze(2)
        v = (visual + self.mapped[items].unsqueeze(1)) / norm + self.gate.mlp.bias
        parts = (self.fixed, self.item.vector, self.item["s"])
        fixed, q, s = (x[items].unsqueeze(1) for x in parts)
        f = self.fusion.finish(fixed, q, F.leaky_relu(v, SLOPE), s)
        scores = (f * p).sum(2)
        rows, columns = (square < CANCELLED_SINGLE * pure).nonzero(as_tuple=True)
        if len(rows):
            each = torch.arange(len(rows), device=p.device)
            scores[rows, columns] = self._pairs(p[rows, columns], each, items[rows])
        return scores

    def _fuse(self, p: Tensor, v: Tensor) -> Tensor:
        """p [B, d], v [I, B, d] -> scores [B, I]."""
        q, s, fixed = (x.unsqueeze(1) for x in (self.item.vector, self.item["s"], self.fixed))
        f = self.fusion.finish(fixed, q, v, s)
        return torch.einsum("ibd,bd->bi", f, p)

    def _expanded(self, p: Tensor) -> Tensor:
        b = self.gate.user_map(p)  # B_u [B, D]
        b64 = b.double()
        pure = b64.square() @ self.square.T + self.constant  # [B, I], the positive terms
        square = pure + 2.0 * (b64 @ self.cross.T)
        norm = square.clamp(min=0.0).sqrt().clamp(min=EPS).to(p.dtype)
        e, weight = self.item["e"], self.gate.mlp.weight  # [I, D], [d, D]
        joined = (b.unsqueeze(2) * weight.T).transpose(0, 1).flatten(1)  # [D, B * d]
        mapped = (e @ joined).view(len(e), len(p), -1) + self.mapped.unsqueeze(1)
        v = F.leaky_relu(mapped / norm.T.unsqueeze(2) + self.gate.mlp.bias, SLOPE)
        scores = self._fuse(p, v)
        rows, columns = (square < CANCELLED * pure).nonzero(as_tuple=True)
        if len(rows):
            scores[rows, columns] = self._pairs(p, rows, columns)
        return scores

    def _pairs(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Literal scores of single pairs."""
        step = max(1, BLOCK_BYTES // (self.item["e"].shape[1] * p.element_size()))
        parts = []
        for u, i in zip(users.split(step), items.split(step), strict=True):
            v = self.gate(p[u], self.item["e"][i], self.item["gate"][i])
            f = self.fusion.finish(self.fixed[i], self.item.vector[i], v, self.item["s"][i])
            parts.append((p[u] * f).sum(1))
        return torch.cat(parts)

    def _literal(self, p: Tensor) -> Tensor:
        """Scores [B, I] with a gate that is not linear: all pairs, in blocks."""
        items = torch.arange(len(self.fixed), device=p.device)
        users = torch.arange(len(p), device=p.device)
        pairs = torch.cartesian_prod(users, items)
        return self._pairs(p, pairs[:, 0], pairs[:, 1]).view(len(p), -1)


def _maps(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left diag(x_i) right for every row x_i of x: [I, D], [d, D], [D, d] -> [I, d, d]."""
    maps = x.new_empty(len(x), len(left), right.shape[1])
    step = max(1, BLOCK_BYTES // (left.numel() * x.element_size()))
    for k in range(0, len(x), step):
        maps[k : k + step] = (x[k : k + step].unsqueeze(1) * left) @ right
    return maps
