"""Who is cold and what is cold: the groups of users and items that results are given for.

The paper's cold and warm columns are means over two disjoint groups of users (every row of its
Table II is the same mixture of both), split at three interactions. Item groups split the test
positives by how often each occurs in training; a group's recall asks only for its own positives,
in the same ranking.
"""

from __future__ import annotations

import numpy as np

COUNTS = ("test", "train", "total")
ITEM_GROUPS = ("item_unseen", "item_rare", "item_common")


class UserGroups:
    """Cold and warm users; with a split by users also those new and those known to training.

    Args:
        counts: Interactions of each user [n_users] in the phase that decides.
        boundary: A user with at most so many is cold.
        new: bool [n_users], users held out of training; None: nobody is.
    """

    def __init__(self, counts: np.ndarray, boundary: int, new: np.ndarray | None = None) -> None:
        self.members = {"cold": counts <= boundary, "warm": counts > boundary}
        if new is not None:
            self.members |= {"new": new, "known": ~new}

    @classmethod
    def from_split(cls, config, train, valid, test) -> UserGroups:
        """From the three parts of a data set and the keys ``user_group_*``."""
        field = config["USER_ID_FIELD"]
        in_training = train.training_counts(field)
        parts = {"train": [], "test": [test], "total": [valid, test]}
        chosen = parts[config["user_group_count"]]
        users = [np.asarray(part.inter_feat[field]) for part in chosen]
        counts = sum((np.bincount(u, minlength=train.user_num) for u in users), 0 * in_training)
        if config["user_group_count"] != "test":
            counts += in_training
        new = None
        if config["strict_cold"] and config["strict_cold"]["kind"] == "user":
            new = in_training == 0
        return cls(counts, config["user_group_boundary"], new)

    def masks(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """bool [len(users)] for each group."""
        return {name: member[users] for name, member in self.members.items()}


class ItemGroups:
    """Items that training never saw, saw rarely, or saw more often.

    Args:
        counts: Training interactions of each item [n_items].
        boundary: The most that is rare.
    """

    def __init__(self, counts: np.ndarray, boundary: int) -> None:
        self.of = np.where(counts == 0, 0, np.where(counts <= boundary, 1, 2)).astype(np.int8)
        self.unseen = counts == 0

    @classmethod
    def from_split(cls, config, train) -> ItemGroups:
        """From the training part and the key ``item_group_boundary``."""
        counts = train.training_counts(config["ITEM_ID_FIELD"])
        return cls(counts, config["item_group_boundary"])
