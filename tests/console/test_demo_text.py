"""The comparison at the end of the run without arguments."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_cierec import run
from recbole_cierec.cli.demo import _place, _verdict, comparison_text
from recbole_cierec.evaluation.significance import Comparison


def test_the_table_has_the_results_of_both_runs_by_group(tiny):
    keys = tiny(metric_decimal_place=12)
    first, second = (run(model, "tiny", config_dict=keys) for model in ("VBPR", "Pop"))
    text = comparison_text(first, second)
    title, head, *rows = (line for line in text.splitlines() if line)
    assert title == "Recall@10 of VBPR and Pop on tiny"
    assert head.split()[:4] == ["users", "VBPR", "Pop", "chance"]
    groups = {"all users": "", "cold users": "_cold", "unseen items": "_item_unseen"}
    for label, end in groups.items():
        (row,) = [row for row in rows if row.startswith(f"{label} ")]
        count, ours, theirs, chance, *_ = row.removeprefix(label).split()
        assert int(count) == first["users"][end[1:] or "all"]
        assert float(ours) == pytest.approx(first["test_result"][f"recall@10{end}"], abs=1e-5)
        assert float(theirs) == pytest.approx(second["test_result"][f"recall@10{end}"], abs=1e-5)
        assert float(chance) == pytest.approx(first["chance"][f"recall@10{end}"], abs=1e-5)
    said = [line.split(":")[0] for line in rows if ": " in line]
    assert said == [f"{label.capitalize()}" for label in (*groups, "rare items")]


def between(low: float, high: float) -> Comparison:
    return Comparison("a", 0.5, 0.4, 9, 0.01, 0.01, low, high)


@pytest.mark.parametrize(
    ("found", "levels", "said"),
    [
        ((0.1, 0.2), ((0.1, 0.2), (-0.1, 0.1)), "A is above chance and B at it; A is better."),
        ((-0.2, -0.1), ((-2, -1), (-2, -1)), "both models are below chance; B is better."),
        ((-1, 1), ((-1, 1), (-1, 1)), "both models are at chance; the difference between them may"),
    ],
)
def test_the_sentence_follows_the_intervals(found, levels, said):
    text = _verdict(("A", "B"), between(*found), [between(*level) for level in levels])
    assert text.startswith(said)
    assert {_place(between(0.1, 1)), _place(between(-1, 1))} == {"above", "at"}
    assert np.isfinite(between(*found).low)
