"""Items as tiles: their picture, or why there is none, and their annotations."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_cierec.data.words import label_words
from recbole_cierec.errors import DataError, PictureError
from recbole_cierec.report.blocks import Strip, Tile
from recbole_cierec.report.source import Source
from recbole_cierec.vision.thumbnails import thumbnail

SIDE = 112  # pixels of a thumbnail; shown smaller, so that it is sharp on fine screens
LONGEST = 160  # characters of annotations


class Tiles:
    """Makes tiles of a run's items.

    Args:
        source: The run. The content that its model has read comes from the checkpoint; of a model
            without content NAME.item is read where it exists.
    """

    def __init__(self, source: Source) -> None:
        config = source.trained.config
        self._ids = source.trained.item_ids
        self._content: Any = source.trained.dataset.content
        self._config, self._separator = config, config["seq_separator"]
        self._root = Path(config["image_dir"] or self._content.folder)
        self._made: dict[int, Tile] = {}

    @cached_property
    def paths(self) -> list[str] | None:
        """The picture of each item, "" for none; None if NAME.item has no pictures."""
        return self._column(self._config["image_path_field"])

    @cached_property
    def texts(self) -> list[str] | None:
        """The annotations of each item; None if NAME.item has none."""
        return self._column(self._config["annotations_field"])

    def _column(self, field: str) -> list[str] | None:
        try:
            return self._content.column(field)
        except DataError:
            return None

    def _picture(self, item: int) -> tuple[str, str]:
        """A data URI and a reason, one of which is empty."""
        if self.paths is None:
            return "", "no pictures in the data"
        if self._content.lines[item] < 0:
            return "", f"not in {self._config['dataset']}.item"
        if not self.paths[item]:
            return "", "no picture"
        try:
            limit = self._config["max_image_pixels"]
            data = thumbnail(self._root, self.paths[item], SIDE, limit)
        except PictureError as error:
            return "", error.reason
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", ""

    def tokens(self, item: int) -> list[str]:
        """The distinct annotation tokens of an item, in their order."""
        cell = self.texts[item] if self.texts is not None else ""
        return list(dict.fromkeys(token for token in cell.split(self._separator) if token))

    def _text(self, item: int) -> str:
        """Annotations in words, tokens separated by dots."""
        text = " · ".join(map(label_words, self.tokens(item)))
        return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."

    def tile(self, item: int, badge: str = "", hit: bool = False) -> Tile:
        """An item with a text on its picture."""
        if item not in self._made:
            picture, reason = self._picture(item)
            text = self._text(item)
            self._made[item] = Tile(str(self._ids[item]), picture, reason, text)
        known = self._made[item]
        mark = "hit" if hit else ""
        return Tile(known.name, known.picture, known.reason, known.text, badge, mark)

    def strip(self, title: str, items: Iterable[int], most: int) -> Strip:
        """Items in a row, the last ``most`` of them."""
        items = list(items)
        more = f"The latest {most} of {len(items)}." if len(items) > most else ""
        return Strip(title, [self.tile(item) for item in items[-most:]], more)
