"""PiNet: privileged-channel infused network (Meng et al., "Heterogeneous fusion of semantic and
collaborative information for visually-aware food recommendation", ACM Multimedia 2020),
reconstructed.

Known from its title and abstract and from CIERec (arXiv 2307.02761): one image encoder is trained
for two tasks at once, the recommendation and the prediction of the item's annotations (the
privileged channel: labels in training, not read when ranking); between encoder and tasks a
dual-gating module regulates the forward encoding and the backward gradients; training has two
phases, and prior knowledge enters in two ways. CIERec builds on it and adds the user to the forward
gate. Neither the full text nor code was available.

Reconstruction, so call results "PiNet (re-constructed)":

    e_i [D]  embedding of the picture, by default features under a trained adapter
    v_i [d]  = MLP_v(norm(e_i * delta_v(e_i || g_v)))      feature gate of the recommendation
    c_i [D]  = norm(e_i * delta_s(e_i || g_s))             feature gate of the annotations
    y_ui     = alpha + beta_u + beta_i + p_u . q_i + theta_u . v_i                (VBPR's form)
    z_i [K]  = W_t c_i + b                                 logit of each annotation token
    L        = L_rec + semantic_weight * L_sem + L2;  L_sem = mean binary cross-entropy of z_i

L_sem runs over the distinct items of a batch that have a picture, an annotation and a training
interaction: the labels of an item without annotation are unknown, not zero. First prior knowledge:
b starts at the log odds of each token (``prior_frequency``). Second prior knowledge: W_t = V A with
V starting as word vectors (``word_vectors``). Phase 1 trains the two channels separately: encoder
and annotations on L_sem, ids as MF on L_rec, without v_i. Phase 2 trains all on L, with a gradient
gate on each edge from e_i to a task (CIERec's, with the rewards exp(-L_rec) and exp(-L_sem);
trainer/gated_trainer.py). Without a picture e_i = 0, and v_i is the same constant for all items.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import DataError
from recbole_cierec.model.base.gates import InferenceGate, JoinGradients, branch_edges
from recbole_cierec.model.base.layers import SLOPE, unit_linear
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.two_phases import TwoPhases
from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.vision.item_pictures import pictures_of

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.dataset import VisualDataset


class PiNet(TwoPhases, VisualRecommender):
    """Pictures at training and inference; annotations as labels in training only."""

    unseen_items = "picture"
    has_biases = True
    use_gradient_gate = True
    join_gradients: JoinGradients | None = None  # set by the trainer for some gr_mode
    # What phase 1 trains. W_t is not used after training, but phase 2 trains it further.
    pretrained_parts = (
        *("global_bias", "user_bias", "item_bias", "user_embedding", "item_embedding"),
        *("encoder", "semantic_gate", "head"),
    )

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        d, gain, activation = self.size, config["content_init_gain"], config["gate_activation"]
        self.semantic_weight = config["semantic_weight"]
        self.positive_weight = config["positive_weight"]
        self.user_embedding = self.table(self.n_users, d)  # p_u
        self.item_embedding = self.table(self.n_items, d)  # q_i
        self.user_visual = self.table(self.n_users, d)  # theta_u
        self.encoder = self.item_encoder(config, dataset)  # e_i
        content_size = self.encoder.out_size
        self.visual_gate = InferenceGate(content_size, d, activation)
        self.visual_map = unit_linear(content_size, d, gain)  # MLP_v, with LeakyReLU
        self.semantic_gate = InferenceGate(content_size, d, activation)
        content = dataset.content
        self.register_buffer("tokens", content.tokens, persistent=False)
        known = content.has_annotation & pictures_of(content).has_picture & (self.seen > 0)
        self.register_buffer("labelled", known, persistent=False)
        names = content.token_names[1:]
        self.head = TokenHead(content_size, len(names), gain)
        if config["word_vectors"]:
            with self.random_stream("word_vectors"):
                self.head.use_vectors(read_word_vectors(Path(config["word_vectors"]), names))
        if config["prior_frequency"]:
            self.head.use_frequencies(self.token_labels(known.nonzero().squeeze(1)))
        self.gradient_scales = {"visual": 1.0, "semantic": 1.0}

    def user_side(self, users: Tensor) -> Side:
        vector = torch.cat([self.user_embedding(users), self.user_visual(users)], 1)
        return Side(vector, self.user_biases(users))

    def item_side(self, items: Tensor) -> Side:
        e = self.encoder(items)
        # Backward gates: the scales do not change the forward pass.
        e_v, e_s = branch_edges(e, self.gradient_scales, self.join_gradients)
        v = self.visual_gate(e_v)
        v = F.leaky_relu(self.visual_map(v), SLOPE)
        q = self.seen_rows(self.item_embedding, items)
        more = {"e": e_s} if self.training else {}
        return Side(torch.cat([q, v], 1), self.item_biases(items), more)

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user, item.scoring(), rows)
        semantic = self.semantic_loss(item["e"], rows.items)
        self.branch_losses = {"visual": loss.detach(), "semantic": semantic.detach()}
        return loss + self.semantic_weight * semantic, norm

    def semantic_loss(self, e: Tensor, items: Tensor) -> Tensor:
        """L_sem of distinct items [m] with e [m, D]; zero if none has a label."""
        known = self.labelled[items]
        if not bool(known.any()):
            return e.sum() * 0.0
        logits = self.head(self.semantic_gate(e[known]))
        weight = logits.new_tensor(self.positive_weight)
        labels = self.token_labels(items[known])
        each = F.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=weight, reduction="none"
        )
        return self.batch.item_mean(each, items[known], self.labelled)

    def token_labels(self, items: Tensor) -> Tensor:
        """Multi-hot annotation tokens [m, K] of items [m]; column k - 1 is token k."""
        tokens = self.tokens[items]
        labels = torch.zeros(len(items), self.head.n_tokens + 1, device=tokens.device)
        return labels.scatter_(1, tokens, 1.0)[:, 1:]

    def pretrain_loss(self, interaction: Interaction) -> Tensor:
        """L_sem plus L_rec of the ids only (MF), which share no parameters."""
        user, item, rows = self.sides(interaction)
        user, item = (side.moved(side.vector[:, : self.size]) for side in (user, item))
        return self.ranking_loss(user, item, rows)


class TokenHead(nn.Module):
    """z = W_t c + b.

    Args:
        content_size: D of c.
        n_tokens: K.
        gain: Initial standard deviation of the logits, for c of length 1.
    """

    def __init__(self, content_size: int, n_tokens: int, gain: float) -> None:
        super().__init__()
        self.content_size, self.n_tokens, self.gain = content_size, n_tokens, gain
        self.map = unit_linear(content_size, n_tokens, gain, bias=False)  # W_t, or A
        self.vectors: nn.Parameter | None = None  # V, if W_t = V A
        self.bias = nn.Parameter(torch.zeros(n_tokens))

    def use_vectors(self, vectors: Tensor) -> None:
        """Second prior knowledge: W_t = V A, V starting as word vectors [K, w] of length 1.

        Rows of zeros (tokens without a vector) start at random.
        """
        known = vectors.any(1, keepdim=True)
        random = torch.randn_like(vectors)
        self.vectors = nn.Parameter(F.normalize(torch.where(known, vectors, random)))
        self.map = unit_linear(self.content_size, vectors.shape[1], self.gain, bias=False)

    def use_frequencies(self, labels: Tensor) -> None:
        """First prior knowledge: b starts at the log odds of each token in labels [n, K]."""
        # Half an item is added on both sides, so that all odds are finite.
        present = labels.sum(0) + 0.5
        with torch.no_grad():
            self.bias.copy_(torch.log(present / (len(labels) + 1.0 - present)))

    def forward(self, c: Tensor) -> Tensor:
        """c [m, D] -> logits [m, K]."""
        z = self.map(c)
        return (z if self.vectors is None else z @ self.vectors.T) + self.bias


def read_word_vectors(path: Path, names: list[str]) -> Tensor:
    """Vectors [K, w] of the named tokens from a text file, zeros for tokens that it lacks.

    Each line has a token and its numbers, as in GloVe's files.

    Raises:
        DataError: The file is missing or malformed, or has none of the tokens.
    """
    index = {name: k for k, name in enumerate(names)}
    found: dict[int, list[float]] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                number += 1
                token, *cells = line.rstrip().split(" ")
                if token in index:
                    found[index[token]] = [float(cell) for cell in cells]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: word_vectors cannot be read: {error}") from error
    except ValueError:
        raise DataError(f"{path}: line {number} is not a token and its numbers") from None
    if not found:
        raise DataError(f"{path}: has none of the {len(names)} annotation tokens")
    widths = sorted({len(row) for row in found.values()})
    rows = torch.zeros(len(names), widths[-1])
    if len(widths) > 1 or not widths[0]:
        raise DataError(f"{path}: vectors have different lengths: {widths}")
    for k, row in found.items():
        rows[k] = torch.tensor(row)
    if not bool(torch.isfinite(rows).all()):
        raise DataError(f"{path}: word_vectors has numbers that are not finite")
    return rows
