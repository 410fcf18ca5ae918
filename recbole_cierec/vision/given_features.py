"""Ready-made features of several modalities: the keys ``features`` and ``features_file``.

``features: {image: F.npy, text: G.npy}`` names a file for each modality. The rows of F.npy belong
to the ids in F.ids.txt, one a line, or without that file to the data lines of NAME.item. An item
without a row lacks the modality: its features are zero, and ``has`` is False.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.errors import DataError, other_ids
from recbole_cierec.files.digest import array_digest, known_digest
from recbole_cierec.vision.feature_files import KEY, ids_file, load_feature_file, read_row_ids
from recbole_cierec.vision.feature_rows import FeatureRows

IMAGE = "image"  # its features are those of pictures


class ListedItems(Protocol):
    """The items of a data set, and their lines in NAME.item.

    Attributes:
        config: RecBole config with the keys of pictures, encoder and features.
        folder: The data set's folder.
        item_ids: External id of each item [n_items]; entry 0 is RecBole's padding.
        lines: int64 [n_items], each item's data line of NAME.item, -1 for none.
        line_ids: The item of each data line.
    """

    config: Any
    folder: Path
    item_ids: Any  # a sequence of texts

    @property
    def lines(self) -> np.ndarray: ...

    @property
    def line_ids(self) -> list[str]: ...


@dataclass(frozen=True)
class GivenFile:
    """A feature file, and which of its rows belongs to which item.

    Attributes:
        key: The key that names it: ``features_file`` or ``features.MODALITY``.
        path: The .npy file.
        items: The data set's items.
    """

    key: str
    path: Path
    items: ListedItems

    @cached_property
    def listed(self) -> Path | None:
        """The file with the id of each row; None: the rows follow NAME.item.

        Raises:
            DataError: There is no file of features.
        """
        if self.key == KEY:
            return None
        if not self.path.exists():
            raise DataError(f"{self.key} {self.path}: no such file; correct it, or set data_path")
        path = ids_file(self.path)
        return path if path.is_file() else None

    @cached_property
    def row_ids(self) -> list[str]:
        """The item of each row."""
        return self.items.line_ids if self.listed is None else read_row_ids(self.listed)

    @cached_property
    def rows(self) -> np.ndarray:
        """int64 [n_items], the row of each item; -1 for none.

        Raises:
            DataError: No row belongs to an item.
        """
        if self.listed is None:
            return self.items.lines
        row_of = {item: row for row, item in enumerate(self.row_ids)}
        rows = [row_of.get(item, -1) for item in self.items.item_ids]
        rows[0] = -1  # the padding item
        if len(rows) > 1 and max(rows) < 0:
            raise other_ids(f"{self.key} {self.listed}", self.row_ids, self.items.item_ids[1])
        return np.array(rows, dtype=np.int64)

    def unknown(self) -> list[str]:
        """The ids of rows that belong to no item; empty where rows follow NAME.item."""
        if self.listed is None:
            return []
        known = frozenset(self.items.item_ids)
        return [item for item in self.row_ids if item not in known]

    def load(self, read: Callable[..., np.ndarray] = load_feature_file) -> np.ndarray:
        """The rows, checked by ``read``: pooled features [n, D] or region maps [n, R, C]."""
        return read(self.path, self.row_ids, self.key, self.listed)

    def digest(self, rows: np.ndarray | None = None) -> str:
        """sha256 (hex) of the file and of the items' rows; None: those of :attr:`rows`."""
        return array_digest(known_digest(self.path), self.rows if rows is None else rows)


def given_files(items: ListedItems) -> dict[str, GivenFile]:
    """The feature files that the configuration names, by modality, in the order of the key."""
    config = items.config
    named: Mapping[str, str] = config["features"] or {}
    files = {
        name: GivenFile(f"features.{name}", place_of(items.folder, path), items)
        for name, path in named.items()
    }
    if config[KEY]:
        files[IMAGE] = GivenFile(KEY, Path(config[KEY]), items)
    return files


def place_of(folder: Path, path: str) -> Path:
    """A file below the data set's folder or, if it is there, below the current one."""
    inside, here = folder / path, Path(path)
    return here if here.exists() and not inside.exists() else inside


class GivenFeatures(FeatureRows):
    """The features of one modality other than pictures.

    Args:
        file: Where they are.
    """

    def __init__(self, file: GivenFile) -> None:
        super().__init__(file.items.config)
        self.file = file

    @property
    def _given_path(self) -> Path:
        return self.file.path

    @cached_property
    def _raw_features(self) -> tuple[np.ndarray, np.ndarray]:
        return self.file.load(), self.file.rows

    @cached_property
    def has(self) -> Tensor:
        """bool [n_items]: the item has a row."""
        return torch.from_numpy(self.file.rows >= 0)

    @property
    def were_read(self) -> bool:
        """Whether the file has been read."""
        return bool(vars(self).keys() & {"_raw_features", "features"})


def coverage(files: Mapping[str, GivenFile], names: Sequence[str]) -> str:
    """One line on how many items have features of the modalities ``names``."""
    parts: list[str] = []
    strangers = []
    for name in names:
        rows = files[name].rows
        of = "" if parts else f" of {len(rows) - 1:,} items"
        parts.append(f"{name} {int((rows >= 0).sum()):,}{of}")
        if unknown := files[name].unknown():
            strangers.append(
                f"{len(unknown):,} rows of {name} belong to no item of this run, the first to "
                f"'{unknown[0]}'"
            )
    return f"Features: {'; '.join([', '.join(parts), *strangers])}"
