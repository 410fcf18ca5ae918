"""Loaders that keep a range of row numbers, where RecBole's keep a list of 36 bytes a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
