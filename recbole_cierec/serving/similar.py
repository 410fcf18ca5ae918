"""Known items that are like a known one: to the model, by picture, or by annotations."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.serving.new_items import BY_ANNOTATIONS, BY_PICTURE
from recbole_cierec.serving.ranking import top_items
from recbole_cierec.serving.trained import TrainedModel
from recbole_cierec.vision.item_pictures import pictures_of

BY_MODEL = "model"
KINDS = (BY_MODEL, BY_PICTURE, BY_ANNOTATIONS)
MOST_USERS, TASTE_BYTES = 512, 64 * 2**20  # of the scores that items are compared by


class Neighbours:
    """Nearest items of a trained model's items; what they need is computed once, when first asked.

    Args:
        trained: The model.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self._trained = trained

    def nearest(self, item: int, by: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The items most like one, without itself, the most similar first.

        Args:
            item: Internal number.
            by: ``model``: correlation, over users, of the items' scores less the mean of each user;
                ``picture``: cosine of the features of their pictures; ``annotations``: common
                tokens by all tokens of the two (Jaccard).
            count: At most so many; of ``picture`` and ``annotations``, items that have none are
                left out.

        Returns:
            (values, internal numbers).

        Raises:
            ConfigError: The model has nothing to compare in this way.
            DataError: The item has no picture or no annotations.
        """
        if by == BY_ANNOTATIONS:
            own = self._tokens[0][item]
            if not bool(own.any()):
                raise DataError(f"'{self._trained.item_ids[item]}' has no annotations")
            values = self._common_tokens(own)
        else:
            vectors = self._tastes if by == BY_MODEL else self._features
            if not bool(vectors[item].any()):
                what = "usable picture" if by == BY_PICTURE else "score that depends on the user"
                raise DataError(f"'{self._trained.item_ids[item]}' has no {what}")
            values = vectors @ vectors[item]
            values[~vectors.any(1)] = -torch.inf
        values[item] = -torch.inf
        return self._best(values, count)

    def nearest_to_words(self, words: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """The items with the most annotations in common with some words; as :meth:`nearest`.

        Args:
            words: Annotation tokens; unknown ones are ignored.
            count: At most so many.
        """
        numbers = {word: k for k, word in enumerate(self._trained.dataset.content.token_names)}
        own = torch.tensor([numbers[word] for word in words if word in numbers], dtype=torch.long)
        return self._best(self._common_tokens(own), count)

    @staticmethod
    def _best(values: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        values[0] = -torch.inf  # the padding
        values, numbers = top_items(values[None], min(count, values.shape[0]))
        kept = values[0] > -torch.inf
        return values[0][kept].numpy(), numbers[0][kept].numpy()

    @cached_property
    def _tastes(self) -> Tensor:
        """Unit rows [n_items, U]: scores by some users, less the mean of each user and item."""
        trained = self._trained
        users = np.flatnonzero(trained.trained_users)
        most = max(8, min(MOST_USERS, TASTE_BYTES // (4 * len(trained.item_ids))))
        users = users[np.linspace(0, len(users) - 1, min(most, len(users))).astype(np.int64)]
        scores = trained.scores(users)[:, 1:].float().cpu()
        scores = scores - scores.mean(1, keepdim=True)
        scores = (scores - scores.mean(0)).T.contiguous()
        # Of equal scores rounding leaves a rest, which must not count as a taste.
        scores[scores.abs().amax(1) < 1e-6 * scores.abs().max()] = 0
        return F.pad(F.normalize(scores), (0, 0, 1, 0))

    @cached_property
    def _features(self) -> Tensor:
        """Unit rows [n_items, D]; zero where there is no picture."""
        trained = self._trained
        if getattr(trained.model, "unseen_items", "") in ("", BY_ANNOTATIONS):
            raise ConfigError(f"{trained.name} reads no pictures; compare by model or annotations")
        pictures = pictures_of(trained.dataset.content)
        if getattr(trained.model, "uses_regions", False):
            blocks = torch.arange(len(trained.item_ids)).split(1024)
            return F.normalize(torch.cat([pictures.regions(b).mean(1) for b in blocks]))
        return F.normalize(pictures.features.float())

    @cached_property
    def _tokens(self) -> tuple[Tensor, Tensor]:
        """Distinct annotation tokens [n_items, L], and their number [n_items]."""
        tokens = self._trained.dataset.content.tokens
        return tokens, (tokens > 0).sum(1)

    def _common_tokens(self, own: Tensor) -> Tensor:
        tokens, counts = self._tokens
        own = own[own > 0]
        common = torch.isin(tokens, own).sum(1).float()
        values = common / (counts + len(own) - common)
        values[common == 0] = -torch.inf
        return values
