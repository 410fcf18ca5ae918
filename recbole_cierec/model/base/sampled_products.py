"""Inner products of each row with selected rows of another matrix, by sparse products."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

MIN_RATIO = 16  # sparse products pay from this many products of the full matrix per needed one


def sampled_products(anchor: Tensor, others: Tensor, places: Tensor) -> Tensor:
    """Inner products of each anchor with selected rows.

    If few rows are needed, a CPU computes only their products, without copies of rows. Otherwise
    the needed entries are gathered from the full product.

    Args:
        anchor: [B, d].
        others: [m, d].
        places: Row numbers [B, n] of ``others``; they may repeat.

    Returns:
        [B, n]: entry (b, k) is anchor_b . others_places[b, k].
    """
    few = MIN_RATIO * places.shape[1] <= len(others)
    if places.is_cuda or not few or not torch.backends.mkl.is_available():
        return (anchor @ others.T).gather(1, places)
    # There are no sparse products in bfloat16.
    with torch.autocast(anchor.device.type, enabled=False):
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
            check_invariants=False,  # columns are in the order of the draw and may repeat
        )
