"""Two runs: numbers against numpy, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from page_reader import parsed, rows_of

from recbole_cierec import run
from recbole_cierec.__main__ import main


@pytest.fixture(scope="module")
def page(runs):
    out = runs.folder / "two.html"
    words = ["report", runs.recboles["checkpoint"], runs.ours["checkpoint"], f"--out={out}"]
    assert main(words) == 0
    return parsed(out.read_text(encoding="utf-8"))


def by_user(result) -> dict[str, np.ndarray]:
    return dict(np.load(Path(result["checkpoint"]).with_suffix(".users.npz")))


def test_differences_are_paired_means(runs, page):
    a, b = by_user(runs.recboles), by_user(runs.ours)
    rows = {row[0]: row[1:] for row in rows_of(page.find("table")[0])}
    assert a["users"].tolist() == b["users"].tolist()
    for group, mask in (("all users", np.ones(30, bool)), ("warm users", a["group/warm"])):
        first, second, apart, interval, _, users = rows[f"recall@10, {group}"]
        x, y = a["recall@10"][mask], b["recall@10"][mask]
        assert float(first) == pytest.approx(x.mean(), abs=5e-5)
        assert float(second) == pytest.approx(y.mean(), abs=5e-5)
        assert float(apart) == pytest.approx((y - x).mean(), abs=5e-5)
        low, high = (float(end) for end in interval.split(" to "))
        assert low <= (y - x).mean() <= high
        assert int(users) == mask.sum()


def test_users_are_those_who_gain_and_lose_most(runs, page):
    a, b = by_user(runs.recboles), by_user(runs.ours)
    apart = dict(zip(a["users"].tolist(), b["recall@10"] - a["recall@10"], strict=True))
    cards = page.find("section", id="users")[0].find("article")
    for word, sign in (("gains", 1), ("loses", -1)):
        shown = [
            sign * apart[card.find("h3")[0].text.removeprefix("User ")]
            for card in cards
            if word in card.find("ul", "tags")[0].text
        ]
        best = sorted((sign * value for value in apart.values()), reverse=True)[:5]
        assert shown == pytest.approx([value for value in best if value > 0])


def test_runs_of_other_protocols_are_refused_in_one_line(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs.folder)
    other = run(
        "Pop",
        "tiny",
        config_dict={
            **runs.keys,
            "epochs": 1,
            "topk": [10],
            "eval_args": {"mode": "user10"},
            "checkpoint_dir": str(runs.folder / "other"),
        },
    )
    capsys.readouterr()
    words = ["report", runs.ours["checkpoint"], other["checkpoint"], "--out=refused.html"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "are not comparable: different protocols" in said
    assert said.count("\n") == 1
    assert not Path("refused.html").exists()
    alone = shutil.copy(other["checkpoint"], runs.folder / "alone.pth")
    assert main(["report", runs.ours["checkpoint"], str(alone), "--out=refused.html"]) == 2
    assert "alone.pth: has no results by user" in capsys.readouterr().err
