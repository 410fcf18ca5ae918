"""RecBole's table of columns, cut by tensors of row numbers.

RecBole turns an array of row numbers into a list of Python numbers before it cuts a column, which
costs more than the rest of a training batch of ids put together; and torch reads a list number by
number, for each column anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction


class FastInteraction(Interaction):
    """An :class:`Interaction` whose rows may be asked for by numbers of any kind at no detour."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        if isinstance(index, (list, range, np.ndarray)):
            # An empty list would become an array of floats.
            index = torch.from_numpy(np.asarray(index, None if len(index) else np.int64))
        columns = self.interaction.items()
        if isinstance(index, torch.Tensor) and index.dtype == torch.int64:
            # RecBole counts rows from the start, and this form has no negative numbers to heed.
            return FastInteraction({k: column.index_select(0, index) for k, column in columns})
        return FastInteraction({name: column[index] for name, column in columns})

    def repeat(self, sizes: int) -> Interaction:
        """RecBole repeats a batch once for each negative, mostly one, and then only adds to it."""
        return FastInteraction(self.interaction) if sizes == 1 else super().repeat(sizes)
