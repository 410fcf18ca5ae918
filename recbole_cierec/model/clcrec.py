"""CLCRec: contrastive learning for cold-start recommendation (Wei et al., MM 2021).

    z_u, z_i [d]  id vectors;   g_i = W2 LeakyReLU(W1 x_i + b1) + b2,  x_i content of length 1
    R-E  = mean -log softmax_i( norm(z_i) . norm(g_k) / temperature )     over k in {i, n sampled}
    U-I  = mean -log softmax_i( z_u . z~_k / temperature )                over the same k
    z~_k = g_k for a share rho of all B (1 + n) places of the batch, z_k for the others
    L    = lambda R-E + (1 - lambda) U-I + eta (mean |z_u| + mean |z_k|) / 2

R-E aligns an item's id vector with its content, U-I ranks. Places with content in place of the id
train the content to rank. Warm items are scored by z_u . z_i, unseen items by z_u . g_i.

The method needs n negatives per row. They are drawn here, uniformly from the items that
``train_negatives`` allows and the user did not interact with in training; RecBole's negative is not
used. Exactly floor(rho B (1 + n)) places are replaced: public code draws them with replacement and
reaches 39 % instead of 50 %. eta weighs lengths, not their squares, as in that code. No biases, as
in the method. The content is the picture, by key the mean annotation vector, and the modalities of
``features``, each of length 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base.given_modalities import GivenModalities
from recbole_cierec.model.base.layers import SLOPE, mean_rows
from recbole_cierec.model.base.sampled_products import sampled_products
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset


REDRAWS = 20  # at most, of a negative that the user interacted with in training


class CLCRec(VisualRecommender):
    """Ids and pictures (annotations by key); an unseen item is scored by its content alone."""

    unseen_items = "content"
    ranks_unseen_users = False
    reads_features = True
    own_loss = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.n_negatives = config["contrastive_negatives"]
        self.content_share = config["contrastive_weight"]  # lambda
        self.replaced_share = config["replaced_share"]  # rho
        self.temperature = config["temperature"]
        self.user_embedding = nn.Embedding(self.n_users, self.size)  # z_u
        self.item_embedding = nn.Embedding(self.n_items, self.size)  # z_i
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_normal_(table.weight)
        self.encoder = self.item_encoder(config, dataset)
        n_in, self.use_annotations = self.encoder.out_size, config["use_annotations"]
        if self.use_annotations:
            self.register_buffer("tokens", dataset.content.tokens, persistent=False)
            n_tokens = len(dataset.content.token_names)
            with self.random_stream("annotations"):
                self.token_embedding = self.token_table(n_tokens, self.size, std=1.0)
            n_in += self.size
        self.given = GivenModalities(dataset.content)
        n_in += sum(self.given.sizes.values())
        with self.random_stream("content_in"):
            self.content_in = nn.Linear(n_in, config["content_hidden_size"])  # W1
        self.content_out = nn.Linear(config["content_hidden_size"], self.size)  # W2
        everything = torch.arange(1, self.n_items)
        pool = self.seen.nonzero().squeeze(1) if config["train_negatives"] == "seen" else everything
        self.register_buffer("pool", pool, persistent=False)
        pairs = self._key(dataset.inter_feat[self.USER_ID], dataset.inter_feat[self.ITEM_ID])
        self.register_buffer("used", torch.unique(pairs), persistent=False)  # sorted

    # ------------------------------------------------------------------------ scoring

    def item_side(self, items: Tensor) -> Side:
        z, g = self.seen_rows(self.item_embedding, items), self.content(items)
        vector = torch.where(self.seen[items].unsqueeze(1) > 0, z, g)
        return Side(vector, more={"id": z, "content": g} if self.training else {})

    def content(self, items: Tensor) -> Tensor:
        """Content vectors g [m, d]."""
        x = F.normalize(self.encoder(items))
        if self.use_annotations:
            mean = mean_rows(self.token_embedding, self.tokens[items])
            x = torch.cat([x, F.normalize(mean)], 1)
        if self.given.sizes:
            x = torch.cat([x, *map(F.normalize, self.given(items).values())], 1)
        return self.content_out(F.leaky_relu(self.content_in(x), SLOPE))

    def content_weights(self) -> list[Tensor]:
        """The two layers, without the token vectors, which are inputs as features are."""
        return [self.content_in.weight, self.content_out.weight]

    # ------------------------------------------------------------------------ training

    def _key(self, users: Tensor, items: Tensor) -> Tensor:
        return users * self.n_items + items

    def sides(self, interaction: Interaction) -> tuple[Side, Side, Rows]:
        users, user_rows = torch.unique(interaction[self.USER_ID], return_inverse=True)
        positive = interaction[self.ITEM_ID]
        drawn_for = self.batch.column(self.USER_ID, interaction[self.USER_ID])
        negative = self.batch.own_rows(self.draw(drawn_for))
        both = torch.cat([positive, negative.reshape(-1)])
        items, rows = torch.unique(both, return_inverse=True)
        first, rest = rows.split([len(positive), negative.numel()])
        rows = Rows(user_rows, first, rest.view_as(negative), items, users)
        return self.user_side(users), self.item_side(items), rows

    def draw(self, users: Tensor) -> Tensor:
        """Negatives [B, n] of the rows' users [B]."""
        shape = (len(users), self.n_negatives)
        items = self._draw(shape)
        for _ in range(REDRAWS):
            keys = self._key(users.unsqueeze(1), items)
            place = torch.searchsorted(self.used, keys).clamp(max=len(self.used) - 1)
            again = self.used[place] == keys
            count = int(again.sum())
            if not count:
                break
            items[again] = self._draw((count,))
        return items

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        # Drawn on the CPU: the same seed gives the same items on every device.
        return self.pool[torch.randint(len(self.pool), shape).to(self.pool.device)]

    def replaced(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """bool, of ``shape``: random places with content in place of the id."""
        mask = torch.zeros(shape, dtype=torch.bool)
        count = int(self.replaced_share * mask.numel())
        mask.view(-1)[torch.randperm(mask.numel())[:count]] = True
        return mask.to(device)

    def ranking_loss(self, user: Side, item: Side, rows: Rows) -> Tensor:
        """The two contrastive losses and the lengths of the id vectors []."""
        places = torch.cat([rows.positive.unsqueeze(1), rows.negative], 1)  # [B, 1 + n]
        z, g, z_u = item["id"], item["content"], user.vector[rows.user]
        r_e = self.first_of(sampled_products(F.normalize(z)[rows.positive], F.normalize(g), places))
        count = len(self.batch.column(self.USER_ID, rows.user))
        swap = self.batch.own_rows(self.replaced((count, places.shape[1]), places.device))
        by_id, by_content = sampled_products(z_u, z, places), sampled_products(z_u, g, places)
        u_i = self.first_of(torch.where(swap, by_content, by_id))
        loss = self.content_share * r_e + (1 - self.content_share) * u_i
        if self.reg_weight:
            lengths = z_u.norm(dim=1).mean() + z.norm(dim=1)[places].mean()
            loss = loss + self.reg_weight * lengths / 2
        return loss

    def first_of(self, products: Tensor) -> Tensor:
        """Mean -log softmax [] of the first column of products [B, 1 + n]."""
        logits = products / self.temperature
        return (torch.logsumexp(logits, 1) - logits[:, 0]).mean()
