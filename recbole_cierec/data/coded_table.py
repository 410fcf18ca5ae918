"""Large atomic files read into integer codes instead of texts.

Arrow gives each distinct text of a column a number while it reads, three times as fast as pandas
creates a text for each cell, and every later step (checks, filters, numbering of ids) works on the
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow
from pyarrow import csv

# Of the file, parsed at a time; each block has a dictionary, so smaller ones take more memory.
_BLOCK_BYTES = 1 << 24


def read_coded(
    file: BinaryIO,
    separator: str,
    names: list[str],
    types: Mapping[str, str],
    missing: list[str],
) -> pd.DataFrame:
    """Read the rows of an atomic file whose shape was checked.

    Args:
        file: After the header; its rows are UTF-8.
        separator: Between two cells.
        names: Names of all columns.
        types: Types of the columns to read.
        missing: Texts of missing numbers.

    Returns:
        Categorical columns for the type token, with categories in the order of the file and
        missing values for empty cells; float64 for float; text for sequences, NaN where empty.

    Raises:
        pyarrow.ArrowException: It cannot be read so.
    """
    pool = pyarrow.system_memory_pool()
    kinds = {
        "token": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "float": pyarrow.float64(),
    }
    table = csv.read_csv(
        file,
        csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES, use_threads=False),
        csv.ParseOptions(delimiter=separator, quote_char=False),
        csv.ConvertOptions(
            include_columns=list(types),
            column_types={name: kinds.get(kind, pyarrow.string()) for name, kind in types.items()},
            null_values=missing,
            strings_can_be_null=False,
        ),
        # The default pool would keep its largest extent for good.
        memory_pool=pool,
    )
    columns = {}
    for name in types:
        columns[name], table = table[name], table.drop_columns(name)
    frame = as_frame(columns, types)
    pool.release_unused()
    return frame


def as_frame(
    columns: dict[str, pyarrow.ChunkedArray], types: Mapping[str, str], coded: bool = True
) -> pd.DataFrame:
    """A table of Arrow's columns, as :func:`read_coded` returns it.

    Args:
        columns: Text or its dictionary, and float64; emptied, to free each once it is converted.
        types: Types of all columns.
        coded: Make tokens categorical; otherwise they are text, NaN where empty.
    """
    made = {}
    for name, kind in types.items():
        column = columns.pop(name)
        if kind == "token" and coded:
            made[name] = _categorical(column)
        elif kind == "float":
            made[name] = column.to_numpy()
        else:
            texts = _texts(column)
            made[name] = texts if coded else pd.Series(texts, dtype=object)
    return pd.DataFrame(made, copy=False)


def _categorical(column: pyarrow.ChunkedArray) -> pd.Categorical:
    if not pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if not column.num_chunks:
        return pd.Categorical.from_codes([], pd.Index([], dtype=object))
    column = column.unify_dictionaries()
    texts = column.chunk(0).dictionary.to_pylist()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    if "" in texts:  # an empty cell
        empty = texts.index("")
        codes = np.where(codes == empty, -1, codes - (codes > empty)).astype(np.int32)
        del texts[empty]
    return pd.Categorical.from_codes(codes, pd.Index(texts, dtype=object))


def _texts(column: pyarrow.ChunkedArray) -> np.ndarray:
    cells = column.to_numpy()
    cells[cells == ""] = np.nan
    return cells
