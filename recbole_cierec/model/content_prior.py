"""ContentPrior: content says where the vectors of users and items lie, ids how they deviate.

    c_i  = unit(sum over modalities m of W_m f_m)            content: pictures, annotations
    z_i  = c_i + q_i
    f_i  = unit(z_i + lambda mean of z_j, j in N(i))         N(i): k items with the nearest content
    h_ui = unit(mean of f_j, j in H(u), j != i)              the history of u without the target i
    y_ui = unit(h_ui + p_u) . f_i / tau + beta_i
    L    = loss + kappa / n * (sum over u of |p_u|^2 / n_u + sum over i of |q_i|^2 / n_i)

n is the number of training interactions, n_u and n_i those of a user and an item, tau the
temperature. The loss is the softmax over shared negatives by default; unit vectors with a
temperature need no other L2.

The last term is a Gaussian prior with mean 0 on each deviation: f_i stays at the content, and u at
their history, until the interactions say otherwise, as in regression-based latent factor models
(Agarwal and Chen, KDD 2009) and collaborative topic regression (Wang and Blei, KDD 2011). Its
precision falls with the count, since with few interactions ids fit noise. Users as means of item
vectors are those of FISM (Kabbur et al., KDD 2013), where leaving out the target is essential: with
it the model only has to recognise an item that it was given.

An unseen item has q_i = 0, so its content and its neighbours rank it; it is no neighbour of other
items. Its beta_i is that of the average interaction, sum over j of n_j beta_j / n: items of test
interactions are more popular than the average item, and with 0 a new item would rank as one that
few users wanted. A user without training interactions gets the items' biases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.graph_recommender import Parts
from recbole_cierec.model.base.modalities import PICTURE, TEXT, ItemModalities
from recbole_cierec.model.base.side import Rows, Side

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset


class ContentPrior(ItemModalities):
    """Ids as deviations from content; annotations, neighbours, history and ids by key."""

    has_biases = True
    ranks_unseen_users = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset, config["use_image"])
        self.use_ids, self.use_history = config["use_ids"], config["use_history"]
        self.temperature = config["temperature"]
        self.neighbour_weight = config["neighbour_weight"]
        self.prior_weight = self._kappa(config["prior_weight"])
        self.unseen_bias = config["unseen_bias"]
        if self.use_ids or not self.use_history:
            self.user_embedding = self.table(self.n_users, self.size)  # p_u
        if self.use_ids:
            with self.random_stream("ids"):
                self.item_embedding = self.table(self.n_items, self.size)  # q_i
        for name, axis in (("user_counts", 1), ("item_counts", 0)):
            counts = torch.from_numpy(graphs.degrees(self.interactions, axis)).float()
            self.register_buffer(name, counts, persistent=False)  # n_u, n_i
        history = self.interactions.tocoo()
        keys = torch.from_numpy(history.row.astype("int64") * self.n_items + history.col)
        self.register_buffer("history", keys.sort().values, persistent=False)
        starts = torch.arange(self.n_users + 1) * self.n_items
        self.register_buffer("starts", torch.searchsorted(self.history, starts), persistent=False)

    def _kappa(self, given: float | None) -> float:
        """kappa: the less content says about taste, the less it should bind."""
        if given is not None:
            return given
        absent = {TEXT} if TEXT in self.modalities and not self.tokens.any() else set()
        return 50.0 if {*self.modalities} - absent == {PICTURE} else 500.0

    def matrices(self) -> Iterator[tuple[str, scipy.sparse.spmatrix]]:
        each = [self.similarity(name) for name in self.modalities]
        filled = torch.stack([has for _, has in each]).any(0)
        similar = graphs.added(similarity for similarity, _ in each)
        near, _ = graphs.most_similar(similar, filled, self.seen > 0, self.neighbours_count)
        linked = graphs.neighbour_matrix(near.cpu().numpy())
        means = 1.0 / graphs.degrees(linked, 1).clip(min=1.0)
        yield "neighbours", scipy.sparse.diags(means) @ linked

    def add_items(self, first: int) -> None:
        self.drop_graphs()

    # -------------------------------------------------------------------- the two sides

    def parts(self) -> Parts:
        """p_u of all users, f_i of all items."""
        items = torch.arange(self.n_items, device=self.seen.device)
        content = [self.modality(name, items) for name in self.modalities]
        z = F.normalize(torch.stack(content).sum(0))
        if self.use_ids:
            z = z + self.seen_rows(self.item_embedding, items)
        f = z
        if self.neighbour_weight:
            near = graphs.product(self.graph_tensors()["neighbours"], z)
            f = z + self.neighbour_weight * near
        bias = self.item_biases(items)
        return Side(self._p(slice(None))), Side(F.normalize(f), bias)

    def item_biases(self, items: Tensor) -> Tensor:
        """beta_i [m]; of unseen items, a share of the mean over interactions."""
        bias = super().item_biases(items)
        if not self.unseen_bias:
            return bias
        mean = self.item_counts @ self.item_bias.weight[: len(self.item_counts), 0]
        share = self.unseen_bias / len(self.history)
        return torch.where(self.seen[items] > 0, bias, share * mean)

    def _p(self, users: Tensor | slice) -> Tensor:
        """p_u of users; a zero for all without ids."""
        if self.use_ids or not self.use_history:
            return self.user_embedding.weight[users]
        return self.seen_users[users].unsqueeze(1) * 0.0

    def user_side(self, users: Tensor) -> Side:
        """In training p_u, with the sum of the history; otherwise the vector of the score."""
        p, bias = self._p(users), self.user_biases(users)
        if not self.use_history:
            return Side(F.normalize(p) / self.temperature, bias)
        total, count = self.history_sums(users), self.user_counts[users]
        if self.training:
            return Side(p, bias, {"total": total, "count": count})
        return Side(self.user_vectors(p, total, count), bias)

    def history_sums(self, users: Tensor) -> Tensor:
        """Sums [m, d] of f_j over the training items of users [m]."""
        first, lengths = self.starts[users], self.user_counts[users].long()
        offsets = lengths.cumsum(0) - lengths
        within = torch.arange(int(lengths.sum()), device=users.device)
        places = within + (first - offsets).repeat_interleave(lengths)
        items = self.history[places] % self.n_items
        f = self.current_parts()[1].vector
        return F.embedding_bag(items, f, offsets, mode="sum")

    def user_vectors(self, p: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """unit(h + p) / tau [m, d], of sums over histories with ``count`` items; h is 0 of none."""
        h = F.normalize(total.masked_fill((count == 0).unsqueeze(1), 0.0))
        return F.normalize(h + p if self.use_ids else h) / self.temperature

    def sides(self, interaction: Interaction) -> tuple[Side, Side, Rows]:
        """A user vector for each row, as its history lacks the row's target."""
        user, item, rows = super().sides(interaction)
        if not self.use_history:
            return user, item, rows
        user = user.take(rows.user)
        users, targets = rows.users[rows.user], rows.items[rows.positive]
        keys = users * self.n_items + targets
        places = torch.searchsorted(self.history, keys).clamp(max=len(self.history) - 1)
        inside = (self.history[places] == keys).float()
        target = item.vector.index_select(0, rows.positive)
        total = user["total"] - inside.unsqueeze(1) * target
        vector = self.user_vectors(user.vector, total, user["count"] - inside)
        each = torch.arange(len(keys), device=keys.device)
        return Side(vector, user.bias), item, rows._replace(user=each, users=users)

    # -------------------------------------------------------------------------- the loss

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        loss = super().calculate_loss(interaction)
        if not (self.prior_weight and self.use_ids):
            return loss
        prior = _prior(self.item_embedding, self.item_counts)
        if self.use_history:
            prior = prior + _prior(self.user_embedding, self.user_counts)
        return loss + self.prior_weight * prior / len(self.history)


def _prior(table: nn.Embedding, counts: Tensor) -> Tensor:
    """Sum [] of squared lengths over counts, of the rows that have interactions."""
    each = table.weight.square().sum(1) / counts.clamp(min=1.0)
    return (each * (counts > 0)).sum()
