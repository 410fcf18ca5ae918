"""Files that are split already are used unchanged in the whole protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recbole_cierec.config.config import Config
from recbole_cierec.quick_start import prepare

PHASES = ["train", "valid", "test"]


@pytest.fixture
def presplit(tiny_folder, tmp_path):
    """Data set ``tiny`` in three files, with different sizes for each user; the frames by phase."""
    home = tmp_path / "files" / "tiny"
    home.mkdir(parents=True)
    (home / "tiny.item").write_text((tiny_folder / "tiny" / "tiny.item").read_text())
    rows = pd.read_csv(tiny_folder / "tiny" / "tiny.inter", sep="\t", dtype=str)
    rng = np.random.default_rng(8)
    phase = rng.choice(3, len(rows), p=[0.7, 0.1, 0.2])
    phase[rows["item_id:token"].isin(["i1", "i2", "i3"])] = 2  # training never sees these
    frames = {name: rows[phase == k] for k, name in enumerate(PHASES)}
    for name, frame in frames.items():
        frame.to_csv(home / f"tiny.{name}.inter", sep="\t", index=False)
    return frames


def job(tiny, tmp_path, model="VBPR", **extra):
    keys = tiny(benchmark_filename=PHASES, data_path=str(tmp_path / "files"), **extra)
    if model == "SASRec":
        for key in ("features_file", "embedding_size", "init_std"):
            keys.pop(key)
    return prepare(Config(model, "tiny", None, keys, {}))


def test_all_of_the_protocol_works_on_split_files(tiny, tmp_path, presplit):
    keys = {"eval_args": {"mode": "user8"}, "eval_repeats": 3, "cold_item_views": True}
    made = job(tiny, tmp_path, **keys)
    for loader, frame in zip(made.loaders, presplit.values(), strict=True):
        part = loader._dataset
        names = [part.field2id_token[f][part.inter_feat[f].numpy()] for f in ("user_id", "item_id")]
        pairs = sorted(zip(*(column.tolist() for column in names), strict=True))
        assert pairs == sorted(frame.iloc[:, :2].itertuples(index=False, name=None))
    made.trainer.fit(*made.loaders[:2], saved=False)
    result = made.trainer.evaluate(made.loaders[2], load_best_model=False)
    for name in ("", "_cold", "_warm", "_item_rare", "_among_cold", "_among_warm", "_std"):
        assert np.isfinite(result[f"recall@10{name}"]), name
    unseen = ~presplit["test"]["item_id:token"].isin(presplit["train"]["item_id:token"])
    share = made.trainer.evaluator.shares["item_unseen"]
    assert share == pytest.approx(unseen.mean())
    assert 0 < share < 1
    counts = presplit["test"]["user_id:token"].value_counts()
    assert made.trainer.evaluator.shares["cold"] == pytest.approx((counts <= 3).mean())


@pytest.mark.parametrize("mode", ["user8", "full"])
def test_views_without_any_item_are_not_numbers(tiny, tmp_path, presplit, mode):
    train = tmp_path / "files" / "tiny" / "tiny.train.inter"
    every = pd.concat(presplit.values())
    unseen = ~every["item_id:token"].isin(presplit["train"]["item_id:token"])
    first = every[unseen].drop_duplicates("item_id:token")  # now they occur in training
    pd.concat([presplit["train"], first]).to_csv(train, sep="\t", index=False)
    made = job(tiny, tmp_path, eval_args={"mode": mode}, cold_item_views=True)
    result = made.trainer.evaluate(made.loaders[2], load_best_model=False)
    assert np.isnan(result["recall@10_among_cold"])
    assert np.isnan(result["recall@10_item_unseen"])
    assert result["recall@10_among_warm"] == pytest.approx(result["recall@10"])


def test_lists_hold_nothing_of_any_of_the_files(tiny, tmp_path, presplit):
    made = job(tiny, tmp_path, eval_args={"mode": "user8"})
    every = pd.concat(presplit.values())
    used = set(every.iloc[:, :2].itertuples(index=False, name=None))
    for loader, frame in zip(made.loaders[1:], list(presplit.values())[1:], strict=True):
        plan, names = loader.plan, loader._dataset.field2id_token
        users = names["user_id"][plan.users].tolist()
        assert sorted(users) == sorted(frame["user_id:token"].unique())
        lists = plan.negatives["", 0].select()
        assert (lists.lengths == 8).all()
        items = names["item_id"][lists.values].tolist()
        assert not used & set(zip(np.repeat(users, 8).tolist(), items, strict=True))


def test_sequences_are_made_and_ranked_as_other_models(tiny, tmp_path, presplit):
    keys = {"eval_args": {"mode": "user8"}, "cold_item_views": True}
    general, sequence = (job(tiny, tmp_path, model, **keys) for model in ("VBPR", "SASRec"))
    for one, other in zip(general.loaders[1:], sequence.loaders[1:], strict=True):
        assert one.plan.users.tolist() == other.plan.users.tolist()
        for (*key, left), (*_, right) in zip(one.plan.lists(), other.plan.lists(), strict=True):
            assert left.items.values.tolist() == right.items.values.tolist(), key
            assert left.columns.values.tolist() == right.columns.values.tolist(), key
    names = sequence.loaders[0]._dataset.field2id_token
    for k, loader in enumerate(sequence.loaders[1:]):
        before = pd.concat(list(presplit.values())[: k + 1])
        feat = loader._dataset.inter_feat
        for user, n, items in zip(
            feat["user_id"].tolist(), feat["item_length"].tolist(), feat["item_id_list"].tolist(),
            strict=True,
        ):  # fmt: skip
            known = before[before["user_id:token"] == names["user_id"][user]]
            history = names["item_id"][items[:n]].tolist()
            assert sorted(history) == sorted(known["item_id:token"])
            times = known.set_index("item_id:token")["timestamp:float"].astype(float)[history]
            trained = int((presplit["train"]["user_id:token"] == names["user_id"][user]).sum())
            assert times.iloc[:trained].is_monotonic_increasing
            assert times.iloc[trained:].is_monotonic_increasing
            assert set(history[:trained]) <= set(presplit["train"]["item_id:token"])
    sequence.trainer.fit(*sequence.loaders[:2], saved=False)
    result = sequence.trainer.evaluate(sequence.loaders[2], load_best_model=False)
    assert 0 <= result["recall@10"] <= 1


def test_sequences_that_the_files_bring_are_kept(tiny, tmp_path, presplit):
    home = tmp_path / "files" / "tiny"
    for name in PHASES:
        rows = "u1\ti5 i6\ti7\nu2\ti8\ti9\n"
        head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
        (home / f"tiny.{name}.inter").write_text(head + rows)
    columns = {"inter": ["user_id", "item_id_list", "item_id"]}
    keys = {"load_col": columns, "alias_of_item_id": ["item_id_list"], "topk": [3]}
    keys |= {"valid_metric": "Recall@3", "item_vocabulary": "all"}
    keys |= {"eval_args": {"mode": "user99"}}
    made = job(tiny, tmp_path, "SASRec", **keys)
    part = made.loaders[0]._dataset
    assert part.inter_feat["item_length"].tolist() == [2, 1]
    plan, names = made.loaders[2].plan, part.field2id_token["item_id"]
    met = {"u1": {"i5", "i6", "i7"}, "u2": {"i8", "i9"}}
    for row, user in enumerate(part.field2id_token["user_id"][plan.users]):
        lists = plan.negatives["", 0].select()
        drawn = set(names[lists.values[lists.starts[row] : lists.starts[row + 1]]])
        assert drawn == set(names) - {"[PAD]"} - met[user]


@pytest.mark.parametrize("most", [50, 2])
@pytest.mark.parametrize("turn", [1, -1])
def test_users_are_ranked_from_the_history_before_the_phase(tiny, tmp_path, presplit, most, turn):
    """In whatever order the file has a user's rows, and also where histories are cut."""
    home, items = tmp_path / "files" / "tiny", [f"i{k}" for k in range(9)]
    head = "user_id:token\titem_id_list:token_seq\titem_id:token"
    for name, places in (("train", (1, 2, 3)), ("valid", (4,)), ("test", (5, 6, 7))):
        rows = [f"u{u}\t{' '.join(items[:k])}\t{items[k]}" for u in (1, 2) for k in places[::turn]]
        (home / f"tiny.{name}.inter").write_text("\n".join([head, *rows]) + "\n")
    columns = {"inter": ["user_id", "item_id_list", "item_id"]}
    keys = {"load_col": columns, "item_vocabulary": "all", "eval_args": {"mode": "user5"}}
    keys |= {"topk": [3], "valid_metric": "Recall@3", "MAX_ITEM_LIST_LENGTH": most}
    part = job(tiny, tmp_path, "SASRec", **keys).loaders[2]._dataset
    names = part.field2id_token["item_id"]
    for history in part.inter_feat["item_id_list"].numpy():
        assert names[history[history > 0]].tolist() == items[:5][-most:]


@pytest.mark.parametrize("model", ["VBPR", "SASRec"])
def test_files_need_no_times(tiny, tmp_path, presplit, model):
    columns = {"inter": ["user_id", "item_id"]}
    made = job(tiny, tmp_path, model, load_col=columns, eval_args={"mode": "user8"})
    made.trainer.fit(*made.loaders[:2], saved=False)
    assert made.trainer.evaluate(made.loaders[2], load_best_model=False)["recall@10"] >= 0
