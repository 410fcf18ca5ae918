"""Scores of trained models for pairs, all items and candidate lists, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_cierec.model.base.side import PairScores, Side, joined

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction

BLOCK_BYTES = 64 * 2**20  # largest temporary
CACHE_BYTES = 2**20  # a temporary that should stay in the CPU's cache
ITEM_BLOCK = 4096  # items encoded at a time for ranking
PAIR_BLOCK = 65536  # pairs scored at a time by predict
PAIR_FLOATS = 2**20  # entries of a tensor over pairs, for candidates
SCORE_BLOCK = 2**19  # scores of a block of users, which should stay in the CPU's cache
PRODUCT_ITEMS = 4096  # columns of a matrix product, which should stay in the CPU's cache
DENSE_RATIO = 50  # above this many items per candidate, score candidates individually


class Scoring:
    """Mixin of :class:`~recbole_cierec.model.base.visual_recommender.VisualRecommender`."""

    USER_ID: str
    ITEM_ID: str
    n_items: int
    size: int
    pair_width: int
    seen: Tensor
    seen_users: Tensor
    _all_items: Side | None = None

    def user_side(self, users: Tensor) -> Side:
        raise NotImplementedError

    def item_side(self, items: Tensor) -> Side:
        raise NotImplementedError

    def pair_scores(self, user: Side, item: Side) -> PairScores:
        raise NotImplementedError

    def block_scores(self, user: Side, item: Side) -> Tensor:
        """Scores [B, I] of B users for I items; by default a matrix product."""
        if user.bias is None or item.bias is None:
            return user.vector @ item.vector.T
        scores = _products(item.bias, user.vector, item.vector)
        if not (user.bias.requires_grad or user.bias.is_cuda or bool(user.bias.any())):
            return scores  # zero, as after training by score differences: no pass over the scores
        return scores.add_(user.bias.unsqueeze(1))

    def all_items(self) -> Side:
        """:meth:`item_side` of every item, kept until the model trains or loads again."""
        if self._all_items is None:
            blocks = torch.arange(self.n_items, device=self.seen.device).split(ITEM_BLOCK)
            self._all_items = joined(self.item_side(block) for block in blocks)
        return self._all_items

    def serving_side(self, users: Tensor) -> Side:
        """:meth:`user_side` for ranking: zero tensors for users without a training interaction.

        Their vectors were drawn at random and never trained.
        """
        known = self.seen_users[users]
        return self.user_side(users).map(lambda v: v * known.view(-1, *[1] * (v.dim() - 1)))

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of pairs."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        side = self.all_items()
        scores = [
            self.pair_scores(self.serving_side(u), side.take(i)).score
            for u, i in zip(users.split(PAIR_BLOCK), items.split(PAIR_BLOCK), strict=True)
        ]
        return torch.cat(scores)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores [B * n_items] of users for all items."""
        users = interaction[self.USER_ID]
        return self.block_scores(self.serving_side(users), self.all_items()).reshape(-1)

    @torch.no_grad()
    def candidate_scores(self, interaction: Interaction, items: Tensor) -> Tensor:
        """Scores [B, C] of users for their candidates, item ids [B, C]."""
        users = interaction[self.USER_ID]
        return self.list_scores(self.serving_side(users), self.all_items(), items)

    def list_scores(self, user: Side, item: Side, items: Tensor) -> Tensor:
        """Scores [B, C] of each user for their row of ``items`` [B, C]; ``item`` has all items.

        If scores are matrix products, scoring all items costs less than gathering rows for the
        candidates, unless there are more than ``DENSE_RATIO`` items per candidate.
        """
        n_users, n_items = len(items), len(item)
        if self.pair_width or n_items > DENSE_RATIO * items.shape[1]:
            width = max(self.pair_width, self.size)
            return self._scores_of_pairs(user, item, items, max(1, PAIR_FLOATS // width))
        rows = torch.arange(n_users, device=items.device).split(max(1, SCORE_BLOCK // n_items))
        parts = [self.block_scores(user.take(r), item).gather(1, items[r]) for r in rows]
        return torch.cat(parts)

    def _scores_of_pairs(self, user: Side, item: Side, items: Tensor, step: int) -> Tensor:
        rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        parts = [
            self.pair_scores(user.take(r), item.take(i)).score
            for r, i in zip(rows.split(step), items.reshape(-1).split(step), strict=True)
        ]
        return torch.cat(parts).view(items.shape)

    def forget_items(self) -> None:
        """Drop the cached item side, before the model changes."""
        self._all_items = None


def _products(bias: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """``bias + users @ items.T`` [B, I].

    On a CPU a product with many columns takes up to twice the time of the same product in parts,
    which have the same bits.
    """
    if items.is_cuda or len(items) <= PRODUCT_ITEMS or torch.is_grad_enabled():
        return torch.addmm(bias, users, items.T)
    scores = users.new_empty(len(users), len(items))
    parts = (x.split(PRODUCT_ITEMS) for x in (bias, items))
    for b, part, out in zip(*parts, scores.split(PRODUCT_ITEMS, dim=1), strict=True):
        torch.addmm(b, users, part.T, out=out)
    return scores
