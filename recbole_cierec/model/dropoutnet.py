"""DropoutNet: learns to score without preference vectors (Volkovs et al., NIPS 2017).

    U_u [d], V_i [d], b_i    vectors and item bias of a trained MF, constants
    f_U = tower_U(U_u),  f_V = tower_V(V_i || b_i || content_i)
    tower: (linear -> batch norm -> tanh) for each hidden layer, then linear -> [d]
    y_ui  = f_U . f_V
    L     = mean (f_U . f_V - (U_u . V_i + b_i))^2

over pairs of a user with items from the top of the user's list (by U_u . V_i + b_i) and with random
items. For a random share of the users of a batch, and of its items, the preference vector is hidden
(set to zero, the mean of the standardised input), so the content must replace it. An unseen item is
scored with a hidden vector. The targets are the scores of the MF and constant: its vectors are
buffers, not parameters.

All users without content and vector look alike, so hiding users has little effect here.
``user_transform: n`` replaces the vectors of users with at most n training interactions by the mean
vector of their items (the paper's user transform); in training, hidden users get it, so that the
network learns from it.

Reconstruction: the MF here has item biases, WMF has none; they are part of its score, so b_i is an
input of the item and part of the target. A user is hidden for a whole batch, not for single pairs.
The top of a user is a share of the items (``target_top``; the paper's 2500 are 15 % of CiteULike),
from which each interaction of the user in the batch draws one. Adam instead of SGD with a step
schedule; momentum of batch norm 0.1, not 0.01, since small data sets have few batches.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base.layers import mean_rows
from recbole_cierec.model.base.scoring import BLOCK_BYTES
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.model.base.warm_start import Weights, stage_weight

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset


CLIP = 5.0  # limit of inputs, in standard deviations
KEPT_BYTES = 1 << 30  # limit for the tops of all users; above it they are computed per batch


class DropoutNet(VisualRecommender):
    """Pictures (annotations by key) and the vectors of a trained MF."""

    unseen_items = "content"
    own_loss = True
    draws_per_row = True  # batch norm always uses the rows of one process

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        self.content_learning_rate = config["learning_rate"]  # one rate: there are no id tables
        self.rates = {"user": config["user_dropout"], "item": config["item_dropout"]}
        self.top_share, self.from_top = config["target_top"], config["target_pairs"] == "top"
        self.use_annotations = config["use_annotations"]
        self._set_preferences(config, dataset)
        self.encoder = self.item_encoder(config, dataset)
        n_in, hidden = self.size + 1 + self.encoder.out_size, config["mlp_hidden_size"] or []
        if self.use_annotations:
            self.register_buffer("tokens", dataset.content.tokens, persistent=False)
            n_tokens = len(dataset.content.token_names)
            with self.random_stream("annotations"):
                self.token_embedding = self.token_table(n_tokens, self.size, std=1.0)
            n_in += self.size
        self.user_tower = Tower(self.size, hidden, self.size)
        with self.random_stream("item_tower"):
            self.item_tower = Tower(n_in, hidden, self.size)
        self._started = False

    # ------------------------------------------------------------- the preference vectors

    def _set_preferences(self, config: Config, dataset: VisualDataset) -> None:
        d = self.size
        self.register_buffer("user_preference", torch.zeros(self.n_users, d))
        self.register_buffer("item_preference", torch.zeros(self.n_items, d + 1))
        for side, width in (("user", d), ("item", d + 1)):
            self.register_buffer(f"{side}_center", torch.zeros(width))
            self.register_buffer(f"{side}_scale", torch.zeros(width))
        users, items = dataset.inter_feat[self.USER_ID], dataset.inter_feat[self.ITEM_ID]
        counts = torch.bincount(users, minlength=self.n_users)
        few = (counts > 0) & (counts <= config["user_transform"])
        self.transform = config["user_transform"] > 0
        self.register_buffer("pool", self.seen.nonzero().squeeze(1), persistent=False)
        for name, value in {"counts": counts, "few": few, "users": users, "items": items}.items():
            self.register_buffer(f"train_{name}", value.clone(), persistent=False)
        self._means: Tensor | None = None
        self._tops: Tensor | None = None  # unlike the means, kept across validations
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "_tops", None))

    @classmethod
    def stage_keys(cls, config: Config) -> dict[str, Any]:
        """The keys that its MF must share."""
        return {"embedding_size": config["embedding_size"]}

    @torch.no_grad()
    def start_from(self, weights: Weights) -> None:
        """Copy the vectors of a trained MF (or of RecBole's BPR, without biases) as constants."""
        d = self.size
        user = stage_weight(weights, "user_embedding.weight", (self.n_users, d))
        item = stage_weight(weights, "item_embedding.weight", (self.n_items, d))
        bias = item.new_zeros(self.n_items, 1)
        if "item_bias.weight" in weights:
            bias = stage_weight(weights, "item_bias.weight", (self.n_items, 1))
        known = {"user": self.train_counts > 0, "item": self.seen > 0}
        for side, values in (("user", user), ("item", torch.cat([item, bias], 1))):
            values = values.to(self.seen) * known[side].unsqueeze(1)  # untrained rows are zero
            trained = values[known[side]]
            deviation = trained.std(0, unbiased=False)
            getattr(self, f"{side}_preference").copy_(values)
            getattr(self, f"{side}_center").copy_(trained.mean(0))
            scale = torch.where(deviation > 1e-8, 1.0 / deviation.clamp(min=1e-8), 0.0)
            getattr(self, f"{side}_scale").copy_(scale)
        self._tops = None
        self.forget_items()

    def standardised(self, side: str, preference: Tensor) -> Tensor:
        """Preference vectors [m, k] as inputs: mean 0 and deviation 1 per column, clipped."""
        center, scale = getattr(self, f"{side}_center"), getattr(self, f"{side}_scale")
        return ((preference - center) * scale).clamp(-CLIP, CLIP)

    def item_means(self) -> Tensor:
        """Mean vector [n_users, d] of each user's training items, for the user transform."""
        if self._means is None:
            total = torch.zeros_like(self.user_preference)
            total.index_add_(0, self.train_users, self.item_preference[self.train_items, :-1])
            self._means = total / self.train_counts.clamp(min=1).unsqueeze(1)
        return self._means

    def forget_items(self) -> None:
        super().forget_items()
        self._means = None

    # ------------------------------------------------------------------------ scoring

    def user_side(self, users: Tensor) -> Side:
        own, known = self.user_preference[users], self.train_counts[users] > 0
        if self.transform:
            few = self.train_few[users] | (self.hidden("user", users) & known)
            x = torch.where(few.unsqueeze(1), self.item_means()[users], own)
        else:
            x, known = own, known & ~self.hidden("user", users)
        x = self.standardised("user", x) * known.unsqueeze(1)
        return Side(self.user_tower(x), more={"target": own} if self.training else {})

    def serving_side(self, users: Tensor) -> Side:
        """Like :meth:`user_side`: users without training interactions have hidden vectors."""
        return self.user_side(users)

    def item_side(self, items: Tensor) -> Side:
        own = self.item_preference[items]
        known = (self.seen[items] > 0) & ~self.hidden("item", items)
        x = [self.standardised("item", own) * known.unsqueeze(1), self.content(items)]
        if self.use_annotations:
            x.append(mean_rows(self.token_embedding, self.tokens[items]))
        more = {"target": own, "seen": self.seen[items]} if self.training else {}
        return Side(self.item_tower(torch.cat(x, 1)), more=more)

    def content(self, items: Tensor) -> Tensor:
        """Features [m, D] with rows of length sqrt(D), the scale of the preference inputs."""
        return (self.encoder(items) * self.encoder.out_size**0.5).clamp(-CLIP, CLIP)

    def hidden(self, side: str, rows: Tensor) -> Tensor:
        """bool [m], the rows with a hidden preference vector: in training a fixed share."""
        mask = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        if self.training:
            count = int(self.rates[side] * len(rows))
            mask[torch.randperm(len(rows), device=rows.device)[:count]] = True
        return mask

    # ------------------------------------------------------------------------ training

    def sides(self, interaction: Interaction) -> tuple[Side, Side, Rows]:
        if not self._started:
            if not self.item_preference.any():
                raise ConfigError(
                    "DropoutNet has no preference vectors: run it with recbole_cierec, which first "
                    "trains an MF, or call start_from with the weights of a trained MF"
                )
            self._started = True
        if self.from_top:
            users = interaction[self.USER_ID]
            random = self.pool[torch.randint(len(self.pool), (len(users),)).to(users.device)]
            pairs = {self.ITEM_ID: self.draw_top(users), self.NEG_ITEM_ID: random}
            interaction = {self.USER_ID: users, **pairs}
        return super().sides(interaction)

    @torch.no_grad()
    def draw_top(self, users: Tensor) -> Tensor:
        """For each row, an item [B] from the top of its user's list of seen items."""
        count = min(len(self.pool), max(1, round(self.top_share * len(self.pool))))
        if self._tops is None and 4 * self.n_users * count <= KEPT_BYTES:
            self._tops = self._top_lists(torch.arange(self.n_users).to(users.device), count)
        if self._tops is None:
            distinct, rows = torch.unique(users, return_inverse=True)
            lists = self._top_lists(distinct, count)
        else:
            lists, rows = self._tops, users
        place = torch.randint(count, (len(users),)).to(users.device)
        return self.pool[lists[rows, place].long()]

    def _top_lists(self, users: Tensor, count: int) -> Tensor:
        """The top of each user: indices of the pool, int32 [m, count]."""
        vectors, bias = self.item_preference[self.pool].split([self.size, 1], 1)
        block = max(1, BLOCK_BYTES // (4 * len(self.pool)))
        tops = [
            torch.topk(self.user_preference[part] @ vectors.T + bias.T, count).indices.int()
            for part in users.split(block)
        ]
        return torch.cat(tops)

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        users, items = rows.user.repeat(2), torch.cat([rows.positive, rows.negative])
        user, item = user.take(users), item.take(items)
        score = self.pair_scores(user, item).score
        target = (user["target"] * item["target"][:, :-1]).sum(1) + item["target"][:, -1]
        error = (score - target).square() * item["seen"]  # unseen items have no target
        norm = self.item_norm(item).sum()
        return error.sum() / item["seen"].sum().clamp(min=1), norm

    def content_weights(self) -> list[Tensor]:
        """The towers' matrices, without the token vectors, which are inputs as features are."""
        towers = [*self.user_tower.parameters(), *self.item_tower.parameters()]
        return [weight for weight in towers if weight.dim() > 1]


class Tower(nn.Module):
    """(linear -> batch norm -> tanh) x L -> linear, rows [m, n_in] -> [m, n_out]."""

    def __init__(self, n_in: int, hidden: list[int], n_out: int) -> None:
        super().__init__()
        if not all(isinstance(size, int) and size > 0 for size in hidden):
            raise ConfigError(f"mlp_hidden_size must be whole numbers above 0, not {hidden}")
        sizes = [n_in, *hidden]
        # No biases: batch norm would remove them.
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3, momentum=0.1) for size in hidden)
        self.out = nn.Linear(sizes[-1], n_out)
        for layer in [*self.maps, self.out]:
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor) -> Tensor:
        for layer, norm in zip(self.maps, self.norms, strict=True):
            rows = torch.tanh(self._normalised(layer(rows), norm))
        return self.out(rows)

    def _normalised(self, rows: Tensor, norm: nn.Module) -> Tensor:
        # A single row has no variance. SyncBatchNorm, which RecBole puts here for several GPUs,
        # counts the rows of all of them.
        if self.training and len(rows) == 1 and isinstance(norm, nn.BatchNorm1d):
            return F.batch_norm(
                rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return norm(rows)
