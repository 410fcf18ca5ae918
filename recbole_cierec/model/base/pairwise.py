"""Base of models whose item vector depends on the user, so that pairs share no computation.

Such a model defines :meth:`PairwiseRecommender.user_view`, for tensors whose leading dimensions
broadcast. The same code then scores aligned pairs [B], a batch against shared negatives [B, N],
users against their candidates [B, C] and users against all items [B, I]. The last two run in blocks
of bounded memory; the batch size bounds the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_cierec.model.base.scoring import BLOCK_BYTES, CACHE_BYTES
from recbole_cierec.model.base.side import PairScores, Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction

ITEMS_AT_ONCE = 4096  # items of a block: bounds the tensors over items
# Candidates are picked from the scores of all items up to this many items per candidate.
PICK_RATIO = 2


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the true entries of ``mask`` in the last dimension; zeros without any."""
    logits = logits.masked_fill(~mask, -torch.inf)
    # Without a true entry the maximum is -inf, and -inf - -inf is nan.
    top = logits.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    shares = (logits - top).exp()
    return shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)


class PairwiseRecommender(VisualRecommender):
    """Subclasses set ``pair_width``: the floats of their largest tensor over pairs."""

    has_biases = True

    def user_view(self, user: Side, item: Side) -> tuple[Tensor, Tensor]:
        """The scores without biases [...] and the item vectors as the users see them [..., d].

        Leading dimensions of the two sides broadcast: [B] with [B], [B, 1] with [N] or [B, C].
        """
        raise NotImplementedError

    def pair_scores(self, user: Side, item: Side) -> PairScores:
        score, vector = self.user_view(user, item)
        norm = vector.square().sum(-1) + item.required_bias.square()
        return PairScores(score + user.required_bias + item.required_bias, norm)

    def block_scores(self, user: Side, item: Side) -> Tensor:
        pairs = max(1, _block_bytes(item) // (4 * self.pair_width))
        step = min(len(item), pairs, ITEMS_AT_ONCE)
        rows = [
            torch.cat([self.shared_scores(u, i).score for i in item.blocks(step)], 1)
            for u in user.blocks(max(1, pairs // step))
        ]
        return torch.cat(rows)

    def list_scores(self, user: Side, item: Side, items: Tensor) -> Tensor:
        n_users, n_candidates = items.shape
        if len(item) <= PICK_RATIO * n_candidates:
            return self.block_scores(user, item).gather(1, items)
        step = max(1, self._pairs_at_once(item) // n_candidates)
        scores = []
        for rows in torch.arange(n_users, device=items.device).split(step):
            one = user.take(rows).map(lambda value: value.unsqueeze(1))
            scores.append(self.pair_scores(one, item.take(items[rows])).score)
        return torch.cat(scores)

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of pairs."""
        step = self._pairs_at_once(self.all_items())
        blocks = [interaction[k : k + step] for k in range(0, len(interaction), step)]
        return torch.cat([super(PairwiseRecommender, self).predict(b) for b in blocks])

    def _pairs_at_once(self, item: Side) -> int:
        """Pairs per block if each has a copy of the tensors of its item."""
        floats = self.pair_width + sum(value[:1].numel() for value in item.tensors())
        return max(1, _block_bytes(item) // (4 * floats))


def _block_bytes(item: Side) -> int:
    """Size of the largest temporary: a CPU is faster if it fits into the cache."""
    return BLOCK_BYTES if item.vector.is_cuda else min(BLOCK_BYTES, 4 * CACHE_BYTES)
