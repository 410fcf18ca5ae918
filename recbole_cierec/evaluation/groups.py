"""Groups of users and items for which results are reported.

The paper's cold and warm columns are means over two disjoint groups of users (every row of its
Table II is the same mixture of both), split at three interactions. Item groups split the test
positives by their number of training interactions; the recall of a group counts only its own
positives, in the same ranking.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_cierec.evaluation.cold_split import ColdSplit


class UserGroups:
    """Cold and warm users; with a COLD_USER split also new users and all others (known).

    Args:
        counts: Interactions of each user [n_users] in the parts that ``user_group_count`` names.
        boundary: Users with at most this many interactions are cold.
        new: bool [n_users], users held out of training; None without such a split.
    """

    def __init__(self, counts: np.ndarray, boundary: int, new: np.ndarray | None = None) -> None:
        self.members = {"cold": counts <= boundary, "warm": counts > boundary}
        if new is not None:
            self.members |= {"new": new, "known": ~new}

    @classmethod
    def from_split(cls, config: Any, train: Any, valid: Any, test: Any) -> UserGroups:
        """The groups of a data set with three parts, by the keys ``user_group_*``."""
        field = config["USER_ID_FIELD"]
        in_training = train.training_counts(field)
        parts: dict[str, list[Any]] = {"train": [], "test": [test], "total": [valid, test]}
        chosen = parts[config["user_group_count"]]
        users = [np.asarray(part.inter_feat[field]) for part in chosen]
        counts: Any = sum(
            (np.bincount(u, minlength=train.user_num) for u in users), 0 * in_training
        )
        if config["user_group_count"] != "test":
            counts += in_training
        new = None
        cold = ColdSplit.of(config)
        if cold is not None and cold.kind == "user":
            new = in_training == 0
        return cls(counts, config["user_group_boundary"], new)

    def masks(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """Whether each of ``users`` [R] belongs to a group: bool [R] by group."""
        return {name: member[users] for name, member in self.members.items()}


class ItemGroups:
    """Items that are unseen, rare or common in training.

    Args:
        counts: Training interactions of each item [n_items].
        boundary: Items with at most this many are rare.
    """

    def __init__(self, counts: np.ndarray, boundary: int) -> None:
        self.of = np.where(counts == 0, 0, np.where(counts <= boundary, 1, 2)).astype(np.int8)
        self.unseen = counts == 0

    @classmethod
    def from_split(cls, config: Any, train: Any) -> ItemGroups:
        """The groups of the training part, by the key ``item_group_boundary``."""
        counts = train.training_counts(config["ITEM_ID_FIELD"])
        return cls(counts, config["item_group_boundary"])
