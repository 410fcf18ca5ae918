"""Bases of models whose vectors of all users and items come from one forward pass over graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import scipy.sparse
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset

Parts = tuple[Side, Side]  # all users and all items


class GraphRecommender(VisualRecommender):
    """Subclasses define :meth:`parts` and the graphs that it multiplies, :meth:`matrices`.

    Attributes:
        interactions: csr [U, I] with ones for training interactions.
    """

    unseen_items = "content"
    ranks_unseen_users = False
    annotations_once = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        pairs = dataset.inter_feat[self.USER_ID], dataset.inter_feat[self.ITEM_ID]
        self.interactions = graphs.interaction_matrix(*pairs, (self.n_users, self.n_items))
        self._graphs: dict[str, graphs.Graph] | None = None
        self._parts: Parts | None = None

    def parts(self) -> Parts:
        """The tensors of all users and of all items."""
        raise NotImplementedError

    def matrices(self) -> Iterator[tuple[str, scipy.sparse.spmatrix]]:
        """The graphs by name; built when one is first needed."""
        raise NotImplementedError

    def graph_tensors(self) -> dict[str, graphs.Graph]:
        """The graphs as tensors, kept until :meth:`drop_graphs`."""
        if self._graphs is None:
            self._graphs = {k: graphs.to_torch(v, self.seen.device) for k, v in self.matrices()}
        return self._graphs

    def drop_graphs(self) -> None:
        self._graphs = None

    def current_parts(self) -> Parts:
        """:meth:`parts`, computed once per training step, and once for ranking."""
        if self._parts is not None:
            return self._parts
        parts = self.parts()
        if not self.training and not torch.is_grad_enabled():
            self._parts = parts
        return parts

    def rows_of(self, which: int, rows: Tensor) -> Side:
        """The sides of the given users (``which`` 0) or items (1); by default rows of parts."""
        side = self.current_parts()[which]
        return (side if self.training else side.scoring()).map(lambda value: value[rows])

    def user_side(self, users: Tensor) -> Side:
        return self.rows_of(0, users)

    def item_side(self, items: Tensor) -> Side:
        return self.rows_of(1, items)

    def sides(self, interaction: Interaction) -> tuple[Side, Side, Rows]:
        self._parts = self.parts()  # once for both sides
        try:
            return super().sides(interaction)
        finally:
            self._parts = None

    def forget_items(self) -> None:
        super().forget_items()
        self._parts = None


def interaction_graphs(
    interactions: scipy.sparse.csr_matrix,
) -> Iterator[tuple[str, scipy.sparse.csr_matrix]]:
    """``users``, D_u^-1/2 R D_i^-1/2 of interactions [U, I], and ``items``, its transpose."""
    by = [graphs.degrees(interactions, axis) for axis in (1, 0)]
    users = graphs.normalised(interactions, *by)
    yield "users", users.tocsr()
    yield "items", users.T.tocsr()


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE []: row r of ``first`` [n, d] should match row r of ``second`` [n, d] by cosine."""
    logits = F.normalize(first) @ F.normalize(second).T / temperature
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))
