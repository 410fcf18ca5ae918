"""Row numbers: loaders that keep a range, where RecBole's keep a list of 36 bytes a row, and the
order of rows by an id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a mixin: RecBole's class has the attributes and methods it uses
    from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader as _Base
else:
    _Base = object


class RowRange(_Base):
    """Goes before a RecBole loader, whose ``sample_size`` is one while it makes its list."""

    config: Any
    sample_size: int
    _n_rows: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._use_range()

    def _use_range(self) -> None:
        """Replace the list, once torch's loader is complete."""
        if self._n_rows is not None:
            self.sample_size = self._n_rows
            # RecBole's loader redirects the attribute `dataset`, and torch's refuses to set it.
            self.__dict__["dataset"] = self.sampler.data_source = range(self._n_rows)

    def _init_batch_size_and_step(self) -> None:
        """RecBole calls it right before it makes the list."""
        super()._init_batch_size_and_step()
        making = "sampler" not in vars(self)
        if making and self.config["single_spec"] and self.sample_size > 1:
            self._n_rows, self.sample_size = self.sample_size, 1


def order_of(ids: np.ndarray) -> np.ndarray:
    """The row numbers of ``ids``, integers from 0, sorted by id; equal ids keep their order.

    numpy's stable argsort takes several times as long as a sort of id and row in one number.
    """
    bits = len(ids).bit_length()
    if not len(ids) or int(ids.max()).bit_length() + bits > 63:
        return np.argsort(ids, kind="stable")
    cells = ids.astype(np.int64) << bits
    cells |= np.arange(len(ids))
    cells.sort()
    cells &= (1 << bits) - 1
    return cells
