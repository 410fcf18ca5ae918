"""Items that came after training, scored by their content, without training again.

The model is made with a row more for each new item, as if they had been in the data without any
interaction: their id parameters are zero and content decides. What was fitted on the items of the
training data stays: the normalisation of features, and the vocabulary of annotation tokens.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.data.atomic import format_of, read_header
from recbole_cierec.data.content import ItemContent
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.errors import ConfigError, DataError, nearest
from recbole_cierec.files.checkpoint import from_plain, to_plain
from recbole_cierec.registry import known_name
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.item_pictures import pictures_of
from recbole_cierec.vision.new_pictures import NewPictures

BY_PICTURE, BY_ANNOTATIONS = "picture", "annotations"
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_FIRST = 4096  # bytes that tell text from pictures: all formats of these have a zero among them


def reads_of(config: Any) -> list[str]:
    """What scores new items in a model: ``picture``, ``annotations``, both or nothing."""
    kind = getattr(config.model_class, "unseen_items", "")
    picture = kind not in ("", BY_ANNOTATIONS) and config["use_image"] is not False
    words = kind in (BY_ANNOTATIONS, "content") or "category" in kind
    if config["annotation_at_inference"] is False or config["use_annotations"] is False:
        words = False
    return [*[BY_PICTURE] * picture, *[BY_ANNOTATIONS] * words]


def _names_picture(path: Path) -> bool:
    """Whether a file is a picture and no table, by its content where the name does not say it.

    Raises:
        DataError: It is neither.
        OSError: It cannot be read.
    """
    if path.suffix.lower() in PICTURES:
        return True
    with path.open("rb") as file:
        first = file.read(_FIRST)
    utf16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # has zeros too
    if b"\0" not in first or utf16:
        return False
    # Here: models without pictures must not wait for Pillow.
    from recbole_cierec.vision.pictures import is_picture

    if not is_picture(path):
        raise DataError(f"{path}: not a JPEG, PNG, WebP, GIF or BMP picture, and no CSV file")
    return True


def _text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the "
            "file as UTF-8"
        ) from error


def _refuse_other_separator(path: Path, names: list[str]) -> None:
    """Refuse one long name that another separator divides into several."""
    mark = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
    if mark is not None:
        raise DataError(
            f"{path}, line 1: its columns are separated by {mark!r}, not ','; save it with commas"
        )


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
        lines: Line of the file of each; empty where no file lists them.
    """

    source: Path
    ids: list[str]
    cells: dict[str, list[str]] = field(default_factory=dict)
    features: Path | None = None
    first: int = 0
    lines: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, features: Path | None, id_field: str = "item_id") -> NewItems:
        """Read a CSV file with the columns of NAME.item, or take one picture as one item.

        Raises:
            DataError: The file is missing or malformed.
        """
        try:
            if _names_picture(path):
                return cls(path, [path.stem], {"": [path.name]}, features)
            reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
            _refuse_other_separator(path, list(reader.fieldnames or ()))
            numbered = [(reader.line_num, row) for row in reader]
        except (OSError, ValueError, csv.Error) as error:
            if isinstance(error, DataError):
                raise
            cause = getattr(error, "strerror", None) or str(error)[:80]
            raise DataError(f"{path}: cannot be read as CSV ({cause})") from error
        lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
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
            where = f"{path}, line {lines[again]}"
            raise DataError(f"{where}: id '{ids[again]}' is empty or given twice")
        return cls(path, ids, cells, features, lines=lines)

    def where(self, number: int) -> str:
        """Where an item was given, for messages."""
        if not self.lines:
            return str(self.source)
        return f"{self.source}, line {self.lines[number]}: item '{self.ids[number]}'"

    def column(self, name: str, picture: bool = False) -> list[str]:
        """Cells of a column [m]; "" where there is none."""
        if picture and "" in self.cells:
            return self.cells[""]
        return self.cells.get(name) or [""] * len(self.ids)

    # ------------------------------------------------- called while a trained model is loaded

    def extend(self, dataset: Any) -> None:
        """Add the items to the data set of a checkpoint, before the model is made.

        Raises:
            ConfigError: The model has no scores for new items.
            DataError: A column is misspelt, or an item has nothing that the model reads.
        """
        self._refuse_model(dataset.config)
        self._refuse_columns(dataset.content)
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
        self._refuse_empty(dataset.content)

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

    def _refuse_columns(self, content: ItemContent) -> None:
        """Refuse misspelt columns, which say nothing; others that nothing reads are named."""
        config = content.config
        fields = ("ITEM_ID_FIELD", "image_path_field", "annotations_field", "category_field")
        known = {"id", "item_id"} | {config[key] for key in fields if config[key]}
        with suppress(DataError):  # the file is not needed
            known |= read_header(
                atomic_file(content.folder / f"{config['dataset']}.item"), **format_of(config)
            ).keys()
        names = [name for name in self.cells if name] if self.lines else []
        for name in names:
            if name not in known and (hint := nearest(name, known)):
                raise DataError(f"{self.source}: unknown column '{name}'{hint}")
        if ignored := [name for name in names if name not in self._read_columns(config)]:
            CONSOLE.info(
                f"{self.source}: columns that {config['model']} does not read are ignored: "
                f"{', '.join(ignored)}"
            )

    @staticmethod
    def _read_columns(config: Any) -> set[str]:
        """Columns that name new items, or by which the model scores them."""
        reads = reads_of(config)
        keys = ["ITEM_ID_FIELD"]
        keys += ["image_path_field"] * (BY_PICTURE in reads)
        keys += ["annotations_field", "category_field"] * (BY_ANNOTATIONS in reads)
        return {"id", "item_id"} | {config[key] for key in keys if config[key]}

    def _refuse_empty(self, content: ExtendedContent) -> None:
        """Refuse items without anything that the model reads: all their scores would be zero."""
        config, pictures = content.config, cast(Any, content.pictures)
        reads = reads_of(config)
        if not reads or (pictures_of(content.known).given and not self.features):
            return  # the lack of features is said elsewhere
        has = np.zeros(len(self.ids), dtype=bool)
        if BY_PICTURE in reads:
            has |= pictures.have
        if BY_ANNOTATIONS in reads:
            has |= [bool(cell) for cell in content.words()]
        if not has.all():
            what = {BY_PICTURE: "no picture", BY_ANNOTATIONS: "no annotation of the training data"}
            raise DataError(
                f"{self.where(int(has.argmin()))}: {config['model']} scores new items by "
                f"{' and '.join(reads)}; the item has {' and '.join(what[r] for r in reads)}; "
                "give it one, or leave the item out"
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
        """Digests of the content of the items of the training data."""
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
            [new.where(k) if new.lines else "" for k in range(len(new.ids))],
        )

    def words(self) -> list[str]:
        """What the training data knows of the annotations, or category, of each new item."""
        field = self.config["annotations_field"]
        if "category" in self.config.model_class.unseen_items:
            field = self.config["category_field"] or field
        return self._readable(field)[0]

    def column(self, field: str) -> list[str]:
        own, unknown = self._readable(field)
        self._note_unknown(unknown, field)
        return self.known.column(field) + own

    def _readable(self, field: str) -> tuple[list[str], list[str]]:
        """Cells of the new items, and the values that the training data do not know, which are
        left out of them."""
        config, own = self.config, self.new.column(field)
        if field == config["annotations_field"]:
            separator, known = config["seq_separator"], frozenset(self.known.token_names)
            each = [cell.split(separator) for cell in own]
        elif field == config["category_field"]:
            separator, known = "", frozenset(self.known.categories[0])
            each = [[cell] for cell in own]
        else:
            return own, []
        unknown = [word for words in each for word in words if word and word not in known]
        return [separator.join(w for w in words if w in known) for words in each], unknown

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
