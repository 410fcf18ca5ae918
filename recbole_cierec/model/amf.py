"""AMF: matrix factorisation under adversarial personalised ranking (APR; He et al., SIGIR 2018).

    y_ui  = alpha + beta_u + beta_i + p_u . q_i                         (MF)
    L     = mean softplus(-(y_ui - y_uj))                               (BPR, or the key loss)
    D_u   = eps * g / |g|,  g = dL/dp_u;  D_i likewise for q_i          (fast gradient, constant)
    total = L(P, Q) + adv_weight * L(P + D, Q + D) + L2

Among perturbations of length eps per row, D raises the loss most to first order. The gradient of a
row is summed over the batch and then scaled to length eps, and D is a constant. Training starts
from a trained MF, as in the paper: at random vectors the perturbed loss is not informative.

Reconstruction: biases, which APR's MF lacks, exist as in other models here and are not perturbed.
CIERec's text says that item vectors are perturbed, the APR paper perturbs both: key ``perturb``.
Public code (docs/models/AMF.md) uses the perturbation of the previous batch in the clean pass.
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
    """Rows [m, k] scaled to a Euclidean length; zero rows stay zero."""
    return length * F.normalize(rows, eps=1e-18)  # below any gradient of a mean loss


class AMF(MF):
    """Ids only; starts from :class:`MF`."""

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.adv_eps = config["adv_eps"]
        self.adv_weight = config["adv_weight"]
        self.perturb_users = config["perturb"] == "both"

    @classmethod
    def stage_keys(cls, config: Config) -> dict[str, Any]:
        """The keys that its MF must share."""
        return {"embedding_size": config["embedding_size"]}

    def start_from(self, weights: Weights) -> None:
        """Copy all vectors and biases of a trained MF."""
        copy_weights(self, weights)

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user, item, rows)
        attacked = super().contrast(*self.perturbed(loss, user, item, rows), rows)[0]
        return loss + self.adv_weight * attacked, norm

    def perturbed(self, loss: Tensor, user: Side, item: Side, rows: Rows) -> tuple[Side, Side]:
        """Both sides with vectors moved by eps in the direction of the gradient."""
        vectors = [user.vector, item.vector]
        g_user, g_item = torch.autograd.grad(loss, vectors, retain_graph=True)
        g_item = self.batch.item_gradient(g_item, rows.items)
        g_user = self.batch.user_gradient(g_user, rows.users)
        # Vectors of unseen items count as zero: they get no gradient and do not move.
        noise = rows_of_length(g_item * self.seen[rows.items].unsqueeze(1), self.adv_eps)
        item = item.moved(item.vector + noise)
        if self.perturb_users:
            user = user.moved(user.vector + rows_of_length(g_user, self.adv_eps))
        return user, item
