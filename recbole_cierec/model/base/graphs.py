"""Sparse graphs over users and items: made by scipy, multiplied by torch."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # largest block of similarities


def interaction_matrix(
    users: Tensor, items: Tensor, shape: tuple[int, int]
) -> scipy.sparse.csr_matrix:
    """csr [U, I] with ones for interactions, repeated ones once."""
    ones = np.ones(len(users), dtype=np.float64)
    matrix = scipy.sparse.coo_matrix((ones, (users.numpy(), items.numpy())), shape=shape).tocsr()
    matrix.data[:] = 1.0
    return matrix


def normalised(
    matrix: scipy.sparse.spmatrix, left: np.ndarray, right: np.ndarray
) -> scipy.sparse.spmatrix:
    """Entries (i, j) divided by sqrt(left_i * right_j): D^-1/2 A D^-1/2 with these degrees."""
    scales = [1.0 / np.sqrt(np.maximum(degrees, 1.0)) for degrees in (left, right)]
    return scipy.sparse.diags(scales[0]) @ matrix @ scipy.sparse.diags(scales[1])


def degrees(matrix: scipy.sparse.spmatrix, axis: int) -> np.ndarray:
    """Sums over the columns (axis 1) or the rows (axis 0)."""
    return np.asarray(matrix.sum(axis=axis)).ravel()


def to_torch(matrix: scipy.sparse.spmatrix, device: torch.device | str = "cpu") -> Tensor:
    """A scipy matrix as a float32 sparse tensor."""
    coo = matrix.tocoo()
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.from_numpy(coo.data.astype(np.float32))
    made = torch.sparse_coo_tensor(index, values, coo.shape, check_invariants=True)
    return made.coalesce().to(device)


def product(matrix: Tensor, rows: Tensor) -> Tensor:
    """Sparse [n, m] times dense [m, k], always in float32: torch has no other sparse product."""
    with torch.autocast(rows.device.type, enabled=False):
        return torch.sparse.mm(matrix, rows.float())


@torch.no_grad()
def nearest(vectors: Tensor, sources: Tensor, count: int, first: int = 0) -> Tensor:
    """The sources most similar to each row.

    Args:
        vectors: Unit rows [n, w]; rows of zeros have no neighbours and are none.
        sources: bool [n], the rows that may be neighbours of others.
        count: Number of neighbours k.
        first: Rows before this one get no neighbours; they may be some.

    Returns:
        Row numbers [n, k], nearest first, padded with -1.
    """
    n = len(vectors)
    filled = vectors.any(1)
    pool = (sources & filled).nonzero().squeeze(1)
    found = torch.full((n, count), -1, dtype=torch.long, device=vectors.device)
    k = min(count, len(pool))
    if not k:
        return found
    position = torch.full((n,), -1, device=vectors.device)
    position[pool] = torch.arange(len(pool), device=vectors.device)
    step = max(1, BLOCK_BYTES // (4 * len(pool)))
    wanted = filled.nonzero().squeeze(1)
    for rows in wanted[wanted >= first].split(step):
        similar = vectors[rows] @ vectors[pool].T
        own = position[rows]
        inside = own >= 0
        similar[inside.nonzero().squeeze(1), own[inside]] = -torch.inf
        values, places = similar.topk(k, dim=1)
        found[rows, :k] = torch.where(values == -torch.inf, -1, pool[places])
    return found


def neighbour_matrix(neighbours: np.ndarray) -> scipy.sparse.csr_matrix:
    """csr [n, n] with ones at row numbers [n, k]; -1 is padding."""
    n, k = neighbours.shape
    real = neighbours.ravel() >= 0
    rows, columns = np.repeat(np.arange(n), k)[real], neighbours.ravel()[real]
    ones = np.ones(len(rows), dtype=np.float64)
    return scipy.sparse.coo_matrix((ones, (rows, columns)), shape=(n, n)).tocsr()
