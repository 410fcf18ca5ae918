"""Softmax over negatives that all rows of a batch share: ``loss: softmax``.

    L = - mean over rows (u, i) of log( exp(l_ui) / (exp(l_ui) + sum over n of exp(l_un)) )
    l_ui = y_ui / softmax_temperature + popularity_correction * log(pi_i)

All rows of a batch share one draw of N distinct items (sampled softmax: Jean et al., ACL 2015), so
the scores of a positive's N negatives are part of one matrix product. If a row's positive is among
them, it is left out of the sum. Other items that the user interacted with stay, as in any shared
draw; they are one in several hundreds.

The draw is uniform, so no correction for it is needed (the log Q of Bengio and Senecal, 2008, is
the same number for every item), and y_ui tends to log p(i | u) plus a constant.
``popularity_correction`` adds log(pi_i), the logarithm of the item's share of the training
interactions, to the logits in training only: the logit adjustment of Menon et al. (ICLR 2021). The
scores then need not explain popularity: at 1 they tend to log p(i | u) / p(i), the taste beyond
popularity. Negatives from the same batch lead to this as well, without their correction (Yi et al.,
RecSys 2019). 0 leaves popularity in the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FLOAT_BYTES = 4


class SharedSoftmax(nn.Module):
    """Draws the negatives of a batch and computes the loss; has no parameters.

    Args:
        counts: Training interactions of each item [n_items], item 0 being RecBole's padding.
        config: RecBole config.
    """

    log_share: Tensor  # log(pi_i) [n_items]

    def __init__(self, counts: Tensor, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.temperature = config["softmax_temperature"]
        self.correction = config["popularity_correction"]
        self.wanted = config["shared_negatives"]
        self.pair_bytes = config["shared_negatives_memory"] * 2**20
        self.batch_size = config["train_batch_size"]
        if config["train_negatives"] == "seen":
            self.pool = counts.nonzero().squeeze(1)
        else:
            self.pool = torch.arange(1, len(counts))
        # Items without interactions count as having one, since log 0 is -inf.
        log_share = (counts.clamp(min=1) / counts.sum()).log()
        self.register_buffer("log_share", log_share, persistent=False)
        self._reported = False

    def count(self, pair_width: int = 0) -> int:
        """N, the least of ``shared_negatives``, the items to draw from, and what memory allows.

        Args:
            pair_width: Floats per pair of user and item; 0 if a pair has only a score.
        """
        n = min(self.wanted, len(self.pool))
        if not pair_width:
            return n
        fit = self.pair_bytes // (self.batch_size * pair_width * FLOAT_BYTES)
        return max(1, min(n, fit))

    def draw(self, pair_width: int = 0) -> Tensor:
        """Distinct items [N], uniform.

        They come from numpy's global generator, as RecBole's negatives do. So dropout, which uses
        torch's, does not change them, and all processes of a run draw the same items.
        """
        n = self.count(pair_width)
        if not self._reported and n < self.wanted:
            self._reported = True
            why = f"there are {len(self.pool)} items to draw from"
            if n < len(self.pool):
                why = (
                    f"each pair of this model holds {pair_width} floats, a batch "
                    f"{self.batch_size} rows, and shared_negatives_memory is "
                    f"{self.pair_bytes // 2**20} MiB"
                )
            getLogger().info(f"shared_negatives: {n} instead of {self.wanted}, as {why}")
        order = torch.from_numpy(np.random.permutation(len(self.pool))[:n])
        return self.pool[order].to(self.log_share.device)

    def forward(
        self, positive: Tensor, negative: Tensor, positive_items: Tensor, shared_items: Tensor
    ) -> Tensor:
        """The mean loss [].

        Args:
            positive: Scores of the positives [B].
            negative: Scores of the shared items [B, N].
            positive_items: Ids of the positives [B].
            shared_items: Ids of the shared items [N].
        """
        own = positive_items.unsqueeze(1) == shared_items  # [B, N]
        wanted = self._logits(positive, positive_items)
        others = self._logits(negative, shared_items).masked_fill(own, -torch.inf)
        total = torch.logsumexp(torch.cat([wanted.unsqueeze(1), others], 1), 1)
        return (total - wanted).mean()

    def _logits(self, scores: Tensor, items: Tensor) -> Tensor:
        logits = scores / self.temperature
        if not self.correction:
            return logits
        return logits + self.correction * self.log_share[items]
