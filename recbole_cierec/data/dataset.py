"""RecBole data sets with item content, and with the same items for every model.

RecBole's item vocabulary depends on the columns that a model loads: items of NAME.item without any
interaction become candidates and training negatives as soon as that file is read. Here the key
``item_vocabulary`` decides instead, for every model alike.
"""

from __future__ import annotations

import hashlib
from collections import UserDict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.types import union_categoricals
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.dataset.customized_dataset import (
    DIENDataset,
    GRU4RecKGDataset,
    KSRDataset,
)
from recbole.utils import FeatureType, ModelType

from recbole_cierec.data.atomic import format_of, read_atomic
from recbole_cierec.data.cold_dataset import ColdSequenceMixin, ColdSplitMixin
from recbole_cierec.data.column_keys import Files
from recbole_cierec.data.columns import PADDING
from recbole_cierec.data.compat import DatasetCompat
from recbole_cierec.data.content import ItemContent
from recbole_cierec.data.fast_interaction import FastInteraction
from recbole_cierec.data.parquet import as_text_files, atomic_file
from recbole_cierec.data.recbole_errors import as_data_errors
from recbole_cierec.errors import DataError, other_ids


class NumberOfToken(UserDict):
    """RecBole's table of a vocabulary, made on first use: most runs look up no token by its text.

    Args:
        tokens: The tokens by number [n].
    """

    def __init__(self, tokens: np.ndarray) -> None:
        self._tokens = tokens

    @cached_property
    def data(self) -> dict[str, int]:  # type: ignore[override]
        return {token: number for number, token in enumerate(self._tokens)}


class ContentMixin(DatasetCompat):
    """Adds content, one vocabulary and clear errors to any RecBole data set."""

    content: ItemContent
    inter_feat: Any  # RecBole's
    user_feat: Any
    item_feat: Any

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        Files(self.config, folder, token).check(getattr(self.config, "origins", {}))
        with as_text_files(folder, token) as (text_folder, self._behind):
            super()._load_data(token, str(text_folder))
        del self._behind
        if self.config["item_vocabulary"] == "all" and self.item_feat is None:
            self.item_feat = self._item_ids_only(atomic_file(folder / f"{token}.item"))

    def _item_ids_only(self, path: Path) -> pd.DataFrame | None:
        if not path.is_file():
            return None
        frame, _ = read_atomic(path, **format_of(self.config), columns={self.iid_field})
        return frame.drop_duplicates(subset=[self.iid_field])

    def _limit_length(self, field: str, cells: list[np.ndarray]) -> list[np.ndarray]:
        """Keep the last items of a history, at most as many as a sequential model reads."""
        most = getattr(self, "max_item_list_len", None)
        if most and field.endswith(self.config["LIST_SUFFIX"]):
            limit = min(most, (self.config["seq_len"] or {}).get(field, most))
            cells = [cell[-limit:] for cell in cells]
        return super()._limit_length(field, cells)

    def _remap_ID_all(self) -> None:
        self._interacted(self.user_feat, self.uid_field, "user", "a user")
        rows = self._interacted(self.item_feat, self.iid_field, "item", "an item")
        if self.config["item_vocabulary"] == "interacted" and rows is not None:
            self.item_feat = self.item_feat[rows].reset_index(drop=True)
        super()._remap_ID_all()

    def _interacted(
        self, feat: pd.DataFrame | None, field: str, kind: str, what: str
    ) -> np.ndarray | None:
        """Which rows of NAME.user or NAME.item are of users or items with interactions.

        Raises:
            DataError: None is, so that the file is of other data or writes its ids differently.
        """
        if feat is None:
            return None
        fields = [f for f in self.alias[f"{kind}_id"] if f in self.inter_feat]
        known = np.concatenate([self._tokens_of(f) for f in fields])
        rows = feat[field].isin(known).to_numpy()
        if len(rows) and not rows.any():
            file = atomic_file(Path(self.dataset_path) / f"{self.dataset_name}.{kind}")
            raise other_ids(str(file), feat[field].tolist(), known[0], what)
        return rows

    def _remap(self, remap_list: list[tuple]) -> None:
        """Number the tokens; of categorical columns without a look-up of texts."""
        columns = [feat[field].array for feat, field, _ in remap_list]
        if not columns or not all(isinstance(column, pd.Categorical) for column in columns):
            super()._remap(remap_list)
            return
        numbers, found = pd.factorize(union_categoricals(columns))
        tokens = np.array([PADDING, *found])
        parts = np.split(numbers + 1, np.cumsum([len(column) for column in columns])[:-1])
        for (feat, field, _), part in zip(remap_list, parts, strict=True):
            if field not in self.field2id_token:
                self.field2id_token[field] = tokens
                self.field2token_id[field] = NumberOfToken(tokens)
            feat[field] = part

    def _filter_by_inter_num(self) -> None:
        """Skip RecBole's count by texts if no user and no item would be dropped."""
        if not (
            self._all_within("user_inter_num_interval", self.uid_field, self.user_feat)
            and self._all_within("item_inter_num_interval", self.iid_field, self.item_feat)
        ):
            super()._filter_by_inter_num()

    def _all_within(self, key: str, field: str, feat: pd.DataFrame | None) -> bool:
        intervals = self._parse_intervals_str(self.config[key])
        if intervals is None or field is None:
            return True
        counts = np.unique(np.bincount(pd.factorize(self.inter_feat[field].array)[0] + 1)[1:])
        never = feat is not None and any(low > 0 for _, low, _, _ in intervals[:1])
        return not never and all(self._within_intervals(n, intervals) for n in counts)

    def _tokens_of(self, field: str) -> np.ndarray:
        """Distinct tokens of a column of the interactions."""
        cells = self.inter_feat[field]
        if self.field2type[field] == FeatureType.TOKEN_SEQ:
            return np.unique(np.concatenate([*cells, np.empty(0, dtype=str)]))
        return cells.unique()

    def _init_alias(self) -> None:
        """Give a column and the lists of its values (item_id, item_id_list) one vocabulary.

        RecBole does so only if ``alias_of_item_id`` and similar keys name the lists. Otherwise the
        ids of a history would refer to other items.
        """
        for field in set(self.token_like_fields) - {self.uid_field, self.iid_field}:
            if lists := self._lists_of(field):
                self.alias[field] = np.array([field, *lists])
        super()._init_alias()

    def _set_alias(self, alias_name: str, default_value: list[str]) -> None:
        lists = [name for field in default_value for name in self._lists_of(field)]
        super()._set_alias(alias_name, [*default_value, *lists])

    def _lists_of(self, field: str) -> list[str]:
        name = f"{field}{self.config['LIST_SUFFIX']}"
        return [name] if name in self.field2source else []

    def _data_filtering(self) -> None:
        try:
            super()._data_filtering()
        except ValueError as error:  # RecBole: "Some feat is empty, please check ..."
            raise DataError(
                f"{self.dataset_path}: no interaction is left after filtering; "
                "check user_inter_num_interval, item_inter_num_interval and val_interval"
            ) from error

    def _data_processing(self) -> None:
        super()._data_processing()
        if self.item_num <= 2:
            raise DataError(f"{self.dataset_path}: has only one item, so there is nothing to rank")
        self.content = ItemContent(self.config, self.field2id_token[self.iid_field])

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> FastInteraction:
        return FastInteraction(super()._dataframe_to_interaction(data).interaction)

    def build(self) -> list:
        order = self.config["eval_args"]["order"]
        split = not self.benchmark_filename_list  # files that are already split need no order
        if split and order == "TO" and self.time_field not in self.inter_feat:
            raise DataError(
                f"{self.dataset_path}: eval_args order TO needs the column {self.time_field}:float "
                "in the .inter file (and in load_col); add it or set eval_args order: RO"
            )
        with as_data_errors(self.config):
            return super().build()

    def digest(self) -> str:
        """sha256 of external ids, vocabulary and interactions."""
        state = hashlib.sha256()
        for field in (self.uid_field, self.iid_field):
            state.update("\0".join(map(str, self.field2id_token[field])).encode())
            state.update(np.ascontiguousarray(self.inter_feat[field], dtype=np.int64).tobytes())
        return state.hexdigest()


class VisualDataset(ContentMixin, ColdSplitMixin, Dataset):
    """For general, context-aware and traditional models."""


class VisualSequentialDataset(ContentMixin, ColdSequenceMixin, SequentialDataset):
    """For sequential models."""


class VisualKnowledgeDataset(ContentMixin, ColdSplitMixin, KnowledgeBasedDataset):
    """For knowledge-aware models."""


DEMO = "demo"
OWN_TO_MODEL = {  # models of RecBole with a separate data set class
    "DIEN": DIENDataset,
    "GRU4RecKG": GRU4RecKGDataset,
    "KSR": KSRDataset,
}


@cache
def _with_content(base: type) -> type:
    cold = ColdSequenceMixin if issubclass(base, SequentialDataset) else ColdSplitMixin
    return type(base.__name__, (ContentMixin, cold, base), {"__doc__": base.__doc__})


def dataset_class(config: Any) -> type:
    """The data set class for a config: RecBole's choice by model and model type, with content."""
    if config["model"] in OWN_TO_MODEL:
        return _with_content(OWN_TO_MODEL[config["model"]])
    by_type = {
        ModelType.SEQUENTIAL: VisualSequentialDataset,
        ModelType.KNOWLEDGE: VisualKnowledgeDataset,
    }
    return by_type.get(config["MODEL_TYPE"], VisualDataset)


def _make_demo(config: Any) -> None:
    """Create the demo data if they are missing, once for all processes."""
    from recbole_cierec.data.demo import ensure_demo

    if config["single_spec"] or config["local_rank"] == 0:
        ensure_demo(Path(config["data_path"]).parent)
    if not config["single_spec"]:
        torch.distributed.barrier()


def create_dataset(config: Any) -> Dataset:
    """The data set of ``config``, filtered and remapped.

    RecBole's function of the same name unpickles an earlier data set that it finds in
    ``checkpoint_dir``. This one does not: such a file may be stale, and reading it runs its code.

    Raises:
        DataError: A file is missing or malformed.
    """
    if config["dataset"] == DEMO:
        _make_demo(config)
    with as_data_errors(config):
        return dataset_class(config)(config)
