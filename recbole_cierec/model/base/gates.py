"""The parts of CIERec: gates (Eq. 3, 4), semantic encoder (Eq. 5), fusion (Eq. 7).

Symbols: p_u user vector [d], q_i item vector [d], e_i unified embedding of the picture [D],
v_i visual feature [d], c_i inferred feature [D], s_i semantic feature [d], f_i fused vector [d].
Rows are pairs or items; every function works row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base.gated_products import pair_products, unit_product
from recbole_cierec.model.base.layers import (
    EPS,
    SLOPE,
    added,
    divisor,
    unit_linear,
    wide_linear,
)
from recbole_cierec.model.base.side import distinct

GUIDANCE_TEMPERATURE = 0.1
JoinGradients = Callable[[Tensor, Tensor], Tensor]  # of the visual and the semantic branch


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Identity forward; the gradient that flows back is multiplied by ``scale``.

    The gradient-regularization gate R of Sec. III-D3 acts on this edge.

    >>> x = torch.ones(2, requires_grad=True)
    >>> scale_gradient(x, 0.2).sum().backward()
    >>> x.grad
    tensor([0.2000, 0.2000])
    """
    return x if scale == 1.0 else _ScaleGradient.apply(x, scale)


class _Branches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, join: JoinGradients) -> tuple[Tensor, Tensor]:
        ctx.join = join
        return e.view_as(e), e.view_as(e)

    @staticmethod
    def backward(ctx: Any, visual: Tensor, semantic: Tensor) -> tuple[Tensor, None]:
        return ctx.join(visual, semantic), None


def branch_edges(
    e: Tensor, scales: Mapping[str, float], join: JoinGradients | None = None
) -> tuple[Tensor, Tensor]:
    """e for the visual and for the semantic branch; the gradient gates act on these two edges.

    Args:
        e: [I, D].
        scales: Factors on the gradients, by branch.
        join: In place of the scales: the gradient [I, D] on e from those of both branches.
    """
    if join is not None:
        return _Branches.apply(e, join)
    return scale_gradient(e, scales["visual"]), scale_gradient(e, scales["semantic"])


class ContentGate(nn.Module):
    """The part of both gates that the user does not change.

    A constant g concatenated before a linear layer adds W_g g to its bias; it stays a separate
    parameter, as in the paper.
    """

    low_precision = False  # whether training multiplies W_e in bfloat16: ``encoder_precision``

    def __init__(self, content_size: int, gate_size: int, activation: str = "linear") -> None:
        super().__init__()
        self.gate_vector = nn.Parameter(torch.randn(gate_size) * 0.01)
        self.content_map = nn.Linear(content_size, content_size)  # W_e and b
        self.gate_map = nn.Linear(gate_size, content_size, bias=False)  # W_g
        self.activation = activation
        # The gate starts at one, so the network starts from the unchanged e_i.
        nn.init.ones_(self.content_map.bias)
        nn.init.normal_(self.content_map.weight, std=0.1 / content_size**0.5)

    def item_part(self, e: Tensor) -> Tensor:
        """W_e e + W_g g + b [I, D]: the part of the gate's argument without the user."""
        bias = self.content_map.bias + self.gate_map(self.gate_vector)
        low = self.low_precision and self.training
        return wide_linear(e, self.content_map.weight, bias, low)

    def activate(self, argument: Tensor) -> Tensor:
        return torch.sigmoid(argument) if self.activation == "sigmoid" else argument


class InferenceGate(ContentGate):
    """Eq. 4: c_i = normalise(e_i * delta(e_i || g_s)), the same for every user."""

    def forward(self, e: Tensor) -> Tensor:
        """e [I, D] -> c [I, D], rows of unit norm (zero rows stay zero)."""
        return unit_product(e, self.activate(self.item_part(e)))


class VisualGate(ContentGate):
    """Eq. 3: v = MLP_v(normalise(e_i * delta(p_u || e_i || g_v))), which depends on the user."""

    def __init__(
        self,
        size: int,
        content_size: int,
        gate_size: int,
        activation: str = "linear",
        gain: float = 1.0,
    ) -> None:
        super().__init__(content_size, gate_size, activation)
        self.user_map = nn.Linear(size, content_size, bias=False)  # W_p
        self.mlp = unit_linear(content_size, size, gain)  # MLP_v, with LeakyReLU

    def forward(self, p: Tensor, e: Tensor, item_part: Tensor) -> Tensor:
        """Pairs: p [..., d], e [..., D], item_part [..., D] -> v [..., d]; dimensions broadcast."""
        x = e * self.activate(self.user_map(p) + item_part)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return self._feature(F.linear(x, self.mlp.weight), norm)

    def of_rows(
        self, p: Tensor, e: Tensor, item_part: Tensor, users: Tensor, items: Tensor
    ) -> Tensor:
        """The same for pairs that are rows of p [n, d], and of e and item_part [m, D].

        Args:
            p: User vectors, of distinct users.
            e: Embeddings, of distinct items, as item_part.
            item_part: From :meth:`item_part`.
            users: Rows of the pairs [B].
            items: Rows of the pairs [..., B].

        Returns:
            v [..., B, d].
        """
        pairs = items.reshape(-1), users.expand(items.shape).reshape(-1)
        parts = e, item_part, self.user_map(p), self.mlp.weight
        mapped, norm = pair_products(*parts, *pairs, sigmoid=self.activation == "sigmoid")
        return self._feature(mapped, norm).view(*items.shape, -1)

    def _feature(self, mapped: Tensor, norm: Tensor) -> Tensor:
        """v from W_v x and |x|: W_v (x / |x|) is (W_v x) / |x|, which divides d numbers, not D."""
        return F.leaky_relu(mapped / divisor(norm) + self.mlp.bias, SLOPE)


class SemanticEncoder(nn.Module):
    """Eq. 5: s_i = LSTM(c_i || s_hat_i), the annotation as privileged information.

    Args:
        size: d of s_i.
        content_size: D of c_i.
        n_tokens: Annotation tokens including padding 0; 0 builds the encoder without annotations.
        lstm_input: ``steps`` reads c_i then s_hat_i as two time steps (a missing annotation
            shortens the sequence); ``concat`` reads their concatenation in one step.
        annotation_encoder: ``mean``: s_hat_i is the mean of the token vectors; ``sequence``: one
            time step per token.
        gain: Standard deviation of the input weights at the start.
    """

    def __init__(
        self,
        size: int,
        content_size: int,
        n_tokens: int = 0,
        lstm_input: str = "steps",
        annotation_encoder: str = "mean",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.concat = lstm_input == "concat" and n_tokens > 0
        self.sequence = annotation_encoder == "sequence"
        self.cell = nn.LSTMCell(content_size * (2 if self.concat else 1), size)
        nn.init.normal_(self.cell.weight_ih, std=gain)  # unit-norm inputs: see unit_linear
        self.tokens: nn.Embedding | None = None
        if n_tokens:
            self.tokens = nn.Embedding(n_tokens, content_size, padding_idx=0)
            nn.init.normal_(self.tokens.weight[1:], std=content_size**-0.5)

    def forward(self, c: Tensor, tokens: Tensor | None, known: Tensor | None) -> Tensor:
        """Item rows to s.

        Args:
            c: Inferred features [I, D].
            tokens: Token ids [I, L], 0 = padding, or None: no annotations at all.
            known: bool [I], whether the annotation is read (False: dropped or missing).

        Returns:
            s [I, d].
        """
        if self.concat:
            return self._one_step(c, tokens, known)
        h, memory = self._first_step(c)
        if self.tokens is None or tokens is None or known is None:
            return h
        if self.sequence:
            return self._token_steps(self.tokens, h, memory, tokens * known.unsqueeze(1))
        if known.is_cuda:  # finding the rows would wait for the GPU
            after, _ = self._step(self._mapped_mean(self.tokens, tokens), h, memory)
            return torch.where(known.unsqueeze(1), after, h)
        rows = known.nonzero().squeeze(1)
        mapped = self._mapped_mean(self.tokens, tokens.index_select(0, rows))
        after, _ = self._step(mapped, h.index_select(0, rows), memory.index_select(0, rows))
        return h.index_copy(0, rows, after)

    @staticmethod
    def guidance(c: Tensor, tokens: Tensor, table: Tensor, log_share: Tensor) -> Tensor:
        """How badly c predicts the annotation: mean of -log P(k | c_i) over an item's tokens k.

        P is the softmax over all tokens of c . t_k / tau + log pi_k, with unit token vectors t_k.
        The share pi_k makes c answer only for what an item has more of than others; without it
        all c_i would move towards the most frequent tokens.

        Args:
            c: Inferred features [I, D], of unit length.
            tokens: Token ids [I, L], 0 = padding, at least one real token in each row.
            table: The token vectors [tokens, D], with padding.
            log_share: log pi_k [tokens without padding].

        Returns:
            [I].
        """
        t = F.normalize(table[1:], eps=EPS)
        log_p = F.log_softmax(torch.addmm(log_share, c, t.T, alpha=1 / GUIDANCE_TEMPERATURE), 1)
        real = tokens > 0
        chosen = log_p.gather(1, (tokens - 1).clamp(min=0)) * real
        return -chosen.sum(1) / real.sum(1)

    def _one_step(self, c: Tensor, tokens: Tensor | None, known: Tensor | None) -> Tensor:
        s_hat = torch.zeros_like(c)
        if self.tokens is not None and tokens is not None:
            s_hat = _mean_vector(self.tokens.weight, tokens)
        if known is not None:
            s_hat = s_hat * known.unsqueeze(1)
        return self._first_step(torch.cat([c, s_hat], 1))[0]

    def _first_step(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output and memory [I, d] after the first step, whose forget gate has nothing to forget:
        its quarter of the maps is left out."""
        d = self.cell.hidden_size
        weight, bias = self.cell.weight_ih, self.cell.bias_ih + self.cell.bias_hh
        weight, bias = (torch.cat([w[:d], w[2 * d :]]) for w in (weight, bias))
        enter, new, leave = F.linear(x, weight, bias).chunk(3, 1)
        memory = enter.sigmoid() * new.tanh()
        return leave.sigmoid() * memory.tanh(), memory

    def _step(self, mapped: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """A further step, from its input under the input weights [I, 4 d]."""
        argument = torch.addmm(mapped, h, self.cell.weight_hh.T)
        argument = argument + (self.cell.bias_ih + self.cell.bias_hh)
        enter, forget, new, leave = argument.chunk(4, 1)
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * memory.tanh(), memory

    def _mapped_mean(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        """The mean vector of the real tokens under the input weights [I, 4 d]."""
        mapped, rows = self._mapped_tokens(table, tokens)
        return _mean_vector(mapped, rows)

    def _token_steps(
        self, table: nn.Embedding, h: Tensor, memory: Tensor, tokens: Tensor
    ) -> Tensor:
        mapped, rows = self._mapped_tokens(table, tokens)
        for column, row in zip(tokens.unbind(1), rows.unbind(1), strict=True):
            new_h, new_memory = self._step(F.embedding(row, mapped), h, memory)
            real = (column > 0).unsqueeze(1)
            h, memory = torch.where(real, new_h, h), torch.where(real, new_memory, memory)
        return h

    def _mapped_tokens(self, table: nn.Embedding, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct tokens under the input weights [n, 4 d], and their rows, padding first [I, L].

        Many items share a token, and the mean of mapped tokens is the mapped mean.
        """
        used, rows = distinct(torch.cat([tokens.new_zeros(1), tokens.reshape(-1)]))
        return F.linear(table(used), self.cell.weight_ih), rows[1:].view_as(tokens)


def _mean_vector(table: Tensor, tokens: Tensor) -> Tensor:
    """Mean row [I, k] of the real tokens, zero for an item without any."""
    return F.embedding_bag(tokens, table, mode="mean", padding_idx=0)


class Fusion(nn.Module):
    """Eq. 7: f_i = MLP(q_i || v_i || s_i), or one of two simpler fusions.

    ``mlp`` is the paper's: a linear layer on the concatenation, then LeakyReLU. ``sum`` adds the
    parts. ``gated`` adds them under sigmoid gates that read all parts. The linear layer is a sum
    over parts, so :meth:`fixed` is computed once per item and :meth:`finish` once per pair.

    Where the argument of LeakyReLU is negative, f_i is almost zero, and the L2 on f_i no longer
    holds q_i, which grows and fits noise. From a positive bias the layer starts linear.

    Args:
        size: d of every part.
        parts: 3 for (q, v, s); 2 for (q, s), the ablation without v.
        kind: ``mlp``, ``sum`` or ``gated``.
        bias: At the start, for ``mlp``.
    """

    def __init__(self, size: int, parts: int = 3, kind: str = "mlp", bias: float = 0.0) -> None:
        super().__init__()
        self.kind = kind
        outputs = {"mlp": size, "sum": 0, "gated": parts * size}[kind]
        maps = [nn.Linear(size, outputs, bias=k == 0) for k in range(parts if outputs else 0)]
        for layer in maps[:1]:
            nn.init.constant_(layer.bias, bias if kind == "mlp" else 0.0)
        for layer in maps if kind == "mlp" else ():
            nn.init.eye_(layer.weight)  # the argument starts as the sum of the parts
        self.maps = nn.ModuleList(maps)

    @property
    def visual_weight(self) -> Tensor:
        """The map of v, with three parts."""
        return self.maps[1].get_parameter("weight")

    def deviation(self, f: Tensor) -> Tensor:
        """f [..., d] without the layer's bias, which is the same for all items: what L2 holds."""
        return f - self.maps[0].get_parameter("bias") if self.kind == "mlp" else f

    def fixed(self, q: Tensor, s: Tensor) -> Tensor:
        """The terms of q and s [..., d] in the argument; for ``sum``, q + s."""
        if self.kind == "sum":
            return q + s
        return self.maps[0](q) + self.maps[-1](s)

    def finish(self, fixed: Tensor, q: Tensor, v: Tensor | None, s: Tensor) -> Tensor:
        """f [..., d] from :meth:`fixed` and the parts; v is None in the ablation without it."""
        if self.kind == "sum":
            return fixed if v is None else fixed + v
        argument = fixed if v is None else fixed + self.maps[1](v)
        if self.kind == "mlp":
            return F.leaky_relu(argument, SLOPE)
        parts = [q, s] if v is None else [q, v, s]
        gates = torch.sigmoid(argument).chunk(len(parts), -1)
        return added(gate * part for gate, part in zip(gates, parts, strict=True))

    def forward(self, q: Tensor, v: Tensor | None, s: Tensor) -> Tensor:
        """q, v, s [..., d] -> f [..., d]."""
        return self.finish(self.fixed(q, s), q, v, s)
