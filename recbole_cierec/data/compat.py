"""Compatibility of RecBole's Dataset with current packages: a mixin before RecBole's class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureSource, FeatureType

from recbole_cierec.data.atomic import (
    format_of,
    read_atomic,
    read_header,
    split_cells,
    validate_interactions,
)
from recbole_cierec.data.columns import check_header, refuse_missing, refuse_padding
from recbole_cierec.data.parquet import atomic_file

if TYPE_CHECKING:  # mixins: RecBole's class has the attributes and methods they use
    from recbole.data.dataset import Dataset as _Base
else:
    _Base = object


class _CellSeries(pd.Series):
    """A column whose ``agg(len)`` returns the length of each cell, as in pandas 1 and 2."""

    @property
    def _constructor(self) -> type[pd.Series]:
        return _CellSeries

    def agg(self, func: Any = None, axis: Any = 0, *args: Any, **kwargs: Any) -> Any:
        if func is len:
            return self.map(len)
        return super().agg(func, axis, *args, **kwargs)


class FeatureFrame(pd.DataFrame):
    """A table whose columns compute ``agg(len)`` cell by cell, and that sorts stably.

    Reason: RecBole takes the lengths of sequences with ``feat[field].agg(len)``
    (data/dataset/dataset.py:712, 792, 809, 1217; kg_dataset.py:316; sequential_dataset.py:165).
    pandas 3.0 passes the whole column to ``len``, so any token_seq column raises ValueError
    "Length of values (1) does not match length of index". One table type fixes all six places;
    pandas documents ``_constructor`` and ``_constructor_sliced`` for subclasses.

    Goes when: RecBole uses ``map(len)``.
    """

    def sort_values(self, *args: Any, **kwargs: Any) -> Any:
        """Sort stably.

        Reason: ``rm_dup_inter`` sorts by time (data/dataset/dataset.py:853). pandas' default loses
        the order of the file among equal times, which decides what is in which part.

        Goes when: RecBole sorts stably.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The inplace keyword")  # which RecBole gives
            return super().sort_values(*args, **{"kind": "stable", **kwargs})

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return FeatureFrame

    @property
    def _constructor_sliced(self) -> type[pd.Series]:
        return _CellSeries


class DatasetCompat(_Base):
    """For ``recbole.data.dataset.Dataset`` and its subclasses."""

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        """Report a missing .inter file as a DataError."""
        parts = self.benchmark_filename_list
        names = [f"{token}.{part}.inter" for part in parts] if parts else [f"{token}.inter"]
        refuse_missing(atomic_file(Path(self.dataset_path, name)) for name in names)
        super()._load_inter_feat(token, dataset_path)

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """Read one atomic file and record the types, sources and lengths of its columns.

        Reason: data/dataset/dataset.py:501 fills empty cells of a sequence column through a
        chained assignment, which has no effect in pandas 3.0 (copy on write): AttributeError
        "'float' object has no attribute 'split'". And dataset.py:486 reads with pandas' default
        rules, see :mod:`recbole_cierec.data.atomic`.

        Goes when: RecBole fixes both. The checks of atomic.py are needed in any case.

        Args:
            filepath: Path of the atomic file.
            source: RecBole's kind of file; for additional files, the suffix.

        Returns:
            One column per loaded field: categorical, float64, or an array in each cell. None if no
            field is loaded.

        Raises:
            DataError: The file is malformed.
        """
        # While files in Parquet are loaded, RecBole sees text files of their names.
        filepath = getattr(self, "_behind", {}).get(filepath, filepath)
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        options = format_of(self.config)
        header = read_header(filepath, **options)
        wanted = {
            field: kind
            for field, kind in header.items()
            if (load is None or field in load) and field not in (unload or ())
        }
        name = getattr(source, "value", source)
        if not wanted and source != FeatureSource.INTERACTION:
            self.logger.warning(f"{filepath}: none of its columns is loaded")
            return None
        check_header(self.config, name, wanted, Path(filepath), header)
        table, types = read_atomic(filepath, columns=wanted, coded=True, **options)
        validate_interactions(table, *self._checked_fields(source), path=filepath)
        refuse_padding(table, types, self.config["seq_separator"], Path(filepath))
        if source != "link":  # a link only maps items to entities, which other files describe
            self._note_columns(types, source)
        for field, kind in types.items():
            if kind.endswith("seq"):
                cells = split_cells(table[field], kind, self.config["seq_separator"], path=filepath)
                table[field] = self._limit_length(field, cells)
        return FeatureFrame(table)

    def _checked_fields(self, source: FeatureSource | str) -> tuple[str | None, ...]:
        """The user, item and time columns that may not be empty in a file of this kind."""
        if source == FeatureSource.INTERACTION:
            return self.uid_field, self.iid_field, self.time_field
        return (
            self.uid_field if source == FeatureSource.USER else None,
            self.iid_field if source == FeatureSource.ITEM else None,
            None,
        )

    def _note_columns(self, types: dict[str, str], source: FeatureSource | str) -> None:
        for field, kind in types.items():
            self.field2source[field] = source
            self.field2type[field] = FeatureType(kind)
            if not kind.endswith("seq"):
                self.field2seqlen[field] = 1
            if kind.startswith("float"):
                self.field2bucketnum[field] = 2

    def _limit_length(self, field: str, cells: list[np.ndarray]) -> list[np.ndarray]:
        """Cut sequences to ``seq_len`` if it is set, and record their maximum length."""
        limit = (self.config["seq_len"] or {}).get(field)
        cells = [cell[:limit] for cell in cells]
        self.field2seqlen[field] = max(map(len, cells))
        return cells

    def _user_item_feat_preparation(self) -> None:
        """Make the user and item tables :class:`FeatureFrame` again after a merge."""
        super()._user_item_feat_preparation()
        for name in ("user_feat", "item_feat"):
            feat = getattr(self, name)
            if feat is not None:
                setattr(self, name, FeatureFrame(feat))

    def _fill_nan(self) -> None:
        """Fill missing tokens with 0 ([PAD]), numbers with the mean, sequences with empty ones.

        Reason: data/dataset/dataset.py:648 and 650 fill through chained assignments, which have no
        effect in pandas 3.0 (copy on write): the [PAD] row of every token column then becomes
        -2**63 and missing numbers stay NaN, without an error.

        Goes when: RecBole assigns the filled column. Differs from RecBole in one case: a column
        without any number becomes 0, not NaN.
        """
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].fillna(0).astype(np.int64)
                elif kind == FeatureType.FLOAT:
                    mean = feat[field].mean()
                    feat[field] = feat[field].fillna(0.0 if np.isnan(mean) else mean)
                else:
                    dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
                    none = np.array([], dtype=dtype)
                    feat[field] = [none if isinstance(x, float) else x for x in feat[field]]
