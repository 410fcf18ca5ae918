"""FREEDOM: a frozen graph of similar items and a pruned graph of interactions (Zhou and Shen, MM
2023, arXiv 2211.06924).

    S        = s S_picture + (1 - s) S_text                  similar items; never trained
    h        = S q                                           ``content_layers`` products
    u*, z    = LightGCN(p, q): mean of layers 0 to n on R    vectors of users and items
    y_ui     = u*_u . (z_i + h_i)
    L        = BPR(u*, z + h) + content_loss_weight * sum over m of BPR(u*, W_m f_m)

R is D_u^-1/2 R D_i^-1/2 at scoring. For each epoch of training it is made from a share
1 - edge_dropout of the interactions, drawn without replacement with probabilities proportional to
1 / sqrt(d_u d_i), and normalised by the degrees that are left. S_m and f_m are those of
:mod:`recbole_cierec.model.base.modalities`, with edges of weight 1. No biases, as in the paper.

The row of S of an item without annotations is that of s S_picture alone, as the equation says; with
``use_annotations: False``, S is S_picture. With ``features``, each further modality has a graph and
a map too, and the graphs of all modalities but the picture share the weight 1 - s equally. W_m f_m
is part of the loss only. The public code trains f_m further, one row for each item; here
``encoder_training: adapter`` trains a map over them.

An unseen item has q = 0 and no interaction, so h, the mean id of its neighbours, ranks it. It is no
neighbour of other items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import scipy.sparse
from torch import Tensor

from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.graph_recommender import Parts, interaction_graphs
from recbole_cierec.model.base.modalities import PICTURE, MultimodalGraphs
from recbole_cierec.model.base.side import Rows, Side

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class FREEDOM(MultimodalGraphs):
    """Ids over graphs of interactions and similar items; pictures, annotations by key."""

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.picture_share = config["picture_share"] if len(self.modalities) > 1 else 1.0
        self.edge_dropout = config["edge_dropout"]
        self.content_loss_weight = config["content_loss_weight"]
        self._epoch = 0
        self._pruned: dict[str, graphs.Graph] | None = None

    # --------------------------------------------------------------------- the graphs

    def matrices(self) -> Iterator[tuple[str, scipy.sparse.spmatrix]]:
        yield from interaction_graphs(self.interactions)
        similar = self.picture_share * self.item_graph(PICTURE)
        others = self.modalities[1:]
        for name in others:
            similar = similar + (1.0 - self.picture_share) / len(others) * self.item_graph(name)
        yield "similar", similar

    def begin_epoch(self, epoch: int) -> None:
        self._epoch, self._pruned = epoch, None

    def pruned(self) -> dict[str, graphs.Graph]:
        """The interaction graphs of this epoch's training."""
        if self._pruned is None:
            # By seed and epoch alone: the same in a resumed run and in each of several processes.
            seed = crc32(f"{self.seed} interactions {self._epoch}".encode())
            kept = prune(self.interactions, self.edge_dropout, np.random.default_rng(seed))
            device = self.seen.device
            self._pruned = {k: graphs.to_torch(v, device) for k, v in interaction_graphs(kept)}
        return self._pruned

    # --------------------------------------------------------------- vectors and losses

    def parts(self) -> Parts:
        """Vectors of all users and all items."""
        whole, (p, q) = self.graph_tensors(), self.ids()
        graph = self.pruned() if self.training else whole
        user, item = graphs.light_gcn(graph["users"], graph["items"], p, q, self.id_layers)
        h = q
        for _ in range(self.content_layers):
            h = graphs.product(whole["similar"], h)
        return Side(user), Side(item + h)

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user, item, rows)
        if self.content_loss_weight:
            for name in self.modalities:
                content = Side(self.modality(name, rows.items))
                loss = loss + self.content_loss_weight * super().contrast(user, content, rows)[0]
        return loss, norm


def prune(
    interactions: scipy.sparse.csr_matrix, dropout: float, rng: np.random.Generator
) -> scipy.sparse.csr_matrix:
    """The share 1 - ``dropout`` of interactions [U, I], at least one of them.

    They are drawn one after the other without replacement, each time with probabilities
    proportional to 1 / sqrt(d_u d_i): the first of exponential waiting times with these rates
    (Efraimidis and Spirakis, 2006).
    """
    edges = interactions.tocoo()
    of_users, of_items = (graphs.degrees(interactions, axis) for axis in (1, 0))
    waits = rng.standard_exponential(edges.nnz) * np.sqrt(of_users[edges.row] * of_items[edges.col])
    keep = max(1, round((1.0 - dropout) * edges.nnz))
    first = np.argpartition(waits, keep - 1)[:keep]
    kept = edges.data[first], (edges.row[first], edges.col[first])
    return scipy.sparse.coo_matrix(kept, shape=edges.shape).tocsr()
