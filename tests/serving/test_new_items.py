"""New items are scored as the same items are that training had in its data and never saw."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recbole.data.interaction import Interaction
from torch.nn import functional as F

from recbole_cierec import load, recommend, run
from recbole_cierec.errors import ConfigError, DataError, PictureError
from recbole_cierec.registry import MODELS, get_model_class
from recbole_cierec.serving.new_items import NewItems

DOCS = Path(__file__).resolve().parents[2] / "docs"
TAKES = [name for name in MODELS if get_model_class(name).unseen_items]
SMALL = {"mlp_hidden_size": [8], "pretrain_epochs": 1, "seed": 4, "learning_rate": 0.1}
NEW = [("n1", "t1 t5"), ("n2", ""), ("n3", "t2")]  # external id, annotations


def rows_of_the_table() -> dict[str, list[str]]:
    """The cells of the table in docs/models/index.md, by model."""
    rows = {}
    for line in (DOCS / "models" / "index.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cells[0]))
        for name in names:
            rows[names[0].split("_")[0] + name if name.startswith("_") else name] = cells
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_the_table_of_models_says_what_ranks_unseen_items_and_users(name):
    _, _, _, _, items, users, _ = rows_of_the_table()[name]
    made = get_model_class(name)
    assert items.startswith(f"by {made.unseen_items}" if made.unseen_items else "not")
    assert users.startswith("one list" if made.ranks_unseen_users else "not")


@pytest.fixture
def two_worlds(tiny, tiny_folder, in_tmp):
    """Keys of a run on data without the new items, and of one with them: in NAME.item, and with
    interactions in the test part only, which makes them items of the data."""
    rng = np.random.default_rng(5)
    added = {
        "features.npy": rng.standard_normal((3, 6)),
        "regions.npy": rng.standard_normal((3, 4, 6)),
    }
    for kind in ("without", "with"):
        home = shutil.copytree(tiny_folder / "tiny", in_tmp / kind / "tiny")
        pairs = [line.split("\t")[:2] for line in (home / "tiny.inter").open()][1:]
        valid, test = pairs[3::5], pairs[4::5]
        parts = {
            "train": [p for k, p in enumerate(pairs) if k % 5 < 3],
            "valid": valid,
            "test": test,
        }
        if kind == "with":
            test += [["u1", name] for name, _ in NEW]
        for part, rows in parts.items():
            lines = ["user_id:token\titem_id:token", *("\t".join(row) for row in rows)]
            (home / f"tiny.{part}.inter").write_text("\n".join(lines) + "\n")
        if kind == "with":
            with (home / "tiny.item").open("a") as file:
                file.writelines(f"{name}\timages/{name}.png\t{tokens}\n" for name, tokens in NEW)
            for file, values in added.items():
                known = np.load(home / file)
                np.save(home / file, np.concatenate([known, values.astype(known.dtype)]))
    for file, values in added.items():
        np.save(file, values.astype(np.float32 if file == "features.npy" else np.float16))
    with open("new.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("item_id", "annotations"), *NEW])

    def make(kind: str, name: str, **more) -> dict:
        file = "regions.npy" if name == "VECF" else "features.npy"
        return tiny(
            **{
                **SMALL,
                "data_path": kind,
                "features_file": f"{kind}/tiny/{file}",
                "benchmark_filename": ["train", "valid", "test"],
                "feature_norm": "l2",  # as "none", not fitted on the items
                "embedding_size": 6,
                "epochs": 2,
                "attention_heads": 1,
                "checkpoint_dir": f"saved-{kind}",
                **more,
            }
        )

    return make


def scores_of(checkpoint: str, names: list[str]) -> np.ndarray:
    """Scores [users, names] by full_sort_predict."""
    job = load(checkpoint)
    data = job.loaders[0]._dataset
    users = torch.arange(1, data.user_num)
    with torch.no_grad():
        scores = job.model.full_sort_predict(Interaction({"user_id": users}))
    columns = [data.field2token_id["item_id"][name] for name in names]
    return scores.view(len(users), -1)[:, columns].numpy()


@pytest.mark.parametrize("name", TAKES)
def test_a_new_item_scores_as_an_unseen_item_of_the_data_does(two_worlds, name):
    """Trained with the items in the data and without them, from the same weights.

    The starts of a model depend on the sizes of its tables, so the weights of one run are given to
    the other: what is compared is how a new item is scored, to rounding.
    """
    keys = two_worlds("with", name, epochs=1)
    names = [n for n, words in NEW if words or name != "MF_Semantics"]  # which n2 has nothing for
    if len(names) < len(NEW):
        lines = Path("new.csv").read_text().splitlines(keepends=True)
        Path("new.csv").write_text("".join(x for x in lines if not x.startswith("n2")))
    there = run(name, "tiny", config_dict=keys)["checkpoint"]
    wanted = scores_of(there, names)
    without = run(name, "tiny", config_dict=two_worlds("without", name, epochs=1))["checkpoint"]
    give_weights(there, without)
    table = recommend(
        without,
        topk=10_000,
        new_items="new.csv",
        new_features=None
        if name == "MF_Semantics"
        else "regions.npy"
        if name == "VECF"
        else "features.npy",
    )
    users = load(without).loaders[0]._dataset.field2id_token["user_id"][1:]
    rows = table[table["kind"] == "user"].pivot(index="id", columns="new_item", values="score")
    known = np.isin(users, rows.index)
    assert known.sum() > 25
    np.testing.assert_allclose(
        rows.loc[users[known], names].to_numpy(), wanted[known], rtol=1e-4, atol=2e-6
    )
    assert np.ptp(wanted) > 1e-5


def give_weights(source: str, target: str) -> None:
    """Put the weights of a run with three more items into the checkpoint of one without them."""
    theirs, ours = (torch.load(path, weights_only=True) for path in (source, target))
    for name, value in ours["state_dict"].items():
        there = theirs["state_dict"][name]
        if value.shape != there.shape:
            assert len(there) == len(value) + len(NEW), name
        ours["state_dict"][name] = there[: len(value)].clone() if value.dim() else there
    torch.save(ours, target)


def test_the_best_users_and_the_nearest_items_are_those_of_numpy(two_worlds):
    done = run("VBPR", "tiny", config_dict=two_worlds("without", "VBPR"))
    flags = {"new_items": "new.csv", "new_features": "features.npy"}
    whole = recommend(done["checkpoint"], topk=999, **flags)
    table = recommend(done["checkpoint"], topk=3, neighbours=4, **flags)
    features = np.load("without/tiny/features.npy")
    new = np.load("features.npy")
    cosine = F.normalize(torch.tensor(new)) @ F.normalize(torch.tensor(features)).T
    known = load(done["checkpoint"]).loaders[0]._dataset.field2token_id["item_id"]
    items = [k for k in range(39) if f"i{k}" in known]
    for row, (name, _) in enumerate(NEW):
        users = whole[(whole["new_item"] == name) & (whole["kind"] == "user")]
        best = table[(table["new_item"] == name) & (table["kind"] == "user")]
        assert users["score"].is_monotonic_decreasing
        assert best["id"].tolist() == users["id"].tolist()[:3]
        near = table[(table["new_item"] == name) & (table["kind"] == "item")]
        order = sorted(items, key=lambda k: -cosine[row, k].item())[:4]
        assert near["id"].tolist() == [f"i{k}" for k in order]
        assert near["score"].tolist() == pytest.approx(cosine[row, order].tolist(), abs=1e-5)
    some = recommend(done["checkpoint"], ["u4", "u9"], topk=3, **flags)
    assert set(some[some["kind"] == "user"]["id"]) == {"u4", "u9"}


@pytest.mark.parametrize("form", ["csv", "picture"])
@pytest.mark.parametrize(
    "more",
    [{"feature_norm": "center"}, {"feature_norm": "none"}, {"encoder_training": "finetune"}],
    ids=lambda more: next(iter(more.values())),
)
def test_a_picture_of_a_known_item_scores_as_that_item_without_its_ids(pictured, form, more):
    keys = pictured(epochs=1, **more)
    done = run("MF_Image", "tiny", config_dict=keys)
    home = Path(keys["data_path"]) / "tiny"
    job = load(done["checkpoint"])
    train = job.loaders[0]._dataset
    unseen = np.flatnonzero(np.bincount(train.inter_feat["item_id"], minlength=41)[1:39] > 0)[3] + 1
    name = str(train.field2id_token["item_id"][unseen])
    shutil.copy(home / "images" / f"{name[1:]}.png", "photo.png")
    Path("new.csv").write_text("id,image_path\nphoto,photo.png\n")
    table = recommend(
        done["checkpoint"], topk=999, new_items="new.csv" if form == "csv" else "photo.png"
    )
    users = table[table["kind"] == "user"].set_index("id")["score"]
    job.model.item_bias.weight.data.zero_()  # the id part of MF_Image
    numbers = torch.tensor(train.token2id("user_id", users.index.tolist()))
    with torch.no_grad():
        scores = job.model.full_sort_predict(Interaction({"user_id": numbers}))
    wanted = scores.view(len(numbers), -1)[:, unseen].numpy()
    np.testing.assert_allclose(users.to_numpy(), wanted, rtol=1e-3, atol=1e-5)
    near = table[(table["kind"] == "item") & (table["rank"] == 1)]
    assert near["id"].tolist() == [name]
    assert near["score"].tolist() == pytest.approx([1.0], abs=1e-4)


def test_region_maps_are_computed_for_new_pictures(pictured):
    keys = pictured(epochs=1, feature_norm="none")
    done = run("VECF", "tiny", config_dict=keys)
    home = Path(keys["data_path"]) / "tiny"
    shutil.copy(home / "images" / "7.png", "photo.png")
    table = recommend(done["checkpoint"], topk=2, new_items="photo.png")
    near = table[(table["kind"] == "item") & (table["rank"] == 1)]
    assert near["id"].tolist() == ["i7"]
    assert len(table[table["kind"] == "user"]) == 2


def test_unknown_tokens_are_ignored_with_a_note(two_worlds, caplog):
    done = run("MF_Semantics", "tiny", config_dict=two_worlds("without", "MF_Semantics"))
    Path("odd.csv").write_text("item_id,annotations\na,t1 zzz t5 yyy\nb,t1 t5\n")
    with caplog.at_level("WARNING"):
        table = recommend(done["checkpoint"], topk=5, new_items="odd.csv")
    a, b = (table[(table["new_item"] == name)]["score"].tolist() for name in "ab")
    assert a == pytest.approx(b)
    assert "odd.csv: 2 values of annotations do not occur in the training data" in caplog.text
    assert "are ignored, the first is 'zzz'" in caplog.text


@pytest.mark.parametrize("name", ["MF", "AMF", "BPR"])
def test_models_without_content_refuse_in_one_line(two_worlds, name):
    done = run(name, "tiny", config_dict=two_worlds("without", name))
    with pytest.raises(ConfigError, match=f"{name} does not score items by their content") as error:
        recommend(done["checkpoint"], new_items="new.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", DataError, r"x\.csv: names no item"),
        ("item_id\n", DataError, r"x\.csv: names no item"),
        ("name\na\n", DataError, "no column item_id among name"),
        ("item_id;image_path\na;b,c\n", DataError, r"x\.csv, line 1: .* by ';', not ','"),
        ("item_id,image_path\na,caf\udce9\n", DataError, "line 2: byte 0xe9 is not UTF-8; save"),
        ("id,imagepath\na,b.png\n", DataError, "column 'imagepath'; did you mean 'image_path'"),
        ("id,zzzzz\na,b\n", DataError, "item 'a': VBPR scores new items by picture"),
        (
            "id,annotations\na,t1\n",
            DataError,
            r"x\.csv, line 2: item 'a': VBPR scores new items by picture; the item has no picture",
        ),
        (
            'id,annotations,image_path\na,"t1\nt2",data/tiny/images/1.png\nb,,\n',
            DataError,
            r"x\.csv, line 4: item 'b': VBPR scores new items by picture",
        ),
        ("id\na\na\n", DataError, r"x\.csv, line 3: id 'a' is empty or given twice"),
        ("id\ni3\n", DataError, "'i3' is an item of the training data"),
        ("id,image_path\na\n", DataError, "another number of cells"),
        (
            "id,image_path\na,none.png\n",
            PictureError,
            r"x\.csv, line 2: item 'a': .*none\.png: no such file",
        ),
        ("id,image_path\na,x.csv\n", PictureError, r"x\.csv, line 2: item 'a': .*not a JPEG, PNG"),
    ],
)
def test_wrong_new_items_are_one_line(pictured, text, error, said):
    Path("x.csv").write_text(text, "utf-8", "surrogateescape")
    keys = pictured(epochs=1)
    text = text.replace("data/", f"{keys['data_path']}/")
    done = run("VBPR", "tiny", config_dict=keys)
    with pytest.raises(error, match=said) as caught:
        recommend(done["checkpoint"], new_items="x.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "policy"), [("MF_Content", "skip"), ("VBPR", "blank")])
def test_a_bad_picture_of_a_new_item_is_what_bad_image_says(pictured, caplog, name, policy):
    keys = pictured(epochs=1, bad_image=policy)
    home = Path(keys["data_path"]) / "tiny"
    Image.new("RGB", (32, 32), (128, 128, 128)).save("grey.png")
    Path("bad.png").write_bytes(b"no picture")
    Path("new.csv").write_text(
        "item_id,image_path,annotations,zzz\n"  # which nothing reads
        f"bad,bad.png,t1,0\nlike,{'' if policy == 'skip' else 'grey.png'},t1,0\n"
        f"good,{(home / 'images' / '7.png').resolve()},t1,0\n"
    )
    checkpoint = run(name, "tiny", config_dict=keys)["checkpoint"]
    with caplog.at_level("WARNING"):
        table = recommend(checkpoint, new_items="new.csv")
    bad, like, good = (
        table[(table["new_item"] == item) & (table["kind"] == "user")]["score"].tolist()
        for item in ("bad", "like", "good")
    )
    assert bad == pytest.approx(like)
    assert bad != pytest.approx(good)
    assert "new.csv, line 2: item 'bad': bad.png: " in caplog.text
    assert f"bad_image = {policy}" in caplog.text


def test_an_item_whose_only_content_is_skipped_is_refused(pictured):
    checkpoint = run("VBPR", "tiny", config_dict=pictured(epochs=1, bad_image="skip"))["checkpoint"]
    Path("bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png: VBPR scores new items by picture"):
        recommend(checkpoint, new_items="bad.png")


@pytest.mark.parametrize("name", ["noext", "x.JFIF", "photo.of.me"])
def test_a_picture_is_taken_by_its_content(pictured, name):
    keys = pictured(epochs=1)
    checkpoint = run("VBPR", "tiny", config_dict=keys)["checkpoint"]
    source = Path(keys["data_path"]) / "tiny" / "images" / "7.png"
    shutil.copy(source, "photo.png")
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        Image.open(source).save(name, form)
        NewItems.read(Path(name), None)
    shutil.copy(source, name)
    other, same = (recommend(checkpoint, new_items=file) for file in (name, "photo.png"))
    assert other["score"].tolist() == same["score"].tolist()
    assert other["new_item"].unique().tolist() == [Path(name).stem]


@pytest.mark.parametrize(("name", "form"), [("t.TIFF", "TIFF"), ("noext", "ICO")])
def test_a_picture_of_another_kind_is_no_table(in_tmp, name, form):
    Image.new("RGB", (8, 8)).save(name, form)
    with pytest.raises(DataError, match=f"^{name}: not a JPEG, PNG, WebP, GIF or BMP picture"):
        NewItems.read(Path(name), None)


def test_a_table_in_utf_16_is_no_picture(in_tmp):
    Path("x.csv").write_text("item_id,image_path\na,b.png\n", "utf-16")
    with pytest.raises(DataError, match="save the file as UTF-8"):
        NewItems.read(Path("x.csv"), None)


def test_columns_that_the_model_does_not_read_are_named(pictured, caplog):
    keys = pictured(epochs=1)
    checkpoint = run("VBPR", "tiny", config_dict=keys)["checkpoint"]
    picture = (Path(keys["data_path"]) / "tiny" / "images" / "7.png").resolve()
    Path("x.csv").write_text(f"id,image_path,price,annotations\na,{picture},3,t1\n")
    with caplog.at_level("INFO"):
        recommend(checkpoint, new_items="x.csv")
    said = "x.csv: columns that VBPR does not read are ignored: price, annotations"
    assert [r.getMessage() for r in caplog.records if "ignored" in r.getMessage()] == [said]


def test_what_new_items_cannot_be_is_said(two_worlds):
    done = run("VBPR", "tiny", config_dict=two_worlds("without", "VBPR"))
    with pytest.raises(ConfigError, match=r"give --new_features=FILE\.npy"):
        recommend(done["checkpoint"], new_items="new.csv")
    np.save("narrow.npy", np.zeros((3, 5), np.float32))
    with pytest.raises(DataError, match="has 5 features, the model was trained on 6"):
        recommend(done["checkpoint"], new_items="new.csv", new_features="narrow.npy")
    with pytest.raises(ConfigError, match="new_features belongs to new_items"):
        recommend(done["checkpoint"], new_features="narrow.npy")
