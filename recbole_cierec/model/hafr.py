"""HAFR: Hierarchical Attention for Food Recommendation (Gao et al., IEEE TMM 2020,
arXiv 1810.05032), and HAFR_non_i, the variant in the tables of PiNet and CIERec.

    m_i    = W_m e_i + b_m                                          the picture
    a_k    = v_a . tanh(W_a [c_k ; p_u ; m_i] + b_a)                for each ingredient k of i
    g_ui   = sum over k of softmax_k(a) c_k                         the ingredients, weighted for u
    t_z    = v_t . tanh(W_t [p_u ; z] + b_t)                        for z in q_i, g_ui, m_i
    x_ui   = sum over z of softmax_z(t) z                           the item, weighted for u
    y_ui   = alpha + beta_u + beta_i + h . ReLU(dropout(W_h [p_u ; x_ui ; p_u * x_ui] + b_h))

Ingredients here are annotation tokens. HAFR also reads the tokens at inference. There is no public
code of *HAFR-non-i*, and its name has two meanings (key ``non_i_reading``). With ``information``
x_ui attends only to q_i and m_i, as in PiNet's setting, which has only pictures at test time. With
``attention`` g_i is the plain mean of the c_k: tokens are read without attention.

Choices: the biases are those of CIERec's Eq. 8, as in other models here. q_i of an item without
training interactions is zero, as in the authors' code, and remains one of the three components. A
component that an item lacks (no picture, no tokens) is left out of the softmax. Loss and L2 are
those of the other models (the authors use BPR, and L2 of p, q, c and the maps).

The authors' code differs from their equations: it reshapes the stacked logits of the components so
that the weights of an item come from other rows of the batch. Here rows are independent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base.layers import added, unit_linear
from recbole_cierec.model.base.pairwise import PairwiseRecommender, masked_softmax
from recbole_cierec.model.base.side import Side

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.content import ItemContent
    from recbole_cierec.data.dataset import VisualDataset


class HAFR(PairwiseRecommender):
    """Ids, pictures and annotations at training and inference."""

    unseen_items = "content"
    use_tokens = True  # whether g_ui is a component
    attend_tokens = True  # g_ui by attention; otherwise a mean
    draws_per_row = True  # dropout of pairs

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        d, width = self.size, config["attention_size"]
        self.user_embedding = self.table(self.n_users, d)  # p_u
        self.item_embedding = self.table(self.n_items, d)  # q_i
        self.encoder = self.item_encoder(config, dataset)  # e_i
        gain = config["content_init_gain"]
        self.image_map = unit_linear(self.encoder.out_size, d, gain)  # W_m
        self.pair_width = max(d, width)
        if self.use_tokens:
            with self.random_stream("tokens"):
                self._set_tokens(dataset.content, d, width)
        self.component_user = nn.Linear(d, width, bias=False)  # the half of W_t for p_u
        self.component_item = _unbiased(d, width)  # the half for z, and b_t
        self.component_weight = _ones(width)  # v_t
        self.hidden = _unbiased(3 * d, d)  # W_h
        self.output = nn.Linear(d, 1, bias=False)  # h
        self.dropout = config["dropout_prob"]

    def _set_tokens(self, content: ItemContent, d: int, width: int) -> None:
        self.register_buffer("tokens", content.tokens, persistent=False)
        self.token_embedding = self.token_table(len(content.token_names), d)  # c_k
        if self.attend_tokens:
            self.token_key = nn.Linear(d, width, bias=False)  # the third of W_a for c_k
            self.token_user = nn.Linear(d, width, bias=False)  # the third for p_u
            self.token_image = _unbiased(d, width)  # the third for m_i, and b_a
            self.token_weight = _ones(width)  # v_a
            self.pair_width = max(self.pair_width, content.tokens.shape[1] * width)

    # ----------------------------------------------------------------------- the sides

    def user_side(self, users: Tensor) -> Side:
        p = self.user_embedding(users)
        more = {"key": self.component_user(p)}
        if self.use_tokens and self.attend_tokens:
            more["token_key"] = self.token_user(p)
        return Side(p, self.user_biases(users), more)

    def item_side(self, items: Tensor) -> Side:
        pictured = self.encoder.has_picture[items]
        m = self.image_map(self.encoder(items)) * pictured.unsqueeze(1)
        q = self.seen_rows(self.item_embedding, items)
        more = {
            "m": m,
            "q_key": self.component_item(q),  # once per item, not per pair
            "m_key": self.component_item(m),
            "pictured": pictured,
        }
        if self.use_tokens:
            more["tokens"] = self.tokens[items]
            if self.attend_tokens:
                more["token_key"] = self.token_image(m)
        return Side(q, self.item_biases(items), more)

    # ----------------------------------------------------------------------- the pairs

    def user_view(self, user: Side, item: Side) -> tuple[Tensor, Tensor]:
        x = self._view(user, item)
        p = user.vector
        of_p, of_x, of_both = self.hidden.weight.chunk(3, 1)
        hidden = F.linear(p, of_p, self.hidden.bias) + F.linear(x, of_x) + F.linear(p * x, of_both)
        hidden = F.relu(F.dropout(hidden, self.dropout, self.training))
        return self.output(hidden).squeeze(-1), x

    def _view(self, user: Side, item: Side) -> Tensor:
        """x_ui [..., d]."""
        components, keys = [item.vector, item["m"]], [item["q_key"], item["m_key"]]
        known = [torch.ones_like(item["pictured"]), item["pictured"]]
        if self.use_tokens:
            components.append(self._ingredients(user, item))
            keys.append(self.component_item(components[-1]))
            known.append(item["tokens"][..., 0] > 0)
        logits = [self.component_weight(torch.tanh(user["key"] + key)).squeeze(-1) for key in keys]
        shares = masked_softmax(torch.stack(logits, -1), torch.stack(known, -1))  # [..., 2 or 3]
        weighted = zip(shares.unbind(-1), components, strict=True)
        return added(share.unsqueeze(-1) * z for share, z in weighted)

    def _ingredients(self, user: Side, item: Side) -> Tensor:
        """g_ui [..., d]; without attention the mean, the same for all users."""
        tokens = item["tokens"]  # [..., L]
        real = tokens > 0
        vectors = self.token_embedding(tokens)  # [..., L, d]
        if not self.attend_tokens:
            count = real.sum(-1, keepdim=True).clamp(min=1)
            return (vectors * real.unsqueeze(-1)).sum(-2) / count
        pair = user["token_key"] + item["token_key"]  # [..., a]
        # W_a c_k once per token of the vocabulary, not per pair.
        keys = F.embedding(tokens, self.token_key(self.token_embedding.weight))
        logits = self.token_weight(torch.tanh(keys + pair.unsqueeze(-2))).squeeze(-1)
        return torch.einsum("...l,...ld->...d", masked_softmax(logits, real), vectors)


class HAFR_non_i(HAFR):
    """HAFR without ingredients; by default it reads no annotations."""

    unseen_items = "picture"
    attend_tokens = False

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        self.use_tokens = config["non_i_reading"] == "attention"
        super().__init__(config, dataset)


def _unbiased(in_size: int, out_size: int) -> nn.Linear:
    """A linear layer whose bias starts at zero; the authors' start in wide normals."""
    layer = nn.Linear(in_size, out_size)
    nn.init.zeros_(layer.bias)
    return layer


def _ones(width: int) -> nn.Linear:
    """v . x with v starting at ones, as in the authors' code."""
    layer = nn.Linear(width, 1, bias=False)
    nn.init.ones_(layer.weight)
    return layer
