"""Inner products of each row with some rows of another matrix, by sparse products."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

WORTH = 16  # times as many products in the whole as are wanted, from where on some are cheaper


def sampled_products(anchor: Tensor, others: Tensor, places: Tensor) -> Tensor:
    """Inner products of anchors with rows of their own.

    Where few rows are wanted, a processor computes their products alone, and makes no copies of
    rows. Elsewhere the whole product is computed and picked from.

    Args:
        anchor: [B, d].
        others: [m, d].
        places: Row numbers [B, n] of ``others``; a row may be there twice.

    Returns:
        [B, n]: entry (b, k) is anchor_b . others_places[b, k].
    """
    few = WORTH * places.shape[1] <= len(others)
    if places.is_cuda or not few or not torch.backends.mkl.is_available():
        return (anchor @ others.T).gather(1, places)
    with torch.autocast(anchor.device.type, enabled=False):  # sparse products are not in bfloat16
        return _SampledProducts.apply(anchor.float(), others.float(), places)


class _SampledProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, others: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(anchor, others, places)
        pattern = _sparse(places, torch.zeros_like(places, dtype=anchor.dtype), len(others))
        made = torch.sparse.sampled_addmm(pattern, anchor, others.T.contiguous(), beta=0.0)
        return made.values().view_as(places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        anchor, others, places = ctx.saved_tensors
        weights = _sparse(places, gradient, len(others))
        return weights @ others, weights.t() @ anchor, None


def _sparse(places: Tensor, values: Tensor, columns: int) -> Tensor:
    """csr [B, columns] with ``values`` [B, n] at ``places``; equal places add up."""
    n_rows, n = places.shape
    starts = torch.arange(0, n_rows * n + 1, n, device=places.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(
            starts,
            places.reshape(-1),
            values.reshape(-1),
            (n_rows, columns),
            check_invariants=False,  # columns stand in the order of the draw, some of them twice
        )
