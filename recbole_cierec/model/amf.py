"""AMF: matrix factorisation under adversarial personalised ranking (APR; He et al., SIGIR 2018).

    y_ui  = alpha + beta_u + beta_i + p_u . q_i                         (MF)
    L     = mean softplus(-(y_ui - y_uj))                               (BPR, or the key loss)
    D_u   = eps * g / |g|,  g = dL/dp_u;  D_i likewise for q_i          (fast gradient, constant)
    total = L(P, Q) + adv_weight * L(P + D, Q + D) + L2

The perturbation is the one, of length eps a row, that raises the loss most to first order. Each
row's gradient is summed over the batch before it is brought to length eps, and D enters as a
constant. Training starts from a trained MF, as in the paper: from random vectors the perturbed
loss says nothing yet.

Reconstruction: biases, which APR's MF lacks, are kept as in every model here and not perturbed.
CIERec's text says that the item vectors are perturbed, the APR paper perturbs both: ``perturb``.
Public code (docs/models.md) uses the perturbation of the batch before in the clean pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.warm_start import Weights, copy_weights
from recbole_cierec.model.mf import MF

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


def rows_of_length(rows: Tensor, length: float) -> Tensor:
    """Rows [m, k] brought to one Euclidean length; zero rows stay zero."""
    return length * F.normalize(rows, eps=1e-18)  # gradients of a mean are small, but not so small


class AMF(MF):
    """Ids only; starts from :class:`MF`."""

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.adv_eps = config["adv_eps"]
        self.adv_weight = config["adv_weight"]
        self.perturb_users = config["perturb"] == "both"

    @classmethod
    def stage_keys(cls, config: Config) -> dict[str, Any]:
        """What the MF before it must share."""
        return {"embedding_size": config["embedding_size"]}

    def start_from(self, weights: Weights) -> None:
        """Take all vectors and biases of a trained MF."""
        copy_weights(self, weights)

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user, item, rows)
        attacked = super().contrast(*self.perturbed(loss, user, item, rows), rows)[0]
        return loss + self.adv_weight * attacked, norm

    def perturbed(self, loss: Tensor, user: Side, item: Side, rows: Rows) -> tuple[Side, Side]:
        """Both sides with their vectors moved by eps where the loss grows fastest."""
        vectors = [user.vector, item.vector]
        g_user, g_item = torch.autograd.grad(loss, vectors, retain_graph=True)
        g_item = self.batch.item_gradient(g_item, rows.items)
        g_user = self.batch.user_gradient(g_user, rows.users)
        # Vectors of unseen items count as zero, so no gradient reaches them, nor do they move.
        noise = rows_of_length(g_item * self.seen[rows.items].unsqueeze(1), self.adv_eps)
        item = item.moved(item.vector + noise)
        if self.perturb_users:
            user = user.moved(user.vector + rows_of_length(g_user, self.adv_eps))
        return user, item
