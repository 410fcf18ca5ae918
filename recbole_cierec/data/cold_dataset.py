"""Strict cold splits of RecBole data sets, and interactions that no row represents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.interaction import Interaction, cat_interactions

from recbole_cierec.data.atomic import refuse_rows
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.data.row_numbers import order_of
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.cold_split import TEST, VALID, WARM, ColdSplit, first_times, hold_out
from recbole_cierec.evaluation.eval_mode import EvalMode

if TYPE_CHECKING:  # mixins: RecBole's class has the attributes and methods they use
    from recbole.data.dataset import Dataset as _Base
else:
    _Base = object

_NO_ROW = -1
_ANY_LENGTH = 1000  # up to this length the padding of sequences needs little memory


@dataclass(frozen=True)
class Rowless:
    """Interactions that a model may know although no part has a row for them: the first one of a
    sequence, and the ``history`` of a held-out user.

    Attributes:
        users: Ids [n].
        items: Ids [n].
        trained: bool [n], whether training knows them.
    """

    users: np.ndarray
    items: np.ndarray
    trained: np.ndarray


NOTHING = Rowless(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))


def _spans(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All numbers of the ranges, one range after another."""
    lengths = np.maximum(ends - starts, 0)
    shifts = starts - np.cumsum(lengths) + lengths
    return np.arange(lengths.sum()) + np.repeat(shifts, lengths)


def rank_in_group(groups: np.ndarray) -> np.ndarray:
    """How many rows of the same group precede each row: int64 [n]."""
    order = np.argsort(groups, kind="stable")
    grouped = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
    lengths = np.diff(np.append(starts, len(grouped)))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return rank


class ColdSplitMixin(_Base):
    """Splits a RecBole data set by its :class:`ColdSplit`, if it has one."""

    cold_phase: Any = None  # with a cold split: int8 [n_items or n_users]
    rowless: Rowless = NOTHING
    inter_feat: Any  # RecBole's

    def training_counts(self, field: str) -> np.ndarray:
        """Number of training interactions [n] of each user or item, for any kind of model.

        Call it on the training part.
        """
        known = self.rowless.users if field == self.uid_field else self.rowless.items
        ids = np.concatenate([self.inter_feat[field].numpy(), known[self.rowless.trained]])
        return np.bincount(ids, minlength=self.num(field))

    def _note_rowless(self, rows: np.ndarray, trained: np.ndarray) -> None:
        """Note rows of ``inter_feat``, by row number, that no part will have."""
        users, items = (self.inter_feat[f].numpy()[rows] for f in (self.uid_field, self.iid_field))
        new, old = Rowless(users, items, trained), self.rowless
        names = ("users", "items", "trained")
        joined = [np.concatenate([getattr(old, n), getattr(new, n)]) for n in names]
        self.rowless = Rowless(*joined)

    def _held_field(self, rule: ColdSplit) -> str:
        return self.iid_field if rule.kind == "item" else self.uid_field

    def _choose_cold(self, rule: ColdSplit, ids: np.ndarray) -> None:
        times = None
        n = self.num(self._held_field(rule))
        if rule.by == "newest":
            if self.time_field not in self.inter_feat:
                raise DataError(
                    f"{self.dataset_path}: a split by newest needs the column {self.time_field}"
                )
            times = first_times(ids, self.inter_feat[self.time_field].numpy(), n)
        self.cold_phase = hold_out(np.bincount(ids, minlength=n), times, rule)
        for phase, name in ((WARM, "training"), (VALID, "validation"), (TEST, "the test")):
            if not (self.cold_phase[np.unique(ids)] == phase).any():
                raise DataError(
                    f"{self.dataset_path}: eval_args.split share {list(rule.share)} leaves no "
                    f"{rule.kind} for {name}; the data are too few for it"
                )

    def _known_rows(self, rule: ColdSplit, phases: np.ndarray) -> np.ndarray:
        """bool [rows]: the first ``history`` interactions of each held-out user."""
        if rule.kind == "item" or not rule.history:
            return np.zeros(len(phases), dtype=bool)
        # Rows already have the order of eval_args.
        rank = rank_in_group(self.inter_feat[self.uid_field].numpy())
        return (phases != WARM) & (rank < rule.history - self._already_known())

    def _already_known(self) -> int:
        """Number of interactions of each user that are no longer rows."""
        return 0

    def _grouped_index(self, group_by_list: Any) -> list[list[int]]:
        """Row numbers by group, in the order of first appearance, without RecBole's loop."""
        order = np.argsort(group_by_list, kind="stable")
        keys = np.asarray(group_by_list)[order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
        ends = np.append(starts[1:], len(keys))
        rows = order.tolist()
        return [rows[starts[k] : ends[k]] for k in np.argsort(order[starts])]

    def _split_rows(self, ratios: Sequence[float], group_by: str | None) -> list[Any]:
        """RecBole's parts with their rows in its order, without its loop over the groups."""
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        ratios = [part / sum(ratios) for part in ratios]
        keys = self.inter_feat[group_by].numpy()
        order = order_of(keys)
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] - 1))
        lengths = np.diff(np.append(starts, len(keys)))
        first = np.argsort(order[starts])  # groups in the order of first appearance
        starts, lengths = starts[first], lengths[first]
        sizes, size_of = np.unique(lengths, return_inverse=True)
        cuts = np.array([self._calcu_split_ids(int(n), ratios) for n in sizes]).reshape(
            len(sizes), len(ratios) - 1
        )
        # Row r of `edges`: where the parts of group r begin, and where the last one ends.
        edges = np.concatenate([0 * sizes[:, None], cuts, sizes[:, None]], axis=1)[size_of]
        edges += starts[:, None]
        rows = [order[_spans(edges[:, k], edges[:, k + 1])] for k in range(len(ratios))]
        self._drop_unused_col()
        return [self.copy(self.inter_feat[torch.from_numpy(part)]) for part in rows]

    def split_by_ratio(self, ratios: Sequence[float], group_by: str | None = None) -> list[Any]:
        rule = ColdSplit.of(self.config)
        if not rule:
            return self._split_rows(ratios, group_by)
        ids = self.inter_feat[self._held_field(rule)].numpy()
        if self.cold_phase is None:
            self._choose_cold(rule, ids)
        phases = self.cold_phase[ids]
        known = self._known_rows(rule, phases)
        self._note_rowless(np.flatnonzero(known), np.zeros(known.sum(), dtype=bool))
        everything = self.inter_feat
        self.inter_feat = everything[torch.from_numpy(np.flatnonzero(phases == WARM))]
        parts = self._split_rows(ratios, group_by)
        for phase in (VALID, TEST):
            rows = np.flatnonzero((phases == phase) & ~known)
            warm = parts[phase].inter_feat  # without the columns of unused_col
            held = everything[torch.from_numpy(rows)]
            held = Interaction({name: held[name] for name in warm.columns})
            parts[phase] = self.copy(cat_interactions([warm, held]))
        self.inter_feat = everything
        return parts


class ColdSequenceMixin(ColdSplitMixin):
    """For sequential data sets, whose rows hold the history before each interaction."""

    _augmenting = False
    _made = False  # whether sequences were made from split files
    _row_phase: np.ndarray  # the phase of each row, from files that are split already
    _ordered: Interaction  # while histories are made: the interactions that they are made of

    def _benchmark_presets(self) -> None:
        """RecBole expects sequences in split files; if they have none, sequences are made here."""
        if not self.brings_histories:
            return
        lists = f"{self.iid_field}{self.config['LIST_SUFFIX']}"
        self.item_id_list_field = lists  # RecBole sets it for the field "item_id" only
        super()._benchmark_presets()
        lengths = self.inter_feat[self.item_list_length_field].to_numpy()
        self._refuse_histories(lists, lengths)
        self._note_histories(lists, lengths)

    def _refuse_histories(self, lists: str, lengths: np.ndarray) -> None:
        """Refuse empty histories, and history columns of different lengths."""
        suffix = self.config["LIST_SUFFIX"]
        wrong = {f"{lists} is empty; a history needs at least one item": lengths == 0}
        for name in self.inter_feat:
            if name.endswith(suffix) and name != lists:
                others = self.inter_feat[name].map(len).to_numpy()
                wrong[f"{name} and {lists} have different lengths"] = others != lengths
        parts, ends = self.benchmark_filename_list, np.cumsum(self.file_size_list)
        for part, end, size in zip(parts, ends, self.file_size_list, strict=True):
            path = atomic_file(Path(self.dataset_path, f"{self.dataset_name}.{part}.inter"))
            for what, rows in wrong.items():
                refuse_rows(path, rows[end - size : end], what)

    def _note_histories(self, lists: str, lengths: np.ndarray) -> None:
        """Note items of histories for which the same user has no row."""
        users, targets = (self.inter_feat[f].to_numpy() for f in (self.uid_field, self.iid_field))
        phases = np.repeat(np.arange(len(self.file_size_list)), self.file_size_list)
        users_of, phases_of = np.repeat(users, lengths), np.repeat(phases, lengths)
        items_of = np.concatenate(self.inter_feat[lists].tolist())
        pairs = users_of * self.item_num + items_of
        order = np.lexsort((phases_of, pairs))  # of equal pairs, the earliest phase first
        order = order[np.diff(pairs[order], prepend=-1) > 0]
        order = order[~np.isin(pairs[order], users * self.item_num + targets)]
        self.rowless = Rowless(users_of[order], items_of[order], phases_of[order] == WARM)

    @property
    def _from_files(self) -> bool:
        """Whether sequences are made from files that are split already."""
        given = self.iid_field + self.config["LIST_SUFFIX"] in self.field2source
        return bool(self.config["benchmark_filename"]) and (self._made or not given)

    @property
    def brings_histories(self) -> bool:
        """Whether split files bring the histories, and a user's rows are in any order."""
        return bool(self.config["benchmark_filename"]) and not self._from_files

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        if self._from_files:
            self._made = True  # from now on there are lists
            self.data_augmentation()
            order = np.argsort(self._row_phase, kind="stable")
            self.inter_feat = self.inter_feat[torch.from_numpy(order)]
            self.file_size_list = np.bincount(self._row_phase, minlength=3).tolist()

    def _sort_by_file(self) -> None:
        users = self.inter_feat[self.uid_field].numpy()
        times = np.zeros(len(users))  # without times: the order of the files
        if self.time_field in self.inter_feat:
            times = self.inter_feat[self.time_field].numpy()
        phases = np.repeat(np.arange(len(self.file_size_list)), self.file_size_list)
        order = np.lexsort((times, phases, users))
        self.inter_feat = self.inter_feat[torch.from_numpy(order)]
        first = np.diff(users[order], prepend=-1) != 0
        self._note_rowless(np.flatnonzero(first), phases[order][first] == WARM)
        self._row_phase = phases[order][~first]

    def _already_known(self) -> int:
        return 1  # RecBole makes no row for a user's first interaction

    def _calcu_split_ids(self, tot: int, ratios: Sequence[float]) -> list[int]:
        """Split as for general models: by all interactions of a user. The first one, which is
        always in training, has no row here."""
        if not self._equal_split:
            return super()._calcu_split_ids(tot, ratios)
        return [cut - 1 for cut in super()._calcu_split_ids(tot + 1, ratios)]

    def _split_index_by_leave_one_out(
        self, grouped_index: Iterable[Iterable[int]], leave_one_num: int
    ) -> list[list[int]]:
        if not self._equal_split:
            return super()._split_index_by_leave_one_out(grouped_index, leave_one_num)
        # Each user's first interaction counts; it is in training, and has no row here.
        whole = [[_NO_ROW, *rows] for rows in grouped_index]
        train, *held = super()._split_index_by_leave_one_out(whole, leave_one_num)
        return [[row for row in train if row != _NO_ROW], *held]

    @property
    def _equal_split(self) -> bool:
        """Whether rows are split as for general models; RecBole's modes keep its split."""
        by_user = self.config["eval_args"]["group_by"] == "user"
        modes = EvalMode.all_of(self.config["eval_args"])
        cold = ColdSplit.of(self.config) is not None
        return by_user and (cold or any(mode.by_user for mode in modes))

    def data_augmentation(self) -> None:
        rule = ColdSplit.of(self.config)
        if rule:  # chosen among all interactions, as for general models
            self._choose_cold(rule, self.inter_feat[self._held_field(rule)].numpy())
        busiest = int(np.bincount(self.inter_feat[self.uid_field].numpy()).max())
        if self.max_item_list_len > max(busiest, _ANY_LENGTH):
            raise DataError(
                f"{self.dataset_path}: MAX_ITEM_LIST_LENGTH is {self.max_item_list_len}, and no "
                f"user has more than {busiest} interactions; lower it"
            )
        self._augmenting = True
        super().data_augmentation()
        self._augmenting = False
        if rule and rule.kind == "item":
            self.inter_feat = self._with_warm_histories(self.inter_feat)
            del self._ordered

    def sort(self, by: Any, ascending: bool | Sequence[bool] = True) -> None:
        augmenting = self._augmenting and by == [self.uid_field, self.time_field]
        if augmenting and self._from_files:
            self._sort_by_file()
            return
        super().sort(by, ascending)
        if augmenting:
            rule = ColdSplit.of(self.config)
            if rule and rule.kind == "item":
                self.inter_feat = self.inter_feat[torch.from_numpy(self._phase_order(rule))]
                self._ordered = self.inter_feat
            self._note_first()

    def _note_first(self) -> None:
        users = self.inter_feat[self.uid_field].numpy()
        rows = np.flatnonzero(np.diff(users, prepend=-1))
        rule, trained = ColdSplit.of(self.config), np.ones(len(rows), dtype=bool)
        if rule:
            held = self.inter_feat[self._held_field(rule)].numpy()[rows]
            trained = self.cold_phase[held] == WARM
        self._note_rowless(rows, trained)

    def _phase_order(self, rule: ColdSplit) -> np.ndarray:
        """Row numbers, for each user by phase: training, validation, test.

        A held-out item is predicted from the history before its phase, as by other models, whatever
        its time. Otherwise a sequence would hold less than training, or the future.
        """
        users = self.inter_feat[self.uid_field].numpy()
        phases = self.cold_phase[self.inter_feat[self.iid_field].numpy()]
        place = np.where(phases == WARM, 0, 2 * phases - 1)  # held out: 1 and 3, warm: 0, 2 and 4
        rows = np.flatnonzero(phases == WARM)
        first = np.searchsorted(users[rows], users[rows])
        rank, total = np.arange(len(rows)) - first, np.bincount(users[rows])[users[rows]]
        ratios = [part / sum(rule.rest) for part in rule.rest]
        cuts = {n: super(ColdSequenceMixin, self)._calcu_split_ids(n, ratios) for n in set(total)}
        place[rows] = [2 * sum(r >= c for c in cuts[n]) for r, n in zip(rank, total, strict=True)]
        return np.lexsort((np.arange(len(users)), place, users))

    def _with_warm_histories(self, feat: Interaction) -> Interaction:
        """Fill histories anew with the last items before each row that are not held out, as many as
        a history takes; RecBole counts held-out ones too. Rows without any are removed."""
        ordered, lists = self._ordered, feat[self.iid_field + self.config["LIST_SUFFIX"]]
        users = ordered[self.uid_field].numpy()
        warm = self.cold_phase[ordered[self.iid_field].numpy()] == WARM
        warm_rows, before = np.flatnonzero(warm), np.cumsum(warm) - warm
        begun = np.diff(users, prepend=-1) != 0
        rows = np.flatnonzero(~begun)  # RecBole makes none of a user's first interaction
        first = np.flatnonzero(begun)[np.cumsum(begun)[rows] - 1]
        begins = np.maximum(before[first], before[rows] - lists.shape[1])
        lengths = before[rows] - begins
        source = warm_rows[_spans(begins, before[rows])]
        row, column = np.repeat(np.arange(len(rows)), lengths), _spans(0 * lengths, lengths)
        changed = {self.item_list_length_field: torch.from_numpy(lengths)}
        for field in ordered.columns:
            if field != self.uid_field:
                name = getattr(self, f"{field}_list_field")
                changed[name] = torch.zeros_like(feat[name])
                changed[name][row, column] = ordered[field][source]
        feat.update(Interaction(changed))
        return feat[torch.from_numpy(np.flatnonzero(lengths))]
