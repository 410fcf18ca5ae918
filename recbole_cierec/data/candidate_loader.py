"""Batches of users: for the ``userN`` protocol, and faster ones for full ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.evaluation.plan import has_views


def _rows(lists: np.ndarray) -> Ragged:
    """Tensors of ids, one a user, as one array."""
    starts = np.concatenate([[0], np.cumsum([len(items) for items in lists])])
    return Ragged(torch.cat(list(lists)).numpy(), starts)


class Histories:
    """What each user interacted with before a phase, which rankings leave out.

    RecBole keeps it of the users of the phase only; its ``full_sort_topk`` asks for any user, those
    with too few interactions for a test among them.

    Args:
        known: A tensor of items for each user of the phase [n_users]; None for others.
        used: For each user the set of all items.
    """

    def __init__(self, known: np.ndarray, used: Sequence[set[int]]) -> None:
        self._known, self._used = known, used

    def __getitem__(self, users: Sequence[int]) -> np.ndarray:
        users = np.asarray(users, dtype=np.int64)
        chosen = self._known[users]
        for place in np.flatnonzero([items is None for items in chosen]):
            items = sorted(self._used[int(users[place])])
            chosen[place] = torch.tensor(items, dtype=torch.int64)
        return chosen


class _AllHistories(FullSortEvalDataLoader):
    def __init__(self, config, dataset, sampler, shuffle=False):
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if not self.is_sequential:
            self.uid2history_item = Histories(self.uid2history_item, sampler.used_ids)


class FullLoader(_AllHistories):
    """RecBole's batches without its loop over the users of a batch."""

    _positives: Ragged | None = None

    def collate_fn(self, index):
        if self.is_sequential:
            return super().collate_fn(index)
        if self._positives is None:
            users = self.uid_list.numpy()
            self._positives = _rows(self.uid2positive_item[users])
            self._history = _rows(self.uid2history_item[users])
        rows = np.asarray(index)
        history, positives = (
            tuple(torch.from_numpy(side) for side in table.take(rows))
            for table in (self._history, self._positives)
        )
        return self.user_df[torch.from_numpy(rows)], history, *positives


class CandidateLoader(_AllHistories):
    """One row a user: what RecBole gives a model of him, and his row number in the plan.

    A sequential model ranks once a user too, from his history before the phase, so that its
    numbers stand beside those of other models; RecBole's own modes rank each interaction anew.
    """

    plan = None  # EvaluationPlan, set when all parts are known

    def __init__(self, config, dataset, sampler, shuffle=False):
        if len(dataset) and hasattr(dataset, "item_list_length_field"):
            users = dataset.inter_feat[dataset.uid_field].numpy()
            lengths = dataset.inter_feat[dataset.item_list_length_field].numpy()
            order = np.lexsort((np.arange(len(users)), lengths, users))
            _, first = np.unique(users[order], return_index=True)
            self.uid_list = torch.from_numpy(users[order[first]])
            self.whole = dataset
            dataset = dataset.copy(dataset.inter_feat[torch.from_numpy(order[first])])
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def _init_batch_size_and_step(self):
        """As many users as have ``eval_batch_size`` candidates, those of views included."""
        modes = self.config["eval_args"]["mode"].values()
        n = max(int(mode[len("user") :]) for mode in modes if mode.startswith("user"))
        lists = self.config["eval_repeats"] * (1 + 2 * has_views(self.config))
        self.step = max(1, self.config["eval_batch_size"] // (n * lists))
        self.set_batch_size(self.config["eval_batch_size"])

    def collate_fn(self, index):
        rows = torch.as_tensor(index)
        if self.is_sequential:
            interaction = self.transform(self._dataset, self._dataset[np.asarray(index)])
        else:
            interaction = self.user_df[rows]
        return interaction, rows
