"""Which files a search may overwrite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tune_helpers import SEARCHED, arguments, fake, search, write_two_tastes

from recbole_cierec.cli import tune


@pytest.fixture
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_two_tastes(folder)
    (folder / "space.yaml").write_text(SEARCHED)
    return folder


@pytest.mark.parametrize("suffix", ["md", "jsonl", "yaml", "journal"])
def test_foreign_files_are_neither_replaced_nor_cut(data, in_tmp, monkeypatch, capsys, suffix):
    asked = fake(monkeypatch, lambda settings: 0.5)
    notes = Path("out") / f"notes.{suffix}"
    notes.parent.mkdir()
    notes.write_text("# Of somebody else\nwithout an end of line")
    assert tune.main(arguments(data, name="notes")) == 2
    error = capsys.readouterr().err
    assert str(notes) in error
    assert error.count("\n") == 1
    assert asked == []
    assert notes.read_text() == "# Of somebody else\nwithout an end of line"


@pytest.mark.parametrize("suffix", ["md", "journal"])
def test_pipes_are_not_replaced(data, in_tmp, monkeypatch, capsys, suffix):
    asked = fake(monkeypatch, lambda settings: 0.5)
    Path("out").mkdir()
    os.mkfifo(f"out/notes.{suffix}")
    assert tune.main(arguments(data, name="notes")) == 2
    assert "is a pipe" in capsys.readouterr().err
    assert asked == []
    assert Path(f"out/notes.{suffix}").is_fifo()


def test_only_stages_are_removed_at_the_end(data, in_tmp, monkeypatch):
    fake(monkeypatch, lambda settings: 0.5)
    folder = Path("out/notes-stages")
    folder.mkdir(parents=True)
    for name in ("stage-MF-0.pth", "stage-MF-0-1.last.pth", "thesis.txt"):
        (folder / name).write_text("x")
    search(data, name="notes")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    search(data, name="notes", trials=6)
    assert not folder.exists()
