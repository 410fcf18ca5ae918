"""What a report reads of one run: checkpoint, history, and results by user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recbole_cierec.data.short_histories import whole_part
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups
from recbole_cierec.evaluation.per_user import (
    SUFFIX,
    UserResults,
    by_user_file,
    read_per_user,
)
from recbole_cierec.files.checkpoint import find_checkpoint, from_plain, peek_checkpoint
from recbole_cierec.serving.trained import TrainedModel, load_trained
from recbole_cierec.trainer.history import History, Row, history_file


@dataclass
class Source:
    """One run.

    Attributes:
        path: Its checkpoint.
        state: What is in it, tensors on the disk.
        rows: Its history; empty if there is no file.
        results: Test results by user; None if the run has not been tested.
        given: The settings over those of the run, for :func:`load_trained`.
    """

    path: Path
    state: dict[str, Any]
    rows: list[Row]
    results: UserResults | None
    given: tuple[Mapping[str, Any] | None, Mapping[str, str] | None]

    @classmethod
    def open(
        cls,
        path: Path,
        config_dict: Mapping[str, Any] | None = None,
        cmd_line: Mapping[str, str] | None = None,
    ) -> Source:
        """Read what is cheap to read.

        Raises:
            UserError: A file is damaged.
        """
        path = find_checkpoint(path)
        state = peek_checkpoint(path)
        try:
            results = read_per_user(by_user_file(path))
        except DataError:
            if by_user_file(path).exists():
                raise
            results = None
        rows = History.read(history_file(path)).rows
        return cls(path, state, rows, results, (config_dict, cmd_line))

    @property
    def name(self) -> str:
        """The model, with its backbone where it has a choice."""
        backbone = self.state["config"].get("backbone")
        model = str(self.state["config"].get("model", self.state["model"]))
        return f"{model} ({backbone})" if backbone and model.startswith("CIERec") else model

    @property
    def required_results(self) -> UserResults:
        """The results by user.

        Raises:
            DataError: There are none.
        """
        if self.results is None:
            raise DataError(
                f"{self.path}: has no results by user next to it (*{SUFFIX}), and a comparison "
                "needs them; finish the run, which writes them after the test"
            )
        return self.results

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in the checkpoint."""
        return from_plain(self.state["config"])

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept, from 1."""
        return int(self.state["epoch"]) + 1

    @property
    def seed(self) -> int:
        """Of the run; it decides what the report draws at random too."""
        return int(self.state["config"]["seed"])

    @cached_property
    def trained(self) -> TrainedModel:
        """The model."""
        return load_trained(self.path, *self.given)

    @cached_property
    def user_groups(self) -> UserGroups:
        """Cold and warm users."""
        return UserGroups.from_split(self.trained.config, *map(whole_part, self.trained.parts))

    @cached_property
    def item_groups(self) -> ItemGroups:
        """Unseen, rare and common items."""
        return ItemGroups.from_split(self.trained.config, whole_part(self.trained.parts[0]))

    @cached_property
    def histories(self) -> Ragged:
        """Training items of each user, in the order of time where there are times."""
        return self._by_user(0)

    @cached_property
    def positives(self) -> Ragged:
        """Test items of each user."""
        return self._by_user(2)

    def _by_user(self, part: int) -> Ragged:
        trained = self.trained
        data, table = trained.dataset, trained.parts[part].inter_feat
        users, items = (np.asarray(table[name]) for name in (data.uid_field, data.iid_field))
        keys = [users]
        if data.time_field in table:
            keys.insert(0, np.asarray(table[data.time_field]))
        order = np.lexsort(keys)
        starts = np.concatenate([[0], np.bincount(users, minlength=len(trained.user_ids)).cumsum()])
        return Ragged(items[order], starts)

    def items_of(self, table: Ragged, user: int) -> np.ndarray:
        """One row of :attr:`histories` or :attr:`positives`, each item once."""
        row = table.values[table.starts[user] : table.starts[user + 1]]
        return np.array(list(dict.fromkeys(row.tolist())), dtype=np.int64)
