"""MF(Content): ids, picture and annotations in one linear item vector; a baseline of this package.

    y_ui = alpha + beta_u + beta_i + p_u . f_i,    f_i = q_i + W e_i + x_i

x_i is the mean of the vectors of i's annotation tokens. With ``features``, each further modality m
adds W_m f_m. The model is the sum of MF, MF(Image) and MF(Semantics), so a network over the same
content should beat it. Each part has a switch; with a single part it is one of those three models.

In training the id part (q_i and beta_i) is hidden for a share ``id_dropout`` of a batch's items, so
that the content learns to rank alone, as it must for unseen items, whose id part is zero. The
annotations are hidden for a share ``privileged_dropout``, so that the picture learns to rank alone.

``annotation_at_inference`` is True here and False in CIERec, where the paper calls annotations
privileged. This baseline should use all known content of an item, and a sum that was trained with
dropout still ranks items that lack a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base.given_modalities import GivenModalities, ModalityMaps
from recbole_cierec.model.base.layers import mean_rows, unit_linear
from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class MF_Content(VisualRecommender):
    """Ids, pictures and annotations, each by key; annotations at inference by key as well."""

    unseen_items = "content"
    has_biases = True
    reads_features = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.use_ids = config["use_ids"]
        self.use_image = config["use_image"]
        self.use_annotations = config["use_annotations"]
        self.given = GivenModalities(dataset.content)  # f_m
        if not (self.use_ids or self.use_image or self.use_annotations or self.given.sizes):
            raise ConfigError(
                "MF_Content: use_ids, use_image and use_annotations are all False; switch one on, "
                "or give features of another modality"
            )
        self.id_dropout = config["id_dropout"]
        self.privileged_dropout = config["privileged_dropout"]
        self.annotation_at_inference = config["annotation_at_inference"]
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        if self.use_ids:
            with self.random_stream("ids"):
                self.item_embedding = self.table(self.n_items, self.size)  # q_i
        gain = config["content_init_gain"]
        self.given_maps = ModalityMaps(self.given.sizes, self.size, gain, self.random_stream)  # W_m
        if self.use_image:
            self.encoder = self.item_encoder(config, dataset)  # e_i
            with self.random_stream("image"):
                self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)
        if self.use_annotations:
            self.register_buffer("tokens", dataset.content.tokens, persistent=False)
            with self.random_stream("annotations"):
                self.token_embedding = self.token_table(len(dataset.content.token_names), self.size)

    def item_side(self, items: Tensor) -> Side:
        vector = torch.zeros(len(items), self.size, device=items.device)
        bias = self.item_biases(items)
        # Both are always drawn, so that a switch does not change the draws of other parts.
        kept, read = (self._kept(items, p) for p in (self.id_dropout, self.privileged_dropout))
        if self.use_ids:
            vector = vector + self.seen_rows(self.item_embedding, items) * kept.unsqueeze(1)
        if self.use_image:
            vector = vector + self.projection(self.encoder(items))
        vector = self.given_maps(self.given(items), vector)
        if self.use_annotations and (self.training or self.annotation_at_inference):
            x = mean_rows(self.token_embedding, self.tokens[items])
            vector = vector + x * read.unsqueeze(1)
        return Side(vector, bias * kept)

    def _kept(self, items: Tensor, dropout: float) -> Tensor:
        """[m], 1 for items whose part is used, 0 if it is hidden in this batch."""
        if not self.training:
            return torch.ones(len(items), device=items.device)
        return (self.batch.uniform(items) >= dropout).float()
