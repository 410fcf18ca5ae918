"""Evaluation loaders: one for the ``userN`` protocol, and a faster one for full ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch.utils.data import SequentialSampler

from recbole_cierec.config.derived import PAIRS
from recbole_cierec.data.row_numbers import RowRange, order_of
from recbole_cierec.data.sampler import UsedItems
from recbole_cierec.evaluation.candidates import Ragged, look_up
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.plan import ROW, EvaluationPlan, has_views

USERS = 64  # ranked together, if their scores fit; a model may have another ``users_at_once``
BLOCK_BYTES = 256 * 2**20  # of scores


class ItemsOfUsers:
    """RecBole's table of a tensor for each user, in one array: ``table[users]`` has those tensors.

    Args:
        pairs: user * n_items + item, ascending and distinct.
        n_users: Number of users, RecBole's padding included.
        n_items: Number of items, RecBole's padding included.
    """

    def __init__(self, pairs: np.ndarray, n_users: int, n_items: int) -> None:
        starts = np.searchsorted(pairs, np.arange(n_users + 1) * n_items)
        self.rows = Ragged((pairs % n_items).astype(np.int32), starts)

    def __getitem__(self, users: Sequence[int]) -> np.ndarray:
        values, starts = self.rows.values, self.rows.starts
        found = np.empty(len(users), dtype=object)
        for place, user in enumerate(np.asarray(users, dtype=np.int64)):
            items = values[starts[user] : starts[user + 1]]
            found[place] = torch.from_numpy(items.astype(np.int64))
        return found


class _AllHistories(RowRange, FullSortEvalDataLoader):
    """RecBole's loader without its loop over interactions and its two tensors for each user.

    RecBole keeps histories for the users of the phase only, but its ``full_sort_topk`` may be
    called for any user, such as one with too few interactions for the test; here all have one.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        used = getattr(sampler, "used_ids", None)
        if config["MODEL_TYPE"] == ModelType.SEQUENTIAL or not isinstance(used, UsedItems):
            super().__init__(config, dataset, sampler, shuffle=shuffle)
            return
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        order = order_of(dataset.inter_feat[self.uid_field].numpy())
        dataset.inter_feat = dataset.inter_feat[torch.from_numpy(order)]
        self._known, self.is_sequential = used, False
        self.uid_list = torch.unique_consecutive(dataset.inter_feat[self.uid_field])
        self.user_df = dataset.join(Interaction({self.uid_field: self.uid_list}))
        self.sample_size = len(self.user_df)
        super(FullSortEvalDataLoader, self).__init__(config, dataset, sampler, shuffle=False)
        self._use_range()

    @cached_property
    def _positive_pairs(self) -> np.ndarray:
        feat = self._dataset.inter_feat
        users, items = (feat[name].numpy() for name in (self.uid_field, self.iid_field))
        return np.unique(users * self._known.n_items + items)

    @cached_property
    def uid2positive_item(self) -> ItemsOfUsers:
        """The items of each user in the phase."""
        return ItemsOfUsers(self._positive_pairs, len(self._known), self._known.n_items)

    @cached_property
    def uid2history_item(self) -> ItemsOfUsers:
        """The items of each user before the phase, which rankings leave out."""
        known = self._known.pairs
        places, found = look_up(known, self._positive_pairs)
        before = np.ones(len(known), dtype=bool)
        before[places[found]] = False  # numpy's setdiff1d sorts both again
        return ItemsOfUsers(known[before], len(self._known), self._known.n_items)

    @cached_property
    def uid2items_num(self) -> np.ndarray:
        """Number of positives of each user."""
        return self.uid2positive_item.rows.lengths


class FullLoader(_AllHistories):
    """RecBole's batches, without its loop over the users of a batch."""

    step: int  # users of a batch

    def __iter__(self) -> Iterator[Any]:
        if type(self.sampler) is not SequentialSampler or self.num_workers:
            yield from super().__iter__()
            return
        # torch's loader draws a seed for workers even without any.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        for rows in torch.arange(self.sample_size).split(self.step):
            yield self.collate_fn(rows)

    def _init_batch_size_and_step(self) -> None:
        """Unless ``eval_batch_size`` is given, rank several users together even of many items: the
        product for a few users reads the items' vectors again and again."""
        super()._init_batch_size_and_step()
        chosen = "eval_batch_size" in getattr(self.config, "origins", {})
        if self.is_sequential or chosen or self.config["eval_batch_size"] <= PAIRS:
            return
        n_items = self._dataset.item_num
        users = getattr(self.config.model_class, "users_at_once", USERS)
        self.step = max(self.step, min(users, BLOCK_BYTES // (4 * n_items)))
        self.set_batch_size(self.step * n_items)

    def collate_fn(self, index: Sequence[int]) -> Any:
        if not isinstance(vars(self).get("_known"), UsedItems):
            batch = super().collate_fn(index)
            if self.is_sequential:
                batch[0].interaction[ROW] = torch.as_tensor(np.asarray(index))
            return batch
        rows = torch.as_tensor(index)
        users = self.uid_list[rows].numpy()
        history, positives = (
            tuple(torch.from_numpy(side.astype(np.int64)) for side in table.rows.take(users))
            for table in (self.uid2history_item, self.uid2positive_item)
        )
        return self.user_df[rows], history, *positives


def _before_the_phase(dataset: Any) -> torch.Tensor:
    """For each user the row with the shortest history: int64 [users], by user.

    Histories that were cut are equally long. Of these, rows that were made here have the earliest
    first; of those of a file, it is the one with the fewest of the user's positives of the phase.
    """
    feat = dataset.inter_feat
    users, lengths = (feat[f].numpy() for f in (dataset.uid_field, dataset.item_list_length_field))
    known = np.zeros_like(lengths)
    if dataset.brings_histories:
        history = feat[f"{dataset.iid_field}{dataset.config['LIST_SUFFIX']}"].numpy()
        pairs = users.astype(np.int64) * dataset.item_num
        known = np.isin(pairs[:, None] + history, pairs + feat[dataset.iid_field].numpy()).sum(1)
    order = np.lexsort((np.arange(len(users)), known, lengths, users))
    _, first = np.unique(users[order], return_index=True)
    return torch.from_numpy(order[first])


class CandidateLoader(_AllHistories):
    """One row per user: the interaction that RecBole passes to the model, and the row in the plan.

    Sequential models also rank once per user, from the history before the phase, so that their
    results are comparable with those of other models. RecBole's modes rank once per interaction.
    """

    plan: EvaluationPlan | None = None  # set by make_loaders

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        if len(dataset) and hasattr(dataset, "item_list_length_field"):
            rows = _before_the_phase(dataset)
            self.uid_list = dataset.inter_feat[dataset.uid_field][rows]
            self.whole = dataset
            dataset = dataset.copy(dataset.inter_feat[rows])
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
