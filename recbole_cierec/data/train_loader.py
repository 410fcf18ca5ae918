"""RecBole's loader of training batches without torch's loop over single rows.

Batches equal RecBole's, in the same order from the same seed: RecBole's code selects, joins and
samples, but gets tensors of row numbers instead of lists.

With several processes each makes the whole batch of ``train_batch_size`` rows and keeps its share,
so that together they update the model as one process would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from torch.utils.data import RandomSampler

from recbole_cierec.data.row_numbers import RowRange
from recbole_cierec.distributed.batch_share import Share
from recbole_cierec.distributed.world import world


class TrainLoader(RowRange, TrainDataLoader):
    """Replaces RecBole's ``TrainDataLoader``."""

    share: Share | None = None  # of the current batch; None in one process

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        alone, config["single_spec"] = config["single_spec"], True
        try:
            super().__init__(config, dataset, sampler, shuffle=shuffle)
        finally:
            config["single_spec"] = alone
        self.rank, self.world = world()
        if not alone:
            self.shuffle = False  # otherwise the trainer expects a distributed sampler

    def __iter__(self) -> Iterator[Interaction]:
        # torch's loader draws a seed for workers even without any.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        for rows in self._order().split(self.step):
            batch = self._neg_sampling(self.transform(self._dataset, self._dataset[rows]))
            if self.world == 1:
                yield batch
            else:
                items = batch[self._dataset.iid_field][: len(rows)]
                copies = len(batch) // len(rows)
                self.share = Share(batch, self.rank, self.world, copies, by=items)
                yield self.share.own

    def _order(self) -> torch.Tensor:
        """Row numbers of an epoch, in order."""
        if type(self.sampler) is not RandomSampler:
            return torch.from_numpy(np.fromiter(self.sampler, np.int64, len(self.sampler)))
        order = torch.randperm(self.sample_size, generator=self.generator)
        # RandomSampler draws a second order at its end, and does not use it.
        torch.randperm(self.sample_size, generator=self.generator)
        return order
