"""CIERec: Cross-Modal Content Inference and Feature Enrichment (Ma et al., IJCNN 2023,
arXiv 2307.02761), Eq. 1 to 8 with the backbones MF and VBPR.

    p_u [d]  user vector                     q_i [d]  item vector                       Eq. 1
    e_i [D]  unified embedding of the picture                                           Eq. 2
    v_i [d]  = MLP_v(norm(e_i * delta(p_u || e_i || g_v)))   visual feature, depends on u  Eq. 3
    c_i [D]  = norm(e_i * delta(e_i || g_s))                 inferred feature           Eq. 4
    s_i [d]  = LSTM(c_i || s^_i)                             semantic feature           Eq. 5
    f_i [d]  = MLP(q_i || v_i || s_i)                        fused vector               Eq. 7
    y_MF   = alpha + beta_u + beta_i + p_u . f_i                                        Eq. 8
    y_VBPR = y_MF + beta' . c_i + a_u . (E c_i)

Where the paper leaves a choice (docs/models/CIERec.md has the reasons): * is the elementwise
product; delta is linear; the LSTM reads c_i and then s^_i, the mean of learned token vectors;
annotations are privileged: they are read in training only, and dropped there at random, so that the
path without them is trained; beta_c is VBPR's visual bias on c_i; a_u is multiplied with a
projection of c_i. The trainer has the gradient-regularization gate of Eq. 6, which sets
``gradient_scales``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base.gates import (
    Fusion,
    InferenceGate,
    JoinGradients,
    SemanticEncoder,
    VisualGate,
    branch_edges,
)
from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.model.base.side import PairScores, Side
from recbole_cierec.model.base.user_gate_ranking import FixedRanking, UserGateRanking
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset


class CIERec(VisualRecommender):
    """Pictures at training and inference; annotations at training, at inference by key."""

    unseen_items = "content"
    has_biases = True
    use_gates = True  # Eq. 3 and 4: the task-aware gates ("TA" in Table III)
    use_gradient_gate = True  # Eq. 6: the gradient-regularization gates ("GR")
    join_gradients: JoinGradients | None = None  # set by the trainer for some gr_mode
    use_annotations = True  # s^_i of Eq. 5: privileged information ("PI")
    users_at_once = 128  # of a full ranking, each of which reads the maps of all items
    maps_bytes: int | None = None  # of UserGateRanking; a server, which ranks few users, sets less

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        d, gain = self.size, config["content_init_gain"]
        self.user_embedding = self.table(self.n_users, d)  # p_u
        self.item_embedding = self.table(self.n_items, d)  # q_i
        self.encoder = self.item_encoder(config, dataset)  # e_i
        content_size = self.encoder.out_size  # D
        self.gate_learning_rate: float | None = None
        if self.use_gates:
            self.gate_learning_rate = config["gate_learning_rate"]
            activation = config["gate_activation"]
            with self.random_stream("gates"):
                self.visual_gate = VisualGate(d, content_size, d, activation, gain)
                self.inference_gate = InferenceGate(content_size, d, activation)
            low = config["encoder_precision"] == "bfloat16"
            self.visual_gate.low_precision = self.inference_gate.low_precision = low
            self.pair_width = content_size  # of Eq. 3, which sees the user
        with self.random_stream("semantic"):
            self._set_semantic(config, dataset, gain)
        with self.random_stream("fusion"):
            parts = 3 if self.use_gates else 2
            self.fusion = Fusion(d, parts, config["fusion"], config["fusion_bias"])
        with self.random_stream("backbone"):
            self._set_backbone(config, content_size, gain)
        self.gradient_scales = {"visual": 1.0, "semantic": 1.0}
        self._alignment: Tensor | float = 0.0
        self._guidance: Tensor | float = 0.0
        self._ranking: FixedRanking | UserGateRanking | None = None

    def _set_semantic(self, config: Config, dataset: VisualDataset, gain: float) -> None:
        content_size = self.encoder.out_size
        self.alignment_weight = self.guidance_weight = 0.0
        self.token_learning_rate: float | None = None
        if not self.use_annotations:
            self.semantic = SemanticEncoder(self.size, content_size, gain=gain)
            return
        self.privileged_dropout = config["privileged_dropout"]
        self.token_learning_rate = config["token_learning_rate"]
        self.annotation_at_inference = config["annotation_at_inference"]
        self.alignment_weight = config["alignment_weight"]
        self.guidance_weight = config["guidance_weight"]
        self.register_buffer("tokens", dataset.content.tokens, persistent=False)
        n_tokens = len(dataset.content.token_names)
        if self.guidance_weight:
            counts = torch.bincount(self.tokens[self.seen > 0].flatten(), minlength=n_tokens)[1:]
            shares = counts.clamp(min=0.5) / counts.sum().clamp(min=1)  # a token may be new
            self.register_buffer("token_shares", shares.log(), persistent=False)
        how = config["lstm_input"], config["annotation_encoder"]
        self.semantic = SemanticEncoder(self.size, content_size, n_tokens, *how, gain)

    def _set_backbone(self, config: Config, content_size: int, gain: float) -> None:
        self.with_vbpr = config["backbone"] == "VBPR"
        if not self.with_vbpr:
            return
        self.project_content = config["content_projection"] == "linear"
        width = self.size if self.project_content else content_size
        self.user_content = self.table(self.n_users, width)  # a_u
        self.content_bias = nn.Linear(content_size, 1, bias=False)  # beta'
        nn.init.zeros_(self.content_bias.weight)
        if self.project_content:
            # E has no bias: a_u . b would be the same for all items.
            self.content_map = unit_linear(content_size, self.size, gain, bias=False)

    @property
    def token_weights(self) -> Tensor:
        """The vectors [tokens, D] behind s^_i."""
        return cast(nn.Embedding, self.semantic.tokens).weight

    # ---------------------------------------------------------------------- Eq. 1 to 8

    def user_side(self, users: Tensor) -> Side:
        more = {"content": self.user_content(users)} if self.with_vbpr else {}
        return Side(self.user_embedding(users), self.user_biases(users), more)

    def item_side(self, items: Tensor) -> Side:
        e = self.encoder(items)  # Eq. 2
        # R acts on the edges from e to the two branches, in the backward pass only.
        e_v, e_s = branch_edges(e, self.gradient_scales, self.join_gradients)
        c = self.inference_gate(e_s) if self.use_gates else e_s  # Eq. 4
        q, s = self.seen_rows(self.item_embedding, items), self._semantic(c, items)  # Eq. 1, 5
        bias, more = self.item_biases(items), {"s": s}
        if self.use_gates:
            more |= {"e": e_v, "gate": self.visual_gate.item_part(e_v)}
        if self.with_vbpr:
            bias = bias + self.content_bias(c).squeeze(1)  # beta_c
            more["content"] = self.content_map(c) if self.project_content else c
        return Side(q, bias, more)

    def _semantic(self, c: Tensor, items: Tensor) -> Tensor:
        if not self.use_annotations:
            return self.semantic(c, None, None)
        tokens = self.tokens[items]
        known = tokens[:, 0] > 0
        if not self.training:
            readable = known if self.annotation_at_inference else torch.zeros_like(known)
            return self.semantic(c, tokens, readable)
        if self.alignment_weight:
            full, short = self.semantic(c, tokens, known), self.semantic(c, None, None)
            apart = F.mse_loss(short[known], full[known].detach(), reduction="none")
            self._alignment = self._annotated_mean(apart, items[known])
        if self.guidance_weight:
            table = self.token_weights
            unlike = SemanticEncoder.guidance(c[known], tokens[known], table, self.token_shares)
            self._guidance = self._annotated_mean(unlike.unsqueeze(1), items[known])
        kept = self.batch.uniform(items) >= self.privileged_dropout
        return self.semantic(c, tokens, known & kept)

    def _annotated_mean(self, values: Tensor, items: Tensor) -> Tensor:
        """The mean [] of values [m, n] over the annotated items of the batch."""
        return self.batch.item_mean(values, items, self.tokens[:, 0] > 0)

    def pair_scores(self, user: Side, item: Side) -> PairScores:
        if not self.use_gates:
            return self._fused_scores(user, item, None)
        v = self.visual_gate(user.vector, item["e"], item["gate"])  # Eq. 3
        return self._fused_scores(user, item, v)

    def scores_of_rows(
        self, user: Side, item: Side, user_rows: Tensor, item_rows: Tensor
    ) -> PairScores:
        if not self.use_gates:
            return super().scores_of_rows(user, item, user_rows, item_rows)
        e, gate = item["e"], item["gate"]
        v = self.visual_gate.of_rows(user.vector, e, gate, user_rows, item_rows)
        item = item.without("e", "gate")
        return self._fused_scores(user.take(user_rows), item.take(item_rows), v)

    def _fused_scores(self, user: Side, item: Side, v: Tensor | None) -> PairScores:
        p = user.vector
        f = self.fusion(item.vector, v, item["s"])  # Eq. 7
        score = user.required_bias + item.required_bias + (p * f).sum(-1)  # Eq. 8
        norm = self.fusion.deviation(f).square().sum(-1) + item.required_bias.square()
        if self.with_vbpr:
            score = score + (user["content"] * item["content"]).sum(-1)
            norm = norm + item["content"].square().sum(-1)
        if v is None:
            return PairScores(score, norm)
        branches = {"visual": (p * v).sum(-1), "semantic": (p * item["s"]).sum(-1)}
        return PairScores(score, norm, branches)

    def user_norm(self, user: Side) -> Tensor:
        norm = super().user_norm(user)
        return norm + user["content"].square().sum(1) if self.with_vbpr else norm

    def block_scores(self, user: Side, item: Side) -> Tensor:
        scores = self._item_ranking(item).scores(user.vector)
        if self.with_vbpr:
            scores = scores + user["content"] @ item["content"].T
        return scores + user.required_bias.unsqueeze(1) + item.required_bias

    def list_scores(self, user: Side, item: Side, items: Tensor) -> Tensor:
        scores = self._item_ranking(item).of_lists(user.vector, items)
        if self.with_vbpr:
            scores = scores + torch.einsum("bd,bcd->bc", user["content"], item["content"][items])
        return scores + user.required_bias.unsqueeze(1) + item.required_bias[items]

    def _item_ranking(self, item: Side) -> FixedRanking | UserGateRanking:
        fixed = item is self._all_items  # not in training
        if fixed and self._ranking is not None:
            return self._ranking
        ranking: FixedRanking | UserGateRanking
        if self.use_gates:
            ranking = UserGateRanking(self.fusion, self.visual_gate, item, self.maps_bytes)
        else:
            ranking = FixedRanking(self.fusion, item)
        if fixed:
            self._ranking = ranking
        return ranking

    @torch.no_grad()
    def vectors(self) -> tuple[Side, Side] | None:
        if self.use_gates:  # v_i sees the user
            return None
        user = self.serving_side(torch.arange(self.n_users, device=self.seen.device))
        item = self.all_items()
        p, f = user.vector, FixedRanking(self.fusion, item).vectors
        if self.with_vbpr:
            p, f = (torch.cat([x, s["content"]], 1) for x, s in ((p, user), (f, item)))
        return Side(p, user.bias), Side(f, item.bias)

    # ------------------------------------------------------------------------ training

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        loss = super().calculate_loss(interaction)
        if self.alignment_weight:
            loss = loss + self.alignment_weight * self._alignment
        return loss + self.guidance_weight * self._guidance if self.guidance_weight else loss

    def learning_rates(self) -> dict[str, float | None]:
        """Token vectors learn as ids, of which a batch updates few; gates have large maps."""
        more = {"tokens": self.token_learning_rate, "gates": self.gate_learning_rate}
        return super().learning_rates() | more

    def parameter_kind(self, name: str) -> str | None:
        if name == "semantic.tokens.weight":
            return "tokens"
        head, _, part = name.partition(".")
        is_gate = head in ("visual_gate", "inference_gate") and not part.startswith("mlp.")
        return "gates" if is_gate else super().parameter_kind(name)

    def forget_items(self) -> None:
        super().forget_items()
        self._ranking = None
