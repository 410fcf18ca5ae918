"""Data sets that a test writes itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from atomic_files import INTER, table


@pytest.fixture
def wrote(in_tmp):
    """``wrote(file=(header, rows), ...)`` -> keys of a data set ``t`` with these files.

    With 5 users and 6 items unless ``inter`` is given.
    """

    def write(**files: tuple[str, list[str]]) -> dict:
        rows = [f"u{u} i{(u + k) % 6} {k}" for u in range(5) for k in range(5)]
        home = Path("data/t")
        home.mkdir(parents=True)
        for file, (header, lines) in {"inter": (INTER, rows), **files}.items():
            (home / f"t.{file.replace('_', '.')}").write_text(table(header, lines))
        keys = {"data_path": "data", "topk": [2], "valid_metric": "Recall@2"}
        return {**keys, "use_gpu": False, "show_progress": False, "state": "error"}

    return write
