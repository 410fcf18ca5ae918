"""The page on one run, against numbers computed from the run's files."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from page_reader import Element, parsed, rows_of
from PIL import Image

from recbole_cierec import load, recommend
from recbole_cierec.__main__ import main
from recbole_cierec.trainer.history import history_file


def section(page: Element, name: str) -> Element:
    (found,) = page.find("section", id=name)
    return found


def strips(card: Element) -> dict[str, list[Element]]:
    return {s.find("h4")[0].text: s.find("div", "tile") for s in card.find("div", "strip")}


def names(tiles: list[Element]) -> list[str]:
    return [tile.find("div", "name")[0].text for tile in tiles]


@pytest.fixture(scope="module")
def truth(runs):
    """Test items and lists of every user, by external ids."""
    job = load(runs.ours["checkpoint"])
    positives: dict[str, list[str]] = {}
    data = job.loaders[2]._dataset
    for user, item in zip(data.inter_feat["user_id"], data.inter_feat["item_id"], strict=True):
        pair = data.field2id_token["user_id"][user], data.field2id_token["item_id"][item]
        positives.setdefault(str(pair[0]), []).append(str(pair[1]))
    lists = recommend(runs.ours["checkpoint"], topk=10)
    return positives, {user: rows["item"].tolist() for user, rows in lists.groupby("user")}


def test_bars_are_means_over_users_with_their_intervals(runs):
    by_user = np.load(Path(runs.ours["checkpoint"]).with_suffix(".users.npz"))
    rows = {row[0]: row[1:] for row in rows_of(section(runs.page, "test").find("table")[0])}
    recall, cold = by_user["recall@10"], by_user["group/cold"]
    rare = by_user["recall@10_item_common"]
    expected = {
        "all users": recall,
        "cold users": recall[cold],
        "common items": rare[~np.isnan(rare)],
    }
    names = {"all users": "", "cold users": "_cold", "common items": "_item_common"}
    rng = np.random.default_rng(7)
    for group, values in expected.items():
        mean, interval, chance, users = rows[f"recall@10, {group}"]
        level = runs.ours["chance"][f"recall@10{names[group]}"]
        assert float(chance) == pytest.approx(level, abs=5e-5)
        assert float(mean) == pytest.approx(values.mean(), abs=5e-5)
        assert int(users) == len(values)
        means = rng.choice(values, (4000, len(values))).mean(1)
        ends = [float(end) for end in interval.split(" to ")]
        one_user = 1.01 / len(values)  # means of few users are far apart
        ends_here = np.percentile(means, [2.5, 97.5])
        np.testing.assert_allclose(ends, ends_here, atol=max(0.02, one_user))
        assert f"{group} {mean} ({interval})" in runs.html
    result = runs.ours["test_result"]
    assert rare[~np.isnan(rare)].mean() == pytest.approx(result["recall@10_item_common"], abs=1e-4)


def test_lists_and_hits_are_those_of_recommend_and_of_the_test_part(runs, truth):
    positives, lists = truth
    cards = section(runs.page, "users").find("article")
    assert len(cards) == 12
    marked = 0
    for card in cards:
        user = card.find("h3")[0].text.removeprefix("User ")
        shown = strips(card)
        assert names(shown["Recommended"]) == lists[user]
        hits = [
            name
            for t, name in zip(shown["Recommended"], lists[user], strict=True)
            if t.find("span", "mark")
        ]
        assert hits == [item for item in lists[user] if item in positives[user]]
        tags = [tag.text for tag in card.find("ul", "tags")[0].find("li")]
        assert f"{len(hits)} of {len(positives[user])} test items in the top 10" in tags
        taken = shown["Test items, with their places"]
        places = {
            n: int(t.find("span", "badge")[0].text[1:])
            for t, n in zip(taken, names(taken), strict=True)
        }
        assert set(places) == set(positives[user])
        for item, place in places.items():
            assert (lists[user][place - 1] == item) if place <= 10 else item not in lists[user]
        marked += len(hits)
    assert marked > 0
    for card in section(runs.page, "failures").find("article"):
        user = card.find("h3")[0].text.removeprefix("User ")
        assert not set(lists[user]) & set(positives[user])


def test_half_of_the_users_are_cold(runs):
    tags = [a.find("ul", "tags")[0].text for a in section(runs.page, "users").find("article")]
    assert sum(text.startswith("cold") for text in tags) == 6


def test_nothing_of_the_input_is_markup_and_nothing_is_loaded(runs):
    assert "<script>alert(" not in runs.html
    assert "&lt;script&gt;alert(" in runs.html
    assert not re.search(r"https?://", runs.html)
    for element in runs.page.walk():
        assert element.tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value.startswith(("#", "data:")), (name, value[:40])
    assert not re.search(r"@import|url\((?!#)", runs.html)


def test_annotations_are_shown_as_people_write_them(runs):
    texts = [tile.text for tile in runs.page.find("div", "tile")]
    assert any('<b>t0, "x"&amp;</b>' in text for text in texts)
    assert not any("%22" in text for text in texts)


def test_pictures_are_shown_and_bad_ones_say_why(runs):
    pictures = runs.page.find("img")
    assert len(pictures) > 100
    data = base64.b64decode(pictures[0].attributes["src"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", 112)
    assert all(picture.attributes["alt"] for picture in pictures)
    reasons = {}
    for tile in runs.page.find("div", "tile"):
        if tile.find("div", "empty"):
            reasons[names([tile])[0]] = tile.find("div", "empty")[0].text
    expected = {
        "i5": "not a JPEG",
        "i6": "no such file",
        "i7": "leaves the picture folder",
        "i37": "no picture",
        "i39": "not in tiny.item",
    }
    assert set(reasons) <= set(expected)
    assert len(reasons) >= 3
    assert all(expected[item] in reason for item, reason in reasons.items())


def test_the_curves_are_those_of_the_history(runs):
    path = history_file(Path(runs.ours["checkpoint"]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    images = section(runs.page, "training").find("div")
    labels = [e.attributes["aria-label"] for e in images if "aria-label" in e.attributes]
    assert any(
        f"loss from {rows[0]['loss']:.4f} to {rows[-1]['loss']:.4f}" in label for label in labels
    )
    assert any(f"over epochs 1 to {len(rows)}:" in label for label in labels)
    first, last = (row["valid"]["recall@10_cold"] for row in (rows[0], rows[-1]))
    assert any(f"cold users from {first:.4f} to {last:.4f}" in label for label in labels)
    labels = [e.attributes.get("aria-label", "") for e in section(runs.page, "gates").walk()]
    scale = rows[-1]["gates"]["visual"]["scale"]
    assert any("Mean scale" in label and f"to {scale:.4f}" in label for label in labels)


def test_figures_are_files_too(runs):
    files = list((runs.folder / "page-figures").iterdir())
    stems = {file.stem for file in files if file.suffix == ".svg"}
    assert {"test-recall@10", "loss-training", "map-before", "map-after", "gates-scale"} <= stems
    assert {file.stem for file in files if file.suffix == ".png"} == stems
    assert len(stems) == len(runs.page.find("figure"))
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                picture.verify()


def test_a_page_is_accessible_in_its_structure(runs):
    headings = [e.tag for e in runs.page.walk() if re.fullmatch("h[1-6]", e.tag)]
    assert headings.count("h1") == 1
    assert all(int(b[1]) <= int(a[1]) + 1 for a, b in pairwise(headings))
    assert all(table.find("caption") and table.find("th") for table in runs.page.find("table"))
    targets = {e.attributes["href"][1:] for e in runs.page.find("nav")[0].find("a")}
    assert targets == {e.attributes["id"] for e in runs.page.find("section")}
    ids = [e.attributes["id"] for e in runs.page.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]*)\)", runs.html)
    used += [e.attributes["href"][1:] for e in runs.page.find("use")]
    assert set(used) <= set(ids)


def test_settings_say_what_was_trained_on_what(runs):
    rows = dict(
        row for table in section(runs.page, "settings").find("table") for row in rows_of(table)
    )
    assert (rows["users"], rows["items"]) == ("30", "40")
    assert rows["items with a picture file"] == "38 (95.0%)"
    assert rows["items with annotations"] == "37 (92.5%); 7 distinct tokens"
    assert rows["embedding_size"] == "5"
    assert rows["trained epochs"] == f"3; kept is epoch {runs.ours['best_epoch']}"


def test_a_model_of_recbole_leaves_out_what_does_not_apply(runs):
    out = runs.folder / "bpr.html"
    assert main(["report", runs.recboles["checkpoint"], f"--out={out}"]) == 0
    page = parsed(out.read_text(encoding="utf-8"))
    assert "trained without gradient gates" in section(page, "gates").text
    assert "reads no features of pictures" in section(page, "neighbours").text
    assert page.find("img")  # NAME.item is where the run found the data
    elsewhere = runs.folder / "elsewhere.html"
    words = ["report", runs.recboles["checkpoint"], f"--out={elsewhere}", "--data_path=nowhere"]
    assert main(words) == 0
    page = parsed(elsewhere.read_text(encoding="utf-8"))
    assert "without pictures" in section(page, "users").text
    assert not page.find("img")
