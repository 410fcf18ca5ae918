"""AMR: adversarial training of a visual recommender (Tang et al., TKDE 2019).

    y_ui  = alpha + beta_u + beta_i + beta' . e_i + p_u . (q_i + E e_i)
    L     = mean softplus(-(y_ui - y_uj))                               (BPR, or the key loss)
    D_i   = eps * g / |g|,  g = dL/de_i                                 (constant)
    total = L(e) + adv_weight * L(e + D) + L2

The features of positive and negative items are perturbed; the gradient of a row is summed over the
batch. ``adv_type: rand`` uses a random direction of the same length instead (truncated normal
coordinates); ``both`` uses the mean of both perturbed losses, since CIERec's text names both.

The paper starts from a trained VBPR whose ids and pictures share one user vector. The VBPR here has
gamma_u, gamma_i and theta_u of d/2 numbers each, E of d/2 rows, and beta'. AMR starts from

    p_u = (gamma_u, theta_u),   q_i = (gamma_i, 0),   E = (0, E)

so its scores before the first step equal those of the VBPR. All entries are then trained.

Reconstruction: biases (AMR has none) as in other models here; L2 of p_u and q_i + E e_i. With
``encoder_training: adapter`` the adapter also comes from VBPR, and its output e_i is perturbed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.model.amf import rows_of_length
from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.model.base.warm_start import Weights, copy_weights, stage_weight

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


KINDS = {"grad": ("grad",), "rand": ("rand",), "both": ("grad", "rand")}


class AMR(VisualRecommender):
    """Ids and pictures; an unseen item is scored by its picture alone. Starts from VBPR."""

    unseen_items = "picture"
    has_biases = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.adv_eps = config["adv_eps"]
        self.adv_weight = config["adv_weight"]
        self.adv_kinds = KINDS[config["adv_type"]]
        self.user_embedding = self.table(self.n_users, self.size)  # p_u
        self.item_embedding = self.table(self.n_items, self.size)  # q_i
        self.encoder = self.item_encoder(config, dataset)  # e_i
        gain = config["content_init_gain"]
        self.projection = unit_linear(self.encoder.out_size, self.size, gain, bias=False)  # E
        self.visual_bias = nn.Linear(self.encoder.out_size, 1, bias=False)  # beta'
        nn.init.zeros_(self.visual_bias.weight)

    # ---------------------------------------------------------------------- from VBPR

    @classmethod
    def stage_keys(cls, config: Config) -> dict[str, Any]:
        """What the VBPR before it must share.

        Raises:
            ConfigError: ``embedding_size`` is odd, so that VBPR cannot have half of it.
        """
        half, rest = divmod(config["embedding_size"], 2)
        if rest or not half:
            raise ConfigError(
                f"embedding_size of AMR must be even, not {config['embedding_size']}: the VBPR "
                "that it starts from has two vectors of half that size for each user"
            )
        given = config["features"] or {}
        return {
            "embedding_size": half,
            "encoder_training": config["encoder_training"],
            # VBPR reads more modalities than the picture; AMR does not.
            "features": {name: given[name] for name in given if name == "image"} or None,
        }

    @torch.no_grad()
    def start_from(self, weights: Weights) -> None:
        """Copy a trained VBPR; the scores equal its scores.

        Raises:
            CheckpointError: It was trained on modalities that AMR does not read.
        """
        if any(name.startswith("given_") for name in weights):
            raise CheckpointError(
                "VBPR was trained on more modalities than the picture, which AMR does not read; "
                "train it on the features of the image alone"
            )
        half, content = self.size // 2, self.encoder.out_size
        names = ("user_embedding", "user_visual", "item_embedding")
        gamma_u, theta_u, gamma_i = (
            stage_weight(weights, f"{name}.weight", (rows, half))
            for name, rows in zip(names, (self.n_users, self.n_users, self.n_items), strict=True)
        )
        projection = stage_weight(weights, "projection.weight", (half, content))
        self.user_embedding.weight.copy_(torch.cat([gamma_u, theta_u], 1))
        self.item_embedding.weight.copy_(torch.cat([gamma_i, torch.zeros_like(gamma_i)], 1))
        self.projection.weight.copy_(torch.cat([torch.zeros_like(projection), projection]))
        self.global_bias.copy_(stage_weight(weights, "global_bias", ()))
        for name in ("user_bias", "item_bias", "visual_bias", "encoder"):
            copy_weights(getattr(self, name), weights, f"{name}.")

    # ------------------------------------------------------------------------ scoring

    def item_side(self, items: Tensor) -> Side:
        e = self.encoder(items)  # [m, D]
        q = self.seen_rows(self.item_embedding, items)
        bias = self.item_biases(items) + self.visual_bias(e).squeeze(1)
        return Side(q + self.projection(e), bias)

    # --------------------------------------------------------------- adversarial training

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user, item, rows)
        attacked = [
            super(AMR, self).contrast(user, self.perturbed(item, noise), rows)[0]
            for noise in self.noises(loss, item, rows.items)
        ]
        return loss + self.adv_weight * sum(attacked) / len(attacked), norm

    def noises(self, loss: Tensor, item: Side, items: Tensor) -> list[Tensor]:
        """Perturbations [m, D] of each kind; zero for items without a picture."""
        gradient = self.batch.item_gradient(self.feature_gradient(loss, item), items)
        pictured = self.encoder.has_picture[items].unsqueeze(1)
        directions = {
            "grad": lambda: gradient,
            "rand": lambda: self.random_directions(items, gradient),
        }
        return [
            rows_of_length(directions[kind]() * pictured, self.adv_eps) for kind in self.adv_kinds
        ]

    def random_directions(self, items: Tensor, like: Tensor) -> Tensor:
        """Truncated normal numbers [m, D]."""
        width = like.shape[1]
        return self.batch.item_draws(
            items, lambda count: nn.init.trunc_normal_(like.new_empty(count, width))
        )

    @torch.no_grad()
    def feature_gradient(self, loss: Tensor, item: Side) -> Tensor:
        """dL/de [m, D] of this batch, by the chain rule over E and beta'.

        The features store no gradient, so none remains from a previous batch.
        """
        sides = [item.vector, item.required_bias]
        g_vector, g_bias = torch.autograd.grad(loss, sides, retain_graph=True)
        return g_vector @ self.projection.weight + g_bias.unsqueeze(1) * self.visual_bias.weight

    def perturbed(self, item: Side, noise: Tensor) -> Side:
        """The item side for features plus ``noise`` [m, D], in which it is linear."""
        vector = item.vector + self.projection(noise)
        return item.moved(vector, item.required_bias + self.visual_bias(noise).squeeze(1))
