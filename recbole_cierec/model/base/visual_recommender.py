"""Base of every model here: ids, item content, loss, and one way to score pairs and rankings.

A model states four things: what it keeps of a user (:meth:`user_side`), of an item
(:meth:`item_side`), the score of aligned pairs (:meth:`pair_parts`), and, where a plain inner
product will not do, the scores of a block of users against all items (:meth:`block_scores`).
Loss, ``predict`` and ``full_sort_predict`` follow from them, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple
from zlib import crc32

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_cierec.config.schema import Key
from recbole_cierec.config.schema.model_keys import COMMON
from recbole_cierec.distributed.batch_share import Share, WholeSide
from recbole_cierec.model.base.item_encoder import ItemEncoder
from recbole_cierec.model.base.layers import bpr_loss, squared_norm
from recbole_cierec.model.base.losses import SharedSoftmax

Side = dict[str, Tensor]  # named tensors whose first dimension runs over users or items

ITEM_BLOCK = 4096  # items encoded at a time when all are prepared for ranking
PAIR_BLOCK = 65536  # pairs scored at a time by predict
PAIR_FLOATS = 2**20  # floats of one tensor over pairs, for candidates
SCORE_BLOCK = 2**19  # scores of a block of users that must stay in a processor's cache
DENSE_RATIO = 50  # items a candidate from which on candidates are scored one by one


class Rows(NamedTuple):
    """A training batch as row numbers of its two sides."""

    user: Tensor  # [B]
    positive: Tensor  # [B]
    negative: Tensor  # [B], one for each positive; with softmax [N], shared by all rows
    items: Tensor  # the items that the last two number
    users: Tensor | None = None  # the users that the first one numbers


def take(side: Side, rows: Tensor) -> Side:
    """The given rows of every tensor, in the shape of ``rows``."""
    flat = rows.reshape(-1)
    # Not value[rows]: the same, but in the backward pass it adds up element by element.
    return {
        name: value.index_select(0, flat).view(*rows.shape, *value.shape[1:])
        for name, value in side.items()
    }


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The different ids, ascending, and for each of ``ids`` its row among them."""
    if ids.is_cuda:
        return torch.unique(ids, return_inverse=True)
    values, rows = np.unique(ids.numpy(), return_inverse=True)  # sorts by vector instructions
    return torch.from_numpy(values), torch.from_numpy(rows)


class VisualRecommender(GeneralRecommender):
    """RecBole general recommender with content and exact ranking.

    Args:
        config: RecBole config with our keys.
        dataset: The training part of a :class:`recbole_cierec.data.dataset.VisualDataset`.
    """

    input_type = InputType.PAIRWISE
    keys: ClassVar[tuple[Key, ...]] = COMMON  # declared here: their defaults hold for subclasses
    uses_regions = False  # region maps of the pictures instead of pooled features
    own_loss = False  # the method fixes its loss, and ``loss`` is not read
    # Where the item vector depends on the user: floats of the largest tensor that a pair takes in
    # training. Such a model's pair_parts broadcasts over leading dimensions, [B, 1] with [N].
    pair_width = 0
    # Whether all that training draws at random is drawn for the whole of a batch that several
    # processes share; dropout of single rows is not.
    draws_for_all = True
    # Whether the loss sees more than differences between the scores of one user, from which his
    # bias and the global one vanish.
    trains_user_bias = False

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.size = config["embedding_size"]  # d
        self.seed = config["seed"]
        self.init_std = config["init_std"]
        self.reg_weight = config["reg_weight"]
        self.content_reg_weight = config["content_reg_weight"]
        self.content_learning_rate = config["content_learning_rate"]
        self.encoder_learning_rate = config["encoder_learning_rate"]
        counts = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        # Items without a training interaction have untrained id parameters: these count as zero,
        # in training and at scoring, so that content alone decides about them.
        self.register_buffer("seen", (counts > 0).float(), persistent=False)
        met = torch.bincount(dataset.inter_feat[self.USER_ID], minlength=self.n_users) > 0
        self.register_buffer("seen_users", met.float(), persistent=False)
        shared = config["loss"] == "softmax" and not self.own_loss
        self.softmax = SharedSoftmax(counts, config) if shared else None
        # Eq. 8's alpha and beta_u cancel in both losses and in any ranking of one user: their
        # gradient is zero by construction. They stand here because the equation has them.
        self.global_bias = nn.Parameter(torch.zeros(()))
        self.user_bias = self._table(self.n_users, 1, std=0.0)
        self.item_bias = self._table(self.n_items, 1, std=0.0)
        self.branch_losses: dict[str, Tensor] = {}
        # With several processes, set by the trainer: what of the batch this one has, and where
        # it does not draw for all, the generator of what is common nevertheless.
        self.share: Share | None = None
        self.common: torch.Generator | None = None
        self._shared: Tensor | None = None  # negatives of the batch at hand, with softmax
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
        """Of aligned rows [B], or users [B] with items [2, B]: ``score``; where it depends on the
        user, ``norm`` instead of :meth:`item_norm`; and scores of single branches, for the gates.
        """
        product = (user["vector"] * item["vector"]).sum(-1)
        return {"score": user["bias"] + item["bias"] + product}

    def block_scores(self, user: Side, item: Side) -> Tensor:
        """Scores [B, I] of B users against I items."""
        scores = torch.addmm(item["bias"], user["vector"], item["vector"].T)
        return scores + user["bias"].unsqueeze(1)

    def user_norm(self, user: Side) -> Tensor:
        """Squared length [B] of the user's part of the score, for the L2 term."""
        return user["vector"].square().sum(1)

    def item_norm(self, item: Side) -> Tensor:
        """Squared length [m] of the item's part of the score."""
        return item["vector"].square().sum(1) + item["bias"].square()

    def pair_loss(self, positive: Tensor, negative: Tensor) -> Tensor:
        """With ``loss: bpr``, the loss [] of scores [B] and [B]."""
        return bpr_loss(positive, negative)

    def content_weights(self) -> list[Tensor]:
        """Weights of the content path, for the other L2 term."""
        return []

    # ------------------------------------------------------------------ for the models

    def _table(self, rows: int, columns: int, std: float | None = None) -> nn.Embedding:
        table = nn.Embedding(rows, columns)
        nn.init.normal_(table.weight, std=self.init_std if std is None else std)
        return table

    @contextmanager
    def _drawn_apart(self, part: str) -> Iterator[None]:
        """Start an optional part from a stream of its own, seeded by the run's seed and its name.

        Without it the rest of the model starts, and training draws, as with it.
        """
        # Only the CPU's generator: torch.manual_seed would seed every GPU as well.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(crc32(f"{self.seed} {part}".encode()))
            yield

    def id_tables(self) -> list[nn.Embedding]:
        """The tables with a row for each user or each item."""
        rows = (self.n_users, self.n_items)
        tables = [m for m in self.children() if isinstance(m, nn.Embedding)]
        return [table for table in tables if table.num_embeddings in rows]

    def _item_encoder(self, config, dataset) -> ItemEncoder:
        with self._drawn_apart("encoder"):
            encoder = ItemEncoder(dataset.content, config["encoder_training"], config)
        self.draws_for_all = self.draws_for_all and not encoder.draws
        return encoder

    def user_biases(self, users: Tensor) -> Tensor:
        """alpha + beta_u [B], without a gradient where it would be zero."""
        bias = self.global_bias + self.user_bias(users).squeeze(1)
        return bias if self.trains_user_bias else bias.detach()

    def item_biases(self, items: Tensor) -> Tensor:
        """beta_i [m], zero for unseen items."""
        return self._if_seen(self.item_bias(items), items).squeeze(1)

    def seen_rows(self, table: nn.Embedding, items: Tensor) -> Tensor:
        """Rows of an id table [m, k], zero for unseen items."""
        return self._if_seen(table(items), items)

    def _if_seen(self, rows: Tensor, items: Tensor) -> Tensor:
        seen = self.seen[items]
        # A batch hardly ever holds an unseen item. Not asked of a GPU, which would have to answer.
        if not seen.is_cuda and bool(seen.all()):
            return rows
        return rows * seen.unsqueeze(1)

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
        users, user_rows = distinct(interaction[self.USER_ID])
        positive, negative = interaction[self.ITEM_ID], self.negatives(interaction)
        items, rows = distinct(torch.cat([positive, negative]))
        rows = Rows(user_rows, *rows.split([len(positive), len(negative)]), items, users)
        self._shared = None if self.softmax is None else negative
        return self.user_side(users), self.item_side(items), rows

    def negatives(self, interaction) -> Tensor:
        """Negative items: RecBole's [B], or with softmax one draw for the batch [N]."""
        if self.softmax is None:
            return interaction[self.NEG_ITEM_ID]
        return self.softmax.draw(self.pair_width)

    def item_draws(self, items: Tensor) -> Tensor:
        """Uniform numbers [m] for distinct items [m] of a batch, alike in all processes."""
        if self.share is None:
            return torch.rand(len(items), device=items.device)
        known = self.whole_items()
        device = items.device if self.common is None else "cpu"
        draws = torch.rand(len(known.ids), generator=self.common, device=device)
        return draws.to(items.device)[known.at(items)]

    def item_mean(self, values: Tensor, items: Tensor, among: Tensor) -> Tensor:
        """The mean over the distinct items of a batch, whichever process has them.

        Args:
            values: [m, n, ...].
            items: Ids [m].
            among: bool [n_items]; only these count, and ``items`` are such.

        Returns:
            []; zero of no items, with the graph of ``values`` nevertheless.
        """
        if self.share is None:
            return values.mean() if len(items) else values.sum()
        return self.whole_items().mean(values, items, among)

    def whole_items(self) -> WholeSide:
        """The distinct items of a batch that several processes share."""
        fields = [self.ITEM_ID] if self._shared is not None else [self.ITEM_ID, self.NEG_ITEM_ID]
        return self.share.distinct(fields, self._shared)

    def ranking_loss(self, user: Side, item: Side, rows: Rows) -> Tensor:
        """BPR or softmax (means) plus L2 on the vectors of the score; sets ``branch_losses``."""
        loss, item_norm = self.contrast(user, item, rows)
        if self.reg_weight:
            # On the vectors that meet in the score, not on the weights that make them: in MF the
            # two are one, and a network is held to the same scale whatever its depth.
            norm = self.user_norm(user)[rows.user].sum() + item_norm
            loss = loss + self.reg_weight * norm / len(rows.user)
        return loss

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        """The loss without L2, and the items' squared lengths summed over the batch."""
        return (self._bpr if self.softmax is None else self._shared_softmax)(user, item, rows)

    def _bpr(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        items = torch.stack([rows.positive, rows.negative])  # [2, B]
        parts = self.pair_parts(take(user, rows.user), take(item, items))
        loss = self.pair_loss(*parts.pop("score"))
        norm = self._norms(parts, item, items).sum()
        self.branch_losses = {n: bpr_loss(*x.detach()) for n, x in parts.items()}
        return loss, norm

    def _shared_softmax(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        """Of the shared negatives each row bears the mean length."""
        users = take(user, rows.user)
        own = self.pair_parts(users, take(item, rows.positive))
        shared = self.shared_parts(users, take(item, rows.negative))
        norm = self._norms(own, item, rows.positive).sum()
        norm = norm + self._norms(shared, item, rows.negative).mean() * len(rows.user)
        items = rows.items[rows.positive], rows.items[rows.negative]
        loss = self.softmax(own.pop("score"), shared.pop("score"), *items)
        self.branch_losses = {
            n: self.softmax(x.detach(), shared[n].detach(), *items) for n, x in own.items()
        }
        return loss, norm

    def shared_parts(self, user: Side, item: Side) -> Side:
        """:meth:`pair_parts` of B users with N items each: [B, N]."""
        if self.pair_width:
            users = {name: value.unsqueeze(1) for name, value in user.items()}
            return self.pair_parts(users, item)
        # A length that comes with a score is free of the user here: any user gives it.
        parts = self.pair_parts({name: value[:1] for name, value in user.items()}, item)
        return {"score": self.block_scores(user, item)} | {
            name: value for name, value in parts.items() if name == "norm"
        }

    def _norms(self, parts: Side, item: Side, rows: Tensor) -> Tensor:
        """``norm`` of what :meth:`pair_parts` gave, or :meth:`item_norm` of the same rows."""
        return parts.pop("norm") if "norm" in parts else self.item_norm(item)[rows]

    def all_items(self) -> Side:
        """:meth:`item_side` of every item, kept until the model trains or loads again."""
        if self._all_items is None:
            blocks = torch.arange(self.n_items, device=self.seen.device).split(ITEM_BLOCK)
            sides = [self.item_side(block) for block in blocks]
            self._all_items = {k: torch.cat([side[k] for side in sides]) for k in sides[0]}
        return self._all_items

    def served(self, users: Tensor) -> Side:
        """:meth:`user_side` at inference: a user whom training never met is nobody in particular,
        all his tensors zero, instead of a vector that was drawn at random."""
        known = self.seen_users[users]
        side = self.user_side(users)
        return {k: v * known.view(-1, *[1] * (v.dim() - 1)) for k, v in side.items()}

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Scores [B] of pairs."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        side = self.all_items()
        scores = [
            self.pair_parts(self.served(u), take(side, i))["score"]
            for u, i in zip(users.split(PAIR_BLOCK), items.split(PAIR_BLOCK), strict=True)
        ]
        return torch.cat(scores)

    @torch.no_grad()
    def full_sort_predict(self, interaction) -> Tensor:
        """Scores [B * n_items] of users against all items."""
        users = interaction[self.USER_ID]
        return self.block_scores(self.served(users), self.all_items()).reshape(-1)

    @torch.no_grad()
    def candidate_scores(self, interaction, items: Tensor) -> Tensor:
        """Scores [B, C] of users against candidates of their own, item ids [B, C]."""
        users = interaction[self.USER_ID]
        return self.list_scores(self.served(users), self.all_items(), items)

    def list_scores(self, user: Side, item: Side, items: Tensor) -> Tensor:
        """Of each user's row of ``items`` [B, C]; ``item`` has all items.

        Where scores are matrix products, all of a user's are cheaper than picking rows for his
        candidates, up to some fifty times as many.
        """
        n_users, n_items = len(items), len(item["bias"])
        if self.pair_width or n_items > DENSE_RATIO * items.shape[1]:
            width = max(self.pair_width, self.size)
            return self._scores_of_pairs(user, item, items, max(1, PAIR_FLOATS // width))
        rows = torch.arange(n_users, device=items.device).split(max(1, SCORE_BLOCK // n_items))
        parts = [self.block_scores(take(user, r), item).gather(1, items[r]) for r in rows]
        return torch.cat(parts)

    def _scores_of_pairs(self, user: Side, item: Side, items: Tensor, step: int) -> Tensor:
        rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        parts = [
            self.pair_parts(take(user, r), take(item, i))["score"]
            for r, i in zip(rows.split(step), items.reshape(-1).split(step), strict=True)
        ]
        return torch.cat(parts).view(items.shape)

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
        trained = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        for name, parameter in trained:
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
