"""AlignRec's content encoder: attention over picture and annotation, trained by mask and predict.

    input  = [summary ; T image tokens, linear in the picture's features ; annotation tokens]
    m_i    = LayerNorm(mean of the visible rows after the blocks)                           [w]

The mean and not the summary's row alone: the blocks add to their input, so the mean keeps what is
seen of an item beside what serves to guess; on the demo data it makes far better neighbours.
Annotations are sets, so nothing says where a token stood, and a hidden one is left out rather than
replaced by a mask: the row of a mask would know no more than m_i, which makes the guess, and an
item that lacks its picture or its annotation looks as it did in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.model.base.layers import unit_linear


class AttentionBlock(nn.Module):
    """Self-attention and a two-layer network, each added to its input after a LayerNorm of it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)  # queries, keys and values
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """x [m, n, w], visible bool [m, n] (who may be looked at) -> [m, n, w]."""
        m, n, width = x.shape
        joined = self.inputs(self.before_attention(x)).view(m, n, 3, self.heads, -1)
        q, k, v = joined.permute(2, 0, 3, 1, 4)  # each [m, heads, n, w / heads]
        mask = visible[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.output(y.transpose(1, 2).reshape(m, n, width))
        return x + self.down(F.gelu(self.up(self.before_network(x))))


class ContentEncoder(nn.Module):
    """m_i and the two losses that train it.

    Args:
        feature_size: D of the picture's features.
        n_tokens: Annotation tokens including padding 0.
        width: w of m_i.
        image_tokens: T, into how many tokens the features are unfolded.
        blocks: Attention blocks.
        heads: Heads of each.
    """

    def __init__(
        self,
        feature_size: int,
        n_tokens: int,
        width: int,
        image_tokens: int = 4,
        blocks: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.image_tokens = image_tokens
        self.summary = nn.Parameter(torch.randn(width))
        self.image_map = unit_linear(feature_size, image_tokens * width, 1.0)
        self.tokens = nn.Embedding(n_tokens, width, padding_idx=0)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.guess_token = nn.Linear(width, n_tokens - 1)
        self.guess_image = nn.Linear(width, feature_size)

    def forward(self, features: Tensor, tokens: Tensor, picture: Tensor) -> Tensor:
        """Items to vectors.

        Args:
            features: [m, D].
            tokens: Annotation token ids [m, L], 0 = none.
            picture: bool [m], whether the features may be looked at.

        Returns:
            m [m, w].
        """
        rows = len(features)
        summary = self.summary.expand(rows, 1, -1)
        image = self.image_map(features).view(rows, self.image_tokens, -1)
        x = torch.cat([summary, image, self.tokens(tokens)], 1)
        always = torch.ones(rows, 1, dtype=torch.bool, device=features.device)
        image_visible = picture.unsqueeze(1).expand(-1, self.image_tokens)
        visible = torch.cat([always, image_visible, tokens > 0], 1)
        for block in self.blocks:
            x = block(x, visible)
        shown = visible.unsqueeze(2)
        return self.norm((x * shown).sum(1) / shown.sum(1))

    def hide(self, tokens: Tensor, picture: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Draw what is hidden: tokens bool [m, L] and pictures bool [m].

        A picture is hidden only where a token stays visible, and a row's tokens only where
        something does: from nothing there is nothing to guess.
        """
        device = tokens.device
        token = (torch.rand(tokens.shape, device=device) < share) & (tokens > 0)
        left = ((tokens > 0) & ~token).any(1)
        image = (torch.rand(len(tokens), device=device) < share) & picture & left
        return token & (left | (picture & ~image)).unsqueeze(1), image

    def losses(
        self, features: Tensor, tokens: Tensor, picture: Tensor, hidden: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What guessing the hidden costs.

        Args:
            features: [m, D].
            tokens: [m, L].
            picture: bool [m].
            hidden: From :meth:`hide`.

        Returns:
            Cross-entropy a hidden token, squared distance a hidden picture; 0 where none is.
        """
        token, image = hidden
        m = self(features, tokens.masked_fill(token, 0), picture & ~image)
        log_p = torch.log_softmax(self.guess_token(m), 1)
        chosen = log_p.gather(1, (tokens - 1).clamp(min=0))  # [m, L]
        token_loss = -(chosen * token).sum() / token.sum().clamp(min=1)
        distance = (self.guess_image(m) - features).square().sum(1)
        return token_loss, (distance * image).sum() / image.sum().clamp(min=1)
