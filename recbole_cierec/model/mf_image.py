"""MF(Image): the picture in place of the item's id vector (CIERec, Table II; Base of Table III).

    y_ui = alpha + beta_u + beta_i + p_u . (W e_i)

The paper says only that the visual feature replaces the collaborative embedding. W maps e_i [D] to
the tuned dimension d; without it user vectors would have D dimensions. W has no bias: it would add
the same p_u . b to every item of a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class MF_Image(VisualRecommender):
    """Pictures at training and at inference; an item without one is scored by its bias."""

    unseen_items = "picture"
    has_biases = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        self.encoder = self.item_encoder(config, dataset)  # e_i
        gain = config["content_init_gain"]
        self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)  # W

    def item_side(self, items: Tensor) -> Side:
        return Side(self.projection(self.encoder(items)), self.item_biases(items))
