"""Rules of multi-task learning in place of the gates of Eq. 6 (``gr_mode``).

The two branches, visual and semantic, share what lies below the embedding e_i of a picture. Each
rule here decides how their gradients are joined there, from both branches together:

    dL/de = join(g_v, g_s),      g_b [I, D] = the gradient of the loss that reaches e through b,

with the I distinct items of a batch as the rows of e. So "shared parameters" of the papers are e
itself: the parameters below it get what the joined gradient gives them, at no further backward
pass, and those of the branches keep their gradients. A norm or angle at e is not one of weights; it
leaves out the Jacobian of the encoder, which is the same for both branches.

Two deviations follow from CIERec's one loss of the fused score: g_b is the part of its gradient
that flows through b, and L_b of GradNorm and uncertainty weighting is the branch's own BPR or
softmax loss (``branch_losses``; in PiNet that of each task). L2 terms are part of g_b.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from recbole_cierec.trainer.optimizers import load_state

BRANCHES = ("visual", "semantic")
JOINT_MODES = ("gradnorm", "pcgrad", "uncertainty")
LEAST_WEIGHT = 1e-3  # of GradNorm, whose step could make a weight negative

Logged = dict[str, dict[str, float]]  # by branch


class Balance:
    """A rule for both branches; the defaults leave gradients as they are.

    A subclass has parameters with an optimizer, or neither. :meth:`join` is called in the backward
    pass of every batch; :meth:`learn` after it, before the next batch.
    """

    optimizer: Adam | None = None
    one_process = False  # the rule reads gradients of the whole batch

    def join(self, visual: Tensor, semantic: Tensor) -> Tensor:
        """The gradient on e from those of the branches, [I, D] each."""
        return visual + semantic

    def learn(self, losses: list[float]) -> Logged:
        """Update from the branches' losses of the batch; returns what to log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Complete state between two batches, for an exact resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`.

        Raises:
            ValueError: The state is of another rule.
        """


class PCGrad(Balance):
    """Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1.

    If the gradients conflict, g_v . g_s < 0, each loses its component along the other:

        g_v' = g_v - (g_v . g_s) / |g_s|^2 g_s,      g_s' = g_s - (g_s . g_v) / |g_v|^2 g_v,

    with the products over all rows. With two branches the random order of the paper has no effect.
    """

    one_process = True

    def __init__(self) -> None:
        self._product: tuple[Tensor, Tensor] | None = None  # g_v . g_s, |g_v| |g_s|

    def join(self, visual: Tensor, semantic: Tensor) -> Tensor:
        product = (visual * semantic).sum()
        own, other = visual.square().sum(), semantic.square().sum()
        self._product = product, (own * other).sqrt()
        conflict = product.clamp(max=0)  # a gradient of zeros has the product zero
        tiny = torch.finfo(product.dtype).tiny
        v = visual - conflict / other.clamp(min=tiny) * semantic
        s = semantic - conflict / own.clamp(min=tiny) * visual
        return v + s

    def learn(self, losses: list[float]) -> Logged:
        if self._product is None:
            return {}
        (product, length), self._product = map(float, self._product), None
        cosine = product / length if length else 0.0
        return {name: {"cosine": cosine, "conflict": float(product < 0)} for name in BRANCHES}


class _Weighted(Balance):
    """A rule with one trained number for each branch, by Adam."""

    def __init__(self, start: float, learning_rate: float) -> None:
        self.numbers = nn.Parameter(torch.full((len(BRANCHES),), start, dtype=torch.float64))
        self.optimizer = Adam([self.numbers], lr=learning_rate)

    def weights(self) -> list[float]:
        """The factors on the gradients of the branches."""
        raise NotImplementedError

    def join(self, visual: Tensor, semantic: Tensor) -> Tensor:
        w_v, w_s = self.weights()
        return w_v * visual + w_s * semantic

    def _step(self, gradient: list[float]) -> None:
        self.numbers.grad = torch.tensor(gradient, dtype=torch.float64)
        assert self.optimizer is not None  # noqa: S101 (for type checkers)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        assert self.optimizer is not None  # noqa: S101 (for type checkers)
        numbers = self.numbers.detach().clone()
        return {"numbers": numbers, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        numbers = state["numbers"]
        if not isinstance(numbers, Tensor) or numbers.shape != self.numbers.shape:
            raise ValueError(f"weights of the branches {numbers!r}")
        assert self.optimizer is not None  # noqa: S101 (for type checkers)
        load_state(self.optimizer, state["optimizer"])
        with torch.no_grad():
            self.numbers.copy_(numbers)


class UncertaintyWeights(_Weighted):
    """Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", CVPR 2018, Eq. 10 for two classifications:

        L = sum_b exp(-z_b) L_b + z_b / 2,      z_b = log sigma_b^2,

    so g_b is multiplied by exp(-z_b), and dL/dz_b = 1/2 - exp(-z_b) L_b. Both z start at 0.

    Args:
        learning_rate: Learning rate of z.
    """

    def __init__(self, learning_rate: float) -> None:
        super().__init__(0.0, learning_rate)

    def weights(self) -> list[float]:
        return [math.exp(-z) for z in self.numbers.tolist()]

    def learn(self, losses: list[float]) -> Logged:
        weights = self.weights()
        self._step([0.5 - w * loss for w, loss in zip(weights, losses, strict=True)])
        return {name: {"scale": w} for name, w in zip(BRANCHES, weights, strict=True)}


class GradNorm(_Weighted):
    """Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", ICML 2018, Algorithm 1.

    With the weights w_b, which start at 1, and the losses L_b(0) of the first batch:

        G_b = |w_b g_b|,                r_b = (L_b / L_b(0)) / mean over branches,
        L_grad = sum_b |G_b - mean(G) r_b^alpha|,      mean(G) r_b^alpha held constant.

    After a step on L_grad the weights are scaled to the sum 2.

    Args:
        alpha: How strongly a branch that learns slowly is favoured.
        learning_rate: Learning rate of w.
    """

    one_process = True

    def __init__(self, alpha: float, learning_rate: float) -> None:
        super().__init__(1.0, learning_rate)
        self.alpha = alpha
        self.first: list[float] | None = None  # L_b(0)
        self._norms: Tensor | None = None  # |g_b| of the last batch

    def weights(self) -> list[float]:
        return self.numbers.tolist()

    def join(self, visual: Tensor, semantic: Tensor) -> Tensor:
        self._norms = torch.stack([visual.norm(), semantic.norm()])
        return super().join(visual, semantic)

    def learn(self, losses: list[float]) -> Logged:
        if self.first is None:
            self.first = [max(loss, torch.finfo(torch.float32).tiny) for loss in losses]
        if self._norms is None:  # no gradient reached e
            return {}
        norms, self._norms = self._norms.tolist(), None
        before = self.weights()
        weighted = [w * norm for w, norm in zip(before, norms, strict=True)]
        rates = [loss / first for loss, first in zip(losses, self.first, strict=True)]
        mean, mean_rate = sum(weighted) / len(weighted), sum(rates) / len(rates)
        targets = [mean * (rate / mean_rate) ** self.alpha for rate in rates]
        apart = [g - target for g, target in zip(weighted, targets, strict=True)]
        self._step([_sign(a) * norm for a, norm in zip(apart, norms, strict=True)])
        with torch.no_grad():
            self.numbers.clamp_(min=LEAST_WEIGHT)
            self.numbers.mul_(len(BRANCHES) / self.numbers.sum())
        rows = zip(BRANCHES, before, weighted, strict=True)
        return {name: {"scale": w, "norm": g} for name, w, g in rows}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        first = state["first"]
        known = isinstance(first, list) and [type(x) for x in first] == [float] * len(BRANCHES)
        if not known and first is not None:
            raise ValueError(f"first losses {first!r}")
        super().load_state_dict(state)
        self.first = first


def _sign(value: float) -> float:
    return float(value > 0) - float(value < 0)


def balance(mode: str, alpha: float, learning_rate: float) -> Balance:
    """The rule of one of :data:`JOINT_MODES`."""
    if mode == "gradnorm":
        return GradNorm(alpha, learning_rate)
    return PCGrad() if mode == "pcgrad" else UncertaintyWeights(learning_rate)
