"""RecBole data sets that carry item content and give every model the same items.

RecBole's item vocabulary depends on which columns a model loads: items of NAME.item without any
interaction become candidates and training negatives as soon as that file is read. Here the key
``item_vocabulary`` decides instead, the same for every model.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.dataset.customized_dataset import (
    DIENDataset,
    GRU4RecKGDataset,
    KSRDataset,
)
from recbole.utils import ModelType

from recbole_cierec.compat import DatasetMends
from recbole_cierec.config_keys import nearest
from recbole_cierec.data.atomic import read_atomic
from recbole_cierec.data.cold_split import ColdSequenceMixin, ColdSplitMixin
from recbole_cierec.data.content import ItemContent
from recbole_cierec.data.table import Table
from recbole_cierec.errors import ConfigError, DataError

FEATURE_KEYS = ("selected_features", "item_attribute")  # of FDSA, GRU4RecF, SASRecF; of S3Rec


class ContentMixin(DatasetMends):
    """What we add to any RecBole data set: content, one vocabulary, clear refusals."""

    content: ItemContent

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        if not folder.is_dir():
            beside = [path.name for path in folder.parent.glob("*") if path.is_dir()]
            raise DataError(
                f"{folder}: no such data set folder; put {token}.inter there, or set data_path"
                f"{nearest(token, beside)}"
            )
        try:
            super()._load_data(token, dataset_path)
        except ValueError as error:  # of models that read more: "[NAME.kg] not found in [...]."
            if isinstance(error, DataError) or "not found" not in str(error):
                raise
            raise DataError(f"{self.config['model']} needs a file more: {error}") from error
        if self.config["item_vocabulary"] == "all" and self.item_feat is None:
            self.item_feat = self._item_ids_only(folder / f"{token}.item")

    def _item_ids_only(self, path: Path) -> pd.DataFrame | None:
        if not path.is_file():
            return None
        frame, _ = read_atomic(
            path, separator=self.config["field_separator"], columns={self.iid_field}
        )
        return frame.drop_duplicates(subset=[self.iid_field])

    def _remap_ID_all(self) -> None:
        if self.config["item_vocabulary"] == "interacted" and self.item_feat is not None:
            bought = self.item_feat[self.iid_field].isin(self.inter_feat[self.iid_field].unique())
            self.item_feat = self.item_feat[bought].reset_index(drop=True)
        super()._remap_ID_all()

    def _data_filtering(self) -> None:
        try:
            super()._data_filtering()
        except ValueError as error:  # RecBole: "Some feat is empty, please check ..."
            raise DataError(
                f"{self.dataset_path}: no interaction is left after filtering; "
                "look at user_inter_num_interval, item_inter_num_interval and val_interval"
            ) from error

    def _data_processing(self) -> None:
        super()._data_processing()
        self._refuse_absent_features()
        self.content = ItemContent(self.config, self.field2id_token[self.iid_field])

    def _refuse_absent_features(self) -> None:
        """RecBole's models with item features find a column that is not there by a KeyError."""
        for key in FEATURE_KEYS:
            names = self.config[key] or []
            for name in [names] if isinstance(names, str) else names:
                if name not in self.field2type:
                    raise DataError(
                        f"{self.dataset_path}: {key} of {self.config['model']} names the column "
                        f"{name}, which is not loaded; name columns of {self.dataset_name}.item in "
                        f"it, and in load_col: {{inter: [...], item: [{self.iid_field}, {name}]}}"
                    )

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Table:
        return Table(super()._dataframe_to_interaction(data).interaction)

    def build(self) -> list:
        order = self.config["eval_args"]["order"]
        split = not self.benchmark_filename_list  # files that are split already need no order
        if split and order == "TO" and self.time_field not in self.inter_feat:
            raise DataError(
                f"{self.dataset_path}: eval_args order TO needs the column {self.time_field}:float "
                "in the .inter file (and in load_col); add it or set eval_args order: RO"
            )
        return super().build()

    def digest(self) -> str:
        """sha256 over external ids, vocabulary and interactions: equal data, equal digest."""
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
OWN_TO_MODEL = {  # models of RecBole with a data set class of their own
    "DIEN": DIENDataset,
    "GRU4RecKG": GRU4RecKGDataset,
    "KSR": KSRDataset,
}


@cache
def _with_content(base: type) -> type:
    cold = ColdSequenceMixin if issubclass(base, SequentialDataset) else ColdSplitMixin
    return type(base.__name__, (ContentMixin, cold, base), {"__doc__": base.__doc__})


def dataset_class(config) -> type:
    """The class for a configuration: RecBole's choice by model and model type, with content."""
    if config["model"] in OWN_TO_MODEL:
        return _with_content(OWN_TO_MODEL[config["model"]])
    by_type = {
        ModelType.SEQUENTIAL: VisualSequentialDataset,
        ModelType.KNOWLEDGE: VisualKnowledgeDataset,
    }
    return by_type.get(config["MODEL_TYPE"], VisualDataset)


def _make_demo(config) -> None:
    """Draw the embedded demo data where they are missing, once for all processes."""
    from recbole_cierec.data.demo import ensure_demo

    if config["single_spec"] or config["local_rank"] == 0:
        ensure_demo(Path(config["data_path"]).parent)
    if not config["single_spec"]:
        torch.distributed.barrier()


def create_dataset(config) -> Dataset:
    """The data set of ``config``, filtered and remapped.

    Unlike RecBole's function of that name it never unpickles an earlier data set that happens
    to lie in ``checkpoint_dir``: such a file may be stale, and reading it runs what it holds.

    Raises:
        DataError: A file is missing or malformed.
        ConfigError: ``dataset_save_path`` asks for a pickled data set.
    """
    if config["dataset_save_path"]:
        raise ConfigError("dataset_save_path: pickled data sets are not read; remove this key")
    if config["dataset"] == DEMO:
        _make_demo(config)
    dataset = dataset_class(config)(config)
    if config["save_dataset"]:
        dataset.save()
    return dataset
