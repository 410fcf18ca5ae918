"""The commands of docs/using.md run in their order, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from recbole_cierec.__main__ import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "using.md"
_BLOCK = re.compile(r"^```\n(.*?)^```", re.M | re.S)


@pytest.mark.slow
def test_the_page_trains_recommends_scores_new_items_exports_and_serves(in_tmp, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    table = next(block for block in blocks if block.startswith("item_id,"))
    Path("new.csv").write_text(table)
    Path("users.txt").write_text("1\nnobody\n")
    commands = [line for b in blocks for line in b.splitlines() if line.startswith("python -m ")]
    words = [shlex.split(c)[3] for c in commands[1:]]
    assert words == ["recommend"] * 3 + ["export", "report", "serve"]
    for number, command in enumerate(commands):
        assert main(shlex.split(command.replace("=8000", "=0"))[3:]) == 0, command
        if number == 0:
            (made,) = Path("saved").glob("MF_Image-*.pth")
            for file in Path("saved").glob(f"{made.stem}.*"):
                file.rename(file.with_name(file.name.replace(made.stem, "MF_Image")))
            users = pd.read_csv("dataset/demo/demo.inter", sep="\t", dtype=str)["user_id:token"]
            Path("users.txt").write_text(f"{users[0]}\nnobody\n")
    lists = duckdb.sql("SELECT * FROM 'recs.parquet'").df()
    assert lists.groupby("user").size().eq(20).all()
    assert lists["user"].nunique() == users.nunique()
    some = pd.read_csv("red.csv", dtype=str)
    assert some["user"].unique().tolist() == [users[0], "nobody"]
    items = pd.read_csv("dataset/demo/demo.item", sep="\t", dtype=str).set_index("item_id:token")
    assert items.loc[some["item"], "annotations:token_seq"].str.contains("red_discs").all()
    new = pd.read_csv("new_lists.csv")
    assert set(new["new_item"]) == {"fresh-1", "fresh-2"}
    assert set(new["kind"]) == {"user", "item"}
    kept = np.load("vectors/vectors.npz")
    number = kept["user_ids"].tolist().index(users[0])
    scores = kept["users"][number] @ kept["items"].T + kept["item_bias"] + kept["user_bias"][number]
    scores = dict(zip(kept["item_ids"].tolist(), scores, strict=True))
    rows = lists[lists["user"] == users[0]]
    page = Path("report.html").read_text(encoding="utf-8")
    assert "MF_Image on demo" in page
    assert "The run has no history" not in page
    assert [scores[i] for i in rows["item"]] == pytest.approx(rows["score"].tolist(), abs=1e-5)
