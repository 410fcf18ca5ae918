"""The columns that the atomic files must have, and their types.

The header decides how RecBole reads a column, and a wrong type raises no error: times declared as
tokens are numbered in the order of their first appearance, and a split by time uses these numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_cierec.data.atomic import in_header, refuse_rows
from recbole_cierec.errors import DataError

PADDING = "[PAD]"  # RecBole's name of row 0 of every vocabulary
_TOKEN, _FLOAT = ("token",), ("float",)


@dataclass(frozen=True)
class Role:
    """The requirements on a column that a key names.

    Attributes:
        key: For example ``TIME_FIELD``.
        types: The types that the column may have.
        needed: Whether the file must have the column.
    """

    key: str
    types: tuple[str, ...]
    needed: bool = False


_USER, _ITEM = Role("USER_ID_FIELD", _TOKEN, True), Role("ITEM_ID_FIELD", _TOKEN, True)
ROLES: dict[str, tuple[Role, ...]] = {
    "inter": (
        _USER,
        _ITEM,
        Role("TIME_FIELD", _FLOAT),
        Role("RATING_FIELD", _FLOAT),
        Role("LABEL_FIELD", _FLOAT),
    ),
    "user": (_USER,),
    "item": (
        _ITEM,
        Role("image_path_field", _TOKEN),
        Role("annotations_field", ("token_seq",)),
        Role("category_field", _TOKEN),
    ),
    "kg": (
        Role("HEAD_ENTITY_ID_FIELD", _TOKEN, True),
        Role("RELATION_ID_FIELD", _TOKEN, True),
        Role("TAIL_ENTITY_ID_FIELD", _TOKEN, True),
    ),
    "link": (_ITEM, Role("ENTITY_ID_FIELD", _TOKEN, True)),
}


def check_header(
    config: Any,
    file: str,
    types: Mapping[str, str],
    path: Path,
    names: Iterable[str] | None = None,
) -> None:
    """Refuse a file that lacks a required column or has one of a wrong type.

    Args:
        config: RecBole config.
        file: ``inter``, ``item`` and so on; other suffixes are not checked.
        types: The types of the columns that will be read.
        path: For the message.
        names: All columns of the file, for the message; by default those that will be read.

    Raises:
        DataError: Names the column and the type that it must have.
    """
    for role in ROLES.get(file, ()):
        name = config[role.key]
        if not name:
            continue
        if name in types and types[name] not in role.types:
            needed = " or ".join(f"{name}:{kind}" for kind in role.types)
            raise DataError(
                f"{in_header(path)}: column {name} is {types[name]}, it must be {needed} "
                f"({role.key})"
            )
        if role.needed and name not in types:
            present = ", ".join(names or types)
            raise DataError(
                f"{path}: no column {name}:{role.types[0]} among {present}; rename the column, or "
                f"set {role.key} to its name"
            )
    suffix = config["LIST_SUFFIX"]
    for name, kind in types.items() if file == "inter" and suffix else ():
        of_list = types.get(name + suffix)
        if of_list and not kind.endswith("_seq") and of_list != f"{kind}_seq":
            raise DataError(
                f"{in_header(path)}: column {name}{suffix} is {of_list}, it must be "
                f"{name}{suffix}:{kind}_seq, since {name} is {kind}"
            )


def refuse_padding(
    table: pd.DataFrame, types: Mapping[str, str], separator: str, path: Path
) -> None:
    """Refuse cells that RecBole would read as its padding.

    Args:
        table: As :func:`recbole_cierec.data.atomic.read_atomic` returns it.
        types: The types of its columns.
        separator: Between two elements of a sequence.
        path: Source of the table, for the message.

    Raises:
        DataError: Names the first such line.
    """
    for name, kind in types.items():
        if not kind.startswith("token"):
            continue
        cells = table[name]
        held = (cells == PADDING).to_numpy(copy=True)
        if kind == "token_seq":
            maybe = np.flatnonzero(cells.str.contains(PADDING, regex=False, na=False))
            split = (cells.iloc[row].split(separator) for row in maybe)
            held[maybe] = [PADDING in tokens for tokens in split]
        refuse_rows(path, held, f"{name} holds {PADDING}, RecBole's name of its padding")


def refuse_missing(paths: Iterable[Path]) -> None:
    """Refuse files of interactions that do not exist.

    Raises:
        DataError: Names the first.
    """
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file; check dataset and data_path")


def lacks_column(path: Path, config: Any, key: str) -> DataError:
    """The error for a file without the column of content that ``key`` names."""
    return DataError(
        f"{path}: no column {config[key]}, which {config['model']} needs; add it, or set {key} to "
        "another column"
    )
