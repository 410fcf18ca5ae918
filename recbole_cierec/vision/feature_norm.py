"""Normalisation of pooled network features to the scale of embeddings.

Pooled features are positive, share a large mean and have any scale (raw fc7 features reach 100), so
that inner products with them start saturated. The statistics are fitted once, on the frozen
network, over all items with a picture; a fine-tuned network keeps the same affine map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("none", "l2", "center", "standard")


@dataclass(frozen=True)
class FeatureNorm:
    """An affine map of feature rows, after an optional division by their length.

    Attributes:
        unit_rows: Divide each row by its Euclidean length first.
        mean: Subtracted [D].
        scale: Multiplied, scalar or [D].
        components: Orthonormal principal directions [D, k], or None to keep all D.
    """

    unit_rows: bool
    mean: Tensor
    scale: Tensor
    components: Tensor | None = None

    @classmethod
    def fit(cls, rows: Tensor, kind: str, dimensions: int | None = None) -> FeatureNorm:
        """Fit on rows [n, D].

        Args:
            rows: Raw features of all items with a picture.
            kind: ``none`` as they are; ``l2`` unit rows; ``center`` unit rows, mean subtracted,
                mean length 1; ``standard`` each coordinate to mean 0 and equal variance, mean
                length near 1.
            dimensions: Keep this many principal components (None: all).
        """
        size = rows.shape[1]
        # Changed in place: it may be the largest table in memory.
        work = rows.to(torch.float64, copy=True)
        unit_rows = kind in ("l2", "center")
        if unit_rows:
            F.normalize(work, out=work)
        centred = kind in ("center", "standard") and len(work) > 0
        mean = work.mean(0) if centred else work.new_zeros(size)
        scale = work.new_ones(size)
        if kind == "standard":
            scale = 1.0 / (work.std(0, unbiased=False).clamp(min=1e-8) * size**0.5)
        work.sub_(mean).mul_(scale)
        components = _principal(work, dimensions) if dimensions and dimensions < size else None
        if components is not None:
            work = work @ components
        if kind in ("center", "standard"):
            length = work.norm(dim=1).mean() if len(work) else work.new_ones(())
            scale = scale / length.clamp(min=1e-8)
        as_float = None if components is None else components.float()
        return cls(unit_rows, mean.float(), scale.float(), as_float)

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [n, D] -> [n, D] or [n, k]."""
        if self.unit_rows:
            rows = F.normalize(rows)
        rows = (rows - self.mean.to(rows.device)) * self.scale.to(rows.device)
        return rows if self.components is None else rows @ self.components.to(rows.device)


def _principal(work: Tensor, dimensions: int) -> Tensor:
    """Directions of largest variance [D, k], each with its largest entry positive."""
    centred = work - work.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    vectors = vectors.flip(1)[:, :dimensions]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * torch.sign(largest)  # else the sign would depend on the BLAS library
