"""One vocabulary and the same interactions for every model; declared states of items (F10-F15)."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec import run
from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.data.sampling import make_loaders
from recbole_cierec.errors import DataError
from recbole_cierec.vision.item_pictures import pictures_of

TOP3 = {"topk": [3], "valid_metric": "Recall@3"}
FAIR = ["CIERec", "MF", "BPR", "LightGCN", "Pop", "MultiVAE", "SASRec", "DIEN", "FM"]


def dataset_of(name, keys):
    config = Config(name, keys.pop("dataset", "tiny"), None, keys, {})
    return config, create_dataset(config)


@pytest.mark.parametrize("vocabulary", ["interacted", "all"])
def test_every_model_sees_the_same_items_and_interactions(tiny, vocabulary):
    digests = {n: dataset_of(n, tiny(item_vocabulary=vocabulary))[1].digest() for n in FAIR}
    assert len(set(digests.values())) == 1, digests


def test_loading_item_columns_does_not_change_the_vocabulary(tiny, tiny_folder, in_tmp):
    home = in_tmp / "more" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    with (home / "tiny.item").open("a") as file:
        file.write("never_bought\t\tt1\n")
    keys = {"data_path": str(in_tmp / "more")}
    plain = dataset_of("BPR", tiny(**keys))[1]
    load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "annotations"]}
    loaded = dataset_of("BPR", tiny(**keys, load_col=load))[1]
    everything = dataset_of("BPR", tiny(**keys, item_vocabulary="all"))[1]
    assert plain.digest() == loaded.digest()
    assert loaded.item_num == plain.item_num == everything.item_num - 1
    assert "never_bought" in everything.field2token_id["item_id"]


def copied(tiny_folder, to, **names):
    """The tiny data set in ``to``, with other names of columns."""
    home = shutil.copytree(tiny_folder / "tiny", to / "tiny")
    for path in (home / "tiny.inter", home / "tiny.item"):
        head, rest = path.read_text().split("\n", 1)
        for old, new in names.items():
            head = head.replace(f"{old}:", f"{new}:")
        path.write_text(f"{head}\n{rest}")
    return home


def test_columns_of_other_names_give_the_same_numbers(tiny, tiny_folder, in_tmp):
    copied(tiny_folder, in_tmp / "named", user_id="who", item_id="what", timestamp="when")
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what", "TIME_FIELD": "when"}
    one = run("CIERec", "tiny", config_dict=tiny())
    other = run("CIERec", "tiny", config_dict=tiny(data_path=str(in_tmp / "named"), **names))
    assert one["test_result"] == other["test_result"]


def test_interactions_of_items_without_a_line_go_where_the_key_says_so(tiny):
    plain = dataset_of("BPR", tiny())[1]
    strict = dataset_of("BPR", tiny(filter_inter_by_user_or_item=True))[1]
    assert "i39" in plain.field2token_id["item_id"]  # tiny.item has no line of it
    assert "i39" not in strict.field2token_id["item_id"]
    assert strict.item_num == plain.item_num - 1


def test_a_line_of_no_item_is_refused(tiny, tiny_folder, in_tmp):
    home = copied(tiny_folder, in_tmp / "blank")
    with (home / "tiny.item").open("a") as file:
        file.write("\timages/x.png\tt1\n")
    content = dataset_of("CIERec", tiny(data_path=str(in_tmp / "blank")))[1].content
    with pytest.raises(DataError, match=r"tiny\.item.*line 41.*item_id is empty"):
        list(content.token_names)


def test_content_does_not_depend_on_the_order_of_rows(tiny, tiny_folder, in_tmp):
    home = in_tmp / "shuffled" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    head, *rows = (home / "tiny.item").read_text().splitlines()
    order = np.random.default_rng(3).permutation(len(rows))
    (home / "tiny.item").write_text("\n".join([head, *(rows[k] for k in order)]) + "\n")
    features = np.load(home / "features.npy")
    np.save(home / "features.npy", features[order])
    one = dataset_of("CIERec", tiny())[1].content
    keys = {"data_path": str(in_tmp / "shuffled"), "features_file": str(home / "features.npy")}
    other = dataset_of("CIERec", tiny(**keys))[1].content
    assert one.token_names == other.token_names
    assert torch.equal(one.tokens, other.tokens)
    torch.testing.assert_close(pictures_of(one).features, pictures_of(other).features)


def test_declared_states_are_masks_and_are_counted_in_the_log(tiny, caplog):
    caplog.set_level("INFO")
    _, dataset = dataset_of("CIERec", tiny())
    content, ids = dataset.content, dataset.field2token_id["item_id"]
    assert not content.has_annotation[[ids["i37"], ids["i38"], ids["i39"]]].any()
    assert content.has_annotation.sum() == dataset.item_num - 1 - 3
    assert not pictures_of(content).has_picture[ids["i39"]]
    assert not pictures_of(content).features[ids["i39"]].any()
    assert pictures_of(content).features[ids["i38"]].any()
    (line,) = [r.getMessage() for r in caplog.records if "Item content" in r.getMessage()]
    assert "1 not in tiny.item" in line
    assert "3 without annotation" in line
    assert "2 without picture" in line  # i37 has an empty path, i39 no row
    assert line.endswith("7 tokens, 2.0 an item")
    with_picture = {token for token, i in ids.items() if pictures_of(content).has_picture[i]}
    assert with_picture == ids.keys() - {"[PAD]", "i39"}  # features_file has a row for i37


@pytest.mark.parametrize("keep", [None, "first", "last"])
def test_equal_times_keep_the_order_of_the_file_when_repeats_are_removed(in_tmp, keep):
    """300 users with 20 items on four days each, and no repeat."""
    rng, last = np.random.default_rng(0), set()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(300):
        items, days = rng.permutation(99)[:20], np.sort(rng.integers(4, size=20))
        lines += [f"u{user}\ti{item}\t{day}" for item, day in zip(items, days, strict=True)]
        last.add((f"u{user}", f"i{items[-1]}"))
    Path("days").mkdir()
    Path("days/days.inter").write_text("\n".join(lines) + "\n")
    split = {"eval_args": {"split": {"LS": "valid_and_test"}}}
    keys = {"data_path": ".", "use_gpu": False, "rm_dup_inter": keep, **split}
    with quiet_recbole():
        test = create_dataset(Config("MF", "days", None, keys)).build()[2]
    names = test.field2id_token
    users, items = (names[f][test.inter_feat[f].numpy()] for f in ("user_id", "item_id"))
    assert set(zip(users, items, strict=True)) == last


@pytest.mark.parametrize(
    ("between", "keys", "says"),
    [
        ("|", {}, "hold '|', as 't.|t.*' does; .* write blanks .* set seq_separator: '|'"),
        (";", {}, "hold ';'.* set seq_separator: ';'"),
        (", ", {}, "hold ',', as 't.,' does; .* set seq_separator: ', '"),
        (", ", {"seq_separator": ","}, "begin with a blank; .* set seq_separator: ', '"),
        (" ", {"seq_separator": ";"}, ""),
        (" ", {}, ""),
        (";", {"seq_separator": ";"}, ""),
        (",_", {}, ""),  # a blank within a label
    ],
)
def test_another_separator_of_annotations_is_warned_about(
    tiny, tiny_folder, in_tmp, caplog, between, keys, says
):
    home = copied(tiny_folder, in_tmp / "marks")
    head, *rows = (home / "tiny.item").read_text().splitlines()
    (home / "tiny.item").write_text("\n".join([head, *(r.replace(" ", between) for r in rows)]))
    content = dataset_of("CIERec", tiny(data_path=str(home.parent), **keys))[1].content
    assert content.token_names
    assert content.tokens.any()
    lines = [r.getMessage() for r in caplog.records if "most tokens" in r.getMessage()]
    assert len(lines) == bool(says)
    said = says.replace("|", r"\|")
    assert not says or re.search(rf"tiny\.item: most tokens of annotations {said}$", lines[0])


def with_other_ids(folder: Path, source: Path, first: int) -> str:
    """The tiny data with a prefix before the ids of tiny.item from a row on."""
    home = folder / "others" / "tiny"
    shutil.copytree(source / "tiny", home)
    head, *rows = (home / "tiny.item").read_text().splitlines()
    rows = [*rows[:first], *(f"item-{row}" for row in rows[first:])]
    (home / "tiny.item").write_text("\n".join([head, *rows]) + "\n")
    return str(home.parent)


def test_an_item_file_of_other_items_is_refused_where_it_is_read(tiny, tiny_folder, in_tmp):
    folder = with_other_ids(in_tmp, tiny_folder, 0)
    content = dataset_of("CIERec", tiny(data_path=folder))[1].content
    with pytest.raises(DataError, match=r"tiny\.item: none of its 39 ids is an item .*'item-i0'"):
        _ = content.tokens
    run("MF", "tiny", config_dict=tiny(data_path=folder, epochs=1))  # a model of ids alone


@pytest.mark.parametrize("name", ["CIERec", "BPR"])
def test_items_of_other_ids_do_not_join_the_vocabulary(tiny, tiny_folder, in_tmp, name):
    keys = tiny(data_path=with_other_ids(in_tmp, tiny_folder, 0), item_vocabulary="all")
    with pytest.raises(DataError, match=r"tiny\.item: none of its 39 ids is an item .*'item-i0'"):
        dataset_of(name, keys)


def test_a_user_file_of_other_users_is_refused(tiny, tiny_folder, in_tmp):
    home = in_tmp / "others" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    (home / "tiny.user").write_text("user_id:token\tage:token\nuser-1\t20\nuser-2\t30\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "age"]}
    with pytest.raises(DataError, match=r"tiny\.user: none of its 2 ids is a user .*'user-1'"):
        dataset_of("FM", tiny(data_path=str(home.parent), load_col=columns))


@pytest.mark.parametrize(("same", "warned"), [(10, True), (30, False)])
def test_an_item_file_that_lacks_most_items_is_warned_about(
    tiny, tiny_folder, in_tmp, caplog, same, warned
):
    folder = with_other_ids(in_tmp, tiny_folder, same)
    _ = dataset_of("CIERec", tiny(data_path=folder))[1].content.tokens
    lines = [r.getMessage() for r in caplog.records if "have no row" in r.getMessage()]
    assert len(lines) == warned
    assert not warned or "30 of the 40 items" in lines[0]


@pytest.mark.parametrize(("value", "word"), [(0, "zeros"), (0.5, "equal")])
def test_features_that_are_all_equal_are_warned_about(tiny, in_tmp, caplog, value, word):
    np.save("same.npy", np.full((39, 6), value, dtype="float32"))
    keys = tiny(features_file="same.npy", feature_norm="standard")
    features = pictures_of(dataset_of("VBPR", keys)[1].content).features
    (line,) = [r.getMessage() for r in caplog.records if "tell no item" in r.getMessage()]
    assert line.startswith(f"same.npy: the features of all 39 items are {word}")
    assert torch.isfinite(features).all()
    caplog.clear()
    _ = pictures_of(dataset_of("VBPR", tiny())[1].content).features
    assert "tell no item" not in caplog.text


@pytest.mark.parametrize(
    ("field", "old", "new"), [("user_id", "u3", "u3 "), ("item_id", "i5", " i5")]
)
def test_blanks_around_an_id_are_warned_about_once(
    tiny, tiny_folder, in_tmp, caplog, field, old, new
):
    home = in_tmp / "blanks" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    text = (home / "tiny.inter").read_text()
    changed = "\n".join(
        "\t".join(new if cell == old else cell for cell in line.split("\t"))
        for line in text.split("\n")
    )
    (home / "tiny.inter").write_text(changed)
    dataset = dataset_of("MF", tiny(data_path=str(home.parent)))[1]
    count = changed.count(new)
    row = next(k for k, line in enumerate(changed.split("\n"), 1) if new in line)
    (line,) = [r.getMessage() for r in caplog.records if "blank" in r.getMessage()]
    assert f"tiny.inter, line {row}: {field} {new!r} begins or ends with a blank" in line
    assert f"as in {count} of {len(dataset.inter_feat)} rows" in line


def test_features_belong_to_the_item_of_their_line(tiny, tiny_folder):
    _, dataset = dataset_of("CIERec", tiny(feature_norm="none"))
    rows = np.load(tiny_folder / "tiny" / "features.npy")
    features = pictures_of(dataset.content).features
    for token in ("i0", "i17", "i38"):
        item = dataset.field2token_id["item_id"][token]
        np.testing.assert_array_equal(features[item].numpy(), rows[int(token[1:])])


def with_cells(folder: Path, source: Path, cells: dict[str, str]) -> Path:
    home = folder / "cells" / "tiny"
    shutil.copytree(source / "tiny", home)
    lines = (home / "tiny.item").read_text().splitlines()
    for k, line in enumerate(lines):
        item, path, _ = line.split("\t")
        if item in cells:
            lines[k] = f"{item}\t{path}\t{cells[item]}"
    (home / "tiny.item").write_text("\n".join(lines) + "\n")
    return home


def test_odd_annotations_are_read_as_stated(tiny, tiny_folder, in_tmp, caplog):
    many = " ".join(f"x{k}" for k in range(10_000))
    home = with_cells(in_tmp, tiny_folder, {"i0": many, "i1": "t1 t1  t2 t1", "i2": "   "})
    keys = {"data_path": str(home.parent), "features_file": str(home / "features.npy")}
    caplog.set_level("WARNING")
    _, dataset = dataset_of("CIERec", tiny(**keys, max_annotation_tokens=20))
    content, ids = dataset.content, dataset.field2token_id["item_id"]
    assert content.tokens.shape[1] == 20
    assert (content.tokens[ids["i0"]] > 0).all()
    names = [content.token_names[t] for t in content.tokens[ids["i1"]] if t > 0]
    assert names == ["t1", "t2"]
    assert not content.has_annotation[ids["i2"]]
    assert any("1 items have more than" in r.getMessage() for r in caplog.records)
    caplog.clear()
    _, dataset = dataset_of("CIERec", tiny(max_annotation_tokens=3))  # the length of the longest
    assert dataset.content.tokens.shape[1] == 3
    assert "max_annotation_tokens" not in caplog.text


@pytest.mark.parametrize("name", ["CIERec", "MF_Semantics"])
def test_data_without_any_annotation_train(tiny, tiny_folder, in_tmp, name):
    home = with_cells(in_tmp, tiny_folder, {f"i{k}": "" for k in range(39)})
    keys = {"data_path": str(home.parent), "features_file": str(home / "features.npy")}
    assert np.isfinite(run(name, "tiny", config_dict=tiny(**keys, epochs=1))["best_valid_score"])


def write(home: Path, rows: list[str]) -> Path:
    home.mkdir(parents=True)
    head = "user_id:token\titem_id:token\ttimestamp:float"
    (home / f"{home.name}.inter").write_text("\n".join([head, *rows]) + "\n")
    return home


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 1, 3))],
)
def test_short_histories_are_split_as_stated_and_in_time_order(tiny, in_tmp, count, parts):
    rows = [f"few\ti{k}\t{count - k}" for k in range(count)]
    rows += [f"other\ti{k}\t{k}" for k in range(40)]
    write(in_tmp / "short", rows)
    _, dataset = dataset_of("BPR", tiny(dataset="short", data_path=str(in_tmp)))
    few = dataset.field2token_id["user_id"]["few"]
    times = []
    for part in dataset.build():
        mine = part.inter_feat["user_id"].numpy() == few
        times.append(part.inter_feat["timestamp"].numpy()[mine])
    assert tuple(map(len, times)) == parts
    for earlier, later in pairwise(times):
        if len(earlier) and len(later):
            assert earlier.max() <= later.min()


def test_equal_timestamps_keep_the_order_of_the_file(tiny, in_tmp):
    write(in_tmp / "ties", [f"u\ti{k}\t7" for k in range(20)])
    _, dataset = dataset_of("BPR", tiny(dataset="ties", data_path=str(in_tmp)))
    items = [dataset.id2token("item_id", part.inter_feat["item_id"]) for part in dataset.build()]
    assert [i for part in items for i in part] == [f"i{k}" for k in range(20)]


def test_one_user_and_one_item_are_refused_in_one_line(tiny, in_tmp):
    write(in_tmp / "one", ["u\ti\t1"])
    with pytest.raises(DataError) as error:
        run("MF", "one", config_dict=tiny(data_path=str(in_tmp)))
    assert "\n" not in str(error.value)


def test_a_user_with_every_item_is_refused_instead_of_sampling_for_ever(tiny, in_tmp):
    rows = [f"all\ti{k}\t{k}" for k in range(9)] + [f"u{j}\ti{j}\t{j}" for j in range(9)]
    write(in_tmp / "full", rows + [f"u{j}\ti{j + 1}\t{j}" for j in range(8)])
    with pytest.raises(DataError, match="interacted with all"):
        run("MF", "full", config_dict=tiny(data_path=str(in_tmp), **TOP3))


def test_topk_larger_than_the_catalogue_and_batch_larger_than_the_data(tiny):
    with pytest.raises(DataError, match=r"topk 41 is more than its 40 items"):
        run("MF", "tiny", config_dict=tiny(topk=[10, 41]))
    keys = tiny(topk=[10, 40], train_batch_size=100_000, epochs=1)
    assert run("MF", "tiny", config_dict=keys)["test_result"]["recall@40"] == 1.0


@pytest.mark.parametrize("mode", ["seen", "all"])
def test_negatives_come_from_the_stated_items_and_never_are_positives(tiny, mode):
    config, dataset = dataset_of("MF", tiny(train_negatives=mode))
    train, *_ = make_loaders(config, dataset)
    bought = set(train._dataset.inter_feat["item_id"].tolist())
    mine = {}
    for u, i in zip(*(train._dataset.inter_feat[k].tolist() for k in ("user_id", "item_id")),
                    strict=True):  # fmt: skip
        mine.setdefault(u, set()).add(i)
    drawn = set()
    for _ in range(30):
        for data in train:
            for u, j in zip(data["user_id"].tolist(), data["neg_item_id"].tolist(), strict=True):
                assert j not in mine[u]
                drawn.add(j)
    assert (drawn <= bought) == (mode == "seen")
    assert drawn == bought if mode == "seen" else drawn == set(range(1, dataset.item_num))


@pytest.mark.parametrize(("name", "keys"), [("MF", {}), ("SASRec", {"loss_type": "BPR"})])
def test_seen_negatives_are_uniform(tiny, name, keys):
    config, dataset = dataset_of(name, tiny(**keys))
    train, *_ = make_loaders(config, dataset)
    np.random.seed(0)
    seen = np.unique(train._dataset.inter_feat["item_id"].numpy())
    counts = np.bincount(train._sampler.sampling(70_000), minlength=dataset.item_num)[seen]
    expected = 70_000 / len(seen)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < len(seen) + 5 * np.sqrt(2 * len(seen))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"data_path": "nowhere"}, ["nowhere", "no such data set folder"]),
        ({"dataset": "tinny"}, ["no such data set folder", "did you mean 'tiny'?"]),
        (
            {"image_path_field": "photo", "features_file": None},
            ["tiny.item: no column photo, which CIERec needs", "set image_path_field"],
        ),
        ({"annotations_field": "labels"}, ["no column labels", "set annotations_field"]),
        ({"features_file": "gone.npy"}, ["'features_file': gone.npy is no such file"]),
        (
            {"features_file": None, "features": {"text": "gone.npy"}},
            ["features.text", "gone.npy: no such file"],
        ),
        (
            {"encoder_weights": "gone.pth"},
            ["'encoder_weights': gone.pth is neither DEFAULT, nor random, nor a file"],
        ),
        ({"item_inter_num_interval": "[1000,inf)"}, ["no interaction is left", "interval"]),
        ({"dataset_save_path": "x.pth"}, ["dataset_save_path", "remove"]),
    ],
)
def test_what_is_missing_is_named_before_data_are_read(tiny, keys, words, monkeypatch):
    if "interval" not in words:
        monkeypatch.setattr("recbole_cierec.data.dataset.as_text_files", None)
    with pytest.raises(Exception) as error:  # noqa: PT011 (any of our errors)
        run("CIERec", keys.pop("dataset", "tiny"), config_dict=tiny(**keys))
    assert type(error.value).__module__ == "recbole_cierec.errors"
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("KGAT", ["KGAT", "tiny.kg", "no such file"]),
        ("GRU4RecKG", ["GRU4RecKG", "tiny.ent", "not found"]),
        ("SASRecF", ["selected_features", "class", "tiny.item", "load_col"]),
        ("S3Rec", ["item_attribute", "class", "load_col"]),
    ],
)
def test_what_a_model_of_recbole_lacks_is_one_line(tiny, model, words):
    with pytest.raises(DataError) as error:
        run(model, "tiny", config_dict=tiny())
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_features_of_items_reach_a_model_that_reads_them(tiny):
    load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "annotations"]}
    keys = tiny(load_col=load, selected_features=["annotations"], hidden_size=8, epochs=1)
    assert run("SASRecF", "tiny", config_dict=keys)


def test_time_order_without_timestamps_is_refused(tiny, in_tmp):
    home = in_tmp / "untimed"
    home.mkdir()
    rows = [f"u{u}\ti{(u + k) % 9}" for u in range(9) for k in range(6)]
    (home / "untimed.inter").write_text("user_id:token\titem_id:token\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="timestamp"):
        run("MF", "untimed", config_dict=tiny(data_path=str(in_tmp), **TOP3))
    random_order = {"eval_args": {"order": "RO"}, "data_path": str(in_tmp), "epochs": 1}
    assert run("MF", "untimed", config_dict=tiny(**random_order, **TOP3))


def test_a_feature_that_is_not_finite_is_refused(tiny, tiny_folder, in_tmp):
    rows = np.load(tiny_folder / "tiny" / "features.npy").copy()
    rows[11, 2] = np.nan
    np.save(in_tmp / "broken.npy", rows)
    with pytest.raises(DataError, match="11"):
        run("VBPR", "tiny", config_dict=tiny(features_file=str(in_tmp / "broken.npy")))


def test_zero_features_and_constant_pictures_have_finite_gradients(tiny, tiny_folder, in_tmp):
    rows = np.zeros_like(np.load(tiny_folder / "tiny" / "features.npy"))
    np.save(in_tmp / "zero.npy", rows)
    for norm in ("none", "l2", "center", "standard"):
        keys = tiny(features_file=str(in_tmp / "zero.npy"), feature_norm=norm, epochs=1)
        assert np.isfinite(run("CIERec", "tiny", config_dict=keys)["best_valid_score"])
