"""Small raw inputs, written by hand in the shape of the real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recbole_cierec.dataset_converters.__main__ import run

from recbole_cierec.data.atomic import read_atomic


class Made:
    """A converted data set, read back by the reader that training uses."""

    def __init__(self, folder: Path, report: list[str]) -> None:
        self.folder, self.report, self.name = folder, report, folder.name
        self.manifest = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))

    def rows(self, suffix: str = "inter") -> list[tuple]:
        """The rows of NAME.suffix; empty cells are None."""
        table, _ = read_atomic(self.folder / f"{self.name}.{suffix}")
        table = table.astype(object).where(table.notna(), None)
        return [tuple(row) for row in table.itertuples(index=False)]

    def steps(self) -> dict[str, tuple[int, int, int]]:
        """Interactions, users and items after each step."""
        return {
            step["step"]: (step["interactions"], step["users"], step["items"])
            for step in self.manifest["steps"]
        }

    def urls(self) -> list[tuple[str, str]]:
        """Path and URL of each picture to download."""
        path = self.folder / f"{self.name}.image_urls.tsv"
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "path\turl"
        return [tuple(line.split("\t")) for line in lines[1:]]


@pytest.fixture
def convert(tmp_path) -> Callable[..., Made]:
    """``convert("amazon", "--reviews", path, ...)`` -> :class:`Made`; its name is ``made``."""

    def call(*words: object) -> Made:
        words = [str(word) for word in words]
        name = words[words.index("--name") + 1] if "--name" in words else "made"
        given = [] if "--name" in words else ["--name", name]
        report = run([*words, *given, "--output", str(tmp_path / "out")])
        return Made(tmp_path / "out" / name, report)

    return call


@pytest.fixture
def write(tmp_path) -> Callable[[str, str | bytes], Path]:
    """``write(name, content)`` -> the path of a new file."""

    def call(name: str, content: str | bytes) -> Path:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return call


@pytest.fixture
def reviews_2018(write) -> Callable[..., Path]:
    """``reviews_2018([(user, item, rating, time), ...])`` -> a file of 2018 reviews."""

    def call(rows: list[tuple], name: str = "reviews_2018.json") -> Path:
        keys = ("reviewerID", "asin", "overall", "unixReviewTime")
        records = [{**dict(zip(keys, row, strict=True)), "verified": True} for row in rows]
        return write(name, "".join(json.dumps(record) + "\n" for record in records))

    return call
