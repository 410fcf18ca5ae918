"""Columns of a table of items that NAME.item keeps, for conditions and models that read them.

A column is a number (``float``) if all its cells are numbers, else a text (``token``). Numbers with
a zero at their start are codes, which would lose it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recbole_cierec.errors import ConfigError

from ..tables.sql import number_text, quote
from ..tables.workspace import Workspace

_CODE = "^[+-]?0[0-9]"
_TAKEN = ("user_id", "item_id", "rating", "timestamp", "label")  # NAME.inter has them
_OWN = ("title", "image_path", "annotations")
_UNSAFE = re.compile(r"[^\w.-]+")  # a condition of --where has none of these in a name


def field_names(columns: Sequence[str]) -> dict[str, str]:
    """The name in NAME.item of each column of the file.

    Raises:
        ConfigError: A name has another meaning in atomic files, or two become the same.
    """
    names: dict[str, str] = {}
    for column in dict.fromkeys(columns):
        field = _UNSAFE.sub("_", column.strip())
        if field in (*_TAKEN, *_OWN):
            raise ConfigError(
                f"--columns {column}: {field} is a column of its own in atomic files; rename this "
                "one in the table"
            )
        if field in names.values() or not field.strip("_"):
            raise ConfigError(f"--columns {column}: gives the name {field!r}; rename it")
        names[column] = field
    return names


def kept_sql(space: Workspace, table: str, cells: Mapping[str, str]) -> dict[str, str]:
    """The cells of NAME.item as SQL of type VARCHAR, by their head, ``price:float``.

    Args:
        space: The workspace; a note will name the columns with their types.
        table: With the cells as text, null where one is empty.
        cells: Column of the table by name in NAME.item.
    """
    kept = {}
    for field, cell in cells.items():
        cast = f"TRY_CAST({cell} AS DOUBLE)"
        is_number = f"isfinite({cast}) AND NOT regexp_matches({cell}, {quote(_CODE)})"
        missing = f"lower({cell}) = 'nan'"  # as pandas may write an empty cell
        numbers = space.value(
            f"SELECT bool_and(coalesce({is_number}, false)) FROM {table} WHERE NOT ({missing})"
        )
        if numbers:
            kept[f"{field}:float"] = f"CASE WHEN isfinite({cast}) THEN {number_text(cast)} END"
        else:
            kept[f"{field}:token"] = cell
    if kept:
        space.notes.append(f"columns kept in NAME.item: {', '.join(kept)}")
    return kept
