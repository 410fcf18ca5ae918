"""MF: matrix factorisation under BPR (Rendle et al., UAI 2009), the plain backbone of CIERec.

    y_ui = alpha + beta_u + beta_i + p_u . q_i                       (CIERec, Eq. 8, f_i := q_i)

RecBole's BPR is the same without biases and without L2.
"""

from __future__ import annotations

from torch import Tensor

from recbole_cierec.model.base.visual_recommender import Side, VisualRecommender


class MF(VisualRecommender):
    """Ids only. Parameters: P [U, d], Q [I, d], biases."""

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.user_embedding = self._table(self.n_users, self.size)  # p_u
        self.item_embedding = self._table(self.n_items, self.size)  # q_i

    def user_side(self, users: Tensor) -> Side:
        return {"vector": self.user_embedding(users), "bias": self.user_biases(users)}

    def item_side(self, items: Tensor) -> Side:
        q = self.seen_rows(self.item_embedding, items)
        return {"vector": q, "bias": self.item_biases(items)}
