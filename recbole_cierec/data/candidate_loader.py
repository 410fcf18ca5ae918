"""Evaluation loaders: one for the ``userN`` protocol, and a faster one for full ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.plan import EvaluationPlan, has_views


def _rows(lists: np.ndarray) -> Ragged:
    """One tensor of ids per user, as one array."""
    starts = np.concatenate([[0], np.cumsum([len(items) for items in lists])])
    return Ragged(torch.cat(list(lists)).numpy(), starts)


class Histories:
    """The items of each user before a phase, which rankings leave out.

    RecBole keeps them for the users of the phase only, but its ``full_sort_topk`` may be called
    for any user, such as one with too few interactions for the test.

    Args:
        known: [n_users], a tensor of items for each user of the phase, None for other users.
        used: The set of all items of each user.
    """

    def __init__(self, known: np.ndarray, used: Sequence[set[int]]) -> None:
        self._known, self._used = known, used

    def __getitem__(self, users: Sequence[int]) -> np.ndarray:
        rows = np.asarray(users, dtype=np.int64)
        chosen = self._known[rows]
        for place in np.flatnonzero([items is None for items in chosen]):
            items = sorted(self._used[int(rows[place])])
            chosen[place] = torch.tensor(items, dtype=torch.int64)
        return chosen


class _AllHistories(FullSortEvalDataLoader):
    uid2history_item: Any

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if not self.is_sequential:
            self.uid2history_item = Histories(self.uid2history_item, sampler.used_ids)


class FullLoader(_AllHistories):
    """RecBole's batches, without its loop over the users of a batch."""

    _positives: Ragged | None = None

    def collate_fn(self, index: Sequence[int]) -> Any:
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
    """One row per user: the interaction that RecBole passes to the model, and the row in the plan.

    Sequential models also rank once per user, from the history before the phase, so that their
    results are comparable with those of other models. RecBole's modes rank once per interaction.
    """

    plan: EvaluationPlan | None = None  # set by prepare

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        if len(dataset) and hasattr(dataset, "item_list_length_field"):
            users = dataset.inter_feat[dataset.uid_field].numpy()
            lengths = dataset.inter_feat[dataset.item_list_length_field].numpy()
            order = np.lexsort((np.arange(len(users)), lengths, users))
            _, first = np.unique(users[order], return_index=True)
            self.uid_list = torch.from_numpy(users[order[first]])
            self.whole = dataset
            dataset = dataset.copy(dataset.inter_feat[torch.from_numpy(order[first])])
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def _init_batch_size_and_step(self) -> None:
        """Set the number of users that have ``eval_batch_size`` candidates, all views included."""
        n = max(mode.n for mode in EvalMode.all_of(self.config["eval_args"]) if mode.by_user)
        lists = self.config["eval_repeats"] * (1 + 2 * has_views(self.config))
        self.step = max(1, self.config["eval_batch_size"] // (n * lists))
        self.set_batch_size(self.config["eval_batch_size"])

    def collate_fn(self, index: Sequence[int]) -> Any:
        rows = torch.as_tensor(index)
        if self.is_sequential:
            interaction = self.transform(self._dataset, self._dataset[np.asarray(index)])
        else:
            interaction = self.user_df[rows]
        return interaction, rows
