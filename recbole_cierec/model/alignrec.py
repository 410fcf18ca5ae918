"""AlignRec: alignment within contents, of content and id, of users and items (Liu et al., CIKM
2024, arXiv 2403.12384), with a small content encoder in place of BEiT-3.

    m_i          content vector of picture and annotation, by attention   (ContentEncoder below)
    h_i          = q_i * sigma(W_g(W_m m_i))                  the id, gated by the content
    content part = A h for items (A: nearest items by m), R (A h) for users
    id part      = LightGCN: mean of layers 0 to n over the interactions R
    final        = id part + content part;   y_ui = p*_u . q*_i
    L            = L_rec + align_weight * (InfoNCE of the two parts, users and items)        CCA
                 + cosine_weight * mean (1 - cos(p*_u, q*_i))                                UIA
                 + similarity_weight * |C C' - M M'|_F / n,  C content parts, M unit m_i     REG

Phase 1 (inter-content alignment, ICA) trains only the encoder, on the items: some tokens or the
picture are hidden and predicted from the rest. With ``features``, each further modality has T input
tokens as the picture has, and is hidden and predicted as the picture is. The vectors are then
centred, scaled to length 1 and frozen, and A is built from them once. R is D_u^-1/2 R D_i^-1/2; A
has the k nearest items and the item itself, normalised in the same way by its row sums. All graph
products are sparse.

Reconstruction from a summary of the paper and from public code: a small encoder over cached
features and annotation tokens replaces BEiT-3 (call results "AlignRec, own content encoder"), and
m_i is frozen in phase 2, where the public code continues to train it. InfoNCE uses the distinct
users and positive items of a batch: an item that occurs twice would be its own negative. No biases,
as in the paper.

The paper does not treat unseen items. Here their untrained ids count as zero in the id part. In h_i
the mean id of their neighbours replaces the id, under the gate of their content. Only items with a
training interaction are neighbours, so the graph does not spread untrained ids. An unseen item
without picture and annotation has the score 0 for all users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from logging import getLogger
from typing import TYPE_CHECKING

import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.given_modalities import GivenModalities
from recbole_cierec.model.base.graph_recommender import (
    GraphRecommender,
    Parts,
    info_nce,
    interaction_graphs,
)
from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.model.base.scoring import ITEM_BLOCK
from recbole_cierec.model.base.side import Rows, Side
from recbole_cierec.model.base.two_phases import TwoPhases
from recbole_cierec.vision.item_pictures import pictures_of

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

    from recbole_cierec.data.content import ItemContent
    from recbole_cierec.data.dataset import VisualDataset


Given = dict[str, tuple[Tensor, Tensor]]  # features [m, D_m] and bool [m], by modality
Hidden = tuple[Tensor, Tensor, dict[str, Tensor]]  # tokens, pictures, given modalities


class AlignRec(TwoPhases, GraphRecommender):
    """Ids, pictures and annotations at training and inference."""

    pretrained_parts = ("content_encoder",)
    reads_features = True
    draws_per_row = True  # phase 1 draws the hidden tokens per item

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        super().__init__(config, dataset)
        if config["encoder_training"] != "frozen":
            getLogger().warning(
                "AlignRec encodes cached features by its own content encoder; encoder_training: "
                f"{config['encoder_training']} has no effect"
            )
        d, width = self.size, config["content_size"]
        for key in ("align_weight", "align_temperature", "cosine_weight", "similarity_weight"):
            setattr(self, key, config[key])
        for key in ("id_layers", "content_layers", "neighbours_count", "mask_share"):
            setattr(self, key, config[key])
        self.image_weight = config["image_weight"]
        self.pretrain_learning_rate = config["pretrain_learning_rate"]
        self.user_embedding = self.table(self.n_users, d)  # p_u
        self.item_embedding = self.table(self.n_items, d)  # q_i
        self.content_map = unit_linear(width, d, config["content_init_gain"])  # W_m
        self.gate_map = nn.Linear(d, d)  # W_g
        self._set_content(config, dataset.content, width)
        self.register_load_state_dict_post_hook(lambda module, _: module.drop_graphs())

    def _set_content(self, config: Config, content: ItemContent, width: int) -> None:
        pictures = pictures_of(content)
        self.register_buffer("features", pictures.features.clone(), persistent=False)
        self.register_buffer("tokens", content.tokens.clone(), persistent=False)
        self.register_buffer("has_picture", pictures.has_picture.clone(), persistent=False)
        self.given = GivenModalities(content)  # f_m
        filled = pictures.has_picture | content.has_annotation
        for name in self.given.sizes:
            filled = filled | self.given.has(name)
        self.register_buffer("filled", filled, persistent=False)
        heads = config["attention_heads"]
        if width % heads:
            raise ConfigError(f"content_size {width} is not a multiple of attention_heads {heads}")
        shape = config["image_tokens"], config["attention_blocks"], heads
        n_tokens = len(content.token_names)
        with self.random_stream("content_encoder"):
            self.content_encoder = ContentEncoder(
                self.features.shape[1], n_tokens, width, *shape, given=self.given.sizes
            )
        # Results of phase 1 are stored with the weights, so a checkpoint is complete.
        self.register_buffer("content", torch.zeros(self.n_items, width))  # unit m_i
        none = torch.full((self.n_items, self.neighbours_count), -1, dtype=torch.long)
        self.register_buffer("neighbours", none)
        self.register_buffer("content_ready", torch.tensor(False))

    # -------------------------------------------------------- phase 1: content only

    def pretrain_items(self) -> Tensor:
        return (self.filled & (self.seen > 0)).nonzero().squeeze(1)

    def pretrain_loss(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """ICA on a batch of items: the losses [] of hidden tokens and of hidden pictures."""
        items = interaction[self.ITEM_ID]
        encoder, (features, tokens, picture, given) = self.content_encoder, self._content_of(items)
        hidden = encoder.hide(tokens, picture, self.mask_share, given)
        token, image = encoder.losses(features, tokens, picture, hidden, given)
        return token, self.image_weight * image

    def _content_of(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Given]:
        """Features of pictures, tokens, whether there is a picture, and given modalities."""
        given = {name: (f, self.given.has(name)[items]) for name, f in self.given(items).items()}
        return self.features[items], self.tokens[items], self.has_picture[items], given

    def pretrain_groups(self) -> list[dict]:
        parameters = list(self.content_encoder.parameters())
        return [{"params": parameters, "lr": self.pretrain_learning_rate}]

    @torch.no_grad()
    def end_pretraining(self) -> None:
        """Freeze the content vectors and find the neighbours."""
        unit = self._unit_vectors()
        self.content.copy_(unit)
        self.neighbours.copy_(graphs.nearest(unit, self.seen > 0, self.neighbours_count))
        self.content_ready.fill_(True)
        self.drop_graphs()
        self.forget_items()

    @torch.no_grad()
    def add_items(self, first: int) -> None:
        self.content[first:] = self._unit_vectors()[first:]
        near = graphs.nearest(self.content, self.seen > 0, self.neighbours_count, first)
        self.neighbours[first:] = near[first:]
        self.drop_graphs()
        self.forget_items()

    def _unit_vectors(self) -> Tensor:
        """m_i of all items [n_items, w], centred and of length 1; zero without content."""
        blocks = torch.arange(self.n_items, device=self.seen.device).split(ITEM_BLOCK)
        vectors = torch.cat([self.content_encoder(*self._content_of(b)) for b in blocks])
        trained = self.seen > 0
        # The vectors share a large common component, which would make all items similar.
        mean = vectors[trained & self.filled].mean(0) if bool((trained & self.filled).any()) else 0
        return F.normalize(vectors - mean) * self.filled.unsqueeze(1)

    # ------------------------------------------------------------ phase 2: the graphs

    def matrices(self) -> Iterator[tuple[str, scipy.sparse.spmatrix]]:
        if not bool(self.content_ready):
            self.end_pretraining()
        yield from interaction_graphs(self.interactions)
        near = graphs.neighbour_matrix(self.neighbours.cpu().numpy())
        own = near + scipy.sparse.eye(self.n_items, format="csr")
        counts = graphs.degrees(own, 1)
        yield "near", graphs.normalised(own, counts, counts)
        # Ids of seen items; for unseen items the mean id of their neighbours.
        seen = self.seen.double().cpu().numpy()
        share = (1.0 - seen) / graphs.degrees(near, 1).clip(min=1.0)
        yield "ids", scipy.sparse.diags(seen) + scipy.sparse.diags(share) @ near

    def parts(self) -> Parts:
        """Id part, content part and their sum, for all users and all items."""
        graph = self.graph_tensors()
        p, q = self.user_embedding.weight, self.item_embedding.weight * self.seen.unsqueeze(1)
        ids = graphs.light_gcn(graph["users"], graph["items"], p, q, self.id_layers)
        gate = torch.sigmoid(self.gate_map(self.content_map(self.content)))
        h = graphs.product(graph["ids"], self.item_embedding.weight) * gate
        for _ in range(self.content_layers):
            h = graphs.product(graph["near"], h)
        content = graphs.product(graph["users"], h), h
        users, items = (
            Side(a + b, more={"id": a, "content": b}) for a, b in zip(ids, content, strict=True)
        )
        return users, items

    # ------------------------------------------------------------------ phase 2: losses

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user.scoring(), item.scoring(), rows)
        chosen = rows.positive.unique()
        alike = info_nce(user["content"], user["id"], self.align_temperature)
        content = item["content"][chosen]
        alike = alike + info_nce(content, item["id"][chosen], self.align_temperature)
        pairs = user.vector[rows.user], item.vector[rows.positive]
        apart = (1.0 - F.cosine_similarity(*pairs)).mean()
        m = self.content[rows.items[chosen]]
        off = torch.linalg.vector_norm(content @ content.T - m @ m.T) / len(chosen)
        loss = loss + self.align_weight * alike + self.cosine_weight * apart
        return loss + self.similarity_weight * off, norm

    def content_weights(self) -> list[Tensor]:
        return [self.content_map.weight, self.gate_map.weight]

    def parameter_kind(self, name: str) -> str | None:
        """Only phase 1 trains the encoder."""
        return None if name.startswith("content_encoder.") else super().parameter_kind(name)


class AttentionBlock(nn.Module):
    """Pre-norm transformer block: self-attention and a two-layer network, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)  # queries, keys and values
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """x [m, n, w], visible bool [m, n] (attended positions) -> [m, n, w]."""
        m, n, width = x.shape
        joined = self.inputs(self.before_attention(x)).view(m, n, 3, self.heads, -1)
        q, k, v = joined.permute(2, 0, 3, 1, 4)  # each [m, heads, n, w / heads]
        mask = visible[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.output(y.transpose(1, 2).reshape(m, n, width))
        return x + self.down(F.gelu(self.up(self.before_network(x))))


class ContentEncoder(nn.Module):
    """m_i and the two losses that train it: attention over picture and annotation tokens.

        input  = [summary ; T image tokens, linear in the picture's features ; annotation tokens]
        m_i    = LayerNorm(mean of the visible rows after the blocks)                       [w]

    m_i is the mean, not the summary's row: blocks are residual, so the mean keeps the visible
    content together with what predicts the hidden one. On the demo data it gives far better
    neighbours. Annotations are sets, so tokens have no positions, and hidden tokens are left out
    instead of masked: the row of a mask would know no more than m_i, which makes the prediction.
    Items without picture or annotation then look as they did in training.

    Args:
        feature_size: D of the picture's features.
        n_tokens: Annotation tokens including padding 0.
        width: w of m_i.
        image_tokens: T, the number of tokens made from the features.
        blocks: Number of attention blocks.
        heads: Attention heads per block.
        given: D_m of each further modality.
    """

    def __init__(
        self,
        feature_size: int,
        n_tokens: int,
        width: int,
        image_tokens: int = 4,
        blocks: int = 1,
        heads: int = 4,
        given: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.image_tokens = image_tokens
        self.summary = nn.Parameter(torch.randn(width))
        self.image_map = unit_linear(feature_size, image_tokens * width, 1.0)
        self.tokens = nn.Embedding(n_tokens, width, padding_idx=0)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.guess_token = nn.Linear(width, max(1, n_tokens - 1))  # 1: data without annotations
        self.guess_image = nn.Linear(width, feature_size)
        self.given_maps, self.guess_given = nn.ModuleDict(), nn.ModuleDict()
        for name, size in (given or {}).items():
            self.given_maps[name] = unit_linear(size, image_tokens * width, 1.0)
            self.guess_given[name] = nn.Linear(width, size)

    def forward(
        self, features: Tensor, tokens: Tensor, picture: Tensor, given: Given | None = None
    ) -> Tensor:
        """Items to vectors.

        Args:
            features: [m, D].
            tokens: Annotation token ids [m, L], 0 = none.
            picture: bool [m], whether the features are visible.
            given: f_m [m, D_m] of each further modality, and bool [m], whether it is visible.

        Returns:
            m [m, w].
        """
        rows = len(features)
        summary = self.summary.expand(rows, 1, -1)
        maps: list[tuple[nn.Module, Tensor, Tensor]] = [(self.image_map, features, picture)]
        maps += [(self.given_maps[name], *one) for name, one in (given or {}).items()]
        dense = [to_tokens(f).view(rows, self.image_tokens, -1) for to_tokens, f, _ in maps]
        x = torch.cat([summary, *dense, self.tokens(tokens)], 1)
        always = torch.ones(rows, 1, dtype=torch.bool, device=features.device)
        shown_parts = [has.unsqueeze(1).expand(-1, self.image_tokens) for _, _, has in maps]
        visible = torch.cat([always, *shown_parts, tokens > 0], 1)
        for block in self.blocks:
            x = block(x, visible)
        shown = visible.unsqueeze(2)
        return self.norm((x * shown).sum(1) / shown.sum(1))

    def hide(
        self, tokens: Tensor, picture: Tensor, share: float, given: Given | None = None
    ) -> Hidden:
        """Draw the hidden tokens, bool [m, L], and the hidden pictures and modalities, bool [m].

        A part of a row is hidden only if another stays visible: a picture if a token or a given
        modality does, the tokens if one of them, the picture or a modality does.
        """
        device = tokens.device
        others = {name: has for name, (_, has) in (given or {}).items()}
        token = (torch.rand(tokens.shape, device=device) < share) & (tokens > 0)
        left = ((tokens > 0) & ~token).any(1)
        for has in others.values():
            left = left | has
        image = (torch.rand(len(tokens), device=device) < share) & picture & left
        token = token & (left | (picture & ~image)).unsqueeze(1)
        hidden: dict[str, Tensor] = {}
        for name, has in others.items():
            rest = ((tokens > 0) & ~token).any(1) | (picture & ~image)
            for other in others.keys() - {name}:
                rest = rest | (others[other] & ~hidden.get(other, torch.zeros_like(has)))
            hidden[name] = (torch.rand(len(tokens), device=device) < share) & has & rest
        return token, image, hidden

    def losses(
        self,
        features: Tensor,
        tokens: Tensor,
        picture: Tensor,
        hidden: Hidden,
        given: Given | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Losses of predicting hidden tokens and pictures.

        Args:
            features: [m, D].
            tokens: [m, L].
            picture: bool [m].
            hidden: From :meth:`hide`.
            given: As in :meth:`forward`.

        Returns:
            Mean cross-entropy per hidden token [] and squared distance per hidden picture [], 0
            without any; the distances of hidden modalities are added to that of pictures.
        """
        token, image, without = hidden
        left = {name: (f, has & ~without[name]) for name, (f, has) in (given or {}).items()}
        m = self(features, tokens.masked_fill(token, 0), picture & ~image, left)
        log_p = torch.log_softmax(self.guess_token(m), 1)
        chosen = log_p.gather(1, (tokens - 1).clamp(min=0))  # [m, L]
        token_loss = -(chosen * token).sum() / token.sum().clamp(min=1)
        loss = _distance(self.guess_image(m), features, image)
        for name, (f, _) in (given or {}).items():
            loss = loss + _distance(self.guess_given[name](m), f, without[name])
        return token_loss, loss


def _distance(guess: Tensor, features: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared distance [] of the hidden rows; 0 without any."""
    distance = (guess - features).square().sum(1)
    return (distance * hidden).sum() / hidden.sum().clamp(min=1)
