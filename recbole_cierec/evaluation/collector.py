"""Turns batches of scores into one row per user for the metrics, for each view and repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor
from torch.nn.functional import pad

from recbole_cierec.errors import NonFiniteLossError
from recbole_cierec.evaluation.compat import CollectorCompat
from recbole_cierec.evaluation.plan import ROW, EvaluationPlan, Lists, View
from recbole_cierec.evaluation.top_k import top_k

COMPARED = 2**22  # scores compared at a time
COUNTED = 2**18  # scores counted at a time
WIDE = 4096  # from this length on, rows are counted one by one
# One row per user; per sequence in RecBole's modes of sequential models.
ROWS = (
    "rec.topk", "rec.items", "rec.meanrank", "rec.users", "rec.row", "rec.hit_group",
    "rec.group_len", "rec.candidates",
)  # fmt: skip
Key = tuple[str, int]  # view, repeat


@dataclass
class Segment:
    """Columns ``first:last`` of a batch's scores: the candidates of one view and repeat.

    Row r of ``lists`` belongs to row r of the batch.
    """

    key: Key
    lists: Lists
    first: int
    last: int


def batch_candidates(plan: EvaluationPlan, rows: np.ndarray) -> tuple[np.ndarray, list[Segment]]:
    """Candidates of some rows; all views and repeats in one table.

    Args:
        plan: A plan with lists.
        rows: Row numbers [B].

    Returns:
        (item ids [B, W], padded with 0; the columns of each view and repeat).
    """
    tables, segments, first = [], [], 0
    every = np.arange(len(rows))
    for view, repeat, lists in plan.lists(rows):
        table = lists.items.padded(every, 0)
        last = first + table.shape[1]
        tables.append(table)
        segments.append(Segment((view, repeat), lists, first, last))
        first = last
    return np.concatenate(tables, axis=1).astype(np.int64), segments


def ranks_of(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Ranks [T], from 0, of the entries (rows, columns) in their rows of ``scores`` [B, W].

    Among equal scores the leftmost ranks first.

    >>> ranks_of(torch.tensor([[1.0, 3.0, 1.0]]), torch.tensor([0, 0]), torch.tensor([0, 2]))
    tensor([1, 2])
    """
    step = max(1, COMPARED // scores.shape[1])
    places = torch.arange(scores.shape[1], device=scores.device)
    parts = [torch.empty(0, dtype=torch.long, device=scores.device)]
    for r, c in zip(rows.split(step), columns.split(step), strict=True):
        others, mine = scores[r], scores[r, c].unsqueeze(1)
        ahead = (others > mine).sum(1)
        equal = others == mine
        if int(equal.sum()) > len(r):  # ties; every score equals itself once
            ahead += (equal & (places < c.unsqueeze(1))).sum(1)
        parts.append(ahead)
    return torch.cat(parts)


def _ranked(scores: Tensor) -> Tensor:
    """Number of ranked items of each row [B]: history, padding and other items score -inf."""
    if scores.is_cuda:
        return (scores > -np.inf).sum(1)
    # numpy counts booleans in a fifth of torch's time, and small blocks stay in the CPU's cache.
    # Without an axis it counts a row of bytes at a time, which pays if rows are long.
    blocks = scores.numpy(force=True)
    if blocks.shape[1] >= WIDE:
        return torch.tensor([np.count_nonzero(row > -np.inf) for row in blocks], dtype=torch.int64)
    step = max(1, COUNTED // max(1, blocks.shape[1]))
    parts = [
        np.count_nonzero(blocks[first : first + step] > -np.inf, axis=1)
        for first in range(0, len(blocks), step)
    ]
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def _places_in(top: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """The place [T] of each item in its row of ``top`` [B, k]; k if it is not there."""
    equal = top[rows] == items.unsqueeze(1)
    places = torch.arange(top.shape[1], device=top.device)
    return torch.where(equal, places, top.shape[1]).amin(1)


class Blocks(DataStruct):
    """RecBole's struct, which joins the blocks of a tensor once, not after every batch."""

    def __init__(self, common: DataStruct) -> None:
        super().__init__()
        self._data_dict.update(common._data_dict)
        self._blocks: dict[str, list[Tensor]] = {}
        self.n_rows = 0

    def update_tensor(self, name: str, value: Tensor) -> None:
        # A copy: the scores of the next batch may be written over those of this one.
        self._blocks.setdefault(name, []).append(value.detach().clone().cpu())

    def joined(self) -> dict[str, Tensor]:
        """The tensors that were collected, and no longer kept here."""
        blocks, self._blocks = self._blocks, {}
        return {name: torch.cat(parts) for name, parts in blocks.items()}


class Collected(dict[Key, DataStruct]):
    """The collected rows of one evaluation, by view and repeat."""


class PlanCollector(CollectorCompat):
    """RecBole's collector, once per view and repeat; hits keep the group of their item.

    Attributes:
        plan: Set before each evaluation; None: all items, no groups.
    """

    plan: EvaluationPlan | None = None
    data_struct: DataStruct

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.k = max(config["topk"])
        self.needs_items = self.register.need("rec.items")
        self.needs_mean_ranks = self.register.need("rec.meanrank")
        self.ranking = config["eval_type"] == EvaluatorType.RANKING
        # Computed here from one ranking, together with the items' groups.
        for need in ("rec.topk", "rec.items"):
            setattr(self.register, need, False)
        self._common = self.data_struct  # holds counts of the training data
        self._structs: dict[Key, Blocks] = {}

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Any, positive_i: Any
    ) -> None:
        if not self.ranking:
            self._refuse_nan(scores_tensor)
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        elif self.plan is not None and self.plan.sampled:
            self._collect_lists(scores_tensor, interaction, positive_u, positive_i)
        else:
            for view in self.plan.views if self.plan is not None else [View("")]:
                self._collect_view(view, scores_tensor, interaction, positive_u, positive_i)

    def _collect_view(
        self, view: View, scores: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect rankings of all items, or of those of the view."""
        keys = self._row_keys(interaction, len(scores))
        positive_u, positive_i = positive_u.to(scores.device), positive_i.to(scores.device)
        if view.items is not None:
            exists = torch.from_numpy(view.items).to(scores.device)
            scores = scores.masked_fill(~exists, -np.inf)
            kept = exists[positive_i]
            rows, positive_u = torch.unique(positive_u[kept], return_inverse=True)
            scores, positive_i = scores[rows], positive_i[kept]
            keys = keys[0][rows.cpu()], keys[1][rows.cpu()]
        if not len(scores):
            return
        top = top_k(scores, self.k)
        self._refuse_nan(scores.gather(1, top[:, :1]))  # NaN comes first
        self._open((view.name, 0))
        super().eval_batch_collect(scores, interaction, positive_u, positive_i)
        ranks = _places_in(top, positive_u, positive_i)
        shown = None
        if self.needs_items:  # fewer than k items may be ranked
            shown = top.masked_fill(scores.gather(1, top) == -np.inf, 0)
        self._keep(keys, _ranked(scores), (positive_u, positive_i, ranks), shown)

    def _collect_lists(
        self, scores: Tensor, interaction: Any, rows: Tensor, segments: list[Segment]
    ) -> None:
        """Collect rankings of candidate lists, one per row."""
        self._refuse_nan(scores)
        users, _ = self._row_keys(interaction, len(scores))
        for part in segments:
            s = scores[:, part.first : part.last]
            every = np.arange(len(rows))
            where, columns = (torch.from_numpy(x) for x in part.lists.columns.take(every))
            has, where = torch.unique(where, return_inverse=True)
            if not len(has):
                continue
            s = s[has.to(s.device)] if len(has) < len(s) else s
            items = part.lists.items.padded(has.numpy(), 0)
            found = torch.from_numpy(items).long()[where, columns]
            where, columns = where.to(s.device), columns.to(s.device)
            ranks = ranks_of(s, where, columns)
            self._open(part.key)
            # For mean ranks RecBole counts the ranked items up to the first -inf.
            ended = pad(s, (0, 1), value=-np.inf) if self.needs_mean_ranks else s
            super().eval_batch_collect(ended, interaction, where, columns)
            shown = None
            if self.needs_items:
                k = min(self.k, items.shape[1])
                places = torch.topk(s[:, : items.shape[1]], k, dim=-1).indices.cpu()
                shown = torch.from_numpy(items).long().gather(1, places)
                shown = pad(shown, (0, self.k - k))  # by item 0
            self._keep((users[has], users[has]), _ranked(s), (where, found, ranks), shown)

    def _row_keys(self, interaction: Any, n: int) -> tuple[Tensor, Tensor]:
        """Users [n] and keys of rows [n], by which rows that two processes have are found."""
        users = interaction[self.config["USER_ID_FIELD"]].cpu()
        if len(users) != n:  # RecBole's sampled candidates: one row per pair, grouped by user
            users = torch.unique_consecutive(users)
            return users, users
        return users, interaction[ROW].cpu() if ROW in interaction else users

    def _refuse_nan(self, scores: Tensor) -> None:
        if bool(torch.isnan(scores).any()):
            raise NonFiniteLossError(
                f"{self.config['model']}: scores are not numbers; lower learning_rate"
            )

    def _open(self, key: Key) -> None:
        """Make the struct of a view and repeat the current one."""
        if key not in self._structs:
            self._structs[key] = Blocks(self._common)
        self.data_struct = self._structs[key]

    def _keep(
        self,
        keys: tuple[Tensor, Tensor],
        candidates: Tensor,
        positives: tuple[Tensor, Tensor, Tensor],
        top: Tensor | None,
    ) -> None:
        """Keep a block of rows for :meth:`get_data_struct`.

        Args:
            keys: Users and keys of the rows [B].
            candidates: Number of ranked items of each row [B].
            positives: Row, item and rank of each positive [P].
            top: The items at the first places [B, k], 0 after the last; None: not needed.
        """
        struct: Any = self.data_struct
        values = dict(zip(("rec.users", "rec.row"), keys, strict=True))
        values |= {"rec.candidates": candidates, "row": positives[0] + struct.n_rows}
        values |= {"item": positives[1], "rank": positives[2]}
        if top is not None:
            values["rec.items"] = top
        for name, value in values.items():
            struct.update_tensor(name, value)
        struct.n_rows += len(candidates)

    def _finished(self, blocks: Blocks) -> DataStruct:
        """The struct that metrics read, of all rows."""
        values = blocks.joined()
        rows, items, ranks = (values.pop(name) for name in ("row", "item", "rank"))
        groups = torch.ones(len(items), dtype=torch.int8)  # 1 + the group of the item
        if self.plan is not None:
            groups = torch.from_numpy(self.plan.item_groups.of)[items] + 1
        hit, n = ranks < self.k, len(values["rec.users"])
        found = torch.zeros(n, self.k, dtype=torch.int8)
        found[rows[hit], ranks[hit]] = groups[hit]
        lengths = torch.bincount(rows * 3 + groups.long() - 1, minlength=3 * n).view(n, 3)
        total = lengths.sum(1, keepdim=True)
        values["rec.topk"] = torch.cat([(found > 0).to(torch.int32), total.to(torch.int32)], dim=1)
        values |= {"rec.hit_group": found, "rec.group_len": lengths}
        struct = DataStruct()
        struct._data_dict.update(blocks._data_dict | values)
        return struct

    def get_data_struct(self) -> Collected | DataStruct:
        """Everything that was collected since the last call."""
        structs, self._structs = self._structs, {}
        self.data_struct = self._common
        if not structs:
            return super().get_data_struct()
        return Collected({key: self._finished(blocks) for key, blocks in structs.items()})
