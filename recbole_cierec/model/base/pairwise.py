"""Base of models whose item vector depends on the user, so that every pair is computed by itself.

Such a model states :meth:`PairwiseRecommender.meet` once, for tensors whose leading dimensions
broadcast. Aligned pairs [B], a batch against shared negatives [B, N], users against candidates of
their own [B, C] and users against all items [B, I] are then the same code; all but the first two,
which the batch bounds, in blocks of bounded memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_cierec.model.base.ranking import BLOCK_BYTES, CACHE_BYTES
from recbole_cierec.model.base.visual_recommender import Side, VisualRecommender, take

ITEMS_AT_ONCE = 4096  # of a block, so that what is made of each item is bounded too
# Candidates are picked from all items where there are more than so many times as many.
PICK_RATIO = 2


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension among the true entries of ``mask``; zeros where none is."""
    logits = logits.masked_fill(~mask, -torch.inf)
    # A row without any true entry has the maximum -inf, and -inf - -inf is no number.
    top = logits.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    shares = (logits - top).exp()
    return shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)


class PairwiseRecommender(VisualRecommender):
    """Sub-classes set ``pair_width``: the floats of their largest tensor over pairs."""

    def meet(self, user: Side, item: Side) -> tuple[Tensor, Tensor]:
        """The scores without biases [...] and the user's view of the items [..., d].

        Leading dimensions of the two sides broadcast: [B] with [B], [B, 1] with [N] or [B, C].
        """
        raise NotImplementedError

    def pair_parts(self, user: Side, item: Side) -> Side:
        score, vector = self.meet(user, item)
        return {
            "score": score + user["bias"] + item["bias"],
            "norm": vector.square().sum(-1) + item["bias"].square(),
        }

    def block_scores(self, user: Side, item: Side) -> Tensor:
        pairs = max(1, _block_bytes(item) // (4 * self.pair_width))
        n_items = len(item["bias"])
        step = min(n_items, pairs, ITEMS_AT_ONCE)
        users = _parts(user, max(1, pairs // step))
        rows = [
            torch.cat([self.shared_parts(u, i)["score"] for i in _parts(item, step)], 1)
            for u in users
        ]
        return torch.cat(rows)

    def list_scores(self, user: Side, item: Side, items: Tensor) -> Tensor:
        n_users, n_candidates = items.shape
        if len(item["bias"]) <= PICK_RATIO * n_candidates:
            return self.block_scores(user, item).gather(1, items)
        step = max(1, self._pairs_at_once(item) // n_candidates)
        scores = []
        for rows in torch.arange(n_users, device=items.device).split(step):
            one = {name: value.unsqueeze(1) for name, value in take(user, rows).items()}
            scores.append(self.pair_parts(one, take(item, items[rows]))["score"])
        return torch.cat(scores)

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Scores [B] of pairs."""
        step = self._pairs_at_once(self.all_items())
        blocks = [interaction[k : k + step] for k in range(0, len(interaction), step)]
        return torch.cat([super(PairwiseRecommender, self).predict(b) for b in blocks])

    def _pairs_at_once(self, item: Side) -> int:
        """Where each pair takes a copy of what is kept of its item."""
        floats = self.pair_width + sum(value[:1].numel() for value in item.values())
        return max(1, _block_bytes(item) // (4 * floats))


def _block_bytes(item: Side) -> int:
    """Of the largest temporary: a processor is faster where it stays in the cache."""
    return BLOCK_BYTES if item["bias"].is_cuda else min(BLOCK_BYTES, 4 * CACHE_BYTES)


def _parts(side: Side, step: int) -> list[Side]:
    """Consecutive rows of a side, at most ``step`` in each part; views, no copies."""
    total = len(next(iter(side.values())))
    return [{k: v[at : at + step] for k, v in side.items()} for at in range(0, total, step)]
