"""MF(Semantics): the annotations in place of the item's id vector (CIERec, Table II).

    y_ui = alpha + beta_u + beta_i + p_u . x_i,    x_i = mean of the vectors of i's tokens

The paper's "semantic feature" is taken as the multi-hot row divided by its sum; the mean of learned
token vectors is a linear map of it. Annotations are also read at inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from recbole_cierec.model.base.layers import mean_rows
from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class MF_Semantics(VisualRecommender):
    """Annotations at training and inference; an item without any is scored by its bias."""

    unseen_items = "annotations"
    has_biases = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        self.register_buffer("tokens", dataset.content.tokens, persistent=False)
        self.token_embedding = self.token_table(len(dataset.content.token_names), self.size)

    def item_side(self, items: Tensor) -> Side:
        x = mean_rows(self.token_embedding, self.tokens[items])
        return Side(x, self.item_biases(items))
