"""Training batches and negatives are RecBole's, bit for bit, however they are drawn."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers

from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.data.fast_interaction import FastInteraction
from recbole_cierec.data.negatives import UsedPairs, quick_sampler
from recbole_cierec.data.row_numbers import order_of
from recbole_cierec.data.sampler import CompactSampler
from recbole_cierec.data.sampling import _samplers, make_loaders, training_sampler
from recbole_cierec.data.train_loader import TrainLoader
from recbole_cierec.errors import DataError

POPULAR = {"distribution": "popularity", "sample_num": 1, "alpha": 0.7}
DRAWS = 60_000


def parts_of(tiny, **keys):
    """Configuration, training part and RecBole's own training sampler."""
    config = Config(keys.pop("model", "MF"), "tiny", None, tiny(**keys), {})
    dataset = create_dataset(config)
    np.random.seed(0)
    torch.manual_seed(0)
    parts = dataset.build()
    return config, parts[0], create_samplers(config, dataset, parts)[0]


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    """In standard deviations above its mean."""
    expected = shares * counts.sum()
    kept = expected > 0
    assert not counts[~kept].any(), "drawn although its share is zero"
    free = kept.sum() - 1
    value = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    return (value - free) / np.sqrt(2 * free)


def exact_shares(sampler, user: int, weights: np.ndarray) -> np.ndarray:
    shares = weights.astype(np.float64).copy()
    shares[[0, *sampler.used_ids[user]]] = 0
    return shares / shares.sum()


@pytest.mark.parametrize("keys", [{}, {"train_neg_sample_args": POPULAR}], ids=["uniform", "pop"])
def test_the_draws_are_recboles_own_bit_for_bit(tiny, keys):
    _, train, sampler = parts_of(tiny, **keys)
    quick = quick_sampler(sampler)
    rng = np.random.default_rng(1)
    for users in (rng.integers(1, train.user_num, 500), np.full(50, 3), np.array([7])):
        for count in (1, 3):
            drawn = []
            for one in (sampler, quick):
                np.random.seed(5)
                values = one.sample_by_user_ids(users, None, count)
                drawn.append((values, np.random.random()))
            assert torch.equal(drawn[0][0], drawn[1][0])
            assert drawn[0][1] == drawn[1][1], "as many random numbers were used"


@pytest.mark.parametrize("which", ["seen", "all"])
@pytest.mark.parametrize("args", [None, POPULAR], ids=["uniform", "pop"])
def test_negatives_have_the_exact_distribution(tiny, which, args):
    keys = {"train_neg_sample_args": args} if args else {}
    config, train, sampler = parts_of(tiny, train_negatives=which, **keys)
    bought = np.bincount(train.inter_feat["item_id"].numpy(), minlength=train.item_num)
    assert (bought[1:] == 0).any()
    weights = np.ones(train.item_num) if which == "all" else bought > 0
    if args:  # of training alone: items that only the test has are never drawn
        weights = np.where(bought, bought**0.7, 0)
    quick = training_sampler(config, sampler, train)
    np.random.seed(2)
    for user in (1, 9):
        drawn = quick.sample_by_user_ids(np.full(DRAWS, user), None, 1).numpy()
        counts = np.bincount(drawn, minlength=train.item_num)
        assert abs(chi_square(counts, exact_shares(sampler, user, weights))) < 5


def test_popularity_follows_recboles_sampler(tiny):
    _, train, sampler = parts_of(tiny, train_neg_sample_args=POPULAR)
    users = np.full(20_000, 4)
    counts = []
    for seed, one in ((1, sampler), (2, quick_sampler(sampler))):
        np.random.seed(seed)
        drawn = one.sample_by_user_ids(users, None, 1).numpy()
        counts.append(np.bincount(drawn, minlength=train.item_num))
    both = counts[0] + counts[1]
    met = both > 0
    value = ((counts[0] - counts[1])[met] ** 2 / both[met]).sum()
    free = met.sum() - 1
    assert abs(value - free) < 5 * np.sqrt(2 * free)


@pytest.mark.parametrize("n", [1, 40, 5000])
def test_used_pairs_are_found_and_no_others(n):
    rng = np.random.default_rng(n)
    used = np.array([set(rng.integers(1, 3000, n // 20 + 1).tolist()) for _ in range(20)])
    pairs = UsedPairs(used, 3000)
    users, items = rng.integers(0, 20, 20_000), rng.integers(0, 3000, 20_000)
    wanted = [k for k, (u, i) in enumerate(zip(users, items, strict=True)) if i in used[u]]
    assert pairs.rows_used(users, items).tolist() == wanted
    everything = [(u, i) for u, items in enumerate(used) for i in items]
    assert len(pairs.rows_used(*np.array(everything).T)) == len(everything)


def test_nobody_has_anything():
    pairs = UsedPairs(np.array([set(), set()]), 9)
    assert len(pairs.rows_used(np.array([0, 1, 1]), np.array([3, 0, 8]))) == 0


@pytest.mark.parametrize(
    "keys",
    [{}, {"train_neg_sample_args": POPULAR}, {"eval_args": {"mode": "pop20"}},
     {"model": "MultiVAE", "train_neg_sample_args": None}],
    ids=["uniform", "popular", "popular in evaluation", "no training negatives"],
)  # fmt: skip
def test_the_three_samplers_are_recboles_with_other_sets(tiny, keys):
    config = Config(keys.get("model", "MF"), "tiny", None, tiny(**keys), {})
    dataset = create_dataset(config)
    parts = dataset.build()
    users = np.repeat(np.arange(1, dataset.user_num), 3)
    theirs, ours = create_samplers(config, dataset, parts), _samplers(config, dataset, parts)
    for old, new in zip(theirs, ours, strict=True):
        assert (old is None) == (new is None)
        if old is None:
            continue
        assert (old.phase, old.distribution, old.alpha) == (new.phase, new.distribution, new.alpha)
        assert list(old.used_ids) == list(new.used_ids)
        assert old.used_ids[[3, 1]].tolist() == new.used_ids[np.array([3, 1])]
        for asked in (users, users[:1]):
            drawn = []
            for one in (old, new):
                np.random.seed(6)
                drawn.append(one.sample_by_user_ids(asked, None, 2))
            assert torch.equal(*drawn)


def test_knowledge_models_draw_what_train_negatives_allows(tiny, tiny_folder, in_tmp):
    """Their loader wraps the one that draws negatives."""
    home = in_tmp / "data" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    links = [f"i{k}\te{k}" for k in range(20)]
    (home / "tiny.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")
    facts = [f"e{k}\tlike\te{k + 1}" for k in range(19)]
    head = "head_id:token\trelation_id:token\ttail_id:token"
    (home / "tiny.kg").write_text("\n".join([head, *facts]) + "\n")
    drawn = {}
    for allowed in ("seen", "all"):
        keys = tiny(data_path=str(home.parent), train_negatives=allowed, item_vocabulary="all")
        config = Config("CKE", "tiny", None, keys, {})
        train = make_loaders(config, create_dataset(config))[0]
        seen = set(train._dataset.inter_feat["item_id"].tolist())
        batches = [batch for _ in range(20) for batch in train.general_dataloader]
        items = torch.cat([batch["neg_item_id"] for batch in batches])
        drawn[allowed] = set(items.tolist()) - seen
    assert not drawn["seen"]
    assert drawn["all"]


def test_a_user_with_every_item_leaves_no_negative(tiny):
    config = Config("MF", "tiny", None, tiny(), {})
    train, valid, test = create_dataset(config).build()
    items = torch.arange(1, train.item_num)
    train.inter_feat = FastInteraction({"user_id": torch.full_like(items, 2), "item_id": items})
    with pytest.raises(DataError, match=r"^tiny: 1 user\(s\) have interacted with all items"):
        CompactSampler(["train", "valid", "test"], [train, valid, test])


def test_groups_of_rows_are_recboles(tiny):
    dataset = create_dataset(Config("MF", "tiny", None, tiny(), {}))
    drawn = np.random.default_rng(0).integers(9, size=99)
    for keys in (np.array([4, 2, 4, -1, 2, 4]), np.array([7]), drawn):
        assert dataset._grouped_index(keys) == list(Dataset._grouped_index(dataset, keys))


JOINED = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "annotations"]}
LOADED = [
    ("MF", {}),
    ("BPR", {"load_col": JOINED}),
    ("BPR", {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 3}}),
    ("BPR", {"shuffle": False}),
    ("NeuMF", {}),
    ("SASRec", {"loss_type": "BPR", "eval_args": {"split": {"LS": "valid_and_test"}}}),
]


@pytest.mark.parametrize(
    ("model", "keys"), LOADED, ids=["ours", "joined", "three", "in order", "pointwise", "sequence"]
)
def test_batches_are_recboles_own_in_every_epoch(tiny, model, keys):
    config, train, sampler = parts_of(tiny, model=model, **keys)
    shuffle = config["shuffle"]
    slow = TrainDataLoader(config, train, sampler, shuffle=shuffle)
    quick = TrainLoader(config, train, copy.copy(sampler), shuffle=shuffle)
    if model != "SASRec":
        quick._sampler = quick_sampler(sampler)
    for _ in range(3):
        epochs = []
        for loader in (slow, quick):
            np.random.seed(11)
            epochs.append(list(loader))
        assert len(epochs[0]) == len(epochs[1]) == len(quick)
        for old, new in zip(*epochs, strict=True):
            assert isinstance(new, Interaction)
            assert old.columns == new.columns
            assert len(old) == len(new)
            for name in old.columns:
                assert torch.equal(old[name], new[name]), name
        assert torch.equal(slow.generator.get_state(), quick.generator.get_state())


def test_every_pairwise_model_gets_the_loader_and_the_sampler(tiny):
    for name in ("MF", "BPR", "CIERec"):
        config = Config(name, "tiny", None, tiny(), {})
        train, *_ = make_loaders(config, create_dataset(config))
        assert type(train) is TrainLoader
        assert hasattr(train._sampler, "used_pairs")
        assert isinstance(train._dataset.inter_feat, FastInteraction)


@pytest.mark.parametrize(
    "index",
    [[3, 1], range(1, 5, 2), [], slice(2, 5), np.array([4, 4, 0]), torch.tensor([1, 5]),
     np.arange(6) > 2, [True, False] * 3, torch.arange(6) > 3, 2],
    ids=["list", "range", "nothing", "slice", "array", "tensor", "mask", "list mask",
         "tensor mask", "one"],
)  # fmt: skip
def test_a_table_is_cut_as_an_interaction_is(index):
    columns = {"a": torch.arange(6), "b": torch.randn(6, 3)}
    old, new = Interaction(columns)[index], FastInteraction(columns)[index]
    assert len(old) == len(new)
    for name in columns:
        assert torch.equal(old[name], new[name])


@pytest.mark.parametrize("times", [1, 2])
def test_a_table_repeats_as_an_interaction_does_and_stays_as_it_was(times):
    columns = {"a": torch.arange(6), "b": torch.randn(6, 3)}
    table = FastInteraction(columns)
    old, new = Interaction(columns).repeat(times), table.repeat(times)
    new.update(Interaction({"c": torch.zeros(6 * times)}))
    assert table.columns == ["a", "b"]
    for name in columns:
        assert torch.equal(old[name], new[name])


@pytest.mark.parametrize("spread", [5, 10_000, 2**62])
def test_rows_in_the_order_of_ids_keep_their_order(spread):
    ids = np.random.default_rng(0).integers(0, spread, 3000)
    assert order_of(ids).tolist() == np.argsort(ids, kind="stable").tolist()
    assert order_of(ids[:0]).tolist() == []
