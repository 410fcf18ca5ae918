"""MF: matrix factorisation under BPR (Rendle et al., UAI 2009), the plain backbone of CIERec.

    y_ui = alpha + beta_u + beta_i + p_u . q_i                       (CIERec, Eq. 8, f_i := q_i)

RecBole's BPR is the same model without biases and L2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class MF(VisualRecommender):
    """Ids only. Parameters: P [U, d], Q [I, d], biases."""

    has_biases = True
    short_step = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        self.item_embedding = self.table(self.n_items, self.size)  # q_i

    def item_side(self, items: Tensor) -> Side:
        return Side(self.seen_rows(self.item_embedding, items), self.item_biases(items))
