"""Single parts of a page."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from recbole_cierec.__main__ import main
from recbole_cierec.errors import CheckpointError
from recbole_cierec.report.drawing import COLOURS, Drawing
from recbole_cierec.report.embeddings import plane, purity
from recbole_cierec.report.neighbours import nearest, overlap
from recbole_cierec.report.people import half_cold
from recbole_cierec.report.source import find_checkpoint


def test_of_a_folder_the_newest_run_is_taken_by_its_best_epoch(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(tmp_path)
    for age, name in enumerate(["stage-MF-a.pth", "A.last.pth", "A.pth", "B.pth", "C.last.pth"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    (tmp_path / "D.users.npz").touch()
    assert find_checkpoint(tmp_path).name == "B.pth"
    (tmp_path / "A.pth").unlink()
    (tmp_path / "B.pth").unlink()
    assert find_checkpoint(tmp_path).name == "C.last.pth"
    for name in ("A.last.pth", "C.last.pth"):
        (tmp_path / name).unlink()
    assert find_checkpoint(tmp_path).name == "stage-MF-a.pth"
    assert find_checkpoint(tmp_path / "X.pth").name == "X.pth"


@pytest.mark.parametrize("module", ["matplotlib", "jinja2", "sklearn"])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys, module):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["report", "saved"]) == 2
    said = capsys.readouterr().err
    assert "recbole-cierec[report]" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out=x.html"], "name the checkpoint"),
        (["absent.pth"], "no such checkpoint"),
        (["a.pth", "b.pth", "c.pth"], "this takes one or two checkpoints, not 3"),
    ],
)
def test_wrong_command_lines_are_refused(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.glob("*.html")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.pth", "--out=a.pth"], "a.pth: end its name in .html"),
        (["a.pth", "--out=x.pdf"], "x.pdf: end its name in .html"),
        (["a.html", "--out=a.html"], "a.html: cannot be written (this command reads it)"),
        (["a.html", "a.pth", "--figures=p.png"], "p.png: cannot be written (it is a file); give a"),
    ],
)
def test_no_other_file_is_replaced(tmp_path, monkeypatch, capsys, words, said):
    """Nothing is read before: the checkpoints hold none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.pth", "a.html", "p.png"):
        (tmp_path / name).write_text(name)
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {name: name for name in ("a.pth", "a.html", "p.png")}


def test_purity_counts_neighbours_of_the_same_user():
    angles = np.array([0.0, 0.1, 0.2, 1.5, 1.6, 1.7])
    points = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert purity(points, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(2 / 5)  # 2 of 5 each
    assert purity(points[:2], np.array([0, 1])) == 0.0


def test_nearest_items_leave_out_padding_and_the_item():
    assert nearest(np.array([9.0, 1.0, 0.5, 0.5, 0.0]), 1) == ([2, 3], [0.5, 0.5])
    sets = [frozenset(s) for s in ("", "ab", "bc", "ab", "")]
    np.testing.assert_allclose(overlap(sets, 1), [0, 1, 1 / 3, 1, 0])


def test_half_of_the_users_are_cold_as_far_as_there_are_enough():
    cold = np.array([True, False, False, False, True, False, False])
    source = SimpleNamespace(user_groups=SimpleNamespace(members={"cold": cold}))
    assert half_cold(source, np.arange(7), 4).tolist() == [0, 4, 1, 2]
    assert half_cold(source, np.arange(7), 6).tolist() == [0, 4, 1, 2, 3, 5]


def test_names_in_figures_are_text_and_colours_follow_the_scheme():
    with Drawing("x", "t") as drawing:
        drawing.axes.plot([0, 1], [0, 1], label="$a_b$ <script>", color=COLOURS["s1"][0])
        drawing.epochs([0, 1])
        drawing.legend()
    svg = drawing.made.svg
    assert "$a_b$ &lt;script&gt;" in svg
    assert "var(--s1)" in svg
    assert "var(--ink)" in svg
    assert COLOURS["s1"][0] not in svg
    assert "http" not in svg


@pytest.mark.filterwarnings("error")
def test_equal_vectors_have_a_map():
    places = plane(np.ones((9, 4), dtype=np.float32) / 2, seed=1)
    assert np.isfinite(places).all()
