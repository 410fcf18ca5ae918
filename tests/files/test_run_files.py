"""The files of one run share a name, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_cierec.evaluation.per_user import by_user_file
from recbole_cierec.files.run_files import is_last, next_to
from recbole_cierec.trainer.history import history_file


@pytest.mark.parametrize("name", ["BPR-1", "S3Rec-data.v2-10", "a.pth.b", "stage-MF-1.0"])
def test_both_checkpoints_of_a_run_have_the_same_files(name):
    folder = Path("saved.last.pth")  # folders are not renamed
    best, last = folder / f"{name}.pth", folder / f"{name}.last.pth"
    assert (is_last(best), is_last(last)) == (False, True)
    assert next_to(last, ".pth") == best
    assert next_to(best, ".last.pth") == last
    assert by_user_file(best) == by_user_file(last) == folder / f"{name}.users.npz"
    assert history_file(best) == history_file(last) == folder / f"{name}.history.jsonl"
