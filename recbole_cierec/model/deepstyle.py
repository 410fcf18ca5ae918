"""DeepStyle (Liu, Wu and Wang, SIGIR 2017; arXiv 1911.04229): style is picture minus category.

    y_ui = alpha + beta_u + beta_i + p_u . (E e_i - l_cat(i) + q_i)

A picture shows what an item is and how it looks; subtracting a learned vector l [d] of its
category leaves the style. The vector belongs to the category, as in the paper. Public code learns
one per item, which is redundant with q_i.

Additions: biases, as in other models here; the category is the item's first annotation token or the
column ``category_field``, and items without one have l = 0; q_i and beta_i of unseen items are
zero, so picture and category determine their scores. The paper also trains the image network; so
does ``encoder_training: finetune``.
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


class DeepStyle(VisualRecommender):
    """Ids, pictures and a category of each item, at training and inference."""

    unseen_items = "picture and category"
    has_biases = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        names, categories = dataset.content.categories
        self.has_column = bool(config["category_field"])
        if self.has_column:
            self.register_buffer("categories", categories, persistent=False)
        else:  # tokens may differ between training and ranking
            self.register_buffer("tokens", dataset.content.tokens, persistent=False)
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        self.item_embedding = self.table(self.n_items, self.size)  # q_i
        self.category_embedding = self.token_table(len(names), self.size)  # l
        self.encoder = self.item_encoder(config, dataset)  # e_i
        gain = config["content_init_gain"]
        self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)  # E

    def item_side(self, items: Tensor) -> Side:
        category = self.categories[items] if self.has_column else self.tokens[items, 0]
        known = (category > 0).unsqueeze(1)
        style = self.projection(self.encoder(items)) - self.category_embedding(category) * known
        q = self.seen_rows(self.item_embedding, items)
        return Side(style + q, self.item_biases(items))
