"""Base of every model here: ids, item content, BPR, and one way to score pairs and rankings.

A model states four things: what it keeps of a user (:meth:`user_side`), of an item
(:meth:`item_side`), the score of aligned pairs (:meth:`pair_parts`), and, where a plain inner
product will not do, the scores of a block of users against all items (:meth:`block_scores`).
Loss, ``predict`` and ``full_sort_predict`` follow from them, so they cannot drift apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_cierec.model.item_encoder import ItemEncoder
from recbole_cierec.model.layers import bpr_loss, squared_norm

Side = dict[str, Tensor]  # named tensors whose first dimension runs over users or items

ITEM_BLOCK = 4096  # items encoded at a time when all are prepared for ranking
PAIR_BLOCK = 65536  # pairs scored at a time by predict


class Rows(NamedTuple):
    """A training batch as row numbers of the two sides, each [B]."""

    user: Tensor
    positive: Tensor
    negative: Tensor


def take(side: Side, rows: Tensor) -> Side:
    """The given rows of every tensor."""
    return {name: value[rows] for name, value in side.items()}


class VisualRecommender(GeneralRecommender):
    """RecBole general recommender with content and exact ranking.

    Args:
        config: RecBole config with our keys.
        dataset: The training part of a :class:`recbole_cierec.data.dataset.VisualDataset`.
    """

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.size = config["embedding_size"]  # d
        self.init_std = config["init_std"]
        self.reg_weight = config["reg_weight"]
        self.content_reg_weight = config["content_reg_weight"]
        self.content_learning_rate = config["content_learning_rate"]
        self.encoder_learning_rate = config["encoder_learning_rate"]
        counts = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        # Items without a training interaction have untrained id parameters: these count as zero,
        # in training and at scoring, so that content alone decides about them.
        self.register_buffer("seen", (counts > 0).float(), persistent=False)
        # Eq. 8's alpha and beta_u cancel in BPR and in any ranking of one user: their gradient is
        # zero by construction. They stand here because the equation has them.
        self.global_bias = nn.Parameter(torch.zeros(()))
        self.user_bias = self._table(self.n_users, 1, std=0.0)
        self.item_bias = self._table(self.n_items, 1, std=0.0)
        self.branch_losses: dict[str, Tensor] = {}
        self._all_items: Side | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    # ------------------------------------------------------------ what a model states

    def user_side(self, users: Tensor) -> Side:
        """What scoring needs of each user; by default ``vector`` [B, k]."""
        raise NotImplementedError

    def item_side(self, items: Tensor) -> Side:
        """What scoring needs of each item, free of the user; ``vector`` [m, k], ``bias`` [m]."""
        raise NotImplementedError

    def pair_parts(self, user: Side, item: Side) -> Side:
        """Of aligned rows: ``score`` [B]; ``norm`` [B], the squared length of the item's part of
        it, for the L2 term; and scores of single branches, for the gates."""
        product = (user["vector"] * item["vector"]).sum(1)
        norm = item["vector"].square().sum(1) + item["bias"].square()
        return {"score": user["bias"] + item["bias"] + product, "norm": norm}

    def block_scores(self, user: Side, item: Side) -> Tensor:
        """Scores [B, I] of B users against I items."""
        product = user["vector"] @ item["vector"].T
        return user["bias"].unsqueeze(1) + item["bias"] + product

    def user_norm(self, user: Side) -> Tensor:
        """Squared length [B] of the user's part of the score, for the L2 term."""
        return user["vector"].square().sum(1)

    def content_weights(self) -> list[Tensor]:
        """Weights of the content path, for the other L2 term."""
        return []

    # ------------------------------------------------------------------ for the models

    def _table(self, rows: int, columns: int, std: float | None = None) -> nn.Embedding:
        table = nn.Embedding(rows, columns)
        nn.init.normal_(table.weight, std=self.init_std if std is None else std)
        return table

    def _item_encoder(self, config, dataset) -> ItemEncoder:
        mode = config["encoder_training"]
        return ItemEncoder(dataset.content, mode, config["encoder_batch_size"])

    def user_biases(self, users: Tensor) -> Tensor:
        """alpha + beta_u [B]."""
        return self.global_bias + self.user_bias(users).squeeze(1)

    def item_biases(self, items: Tensor) -> Tensor:
        """beta_i [m], zero for unseen items."""
        return self.item_bias(items).squeeze(1) * self.seen[items]

    def seen_rows(self, table: nn.Embedding, items: Tensor) -> Tensor:
        """Rows of an id table [m, k], zero for unseen items."""
        return table(items) * self.seen[items].unsqueeze(1)

    # -------------------------------------------------------------------- what follows

    def calculate_loss(self, interaction) -> Tensor:
        """The ranking loss of a batch; Sec. IV-A2: one negative for each positive."""
        loss = self.ranking_loss(*self.sides(interaction))
        if self.content_reg_weight:
            loss = loss + self.content_reg_weight * squared_norm(self.content_weights())
        return loss

    def sides(self, interaction) -> tuple[Side, Side, Rows]:
        """Both sides of a batch over its distinct users and items, and where its rows lie in them.

        Content is computed once an item, and a gradient on a side is the sum over the batch.
        """
        users, user_rows = torch.unique(interaction[self.USER_ID], return_inverse=True)
        both = torch.cat([interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]])
        items, item_rows = torch.unique(both, return_inverse=True)
        rows = Rows(user_rows, *item_rows.chunk(2))
        return self.user_side(users), self.item_side(items), rows

    def ranking_loss(self, user: Side, item: Side, rows: Rows) -> Tensor:
        """BPR (mean) plus L2 on the vectors of the score; sets ``branch_losses``."""
        users, items = rows.user.repeat(2), torch.cat([rows.positive, rows.negative])
        parts = self.pair_parts(take(user, users), take(item, items))
        loss = bpr_loss(*parts.pop("score").chunk(2))
        norm = self.user_norm(user)[rows.user].sum() + parts.pop("norm").sum()
        self.branch_losses = {n: bpr_loss(*x.detach().chunk(2)) for n, x in parts.items()}
        if self.reg_weight:
            # On the vectors that meet in the score, not on the weights that make them: in MF the
            # two are one, and a network is held to the same scale whatever its depth.
            loss = loss + self.reg_weight * norm / len(rows.user)
        return loss

    def all_items(self) -> Side:
        """:meth:`item_side` of every item, kept until the model trains or loads again."""
        if self._all_items is None:
            blocks = torch.arange(self.n_items, device=self.seen.device).split(ITEM_BLOCK)
            sides = [self.item_side(block) for block in blocks]
            self._all_items = {k: torch.cat([side[k] for side in sides]) for k in sides[0]}
        return self._all_items

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Scores [B] of pairs."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        side = self.all_items()
        scores = [
            self.pair_parts(self.user_side(u), take(side, i))["score"]
            for u, i in zip(users.split(PAIR_BLOCK), items.split(PAIR_BLOCK), strict=True)
        ]
        return torch.cat(scores)

    @torch.no_grad()
    def full_sort_predict(self, interaction) -> Tensor:
        """Scores [B * n_items] of users against all items."""
        users = interaction[self.USER_ID]
        return self.block_scores(self.user_side(users), self.all_items()).reshape(-1)

    def train(self, mode: bool = True):
        """Switches mode; what was kept of the items is forgotten."""
        self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self._all_items = None

    def parameter_groups(self) -> list[dict]:
        """Parameters for the optimizer: ids, content path and network, each at its own rate.

        Adagrad's first step moves every weight by the whole rate, whatever the gradient. A rate
        that suits id tables, whose rows are met rarely, would wipe out a D x D map at once.
        """
        groups: dict[str, list] = {"ids": [], "content": [], "network": []}
        for name, parameter in self.named_parameters():
            head = name.split(".")[0]
            table = head == name or isinstance(getattr(self, head), nn.Embedding)
            kind = "ids" if table else "network" if ".network." in name else "content"
            groups[kind].append(parameter)
        rates = {"content": self.content_learning_rate, "network": self.encoder_learning_rate}
        return [
            {"params": parameters} | ({"lr": rates[kind]} if kind in rates else {})
            for kind, parameters in groups.items()
            if parameters
        ]
