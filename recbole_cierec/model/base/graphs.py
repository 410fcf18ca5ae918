"""Sparse graphs over users and items: made by scipy, multiplied by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

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
    scales = [1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0)) for degrees in (left, right)]
    return scipy.sparse.diags(scales[0]) @ matrix @ scipy.sparse.diags(scales[1])


def degrees(matrix: scipy.sparse.spmatrix, axis: int) -> np.ndarray:
    """Sums over the columns (axis 1) or the rows (axis 0)."""
    return np.asarray(matrix.sum(axis=axis)).ravel()


class Graph(NamedTuple):
    """A sparse matrix for :func:`product`, float32, coalesced."""

    matrix: Tensor  # [n, m]
    transposed: Tensor  # [m, n]; torch would transpose and sort in each backward pass


def to_torch(matrix: scipy.sparse.spmatrix, device: torch.device | str = "cpu") -> Graph:
    """A scipy matrix as a graph."""
    return Graph(_coalesced(matrix, device), _coalesced(matrix.T, device))


def _coalesced(matrix: scipy.sparse.spmatrix, device: torch.device | str) -> Tensor:
    matrix = matrix.tocoo()
    index = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    values = torch.from_numpy(matrix.data.astype(np.float32))
    made = torch.sparse_coo_tensor(index, values, matrix.shape, check_invariants=True)
    return made.coalesce().to(device)


class _Product(torch.autograd.Function):
    """torch.sparse.mm with the transposed matrix at hand: the same bits."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, rows: Tensor) -> Tensor:
        ctx.transposed = transposed
        return torch.sparse.mm(matrix, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, torch.sparse.mm(ctx.transposed, gradients[0])


def product(graph: Graph, rows: Tensor) -> Tensor:
    """Sparse [n, m] times dense [m, k], always in float32: torch has no other sparse product."""
    with torch.autocast(rows.device.type, enabled=False):
        return _Product.apply(*graph, rows.float())


def light_gcn(
    users: Graph, items: Graph, p: Tensor, q: Tensor, layers: int
) -> tuple[Tensor, Tensor]:
    """LightGCN (He et al., SIGIR 2020): the means over layers 0 to ``layers``, [U, d] and [I, d].

    Args:
        users: [U, I], normalised: a layer of users is its product with one of items.
        items: Its transpose.
        p: Layer 0 of users [U, d].
        q: Layer 0 of items [I, d].
        layers: Products in a row.
    """
    user, item = [p], [q]
    for _ in range(layers):
        from_items = product(users, item[-1])
        item.append(product(items, user[-1]))
        user.append(from_items)
    of_users, of_items = (torch.stack(each).mean(0) for each in (user, item))
    return of_users, of_items


Similarity = Callable[[Tensor], Callable[[Tensor], Tensor]]
"""(row numbers [n]) -> a function (row numbers [m]) -> similarities [m, n]."""


def nearest(vectors: Tensor, sources: Tensor, count: int, first: int = 0) -> Tensor:
    """:func:`most_similar` by inner product, without the similarities.

    Args:
        vectors: Unit rows [n, w]; rows of zeros have no neighbours and are none.
        sources: bool [n], the rows that may be neighbours of others.
        count: Number of neighbours k.
        first: Rows before this one get no neighbours; they may be some.

    Returns:
        Row numbers [n, k], nearest first, padded with -1.
    """
    return most_similar(inner(vectors), vectors.any(1), sources, count, first)[0]


def inner(vectors: Tensor) -> Similarity:
    """Inner products of rows [n, w]; of unit rows, the cosines."""

    def to(others: Tensor) -> Callable[[Tensor], Tensor]:
        columns = vectors[others].T
        return lambda rows: vectors[rows] @ columns

    return to


def inner_sparse(vectors: scipy.sparse.csr_matrix) -> Similarity:
    """:func:`inner` for sparse rows [n, w]."""

    def to(others: Tensor) -> Callable[[Tensor], Tensor]:
        among = vectors[others.cpu().numpy()]

        def similar(rows: Tensor) -> Tensor:
            block = vectors[rows.cpu().numpy()].toarray()
            return torch.from_numpy((among @ block.T).T).to(rows.device)

        return similar

    return to


def added(similarities: Iterable[Similarity]) -> Similarity:
    """The sum of several similarities of the same rows."""
    similarities = list(similarities)

    def to(others: Tensor) -> Callable[[Tensor], Tensor]:
        each = [similar(others) for similar in similarities]
        return lambda rows: torch.stack([one(rows) for one in each]).sum(0)

    return to


@torch.no_grad()
def most_similar(
    similar: Similarity, filled: Tensor, sources: Tensor, count: int, first: int = 0
) -> tuple[Tensor, Tensor]:
    """The sources most similar to each row, found in blocks of ``BLOCK_BYTES``.

    Args:
        similar: Similarities of rows.
        filled: bool [n]; other rows have no neighbours and are none.
        sources: bool [n], the rows that may be neighbours of others.
        count: Number of neighbours k.
        first: Rows before this one get no neighbours; they may be some.

    Returns:
        Row numbers [n, k], nearest first, padded with -1, and their similarities, padded with 0.
    """
    n = len(filled)
    pool = (sources & filled).nonzero().squeeze(1)
    found = torch.full((n, count), -1, dtype=torch.long, device=filled.device)
    close = torch.zeros(n, count, device=filled.device)
    k = min(count, len(pool))
    if not k:
        return found, close
    position = torch.full((n,), -1, device=filled.device)
    position[pool] = torch.arange(len(pool), device=filled.device)
    step = max(1, BLOCK_BYTES // (4 * len(pool)))
    wanted, to_pool = filled.nonzero().squeeze(1), similar(pool)
    for rows in wanted[wanted >= first].split(step):
        values = to_pool(rows)
        own = position[rows]
        inside = own >= 0
        values[inside.nonzero().squeeze(1), own[inside]] = -torch.inf
        top, places = values.topk(k, dim=1)
        none = top == -torch.inf
        found[rows, :k] = torch.where(none, -1, pool[places])
        close[rows, :k] = top.masked_fill(none, 0.0).float()
    return found, close


def neighbour_graph(
    similar: Similarity, filled: Tensor, sources: Tensor, count: int, weighted: bool
) -> scipy.sparse.spmatrix:
    """D^-1/2 A D^-1/2 [n, n], by row sums, of the k most similar rows, each row its own first.

    Args:
        similar: Cosines of rows.
        filled: bool [n]; other rows have no edges, not even to themselves.
        sources: bool [n], the rows that others may be linked to.
        count: k, the row itself included.
        weighted: Entries of A are the similarities instead of 1; negative ones are left out.
    """
    near, close = (x.cpu().numpy() for x in most_similar(similar, filled, sources, count - 1))
    linked = neighbour_matrix(near, close.clip(min=0.0) if weighted else None)
    linked = linked + scipy.sparse.diags(filled.cpu().numpy().astype(np.float64))
    sums = degrees(linked, 1)
    return normalised(linked, sums, sums)


def neighbour_matrix(
    neighbours: np.ndarray, weights: np.ndarray | None = None
) -> scipy.sparse.csr_matrix:
    """csr [n, n] with ``weights`` [n, k], or ones, at row numbers [n, k]; -1 is padding."""
    n, k = neighbours.shape
    real = neighbours.ravel() >= 0
    rows, columns = np.repeat(np.arange(n), k)[real], neighbours.ravel()[real]
    if weights is None:
        weights = np.ones(neighbours.shape)
    values = weights.ravel()[real].astype(np.float64)
    return scipy.sparse.coo_matrix((values, (rows, columns)), shape=(n, n)).tocsr()
