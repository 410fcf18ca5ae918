"""VBPR: Visual Bayesian Personalized Ranking (He and McAuley, AAAI 2016).

    y_ui = alpha + beta_u + beta_i + gamma_u . gamma_i + theta_u . (E e_i) + beta' . e_i

With ``features``, each further modality m of an item adds theta_u . (E_m f_m) + beta'_m . f_m.
E and all E_m are one linear map of the concatenated features.

gamma: id vectors [d]; theta_u: visual taste [d]; E [d, D]; beta' [D] the visual bias, which
CIERec's Eq. 8 calls beta_c. The visual bias has shape [B] here: public code that keeps it
[B, 1] turns the loss into one over all B x B pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recbole_cierec.model.base.given_modalities import GivenModalities, ModalityMaps
from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class VBPR(VisualRecommender):
    """Ids and pictures; an unseen item is scored by its picture alone."""

    unseen_items = "picture"
    has_biases = True
    reads_features = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.user_embedding = self.table(self.n_users, self.size)  # gamma_u
        self.item_embedding = self.table(self.n_items, self.size)  # gamma_i
        self.user_visual = self.table(self.n_users, self.size)  # theta_u
        self.encoder = self.item_encoder(config, dataset)  # e_i
        self.short_step = self.encoder.mode == "frozen"
        gain = config["content_init_gain"]
        self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)  # E
        self.visual_bias = nn.Linear(self.encoder.out_size, 1, bias=False)  # beta'
        nn.init.zeros_(self.visual_bias.weight)
        self.given = GivenModalities(dataset.content if self.reads_features else None)  # f_m
        sizes = self.given.sizes
        self.given_projections = ModalityMaps(sizes, self.size, gain, self.random_stream)  # E_m
        self.given_biases = ModalityMaps(sizes, 1, 0.0, self.random_stream)  # beta'_m

    def user_side(self, users: Tensor) -> Side:
        gamma, theta = self.user_embedding(users), self.user_visual(users)
        return Side(torch.cat([gamma, theta], 1), self.user_biases(users))

    def item_side(self, items: Tensor) -> Side:
        e = self.encoder(items)  # [m, D]
        gamma = self.seen_rows(self.item_embedding, items)
        f = self.given(items)
        content = self.given_projections(f, self.projection(e))
        visual = self.given_biases(f, self.visual_bias(e)).squeeze(1)
        return Side(torch.cat([gamma, content], 1), self.item_biases(items) + visual)
