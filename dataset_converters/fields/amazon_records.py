"""The three generations of Amazon's files: how to recognise them, and where each field is.

2014: reviews and metadata keyed by ``asin``; metadata are lines of Python literals, ``categories``
is a list of paths. 2018: JSON, ``category`` is one list. 2023: reviews and metadata keyed by
``parent_asin`` (metadata have no ``asin``), times in milliseconds. Pictures: see
:mod:`.amazon_pictures`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_cierec.errors import DataError

from ..tables.records import sample_records


@dataclass(frozen=True)
class Reviews:
    """Names of the fields of a review; ``per_second`` is the number of time units in a second."""

    user: str
    item: str
    rating: str
    time: str
    per_second: int

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields."""
        return (self.user, self.item, self.rating, self.time)

    def lacks(self, record: dict[str, Any]) -> str:
        """Why a record is unusable; empty if it is usable."""
        for key in (self.user, self.item):
            if record.get(key) in (None, ""):
                return f"has no {key}"
        for key in (self.rating, self.time):
            try:
                float(record[key])
            except (KeyError, TypeError, ValueError):
                return f"{key} is not a number"
        return ""


@dataclass(frozen=True)
class Metadata:
    """Names of the fields of a product record; pictures may be in several, best first."""

    item: str
    categories: str
    pictures: tuple[str, ...]

    def lacks(self, record: dict[str, Any]) -> str:
        """Why a record is unusable; empty if it is usable."""
        return "" if record.get(self.item) else f"has no {self.item}"


_OLD_REVIEWS = Reviews("reviewerID", "asin", "overall", "unixReviewTime", 1)
REVIEWS = {
    "2014": _OLD_REVIEWS,
    "2018": _OLD_REVIEWS,
    "2023": Reviews("user_id", "parent_asin", "rating", "timestamp", 1000),
}
METADATA = {
    "2014": Metadata("asin", "categories", ("imUrl",)),
    "2018": Metadata("asin", "category", ("imageURLHighRes", "imageURL", "image")),
    "2023": Metadata("parent_asin", "categories", ("images",)),
}
_MARKS = {  # fields that only one generation has
    "reviews": {
        "2014": {"helpful"},
        "2018": {"verified", "vote", "style"},
        "2023": {"parent_asin", "helpful_vote", "verified_purchase"},
    },
    "metadata": {
        "2014": {"categories", "imUrl", "related", "salesRank"},
        "2018": {"category", "imageURL", "image", "main_cat", "also_buy", "rank"},
        "2023": {"parent_asin", "main_category", "average_rating"},
    },
}


@dataclass(frozen=True)
class Kind:
    """What a file holds.

    Args:
        what: reviews, metadata, or empty for neither.
        generation: 2014, 2018, 2023, or empty if the records do not tell.
        literal: The lines are Python literals.
    """

    what: str
    generation: str
    literal: bool


def kind_of_record(record: dict[str, Any]) -> tuple[str, str]:
    """``what`` and ``generation`` (see :class:`Kind`) of one record."""
    keys = record.keys()
    if "reviewerID" in keys or {"user_id", "rating"} <= keys:
        what = "reviews"
    elif keys & {"asin", "parent_asin"}:
        what = "metadata"
    else:
        return "", ""
    marks = _MARKS[what]
    score = {generation: len(keys & fields) for generation, fields in marks.items()}
    best = max(score, key=lambda generation: score[generation])
    return what, best if score[best] else ""


def kind_of_file(path: Path) -> Kind:
    """Recognise a file by its first records.

    Raises:
        DataError: It cannot be read, or its first lines are not records.
    """
    records, literal = sample_records(path)
    if not records:
        raise DataError(
            f"{path}: its first lines are not records; give a file of JSON lines as downloaded"
        )
    kinds = Counter(kind_of_record(record) for record in records)
    (what, _), _ = kinds.most_common(1)[0]
    known = Counter({g: n for (w, g), n in kinds.items() if w == what and g})
    return Kind(what, known.most_common(1)[0][0] if known else "", literal)


def expect(path: Path, kind: Kind, what: str, generation: str | None) -> None:
    """Raise DataError if a file is of another kind than expected.

    Args:
        path: The file.
        kind: Its kind.
        what: The expected kind, reviews or metadata.
        generation: The expected generation; None: any.
    """
    found = f"{kind.what} of {kind.generation}" if kind.generation else kind.what
    if not kind.what:
        raise DataError(f"{path}: holds neither reviews nor metadata of Amazon products")
    if kind.what != what:
        raise DataError(f"{path}: holds {found}, not {what}; give it as --{kind.what}")
    if generation and kind.generation and kind.generation != generation:
        raise DataError(
            f"{path}: holds {found}, not of {generation}; reviews and metadata must be of one "
            "generation, since their ids differ"
        )
