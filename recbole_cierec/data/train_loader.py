"""RecBole's loader of training batches without torch's loop over single rows.

The batches are RecBole's own, in the same order from the same seed and with the same fields: what
cuts, joins and samples is RecBole's code, given whole tensors of row numbers instead of lists.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from torch.utils.data import RandomSampler


class TrainLoader(TrainDataLoader):
    """For every model whose training data RecBole loads by ``TrainDataLoader``."""

    def __iter__(self) -> Iterator[Interaction]:
        return super().__iter__() if self.num_workers else self._batches()

    def _batches(self) -> Iterator[Interaction]:
        # torch's loader draws a seed for workers, also where there are none.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        for rows in self._order().split(self.step):
            yield self._neg_sampling(self.transform(self._dataset, self._dataset[rows]))

    def _order(self) -> torch.Tensor:
        """Row numbers of an epoch, of this process."""
        if type(self.sampler) is not RandomSampler:
            return torch.from_numpy(np.fromiter(self.sampler, np.int64, len(self.sampler)))
        order = torch.randperm(self.sample_size, generator=self.generator)
        # RandomSampler draws a second order at its end and uses nothing of it.
        torch.randperm(self.sample_size, generator=self.generator)
        return order
