"""FREEDOM and MGCN: graphs of similar items, pruned interactions, epochs, and unseen items."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.stats import chisquare
from test_model_contract import batch, full_scores, shake

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.modalities import token_bags, token_weights
from recbole_cierec.model.freedom import FREEDOM, prune
from recbole_cierec.quick_start import prepare

both = pytest.mark.parametrize("name", ["FREEDOM", "MGCN"])


# -- graphs of similar items -------------------------------------------------------------------


def test_a_graph_of_similar_items_is_the_one_by_hand():
    unit = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]])
    sources = torch.tensor([True, True, True, False, True])
    made = {
        weighted: graphs.neighbour_graph(graphs.inner(unit), unit.any(1), sources, 2, weighted)
        for weighted in (False, True)
    }
    # 1 and 2 are neighbours of each other, 3 may be none; -1 of 4 to 2 and 1 is -0.8 and -1.
    np.testing.assert_allclose(
        made[False].toarray(),
        0.5
        * np.array([[0] * 5, [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 0, 1]]),
    )
    sums = np.array([1.8, 1.8, 1.96, 1.0])
    edges = np.array([[1, 0.8, 0, 0], [0.8, 1, 0, 0], [0, 0.96, 1, 0], [0, 0, 0, 1]])
    wanted = edges / np.sqrt(np.outer(sums, sums))
    np.testing.assert_allclose(made[True].toarray()[1:, 1:], wanted, atol=1e-6)
    assert not made[True].toarray()[0].any()


def test_sparse_rows_have_the_similarities_of_dense_ones_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    dense = rng.random((40, 12)) * (rng.random((40, 12)) < 0.4)
    dense[7] = 0.0
    unit = torch.nn.functional.normalize(torch.tensor(dense, dtype=torch.float32))
    sources = torch.from_numpy(rng.random(40) < 0.7)
    similar = graphs.inner_sparse(scipy.sparse.csr_matrix(unit.numpy()))
    whole = graphs.most_similar(graphs.inner(unit), unit.any(1), sources, 5)
    monkeypatch.setattr(graphs, "BLOCK_BYTES", 300)  # two rows
    near, close = graphs.most_similar(similar, unit.any(1), sources, 5)
    assert torch.equal(near, whole[0])
    torch.testing.assert_close(close, whole[1])
    assert (near[7] == -1).all()


def test_rare_annotations_count_more_and_unseen_items_do_not_count():
    tokens = torch.tensor([[0, 0], [1, 2], [1, 0], [1, 3], [0, 0], [2, 3]])
    weights = token_weights(tokens, torch.tensor([0, 1, 1, 1, 1, 0]).bool())
    common, rare = np.log(4 / 4) + 1, np.log(4 / 2) + 1  # three items count; 2 and 3 occur once
    both_ = np.array([common, rare]) / np.hypot(common, rare)
    root = 0.5**0.5
    wanted = [[0, 0], both_, [1, 0], both_, [0, 0], [root, root]]
    np.testing.assert_allclose(weights, np.array(wanted), atol=1e-6)
    bags = token_bags(tokens, weights, 5).toarray()
    assert bags.shape == (6, 5)
    np.testing.assert_allclose(bags[1], [0, *both_, 0, 0], atol=1e-6)


# -- pruned interactions -----------------------------------------------------------------------

TAKEN = scipy.sparse.csr_matrix(np.array([[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]))


def test_pruning_draws_each_set_of_interactions_as_often_as_it_should():
    """Two of six, one after the other, in proportion to 1 / sqrt(d_u d_i)."""
    taken = TAKEN.toarray()
    edges = [tuple(edge) for edge in np.argwhere(taken)]
    weight = {(u, i): (taken[u].sum() * taken[:, i].sum()) ** -0.5 for u, i in edges}
    total = sum(weight.values())
    chance: dict[frozenset, float] = {}
    for a, b in permutations(edges, 2):
        share = weight[a] / total * weight[b] / (total - weight[a])
        chance[frozenset([a, b])] = chance.get(frozenset([a, b]), 0.0) + share
    rng, n = np.random.default_rng(0), 2000
    drawn = [prune(TAKEN, 2 / 3, rng).tocoo() for _ in range(n)]
    sets = [frozenset(zip(d.row.tolist(), d.col.tolist(), strict=True)) for d in drawn]
    assert {len(one) for one in sets} == {2}
    counts = [sets.count(one) for one in chance]
    assert sum(counts) == n
    assert chisquare(counts, [n * share for share in chance.values()]).pvalue > 0.01


@pytest.mark.parametrize(("dropout", "kept"), [(0.0, 6), (0.5, 3), (0.9, 1), (1.0, 1)])
def test_pruning_leaves_the_share_it_should_and_never_nothing(dropout, kept):
    assert prune(TAKEN, dropout, np.random.default_rng(0)).nnz == kept


def edges_of(model) -> set[tuple[int, int]]:
    return set(zip(*model.pruned()["users"].matrix.indices().tolist(), strict=True))


def test_an_epoch_has_one_graph_by_its_number_and_the_seed(make):
    def drawn(epoch, seed=2020):
        *_, model = make("FREEDOM", seed=seed, edge_dropout=0.5)
        torch.rand(3), np.random.rand(3)  # the state of other random numbers does not matter
        model.begin_epoch(epoch)
        return edges_of(model)

    assert drawn(3) == drawn(3)
    assert len({frozenset(drawn(*key)) for key in [(0,), (1,), (2,), (0, 7)]}) == 4


def test_training_reads_the_pruned_graph_and_scoring_the_whole(make):
    *_, model = make("FREEDOM", edge_dropout=0.5)
    shake(model)
    scores = full_scores(model).clone()
    losses = []
    for epoch in (0, 1):
        model.train().begin_epoch(epoch)
        losses.append(float(model.calculate_loss(batch(model))))
        model.eval()
        assert torch.equal(full_scores(model), scores)
    assert losses[0] != losses[1]


def test_the_trainer_numbers_the_epochs_and_a_resumed_run_continues(tiny, monkeypatch):
    told = []
    plain = FREEDOM.begin_epoch
    monkeypatch.setattr(FREEDOM, "begin_epoch", lambda m, n: (told.append(n), plain(m, n))[1])
    keys = tiny(epochs=2)
    job = prepare(Config("FREEDOM", "tiny", None, keys, {}))
    job.trainer.fit(job.loaders[0])
    assert told == [0, 1]
    keys |= {"epochs": 3, "resume": "auto"}
    job = prepare(Config("FREEDOM", "tiny", None, keys, {}))
    job.trainer.fit(job.loaders[0])
    assert told == [0, 1, 2]


# -- items without interactions, content, or both ----------------------------------------------


@both
def test_ids_of_unseen_items_are_not_trained(make, name):
    *_, model = make(name, reg_weight=0.1)
    shake(model).train()
    data = batch(model)
    data.interaction["neg_item_id"][:] = int((model.seen[1:] == 0).nonzero()[0]) + 1
    model.calculate_loss(data).backward()
    gradient = model.item_embedding.weight.grad.any(1)
    assert not gradient[model.seen == 0].any()
    assert gradient[model.seen > 0].any()


@both
@pytest.mark.parametrize("annotated", [True, False])
def test_unseen_items_are_ranked_by_the_content_they_have(make, name, annotated):
    """Those with neither picture nor annotation have the score 0 for all users."""
    _, dataset, _, model = make(name, use_annotations=annotated)
    shake(model)
    scores = full_scores(model)
    assert torch.isfinite(scores).all()
    filled = model.features.any(1) | (dataset.content.has_annotation & annotated)
    unseen = [i for i in range(1, model.n_items) if not model.seen[i]]
    assert {bool(filled[i]) for i in unseen} == {True, False}
    assert [bool(scores[:, i - 1].any()) for i in unseen] == [bool(filled[i]) for i in unseen]


@both
def test_without_annotations_the_data_need_none(make, name, tiny_folder, tmp_path):
    home = tmp_path / "bare" / "tiny"
    home.mkdir(parents=True)
    for file in ("tiny.inter", "features.npy"):
        (home / file).write_bytes((tiny_folder / "tiny" / file).read_bytes())
    lines = (tiny_folder / "tiny" / "tiny.item").read_text().splitlines()
    (home / "tiny.item").write_text("".join(line.rpartition("\t")[0] + "\n" for line in lines))
    *_, model = make(name, use_annotations=False, data_path=str(home.parent))
    assert torch.isfinite(full_scores(shake(model))).all()


def test_mgcn_refuses_to_train_a_network_on_all_pictures_in_each_step(make):
    with pytest.raises(ConfigError, match="encoder_training: finetune") as error:
        make("MGCN", encoder_training="finetune")
    assert "\n" not in str(error.value)


def test_an_unseen_item_has_the_bias_of_the_average_interaction(make):
    _, _, train, model = make("ContentPrior")
    with torch.no_grad():
        model.item_bias.weight.copy_(torch.arange(model.n_items).unsqueeze(1).float())
    items = torch.arange(1, model.n_items)
    bias, seen = model.item_biases(items), model.seen[1:] > 0
    mean = train.inter_feat["item_id"].float().mean()
    torch.testing.assert_close(bias[seen], items[seen].float())
    torch.testing.assert_close(bias[~seen], mean.expand(int((~seen).sum())))
    assert 0 < seen.sum() < len(seen)


@pytest.mark.parametrize(
    ("keys", "kappa"),
    [
        ({}, 500.0),
        ({"use_image": False}, 500.0),
        ({"use_annotations": False}, 50.0),
        ({"annotations_missing_training": 1.0, "annotations_missing_inference": 1.0}, 50.0),
        ({"use_annotations": False, "prior_weight": 7.0}, 7.0),
    ],
)
def test_ids_are_bound_less_where_pictures_are_the_only_content(make, keys, kappa):
    _, _, train, model = make("ContentPrior", **keys)
    users, items = (train.inter_feat[name].numpy() for name in ("user_id", "item_id"))
    prior = 0.0
    for table, rows in ((model.user_embedding, users), (model.item_embedding, items)):
        lengths, counts = (table.weight.detach() ** 2).sum(1).numpy(), np.bincount(rows)
        prior += sum(lengths[row] / counts[row] for row in set(rows)) / len(rows)
    with torch.no_grad():
        whole = float(model.train().calculate_loss(batch(model)))
        model.prior_weight = 0.0
        rest = float(model.calculate_loss(batch(model)))
    assert whole - rest == pytest.approx(kappa * prior, rel=1e-3)
