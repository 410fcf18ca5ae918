"""The users and items of a command that recommends: files of ids, conditions on columns."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_cierec.data.atomic import format_of, read_atomic
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.errors import ConfigError, DataError, nearest
from recbole_cierec.serving.trained import TrainedModel

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([\w.-]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
HOW = "write COLUMN=VALUE, with =, !=, <, <=, > or >=, and join several by &"


def read_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line; each once, blank lines skipped.

    Raises:
        DataError: It cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"{path}: cannot be read ({cause}); give one id a line") from error
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise DataError(f"{path}: holds no id; give one a line")
    return ids


def listed_items(trained: TrainedModel, path: Path) -> np.ndarray:
    """Internal numbers of the items in a file of ids.

    Raises:
        DataError: An item is not one of the model's.
    """
    ids = read_ids(path)
    numbers = trained.numbers_of("item", ids)
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        raise DataError(
            f"{path}: {len(unknown)} of {len(ids)} items are not in the model's data, the first is "
            f"'{ids[unknown[0]]}'; remove them, or give new items by --new_items"
        )
    return numbers


def filtered_items(trained: TrainedModel, conditions: str) -> np.ndarray:
    """Internal numbers of the items whose columns in NAME.item satisfy all conditions.

    Args:
        trained: The model; its data set's folder is read.
        conditions: ``color=red & price<20``. On a column of sequences ``=`` means that one of its
            tokens is the value.

    Raises:
        ConfigError: A condition is malformed, or no item satisfies all.
        DataError: NAME.item or a column is missing.
    """
    config = trained.config
    path = atomic_file(Path(config["data_path"]) / f"{config['dataset']}.item")
    if not path.is_file():
        raise DataError(f"{path}: not found, and --where reads it; set data_path")
    frame, types = read_atomic(path, **format_of(config))
    kept = np.ones(len(frame), dtype=bool)
    for text in conditions.split("&"):
        kept &= _holds(text, frame, types, config["seq_separator"], path)
    ids = frame.loc[kept, config["ITEM_ID_FIELD"]].astype(str).tolist()
    numbers = trained.numbers_of("item", ids)
    numbers = np.unique(numbers[numbers > 0])
    if not len(numbers):
        raise ConfigError(f"--where={conditions}: it holds for none of the model's items")
    return numbers


def _holds(
    text: str, frame: pd.DataFrame, types: dict[str, str], separator: str, path: Path
) -> np.ndarray:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(f"--where: '{text.strip()}' is no condition; {HOW}")
    column, sign, value = match.groups()
    if column not in frame:
        raise DataError(
            f"{path}: no column {column}{nearest(column, frame.columns)}; it has: "
            f"{', '.join(frame.columns)}"
        )
    cells, kind = frame[column], types[column]
    if kind == "float":
        try:
            wanted: Any = float(value)
        except ValueError as error:
            why = f"'{value}' is none" if value else "none follows"
            raise ConfigError(f"--where: {column} holds numbers, and {why}") from error
        return _COMPARE[sign](cells.astype(float), wanted).to_numpy(dtype=bool)
    if sign not in ("=", "!="):
        raise ConfigError(f"--where: {column} is {kind}, which has no order; use = or !=")
    texts = cells.fillna("").astype(str)
    if kind.endswith("_seq"):
        found = np.array([value in cell.split(separator) for cell in texts])
    else:
        found = (texts == value).to_numpy(dtype=bool)
    return found if sign == "=" else ~found
