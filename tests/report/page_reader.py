"""A page as a tree of elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Element:
    """An element with its attributes and content."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for part in self.content:
            if isinstance(part, Element):
                yield from part.walk()

    def find(self, tag: str = "", css: str = "", id: str = "") -> list[Element]:
        """The elements below with a tag, a class and an id."""
        return [
            e
            for e in self.walk()
            if (not tag or e.tag == tag)
            and (not css or css in e.attributes.get("class", "").split())
            and (not id or e.attributes.get("id") == id)
        ]

    @property
    def text(self) -> str:
        parts = [p if isinstance(p, str) else p.text for p in self.content]
        return " ".join(" ".join(parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page")]

    def handle_starttag(self, tag, attributes) -> None:
        element = Element(tag, {k: v or "" for k, v in attributes})
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes) -> None:
        self.open[-1].content.append(Element(tag, {k: v or "" for k, v in attributes}))

    def handle_endtag(self, tag) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data) -> None:
        self.open[-1].content.append(data)


def parsed(html: str) -> Element:
    """The tree; an element that is not closed, or closed by another, is an error."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def rows_of(table: Element) -> list[list[str]]:
    """The texts of a table's body."""
    (body,) = table.find("tbody")
    return [[cell.text for cell in row.find("th") + row.find("td")] for row in body.find("tr")]
