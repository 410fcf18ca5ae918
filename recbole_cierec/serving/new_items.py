"""Items that came after training, scored by their content, without training again.

The model is made with a row more for each new item, as if they had been in the data without any
interaction: their id parameters are zero and content decides. What was fitted on the items of the
training data stays: the normalisation of features, and the vocabulary of annotation tokens.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.data.content import ItemContent
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.checkpoint import from_plain, to_plain
from recbole_cierec.registry import known_name
from recbole_cierec.vision.item_pictures import pictures_of
from recbole_cierec.vision.new_pictures import NewPictures

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass
class NewItems:
    """The new items of one request.

    Attributes:
        source: The file that names them, for messages.
        ids: External id of each [m].
        cells: Columns of the file, by name, each [m].
        features: Ready-made features, a row for each item; needed where the model was trained on
            ``features_file``.
        first: Internal number of the first of them.
    """

    source: Path
    ids: list[str]
    cells: dict[str, list[str]] = field(default_factory=dict)
    features: Path | None = None
    first: int = 0

    @classmethod
    def read(cls, path: Path, features: Path | None, id_field: str = "item_id") -> NewItems:
        """Read a CSV file with the columns of NAME.item, or take one picture as one item.

        Raises:
            DataError: The file is missing or malformed.
        """
        if path.suffix.lower() in PICTURES:
            return cls(path, [path.stem], {"": [path.name]}, features)
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = list(csv.DictReader(stream, strict=True))
        except (OSError, ValueError, csv.Error) as error:
            cause = getattr(error, "strerror", None) or str(error)[:80]
            raise DataError(f"{path}: cannot be read as CSV ({cause})") from error
        if not rows:
            raise DataError(f"{path}: names no item; give a header and a line for each")
        if any(None in row or None in row.values() for row in rows):
            raise DataError(f"{path}: a line has another number of cells than the header")
        cells = {name.partition(":")[0]: [row[name].strip() for row in rows] for name in rows[0]}
        column = next((name for name in (id_field, "item_id", "id") if name in cells), None)
        if column is None:
            raise DataError(f"{path}: no column {id_field} among {', '.join(cells)}")
        ids = cells[column]
        first = {token: k for k, token in reversed(list(enumerate(ids)))}
        again = next((k for k, token in enumerate(ids) if not token or first[token] < k), None)
        if again is not None:
            raise DataError(f"{path}, line {again + 2}: id '{ids[again]}' is empty or given twice")
        return cls(path, ids, cells, features)

    def column(self, name: str, picture: bool = False) -> list[str]:
        """Cells of a column [m]; "" where there is none."""
        if picture and "" in self.cells:
            return self.cells[""]
        return self.cells.get(name) or [""] * len(self.ids)

    # ------------------------------------------------------- see trained.Addition

    def extend(self, dataset: Any) -> None:
        self._refuse_model(dataset.config)
        name = dataset.iid_field
        known, number_of = dataset.field2id_token[name], dict(dataset.field2token_id[name])
        taken = [token for token in self.ids if token in number_of]
        if taken:
            raise DataError(
                f"{self.source}: '{taken[0]}' is an item of the training data; new items need "
                "other ids"
            )
        self.first = len(known)
        number_of |= {token: self.first + k for k, token in enumerate(self.ids)}
        dataset.field2id_token = {
            **dataset.field2id_token,
            name: np.concatenate([known, np.array(self.ids, dtype=known.dtype.kind)]),
        }
        dataset.field2token_id = {**dataset.field2token_id, name: number_of}
        self._content = dataset.content
        dataset.content = ExtendedContent(self._content, self)

    def _refuse_model(self, config: Any) -> None:
        name = config["model"]
        if not getattr(config.model_class, "unseen_items", ""):
            advice = "docs/models/index.md says which models do"
            if known_name(config.model_class) is None:
                advice = (
                    'if it does, set its attribute unseen_items, as in unseen_items = "picture"'
                )
            raise ConfigError(
                f"{name} does not score items by their content, so it has nothing for new ones; "
                f"{advice}"
            )

    def padded(self, state: Mapping[str, Any], model: Any) -> dict[str, Any]:
        """The state with rows of zeros for the new items, wherever the model has some."""
        theirs, more = from_plain(state["state_dict"]), len(self.ids)
        for name, ours in model.state_dict().items():
            there = theirs.get(name)
            if there is None or not ours.dim() or there.dim() != ours.dim():
                continue
            if len(there) == self.first and len(ours) == self.first + more:
                theirs[name] = torch.cat([there, there.new_zeros(more, *there.shape[1:])])
        return {**state, "state_dict": to_plain(theirs)}

    def known_digests(self) -> dict[str, str]:
        return self._content.digests()


class ExtendedContent(ItemContent):
    """The content of the known items, followed by that of new ones.

    Args:
        known: Content of the data set.
        new: The new items.
    """

    def __init__(self, known: ItemContent, new: NewItems) -> None:
        super().__init__(known.config, [*known.item_ids, *new.ids])
        self.known, self.new = known, new
        config = self.config
        self.pictures = NewPictures(
            pictures_of(known),
            new.column(config["image_path_field"], picture=True),
            [new.source.parent, Path(config["image_dir"] or self.folder)],
            new.features,
            new.ids,
        )

    def column(self, field: str) -> list[str]:
        cells = self.known.column(field)
        if field == self.config["annotations_field"]:
            separator = self.config["seq_separator"]
            vocabulary = frozenset(self.known.token_names)
            each = [cell.split(separator) for cell in self.new.column(field)]
            self._note_unknown([t for ts in each for t in ts if t and t not in vocabulary], field)
            return cells + [separator.join(t for t in ts if t in vocabulary) for ts in each]
        if field == self.config["category_field"]:
            names = frozenset(self.known.categories[0])
            own = self.new.column(field)
            self._note_unknown([name for name in own if name not in names], field)
            return cells + [name if name in names else "" for name in own]
        return cells + self.new.column(field)

    def damaged_annotations(self, tokens: Tensor, training: bool) -> Tensor:
        """New items keep their annotations."""
        first = self.known.n_items
        damaged = self.known.damaged_annotations(tokens[:first], training)
        return torch.cat([damaged, tokens[first:]])

    def _note_unknown(self, tokens: Sequence[str], field: str) -> None:
        if tokens:
            getLogger().warning(
                f"{self.new.source}: {len(set(tokens))} values of {field} do not occur in the "
                f"training data and are ignored, the first is '{tokens[0]}'"
            )

    @property
    def lines(self) -> np.ndarray:
        more = np.full(len(self.new.ids), -1, dtype=np.int64)
        return np.concatenate([self.known.lines, more])

    def vectors(self, model: Any) -> Tensor:
        """What the items look like [n_items, k]: features of pictures, or, in a model without
        pictures, the item vectors of its scores."""
        pictures: Any = self.pictures
        if getattr(model, "uses_regions", False):
            blocks = torch.arange(self.n_items).split(1024)
            return torch.cat([pictures.regions(block).mean(1) for block in blocks])
        if pictures.were_read:
            return pictures.features
        return model.all_items().vector.cpu()
