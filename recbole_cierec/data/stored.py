"""A data set as plain data, so that a checkpoint can be used where its files are not.

What is kept is the state between reading and splitting: vocabularies, and tables of internal ids.
From there the split, which depends on settings and seed alone, is made again; the digest of the
training part shows that it is the same.
"""

from __future__ import annotations

from enum import Enum
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.utils import FeatureSource, FeatureType

from recbole_cierec.data.compat import FeatureFrame
from recbole_cierec.data.content import ItemContent
from recbole_cierec.data.dataset import dataset_class
from recbole_cierec.files.checkpoint import from_plain, to_plain

_ENUMS: dict[str, type[Enum]] = {kind.__name__: kind for kind in (FeatureType, FeatureSource)}
# Made anew, or not a part of the data.
_LEFT_OUT = frozenset({"config", "logger", "content", "field2token_id", "dataset_path"})
_SCALARS = (bool, int, float, str, type(None))


class _NotData(Exception):
    """A value that is no data."""


def dataset_tables(dataset: Any) -> dict[str, Any]:
    """The state of a data set that was read and not yet split, as plain data for a checkpoint.

    Args:
        dataset: From :func:`recbole_cierec.data.dataset.create_dataset`.
    """
    kept = {}
    for name, value in vars(dataset).items():
        if name not in _LEFT_OUT:
            try:
                kept[name] = _encoded(value)
            except _NotData:
                continue
    return {"dataset": kept}


def stored_dataset(config: Any, tables: dict[str, Any]) -> Any:
    """The data set of :func:`dataset_tables`, ready to be split; no file is read.

    Args:
        config: The configuration of the run that it is from.
        tables: The part ``tables`` of a checkpoint.
    """
    data_class: Any = dataset_class(config)
    dataset = data_class.__new__(data_class)
    vars(dataset).update({name: _decoded(value) for name, value in tables["dataset"].items()})
    dataset.config, dataset.logger = config, getLogger()
    dataset.dataset_path = config["data_path"]
    dataset.field2token_id = {
        field: {token: number for number, token in enumerate(tokens)}
        for field, tokens in dataset.field2id_token.items()
    }
    dataset.content = ItemContent(config, dataset.field2id_token[dataset.iid_field])
    dataset.content.restore(tables.get("items"))
    return dataset


def _encoded(value: Any) -> Any:
    if isinstance(value, Enum):
        return {"__enum__": [type(value).__name__, value.name]}
    if isinstance(value, _SCALARS):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, pd.DataFrame):
        return {"__frame__": {str(name): _column(value[name]) for name in value}}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype == object and not all(isinstance(cell, str) for cell in value.flat):
            raise _NotData
        return to_plain(value)
    if isinstance(value, dict):
        return {"__dict__": [[_encoded(key), _encoded(part)] for key, part in value.items()]}
    if isinstance(value, list | tuple | set):
        return [_encoded(part) for part in value]
    raise _NotData


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "__enum__" in value:
        kind, name = value["__enum__"]
        return _ENUMS[kind][name]
    if "__frame__" in value:
        columns = {name: _cells(column) for name, column in value["__frame__"].items()}
        return FeatureFrame(columns)
    if "__dict__" in value:
        return {_decoded(key): _decoded(part) for key, part in value["__dict__"]}
    return from_plain(value)


def _column(cells: pd.Series) -> dict[str, Any]:
    """A column, ids as narrow as they can be; of sequences their values and lengths."""
    if cells.dtype == object:
        rows = [np.asarray(cell) for cell in cells]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        values = np.concatenate(rows) if rows else np.empty(0)
        return {"lengths": lengths, **_numbers(values)}
    return _numbers(cells.to_numpy())


def _numbers(values: np.ndarray) -> dict[str, Any]:
    narrow = values
    if values.dtype == np.int64 and (not len(values) or np.abs(values).max() < 2**31):
        narrow = values.astype(np.int32)
    own = np.array(narrow)  # a copy: pandas may give a view that cannot be written
    return {"values": torch.from_numpy(own), "type": str(values.dtype)}


def _cells(column: dict[str, Any]) -> Any:
    values = column["values"].numpy().astype(column["type"])
    if "lengths" not in column:
        return values
    ends = np.cumsum(column["lengths"].numpy())
    return pd.Series(np.split(values, ends[:-1]) if len(ends) else [], dtype=object)
