"""Runs without any negative to draw end with a message; RecBole draws forever."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
from atomic_files import INTER, refusal

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.data.sampling import make_loaders
from recbole_cierec.errors import UserError

POPULAR = {"train_neg_sample_args": {"distribution": "popularity"}}


@pytest.fixture(autouse=True)
def deadline():
    """An endless loop is a failure after 20 s."""

    def stop(*_):
        raise TimeoutError("still drawing")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def loaded(keys: dict, model: str = "BPR"):
    config = Config(model, "t", None, keys, {})
    return make_loaders(config, create_dataset(config))


def first_batches(keys: dict, model: str) -> None:
    for loader in loaded(keys, model):
        next(iter(loader))


def rows_of(**users: str) -> tuple[str, list[str]]:
    """Interactions from the items of each user, in their order in time."""
    rows = [f"{u} {i} {k}" for u, items in users.items() for k, i in enumerate(items.split())]
    return INTER, rows


EVERY = {"u1": "a b c d e", "u2": "a b c d", "u3": "b c d e", "u4": "c d e a"}
MORE = ("item_id:token", ["a", "b", "c", "d", "e", "f"])  # f has no interaction


@pytest.mark.parametrize(
    "keys",
    [
        {**POPULAR, "train_negatives": "all", "eval_args": {"split": {"RS": [9, 1, 1]}}},
        {"eval_args": {"mode": "pop2"}},
    ],
    ids=["training", "evaluation"],
)
def test_popularity_draws_from_interactions_only(wrote, keys):
    users = {**EVERY, "u1": "a b c d e a b c d e"}
    files = wrote(inter=rows_of(**users), item=MORE)
    if "mode" not in keys.get("eval_args", {}):
        keys = {**keys, "eval_args": {"split": {"RS": [8, 1, 1]}}}
    said = refusal({**files, **keys, "item_vocabulary": "all"}, make=first_batches)
    assert "1 user(s) have all 5 items that negatives are drawn from" in said
    assert "user_inter_num_interval" in said


def test_uniform_draws_go_on_where_an_item_is_left(wrote):
    files = wrote(inter=rows_of(**EVERY), item=MORE)
    train, *_ = loaded({**files, "item_vocabulary": "all", "train_negatives": "all"}, "BPR")
    names, batch = train._dataset.field2id_token, next(iter(train))
    users, own, drawn = (
        names[field][batch[column].numpy()]
        for field, column in (("user_id",) * 2, ("item_id",) * 2, ("item_id", "neg_item_id"))
    )
    every = set("abcdef")
    for user in EVERY:
        mine = users == user
        assert set(drawn[mine]) <= every - set(own[mine])
    assert "f" in drawn


ONE_NEXT = {"u1": "b a a a a", "u2": "c a a a a", "u3": "d a a a a"}


def test_popularity_of_sequences_needs_a_second_item_to_come_next(wrote):
    keys = {**wrote(inter=rows_of(**ONE_NEXT)), "loss_type": "BPR", **POPULAR}
    assert "have all 1 items" in refusal(keys, "GRU4Rec", first_batches)


@pytest.mark.parametrize("model", ["GRU4Rec", "BPR"])
def test_what_only_begins_a_sequence_is_seen_too(wrote, model):
    keys = {**wrote(inter=rows_of(**ONE_NEXT)), "loss_type": "BPR"}
    train, *_ = loaded(keys, model)
    ids = train._dataset.field2token_id["item_id"]
    drawn = set(train._sampler.sampling(500).tolist())
    assert drawn == {ids[name] for name in "abcd"}


def test_popularity_of_sequences_draws_what_training_has_seen(wrote):
    files = wrote(inter=rows_of(u1="a b c d e", u2="b a c a f", u3="c b a c g"))
    train, *_ = loaded({**files, "loss_type": "BPR", **POPULAR}, "GRU4Rec")
    seen = set(train._dataset.inter_feat["item_id"].tolist())
    drawn = set(train._sampler.sampling(500).tolist())
    assert drawn == seen
    assert len(seen) < train._dataset.item_num - 1


FULL_HEAD = {
    "kg": ("head_id:token relation_id:token tail_id:token", [f"e0 r1 e{k}" for k in range(6)]),
    "link": ("item_id:token entity_id:token", [f"i{k} e{k}" for k in range(6)]),
    "item": ("item_id:token", [f"i{k}" for k in range(8)]),  # two are not entities of the graph
}


def test_a_head_with_every_tail_is_refused(wrote):
    keys = {**wrote(**FULL_HEAD), "item_vocabulary": "all"}
    first_batches_of_graph(keys, "CKE")
    said = refusal({**keys, **POPULAR}, "CKE", first_batches_of_graph)
    assert "1 head(s) have all 6 entities that negatives are drawn from" in said


def first_batches_of_graph(keys: dict, model: str) -> None:
    train, *_ = loaded(keys, model)
    next(iter(train.kg_dataloader))
    next(iter(train.general_dataloader))


def test_a_knowledge_model_without_negatives_is_refused(wrote):
    keys = {**wrote(**FULL_HEAD), "train_neg_sample_args": None, "item_vocabulary": "all"}
    assert "train_neg_sample_args" in refusal(keys, "CKE", first_batches)


class Bomb:
    def __reduce__(self):
        return Path("exploded").touch, ()


def test_loaders_that_lie_beside_the_checkpoints_are_not_read(wrote):
    """RecBole reads them for models of knowledge graphs; reading a pickle can run code."""
    keys = {**wrote(**FULL_HEAD), "item_vocabulary": "all"}
    Path("saved").mkdir()
    Path("saved/t-for-CKE-dataloader.pth").write_bytes(pickle.dumps(Bomb()))
    train, *_ = loaded(keys, "CKE")
    assert train.general_dataloader._sampler is not None
    assert not Path("exploded").exists()


SMALL = {"hidden_size": 4, "n_layers": 1, "n_heads": 1, "inner_size": 4, "epochs": 1}
SMALL["mask_ratio"] = 0.8


def test_a_sequence_of_all_items_is_masked_without_a_negative(wrote, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)  # RecBole measures 1 s
    keys = {**wrote(inter=rows_of(u1="a b c d a b c d a b", u2="a b c d", u3="b c d a")), **SMALL}
    assert run("BERT4Rec", "t", config_dict={**keys, "loss_type": "CE"}, saved=False)
    drawn = {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform"}}
    with pytest.raises(UserError, match="a sequence holds all 4 items"):
        run("BERT4Rec", "t", config_dict={**keys, **drawn}, saved=False)


def test_masking_draws_as_recbole_does_elsewhere():
    import recbole.data.transform as recboles

    from recbole_cierec.data.masking import MaskSequence

    ours, theirs = (object.__new__(kind) for kind in (MaskSequence, recboles.MaskItemSequence))
    drawn = []
    for one in (ours, theirs):
        recboles.random.seed(3)
        drawn.append([one._neg_sample([1, 2, 3, 0, 0], 7) for _ in range(50)])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {4, 5, 6}


def test_an_item_of_all_users_ends_lines_draws(wrote):
    keys = wrote(inter=rows_of(u1="a b c d e f", u2="a e f g h b", u3="a c e g h d"))
    with pytest.raises(UserError, match=r"LINE draws users who lack an item, and all users have"):
        run("LINE", "t", config_dict={**keys, "epochs": 1, "embedding_size": 4}, saved=False)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"topk": [2, 7]}, "topk 7"),
        ({"train_neg_sample_args": {"sample_num": 7}}, "'sample_num': 7"),
        (
            {"train_neg_sample_args": {"sample_num": 2, "dynamic": True, "candidate_num": 4}},
            "'candidate_num': 4",
        ),
        ({"eval_args": {"mode": "uni7"}}, "eval_args mode uni7"),
        ({"eval_args": {"mode": {"valid": "full", "test": "pop1000000000"}}}, "mode pop1000000000"),
    ],
)
def test_more_than_all_items_cannot_be_asked_for(wrote, keys, says):
    said = refusal({**wrote(), **keys}, make=loaded)
    assert says in said
    assert "is more than its 6 items; lower it" in said


def test_a_user_of_user_mode_gets_what_there_is(wrote):
    *_, test = loaded({**wrote(), "eval_args": {"mode": "user1000000000"}})
    assert np.all(test.plan.negatives["", 0].select().lengths == 1)
