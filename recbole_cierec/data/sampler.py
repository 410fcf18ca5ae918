"""The used items of RecBole's sampler, in arrays.

RecBole's sampler keeps a Python set for each user and phase, about 200 bytes per interaction; here
it is 8 bytes per interaction and phase. The draws are RecBole's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from recbole.sampler import Sampler

from recbole_cierec.errors import DataError


class UsedItems:
    """The set of items of each user, created on access.

    Args:
        pairs: user * n_items + item, ascending and distinct.
        n_users: Number of users, RecBole's padding included.
        n_items: Number of items, RecBole's padding included.
    """

    def __init__(self, pairs: np.ndarray, n_users: int, n_items: int) -> None:
        self.pairs, self.n_items = pairs, n_items
        self.starts = np.searchsorted(pairs, np.arange(n_users + 1) * n_items)

    @property
    def lengths(self) -> np.ndarray:
        """Number of items of each user [n_users]."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, user: Any) -> Any:
        """The set of one user, or a list of sets for a list or an array of users."""
        if user is None:  # RecBole's loader starts with no user
            return set()
        if np.ndim(user):
            return [self[one] for one in user]
        items = self.pairs[self.starts[user] : self.starts[user + 1]] - user * self.n_items
        return set(items.tolist())

    def __iter__(self) -> Iterator[set[int]]:
        return map(self.__getitem__, range(len(self)))


class CompactSampler(Sampler):
    """RecBole's ``Sampler`` with :class:`UsedItems` in place of its sets.

    After training, users have used their ``rowless`` items as well: rankings leave them out.
    """

    def get_used_ids(self) -> dict[str, UsedItems]:
        used, known = {}, np.empty(0, dtype=np.int64)
        rowless = self.datasets[0].rowless
        for phase, dataset in zip(self.phases, self.datasets, strict=True):
            users, items = (dataset.inter_feat[f].numpy() for f in (self.uid_field, self.iid_field))
            # numpy's unique takes four times as long.
            known = np.sort(np.concatenate([known, users * self.item_num + items]))
            known = known[np.diff(known, prepend=-1) > 0]
            used[phase] = UsedItems(known, self.user_num, self.item_num)
            if phase == self.phases[0]:
                known = np.concatenate([known, rowless.users * self.item_num + rowless.items])
        full = int((used[self.phases[-1]].lengths + 1 == self.item_num).sum())  # 0 is the padding
        if full:
            raise DataError(
                f"{self.datasets[0].dataset_name}: {full} user(s) have interacted with all items, "
                "so no negative is left for them; drop them (user_inter_num_interval)"
            )
        return used
