"""Item content from NAME.item, by internal item id.

Batches hold only ids. Annotations and picture paths stay here, in arrays whose row i belongs to the
item with internal id i (row 0 is RecBole's padding). The file is read on first use, so models
without content pay nothing. Features of pictures are in :mod:`recbole_cierec.vision.item_pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.data.annotation_cells import described, separator_doubt
from recbole_cierec.data.atomic import (
    format_of,
    read_atomic,
    read_header,
    validate_interactions,
)
from recbole_cierec.data.columns import check_header, lacks_column, refuse_padding
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.errors import DataError, other_ids
from recbole_cierec.files.checkpoint import from_plain, to_plain
from recbole_cierec.files.digest import array_digest
from recbole_cierec.files.hashed_choice import chosen, exchanged
from recbole_cierec.terminal import CONSOLE


class Digested(Protocol):
    """Content with digests of what was read."""

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each part that was read so far."""
        ...


class ItemContent:
    """Annotation tokens, categories and picture paths of every item of a data set.

    Args:
        config: RecBole config with the keys of properties/overall.yaml.
        item_ids: External token of each internal id; entry 0 is the padding.

    Attributes:
        folder: Folder of the data set.
        pictures: Set by :func:`recbole_cierec.vision.item_pictures.pictures_of`.
    """

    def __init__(self, config: Any, item_ids: Sequence[str]) -> None:
        self.config, self.item_ids = config, item_ids
        self.n_items = len(item_ids)
        self.folder = Path(config["data_path"])
        self.pictures: Digested | None = None

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each part of the content that was read so far, pictures included."""
        parts, read = {}, vars(self)
        if "_annotations" in read:
            parts["annotations"] = array_digest("\0".join(self.token_names), self.tokens.numpy())
        if "categories" in read:
            names, ids = self.categories
            parts["categories"] = array_digest("\0".join(names), ids.numpy())
        return parts if self.pictures is None else parts | self.pictures.digests()

    # ------------------------------------------------------------------------ NAME.item

    def table(self) -> dict[str, Any] | None:
        """What has been read of NAME.item, as plain data; None if nothing has."""
        read = vars(self).get("_table")
        if read is None:
            return None
        numbers = {"line": torch.tensor(read["line"], dtype=torch.int32)}
        texts = {k: to_plain(np.array(v, dtype=object)) for k, v in read.items() if k != "line"}
        return numbers | texts

    def restore(self, table: dict[str, Any] | None) -> None:
        """Take what :meth:`table` returned, in place of NAME.item."""
        if table is not None:
            vars(self)["_table"] = {k: from_plain(v).tolist() for k, v in table.items()}

    @cached_property
    def _table(self) -> dict[str, list]:
        """Columns of NAME.item by internal id; items without a row have empty cells."""
        config = self.config
        path = atomic_file(self.folder / f"{config['dataset']}.item")
        if not path.is_file():
            raise DataError(
                f"{path}: not found; {config['model']} needs item content, so write this file "
                "with the columns item_id:token, image_path:token and annotations:token_seq"
            )
        id_field = config["ITEM_ID_FIELD"]
        wanted = [config["image_path_field"], config["annotations_field"]]
        category = [config["category_field"]] if config["category_field"] else []
        columns = {id_field, *wanted, *category}
        header = read_header(path, **format_of(config))
        check_header(config, "item", {k: v for k, v in header.items() if k in columns}, path)
        frame, types = read_atomic(path, **format_of(config), columns=columns)
        validate_interactions(frame, None, id_field, path=path)
        refuse_padding(frame, types, config["seq_separator"], path)
        line_of_id: dict[str, int] = {}
        for line, token in enumerate(frame[id_field].tolist()):
            line_of_id.setdefault(token, line)
        lines = [line_of_id.get(token, -1) for token in self.item_ids]
        lines[0] = -1  # the padding item
        self._check_ids(path, list(line_of_id), lines[1:])
        table: dict[str, list] = {"line": lines}
        if config["features_file"] or config["features"]:
            table["ids"] = frame[id_field].tolist()  # the item of each data line
        for field in (*wanted, *category):
            if field in frame:
                cells = frame[field].fillna("").astype(str).tolist()
                table[field] = [cells[k].strip() if k >= 0 else "" for k in lines]
        self._log_states(path, table, wanted, len(frame) - len(line_of_id))
        return table

    def _check_ids(self, path: Path, ids: list[str], lines: list[int]) -> None:
        """Refuse a file of other items: content that all items lack trains nothing.

        Args:
            ids: The items of the file.
            lines: The line of each item of the data, -1 for none.
        """
        absent = [item for item, line in zip(self.item_ids[1:], lines, strict=True) if line < 0]
        if len(absent) == len(lines):
            raise other_ids(str(path), ids, absent[0])
        if len(absent) > len(lines) / 2:
            getLogger().warning(
                f"{path}: {len(absent):,} of the {len(lines):,} items of the data have no row, the "
                f"first is '{absent[0]}', the first row is of '{ids[0]}'; if the ids are written "
                "differently, correct them"
            )

    def _log_states(self, path: Path, table: dict, wanted: list[str], repeated: int) -> None:
        items = range(1, self.n_items)
        counts = [f"{sum(table['line'][i] < 0 for i in items)} not in {path.name}"]
        for field, name in zip(wanted, ("picture", "annotation"), strict=True):
            lacking = sum(not table[field][i] for i in items) if field in table else len(items)
            counts.append(f"{lacking} without {name}")
        words, separator = wanted[1], self.config["seq_separator"]
        cells = table.get(words, [])
        if any(cells):
            counts.append(described(cells, separator))
        if repeated:
            counts.append(f"{repeated} repeated rows of {path.name} ignored (the first counts)")
        CONSOLE.info(f"Item content: {len(items)} items, " + ", ".join(counts))
        if doubt := separator_doubt(cells, separator):
            getLogger().warning(f"{path}: most tokens of {words} {doubt}")

    @cached_property
    def lines(self) -> np.ndarray:
        """int64 [n_items]: each item's data line of NAME.item, from 0; -1 without one."""
        return np.asarray(self._table["line"], dtype=np.int64)

    @property
    def line_ids(self) -> list[str]:
        """The item of each data line of NAME.item; only with given features."""
        return self._table["ids"]

    def column(self, field: str) -> list[str]:
        """Cells of a column of NAME.item [n_items], "" for an empty or missing one.

        Raises:
            DataError: The file lacks the column.
        """
        if field not in self._table:
            keys = "image_path_field", "annotations_field", "category_field"
            key = next(key for key in keys if self.config[key] == field)
            path = atomic_file(self.folder / f"{self.config['dataset']}.item")
            raise lacks_column(path, self.config, key)
        return self._table[field]

    # ---------------------------------------------------------------- annotations

    def damaged_annotations(self, tokens: Tensor, training: bool) -> Tensor:
        """Token ids [n_items, L] after ``annotations_wrong`` and ``annotations_missing_*``."""
        config, ids = self.config, self.item_ids
        if share := config["annotations_wrong"]:
            having = (tokens[:, 0] > 0).numpy()
            source = exchanged(ids, having, share, config["seed"], "annotations_wrong")
            tokens = tokens[torch.from_numpy(source)]
        share = config["annotations_missing_inference"]
        if training:
            share = config["annotations_missing_training"]
        if share:
            missing = chosen(ids, share, config["seed"], "annotations_missing")
            tokens = tokens * torch.from_numpy(~missing).unsqueeze(1)
        return tokens

    @cached_property
    def _annotations(self) -> tuple[list[str], Tensor]:
        limit = self.config["max_annotation_tokens"]
        separator = self.config["seq_separator"]
        cells = self.column(self.config["annotations_field"])
        # A repeated token of an item counts once, at its first place.
        per_item = [list(dict.fromkeys(t for t in c.split(separator) if t)) for c in cells]
        cut = sum(len(tokens) > limit for tokens in per_item)
        if cut:
            getLogger().warning(
                f"{cut} items have more than max_annotation_tokens={limit} tokens; cut"
            )
        # Sorted: ids must not depend on the order of rows.
        vocabulary = ["[PAD]", *sorted({t for tokens in per_item for t in tokens})]
        index = {token: k for k, token in enumerate(vocabulary)}
        width = max(1, min(limit, max(map(len, per_item), default=1)))
        matrix = torch.zeros(self.n_items, width, dtype=torch.long)
        for i, tokens in enumerate(per_item):
            ids = [index[t] for t in tokens[:limit]]
            matrix[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return vocabulary, matrix

    @property
    def token_names(self) -> list[str]:
        """The annotation token of each token id; entry 0 is the padding."""
        return self._annotations[0]

    @cached_property
    def tokens(self) -> Tensor:
        """Annotation token ids [n_items, L] for training, 0 = padding."""
        return self.damaged_annotations(self._annotations[1], training=True)

    @cached_property
    def inference_tokens(self) -> Tensor:
        """Those for ranking; they differ with ``annotations_missing_*`` only."""
        return self.damaged_annotations(self._annotations[1], training=False)

    @property
    def has_annotation(self) -> Tensor:
        """Whether an item has at least one annotation token: bool [n_items]."""
        return self.tokens[:, 0] > 0

    @cached_property
    def categories(self) -> tuple[list[str], Tensor]:
        """Category names, entry 0 for no category, and the category id of each item [n_items].

        The category is the item's cell in ``category_field``, or its first annotation token.
        """
        if not self.config["category_field"]:
            return self.token_names, self.tokens[:, 0]
        cells = self.column(self.config["category_field"])
        names = ["", *sorted({cell for cell in cells if cell})]
        index = {name: k for k, name in enumerate(names)}
        return names, torch.tensor([index[cell] for cell in cells])
