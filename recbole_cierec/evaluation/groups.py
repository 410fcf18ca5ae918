"""Results of all, cold and warm users from one pass over the scores.

The paper's cold and warm columns are means over two disjoint groups of users (every row of its
Table II is the same mixture of both), split at three interactions. RecBole keeps one row a user
of what its metrics need; a group's result is RecBole's own metric on the rows of its users.
"""

from __future__ import annotations

from collections import OrderedDict
from logging import getLogger

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct

from recbole_cierec.compat import MendedCollector

ROWS = ("rec.topk", "rec.items", "rec.meanrank", "rec.users")  # one row a user
COUNTS = ("test", "train", "total")


class UserGroups:
    """Cold and warm users.

    Args:
        counts: Interactions of each user [n_users] in the phase that decides.
        boundary: A user with at most so many is cold.
    """

    def __init__(self, counts: np.ndarray, boundary: int) -> None:
        self.cold = counts <= boundary

    @classmethod
    def from_split(cls, config, train, valid, test) -> UserGroups:
        """From the three parts of a data set and the keys ``user_group_*``."""
        field = config["USER_ID_FIELD"]
        parts = {"train": [train], "test": [test], "total": [train, valid, test]}
        chosen = parts[config["user_group_count"]]
        counts = sum(
            np.bincount(np.asarray(part.inter_feat[field]), minlength=train.user_num)
            for part in chosen
        )
        return cls(counts, config["user_group_boundary"])

    def masks(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """bool [len(users)] for each group."""
        cold = self.cold[users]
        return {"cold": cold, "warm": ~cold}


class GroupCollector(MendedCollector):
    """Also keeps which user each row of scores belongs to."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self._users: list[torch.Tensor] = []

    def eval_batch_collect(self, scores_tensor, interaction, positive_u, positive_i):
        users = interaction[self.config["USER_ID_FIELD"]].cpu()
        if len(users) != len(scores_tensor):  # sampled candidates: one row of pairs a candidate
            users = torch.unique_consecutive(users)
        self._users.append(users)
        return super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)

    def get_data_struct(self):
        struct = super().get_data_struct()
        struct.set("rec.users", torch.cat(self._users))
        self._users = []
        return struct


class GroupEvaluator(Evaluator):
    """RecBole's evaluator, once for all users and once a group; keys ``recall@10_cold`` etc."""

    groups: UserGroups | None = None

    def __init__(self, config) -> None:
        super().__init__(config)
        self.shares: dict[str, float] = {}

    def evaluate(self, dataobject: DataStruct) -> OrderedDict:
        struct = gathered(dataobject)
        result = super().evaluate(struct)
        if self.groups is None or "rec.topk" not in struct:
            return result
        masks = self.groups.masks(struct.get("rec.users").numpy())
        self.shares = {name: float(mask.mean()) for name, mask in masks.items()}
        metrics = list(result)
        for name, mask in masks.items():
            part = super().evaluate(_rows(struct, mask)) if mask.any() else {}
            result.update({f"{m}_{name}": part.get(m, float("nan")) for m in metrics})
        return result

    def log_shares(self) -> None:
        """One line: how many users each group has."""
        if self.shares:
            text = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
            getLogger().info(f"Users evaluated: {text}")


def _rows(struct: DataStruct, mask: np.ndarray) -> DataStruct:
    """The struct with only the users of ``mask``."""
    part = DataStruct()
    chosen = torch.from_numpy(mask)
    for key, value in struct._data_dict.items():
        part.set(key, value[chosen] if key in ROWS else value)
    return part


def gathered(struct: DataStruct) -> DataStruct:
    """All processes' rows, each user once: RecBole's loader pads by repeating users."""
    if not torch.distributed.is_initialized():
        return struct
    mine = {k: v for k, v in struct._data_dict.items() if k in ROWS}
    everyone: list[dict] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everyone, mine)
    rows = {k: torch.cat([part[k] for part in everyone]) for k in mine}
    _, first = np.unique(rows["rec.users"].numpy(), return_index=True)
    whole = DataStruct()
    for key, value in struct._data_dict.items():
        whole.set(key, rows[key][torch.from_numpy(first)] if key in rows else value)
    return whole
