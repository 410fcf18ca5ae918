"""Base class of all models: ids, item content, loss, and scores of pairs and rankings.

A model must define the tensors of items that scoring needs (:meth:`VisualRecommender.item_side`).
The rest has defaults: the user's id vector (:meth:`~VisualRecommender.user_side`) and an inner
product (:meth:`~VisualRecommender.pair_scores` and :meth:`~VisualRecommender.block_scores`). Loss,
``predict`` and ``full_sort_predict`` use these four methods, so training and ranking score alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_cierec.config.schema import Key
from recbole_cierec.config.schema.model_keys import COMMON
from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base.batch_context import BatchContext
from recbole_cierec.model.base.item_encoder import ItemEncoder
from recbole_cierec.model.base.layers import bpr_loss, squared_norm
from recbole_cierec.model.base.losses import SharedSoftmax
from recbole_cierec.model.base.scoring import Scoring
from recbole_cierec.model.base.side import PairScores, Rows, Side, distinct

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.content import ItemContent
    from recbole_cierec.data.dataset import VisualDataset


class TokenTable(nn.Embedding):
    """Vectors of a vocabulary of content: no id table, even with as many rows as items."""


class VisualRecommender(Scoring, GeneralRecommender):
    """RecBole general recommender with content and exact ranking.

    Args:
        config: RecBole config with the keys of this package.
        dataset: The training part of the data.
    """

    input_type = InputType.PAIRWISE
    keys: ClassVar[tuple[Key, ...]] = COMMON  # declared here; subclasses inherit their defaults
    has_biases = False  # alpha + beta_u + beta_i of Eq. 8
    # Whether the loss depends on more than score differences of one user, in which the user's bias
    # and the global bias cancel.
    trains_user_bias = False
    own_loss = False  # the method defines its loss; the key ``loss`` is not read
    # What ranks an item without training interactions: "picture", "annotations", "content" (both)
    # and so on, as in docs/models/index.md; empty: nothing.
    unseen_items = ""
    ranks_unseen_users = True  # users without training interactions share one meaningful list
    uses_regions = False  # reads region maps of pictures instead of pooled features
    reads_features = False  # reads the modalities of the key features, not its image alone
    # If the item vector depends on the user: floats per pair of the largest tensor in training.
    # pair_scores of such a model broadcasts over leading dimensions, [B, 1] with [N].
    pair_width = 0
    # Annotations enter tensors that training computes once, such as graphs of similar items.
    annotations_once = False
    short_step = False  # on a CPU one process trains faster than several
    draws_per_row = False  # training draws random numbers per row, as dropout does

    user_embedding: nn.Embedding  # p_u, read by the default user_side
    global_bias: nn.Parameter  # alpha
    user_bias: nn.Embedding  # beta_u
    item_bias: nn.Embedding  # beta_i

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.size = config["embedding_size"]  # d
        self.seed = config["seed"]
        self.init_std = config["init_std"]
        self.reg_weight = config["reg_weight"]
        self.content_reg_weight = config["content_reg_weight"]
        self.content_learning_rate = config["content_learning_rate"]
        self.encoder_learning_rate = config["encoder_learning_rate"]
        counts = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        # The id parameters of items without training interactions are untrained. They count as
        # zero in training and scoring, so that only content determines the scores.
        self.register_buffer("seen", (counts > 0).float(), persistent=False)
        active = torch.bincount(dataset.inter_feat[self.USER_ID], minlength=self.n_users) > 0
        self.register_buffer("seen_users", active.float(), persistent=False)
        shared = config["loss"] == "softmax" and not self.own_loss
        self.softmax = SharedSoftmax(counts, config) if shared else None
        if self.has_biases:
            # alpha and beta_u cancel in both losses and in any ranking of one user, so their
            # gradient is zero. They exist because Eq. 8 has them.
            self.global_bias = nn.Parameter(torch.zeros(()))
            self.user_bias = self.table(self.n_users, 1, std=0.0)
            self.item_bias = self.table(self.n_items, 1, std=0.0)
        self._annotations_of = self._damaged_when_ranking(config, dataset)
        self.branch_losses: dict[str, Tensor] = {}
        self.batch = BatchContext()
        self.register_load_state_dict_post_hook(lambda module, _: module.forget_items())

    # -------------------------------------------------------- what a model can define

    def item_side(self, items: Tensor) -> Side:
        """The tensors of items [m] that scoring needs, the same for all users.

        Raises:
            ConfigError: The model does not define it.
        """
        raise ConfigError(
            f"{type(self).__name__}: define item_side(items), the tensors of items that scoring "
            "needs (docs/extending.md)"
        )

    def user_side(self, users: Tensor) -> Side:
        """The tensors of users [m] that scoring needs; by default p_u and biases."""
        return Side(self.user_embedding(users), self.user_biases(users))

    def pair_scores(self, user: Side, item: Side) -> PairScores:
        """Scores of pairs; users [B] with items [B] or [2, B]. By default p_u . q_i + biases."""
        product = (user.vector * item.vector).sum(-1)
        if user.bias is None or item.bias is None:
            return PairScores(product)
        return PairScores(user.bias + item.bias + product)

    def scores_of_rows(
        self, user: Side, item: Side, user_rows: Tensor, item_rows: Tensor
    ) -> PairScores:
        """:meth:`pair_scores` of rows [B] of users and rows [..., B] of items.

        A model can override it to compute for each distinct user or item once.
        """
        return self.pair_scores(user.take(user_rows), item.take(item_rows))

    def user_norm(self, user: Side) -> Tensor:
        """Squared length [m] of the user's part of the score, for the L2 term."""
        return user.vector.square().sum(1)

    def item_norm(self, item: Side) -> Tensor:
        """Squared length [m] of the item's part of the score."""
        norm = item.vector.square().sum(1)
        return norm if item.bias is None else norm + item.bias.square()

    def pair_loss(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss [] of scores [B] and [B] with ``loss: bpr``."""
        return bpr_loss(positive, negative)

    def content_weights(self) -> list[Tensor]:
        """Weights of the content path, for the L2 term ``content_reg_weight``.

        By default all matrices except id tables and the item encoder.
        """
        ids = {f"{name}.weight" for name in self._id_names()}
        return [
            weight
            for name, weight in self.named_parameters()
            if weight.dim() > 1 and name not in ids and not name.startswith("encoder.")
        ]

    # --------------------------------------------------------------- helpers of models

    def table(self, rows: int, columns: int, std: float | None = None) -> nn.Embedding:
        """A normal table of vectors, with standard deviation ``std`` or ``init_std``."""
        return self._normal(nn.Embedding(rows, columns), std)

    def token_table(self, rows: int, columns: int, std: float | None = None) -> nn.Embedding:
        """As :meth:`table`, for tokens or categories of the content."""
        return self._normal(TokenTable(rows, columns), std)

    def _normal(self, table: nn.Embedding, std: float | None) -> nn.Embedding:
        nn.init.normal_(table.weight, std=self.init_std if std is None else std)
        return table

    @contextmanager
    def random_stream(self, part: str) -> Iterator[None]:
        """Initialise an optional part from a separate random stream, seeded by seed and name.

        The rest of the model is initialised, and training draws, as without the part.
        """
        # torch.manual_seed would seed every GPU as well.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(crc32(f"{self.seed} {part}".encode()))
            yield

    def item_encoder(self, config: Config, dataset: VisualDataset) -> ItemEncoder:
        """The encoder of e_i: features, features with a trained adapter, or the network."""
        with self.random_stream("encoder"):
            encoder = ItemEncoder(dataset.content, config["encoder_training"], config)
        self.draws_per_row = self.draws_per_row or encoder.draws
        return encoder

    def user_biases(self, users: Tensor) -> Tensor | None:
        """alpha + beta_u [m]; without a gradient if it would be zero."""
        if not self.has_biases:
            return None
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
        # Unseen items are rare in a batch. On a GPU the check would cost a synchronisation.
        if not seen.is_cuda and bool(seen.all()):
            return rows
        return rows * seen.unsqueeze(1)

    # ------------------------------------------------------------------------ the loss

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss [] of a batch; one negative per positive (Sec. IV-A2)."""
        loss = self.ranking_loss(*self.sides(interaction))
        if self.content_reg_weight:
            loss = loss + self.content_reg_weight * squared_norm(self.content_weights())
        return loss

    def sides(self, interaction: Interaction) -> tuple[Side, Side, Rows]:
        """Both sides of a batch over its distinct users and items, and the batch as their rows.

        Content is computed once per item, and a gradient on a side is the sum over the batch.
        """
        users, user_rows = distinct(interaction[self.USER_ID])
        positive, negative = interaction[self.ITEM_ID], self.negatives(interaction)
        items, rows = distinct(torch.cat([positive, negative]))
        first, rest = rows.split([len(positive), len(negative)])
        self.batch.begin(None if self.softmax is None else negative)
        numbers = Rows(user_rows, first, rest, items, users)
        return self.user_side(users), self.item_side(items), numbers

    def negatives(self, interaction: Interaction) -> Tensor:
        """Negative items: RecBole's [B], or with softmax the shared ones [N]."""
        if self.softmax is None:
            return interaction[self.NEG_ITEM_ID]
        return self.softmax.draw(self.pair_width)

    def ranking_loss(self, user: Side, item: Side, rows: Rows) -> Tensor:
        """Mean BPR or softmax plus L2 of the vectors of the score []; sets ``branch_losses``."""
        loss, item_norm = self.contrast(user, item, rows)
        if self.reg_weight:
            # Of the vectors, not of the weights behind them: in MF both are the same, and it
            # keeps networks of any depth to the same scale.
            norm = self.user_norm(user).index_select(0, rows.user).sum() + item_norm
            loss = loss + self.reg_weight * norm / len(rows.user)
        return loss

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        """The loss without L2, and the items' squared lengths summed over the batch."""
        if self.softmax is None:
            return self._bpr(user, item, rows)
        return self._shared_softmax(self.softmax, user, item, rows)

    def _bpr(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        items = torch.stack([rows.positive, rows.negative])  # [2, B]
        pairs = self.scores_of_rows(user, item, rows.user, items)
        loss = self.pair_loss(*pairs.score)
        norm = self.norms(pairs, item, items).sum()
        self.branch_losses = {n: bpr_loss(*x.detach()) for n, x in pairs.branches.items()}
        return loss, norm

    def _shared_softmax(
        self, softmax: SharedSoftmax, user: Side, item: Side, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """:meth:`contrast` with softmax; each row counts the mean length of the negatives."""
        users = user.take(rows.user)
        own = self.pair_scores(users, item.take(rows.positive))
        shared = self.shared_scores(users, item.take(rows.negative))
        norm = self.norms(own, item, rows.positive).sum()
        norm = norm + self.norms(shared, item, rows.negative).mean() * len(rows.user)
        items = rows.items[rows.positive], rows.items[rows.negative]
        loss = softmax(own.score, shared.score, *items)
        self.branch_losses = {
            name: softmax(score.detach(), shared.branches[name].detach(), *items)
            for name, score in own.branches.items()
        }
        return loss, norm

    def shared_scores(self, user: Side, item: Side) -> PairScores:
        """:meth:`pair_scores` of B users with the same N items: [B, N]."""
        if self.pair_width:
            return self.pair_scores(user.map(lambda value: value.unsqueeze(1)), item)
        # Here a norm that comes with a score does not depend on the user: use the first.
        norm = self.pair_scores(user.map(lambda value: value[:1]), item).norm
        return PairScores(self.block_scores(user, item), norm)

    def norms(self, pairs: PairScores, item: Side, rows: Tensor) -> Tensor:
        """The norms that came with the scores, otherwise :meth:`item_norm` of the rows."""
        if pairs.norm is not None:
            return pairs.norm
        return self.item_norm(item).index_select(0, rows.reshape(-1)).view(rows.shape)

    # ---------------------------------------------------------------- for trained models

    def add_items(self, first: int) -> None:
        """Complete what the model keeps of items besides their id parameters, for those from number
        ``first`` on: they were added after training, and their id parameters are zero."""

    @torch.no_grad()
    def vectors(self) -> tuple[Side, Side] | None:
        """All users and all items, whose inner products and biases are the scores; None where the
        scores are no inner products."""
        plain = type(self).pair_scores is VisualRecommender.pair_scores
        if self.pair_width or not plain or type(self).block_scores is not Scoring.block_scores:
            return None
        users = torch.arange(self.n_users, device=self.seen.device)
        return self.serving_side(users).scoring(), self.all_items().scoring()

    # ------------------------------------------------------------------- for the trainer

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch of training, numbered from 0; a resumed run continues."""

    def train(self, mode: bool = True) -> VisualRecommender:
        """Set the mode and drop the cached item side."""
        self.forget_items()
        if self._annotations_of is not None and "tokens" in self._buffers:
            content = self._annotations_of
            tokens = content.tokens if mode else content.inference_tokens
            self._buffers["tokens"] = tokens.to(self.seen.device)
        return super().train(mode)

    def _damaged_when_ranking(self, config: Config, dataset: VisualDataset) -> ItemContent | None:
        """The content, if training and ranking read different annotations."""
        if config["annotations_missing_training"] == config["annotations_missing_inference"]:
            return None
        if self.annotations_once and config["use_annotations"] is not False:
            raise ConfigError(
                f"annotations_missing_inference: {config['model']} reads annotations once, in "
                "training; set it to annotations_missing_training"
            )
        return dataset.content

    def _id_names(self) -> list[str]:
        rows = (self.n_users, self.n_items)
        return [
            name
            for name, module in self.named_children()
            if isinstance(module, nn.Embedding)
            and not isinstance(module, TokenTable)
            and module.num_embeddings in rows
        ]

    def id_tables(self) -> list[nn.Embedding]:
        """The tables with one row per user or item."""
        return [getattr(self, name) for name in self._id_names()]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer: ids, content path and network, with separate rates.

        Adagrad's first step moves every weight by the full rate, for any gradient. A rate that
        suits id tables, whose rows are rarely in a batch, would destroy a D x D map at once.
        """
        rates = self.learning_rates()
        groups: dict[str, list] = {kind: [] for kind in rates}
        for name, parameter in self.named_parameters():
            kind = self.parameter_kind(name)
            if parameter.requires_grad and kind is not None:
                groups[kind].append(parameter)
        return [
            {"params": parameters} | ({} if rates[kind] is None else {"lr": rates[kind]})
            for kind, parameters in groups.items()
            if parameters
        ]

    def learning_rates(self) -> dict[str, float | None]:
        """The learning rate of each kind of parameter; None: ``learning_rate``."""
        content, encoder = self.content_learning_rate, self.encoder_learning_rate
        return {"ids": None, "content": content, "encoder": encoder}

    def parameter_kind(self, name: str) -> str | None:
        """A key of :meth:`learning_rates`; None: another phase trains the parameter."""
        head = name.split(".")[0]
        if head == name or isinstance(getattr(self, head), nn.Embedding):
            return "ids"
        return "encoder" if ".network." in name or ".adapter." in name else "content"
