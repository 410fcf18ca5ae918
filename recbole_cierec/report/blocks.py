"""The parts of a page, as plain data that the template renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Note:
    """A sentence; in place of a part that does not apply, it says why."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass
class Table:
    """A table whose first column names its rows; with a ``summary`` it is folded away under it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""
    kind: ClassVar[str] = "table"


@dataclass
class Figure:
    """A drawing.

    Attributes:
        name: Name of its files.
        title: What it shows.
        alt: The same in numbers, for those who cannot see it.
        svg: Its markup for the page, colours as CSS variables.
        files: Contents by ending, ``.svg`` and ``.png``, with the colours of the light scheme.
    """

    name: str
    title: str
    alt: str
    svg: str
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    caption: str = ""


@dataclass
class Figures:
    """Drawings side by side; with a ``summary`` they are folded away under it."""

    items: list[Figure]
    summary: str = ""
    kind: ClassVar[str] = "figures"


@dataclass
class Tile:
    """An item: its picture, or why there is none.

    Attributes:
        name: External id.
        picture: A data URI; empty where there is none.
        reason: Why there is no picture.
        text: Annotations.
        badge: Short text on the picture: a rank.
        mark: ``hit``, or empty.
    """

    name: str
    picture: str = ""
    reason: str = ""
    text: str = ""
    badge: str = ""
    mark: str = ""


@dataclass
class Strip:
    """Items in a row; on a wide screen ``columns`` of them side by side."""

    title: str
    tiles: list[Tile]
    more: str = ""
    columns: int = 4


@dataclass
class Card:
    """A user, or an item with its neighbours."""

    title: str
    tags: list[str]
    strips: list[Strip]
    tile: Tile | None = None
    kind: ClassVar[str] = "card"


Part = Note | Table | Figures | Card


@dataclass
class Section:
    """A part of the page with a heading; ``short`` names it in the list of sections."""

    anchor: str
    short: str
    title: str
    lead: str
    parts: list[Part] = field(default_factory=list)


@dataclass
class Page:
    """The whole page.

    Attributes:
        facts: Label, value and remark of the numbers at the top.
    """

    title: str
    subtitle: str
    facts: list[tuple[str, str, str]]
    sections: list[Section]

    def figures(self) -> list[Figure]:
        """All drawings, in order."""
        parts = [part for section in self.sections for part in section.parts]
        return [figure for part in parts if isinstance(part, Figures) for figure in part.items]
