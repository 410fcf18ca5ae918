"""What a page shows of users and items: ids by prefix, titles, annotations, pictures, history."""

from __future__ import annotations

from functools import cached_property, lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from recbole_cierec.data.atomic import format_of, read_atomic, read_header
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.data.words import label_words, title_words
from recbole_cierec.errors import DataError, PictureError, UserError
from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.serving.trained import TrainedModel
from recbole_cierec.vision.picture_files import Locator
from recbole_cierec.vision.pictures import PictureSpec
from recbole_cierec.vision.thumbnails import thumbnail

TITLES = ("title", "name")  # columns of NAME.item, the first that it has
KEPT_THUMBNAILS = 1024  # at most 96 KiB each, usually 15


class Catalogue:
    """Users and items of one trained model.

    Pictures, annotations and titles come from the checkpoint, or from NAME.item in ``data_path``;
    without both, items are bare ids.

    Args:
        trained: The model.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self._trained, self._config = trained, trained.config
        self._content = trained.dataset.content
        self.folder = Path(self._config["image_dir"] or self._config["data_path"])
        self.pictures = self._cells(self._config["image_path_field"])
        self.titles = self._titles()
        self._annotations = self._cells(self._config["annotations_field"])
        self.thumbnail = lru_cache(KEPT_THUMBNAILS)(self._thumbnail)

    # ------------------------------------------------------------------------------ items

    def describe(self, number: int) -> dict[str, Any]:
        """``item``, ``title``, ``annotations`` as requests take them, ``labels`` as people read
        them, and ``picture`` (whether one is named)."""
        tokens = self.split(self._annotations[number])
        return {
            "item": str(self._trained.item_ids[number]),
            "title": self.titles[number],
            "annotations": tokens,
            "labels": [label_words(token) for token in tokens],
            "picture": bool(self.pictures[number]),
        }

    def split(self, cell: str) -> list[str]:
        """The annotation tokens of a cell, each once."""
        return list(dict.fromkeys(t for t in cell.split(self._config["seq_separator"]) if t))

    def _thumbnail(self, number: int) -> bytes:
        """A small JPEG; see :func:`recbole_cierec.vision.thumbnails.thumbnail`."""
        path = self.pictures[number]
        if not path:
            raise PictureError(str(self._trained.item_ids[number]), "the item has no picture")
        return thumbnail(self.folder, path, max_pixels=self._config["max_image_pixels"])

    def check_path(self, path: str) -> None:
        """Refuse a path that leaves the picture folder, or is no file in it (PictureError)."""
        Locator(self.folder).locate(
            path, PictureSpec(1, max_pixels=self._config["max_image_pixels"])
        )

    def _cells(self, field: str) -> list[str]:
        """A column of NAME.item [n_items]; "" throughout where there is none."""
        try:
            return self._content.column(field)
        except UserError:
            return [""] * len(self._trained.item_ids)

    def _titles(self) -> list[str]:
        """Titles [n_items] from NAME.item, where it has them."""
        titles = [""] * len(self._trained.item_ids)
        try:
            for item, title in self._named().items():
                titles[item] = title
        except UserError as error:
            getLogger().warning(f"titles are not shown: {error}")
        return titles

    def _named(self) -> dict[int, str]:
        table = self.row_file
        if table is None:
            return {}
        form, field = format_of(self._config), self._config["ITEM_ID_FIELD"]
        header = read_header(table, **form)
        column = next((name for name in TITLES if name in header), None)
        if column is None:
            return {}
        frame, _ = read_atomic(table, **form, columns={field, column})
        numbers = self._trained.numbers_of("item", frame[field].tolist())
        texts = frame[column].fillna("").astype(str)
        return {
            int(n): title_words(t.strip()) for n, t in zip(numbers, texts, strict=True) if n > 0
        }

    @property
    def row_file(self) -> Path | None:
        """NAME.item, where it exists."""
        path = atomic_file(Path(self._config["data_path"]) / f"{self._config['dataset']}.item")
        return path if path.is_file() else None

    def unlisted(self, item: str) -> dict[str, str] | None:
        """The row in NAME.item of an item that the model does not know; None for none."""
        return self._unlisted.get(item)

    @cached_property
    def _unlisted(self) -> dict[str, dict[str, str]]:
        table, field = self.row_file, self._config["ITEM_ID_FIELD"]
        if table is None:
            return {}
        try:
            frame, _ = read_atomic(table, **format_of(self._config))
        except DataError as error:
            getLogger().warning(f"items unknown to the model are not looked up: {error}")
            return {}
        frame = frame[self._trained.numbers_of("item", frame[field].tolist()) < 0]
        rows = frame.fillna("").astype(str).drop_duplicates(field).to_dict("records")
        return {row[field]: row for row in rows}

    # ------------------------------------------------------------------------------ users

    @cached_property
    def _sorted_users(self) -> np.ndarray:
        return np.sort(self._trained.user_ids[1:].astype(str))

    def users(self, prefix: str, limit: int) -> tuple[list[str], int]:
        """The first ids that start with ``prefix``, and how many there are."""
        ids = self._sorted_users
        first = int(np.searchsorted(ids, prefix))
        # The largest code point ends a range that holds every id with the prefix.
        last = int(np.searchsorted(ids, prefix + "\U0010ffff", side="right"))
        return ids[first : min(last, first + limit)].tolist(), last - first

    @cached_property
    def _history(self) -> Ragged:
        """The items of each user in training and validation, newest first."""
        trained = self._trained
        users, items = trained.pairs(trained.parts[:2])
        tables = [part.inter_feat for part in trained.parts[:2] if part is not None and len(part)]
        field = self._config["TIME_FIELD"]
        timed = all(field in table for table in tables)
        times = (
            np.concatenate([t[field].numpy() for t in tables]) if timed else np.zeros(len(users))
        )
        order = np.lexsort((-times, users))
        counts = np.bincount(users, minlength=len(trained.user_ids))
        return Ragged(items[order], np.concatenate([[0], np.cumsum(counts)]))

    def history(self, user: int, limit: int) -> tuple[list[int], int]:
        """The newest items of a user, each once, and how many they have."""
        items = list(dict.fromkeys(self._history.take(np.array([user]))[1].tolist()))
        return items[:limit], len(items)
