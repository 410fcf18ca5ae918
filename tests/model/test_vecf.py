"""VECF: a loss by hand, the attention, the text, and which data it needs when."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from model_helpers import rows_of, shaken
from oracle_vecf import VecfOracle
from recbole.data.interaction import Interaction

from recbole_cierec import run
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.vision.item_pictures import pictures_of


@pytest.fixture
def over_regions(tiny):
    """``over_regions(**keys)``: the keys of a run over the ready-made region maps."""

    def keys(**extra):
        path = tiny()["features_file"].replace("features.npy", "regions.npy")
        return tiny(**{"features_file": path, **extra})

    return keys


def oracle_of(config, dataset, train, model):
    content = dataset.content
    tokens = [[int(t) for t in row if t > 0] for row in content.tokens]
    counts = np.bincount(train.inter_feat["item_id"].numpy(), minlength=model.n_items)
    maps = pictures_of(content).regions(torch.arange(model.n_items)).double().numpy()
    pictured = pictures_of(content).has_picture.numpy()
    keys = {k: config[k] for k in ("merge", "vecf_loss", "caption_weight")}
    return VecfOracle(
        model,
        maps,
        pictured,
        tokens,
        counts > 0,
        name="VECF",
        **keys,
    )


def test_loss_of_three_rows_computed_by_hand(make):
    """Uniform attention (w = 0), W = 0 and p = 2 in one dimension: y = p * q / 2 + beta."""
    *_, model = make("VECF", embedding_size=1, reg_weight=0.0, caption_weight=0.0)
    a, b, c = (model.seen > 0).nonzero().squeeze(1)[:3].tolist()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.user_embedding.weight.fill_(2.0)
        for item, q, bias in ((a, 1.0, 0.0), (b, -0.5, 0.25), (c, 0.0, 0.5)):
            model.item_embedding.weight[item] = q
            model.item_bias.weight[item] = bias
    # scores: 1.0, -0.5 + 0.25 = -0.25, and 0.5
    loss = model.train().calculate_loss(rows_of([1, 2, 3], [a, a, b], [b, c, c]))
    by_hand = sum(math.log1p(math.exp(-x)) for x in (1.25, 0.5, -0.75)) / 3
    assert float(loss.detach()) == pytest.approx(by_hand, abs=1e-6)


def test_attention_puts_the_weight_where_the_user_looks(make):
    """Only region 2 matters to users with a positive p, and no region to the others."""
    *_, model = make("VECF", embedding_size=1, attention_size=1)
    maps = torch.zeros(2, 4, model.regions.size)
    maps[:, 2, 0] = 1.0
    model.regions = lambda items: maps
    with torch.no_grad():
        model.region_key.weight.zero_()[0, 0] = 5.0
        model.user_key.weight.fill_(1.0)
        model.attention.weight.fill_(1.0)
        model.user_embedding.weight[1], model.user_embedding.weight[2] = 2.0, -2.0
    model.eval()
    shares = model.shares(model.user_side(torch.tensor([1, 2])), model._item_side(torch.arange(2)))
    expected = torch.tensor([math.exp(10.0), 1.0, 1.0, 1.0])
    torch.testing.assert_close(shares[0], expected[[1, 2, 0, 3]] / expected.sum())
    torch.testing.assert_close(shares[1], torch.full((4,), 0.25))


@pytest.mark.parametrize("keys", [{}, {"scorer": "mlp", "merge": "mul"}], ids=["inner", "mlp"])
def test_cross_entropy_equals_the_literal_one(make, keys):
    made = make("VECF", vecf_loss="bce", reg_weight=0.03, caption_weight=0.2, **keys)
    model = shaken(made[-1]).train()
    assert model.caption.output.out_features == len(made[1].content.token_names) - 1  # no padding
    data = rows_of([1, 2, 3, 3], [4, 5, 36, 38], [6, 7, 38, 1])
    loss = model.calculate_loss(data)
    columns = [data[k].tolist() for k in ("user_id", "item_id", "neg_item_id")]
    assert float(loss.detach()) == pytest.approx(oracle_of(*made).loss(*columns, 0.03), abs=1e-5)
    loss.backward()  # unlike in BPR, the user's biases do not cancel
    assert model.global_bias.grad.abs() > 1e-4
    assert model.user_bias.weight.grad[3].abs() > 1e-4


def test_cross_entropy_and_softmax_exclude_each_other(make):
    with pytest.raises(ConfigError, match="vecf_loss") as caught:
        make("VECF", vecf_loss="bce", loss="softmax")
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- text


def test_text_is_generated_for_positives_in_training_only(make):
    *_, model = make("VECF", caption_weight=0.5, reg_weight=0.0)
    shaken(model)
    users = Interaction({"user_id": torch.arange(1, 30)})
    scores = model.eval().full_sort_predict(users)
    data = rows_of([1, 2], [4, 5], [6, 7])
    loss = float(model.train().calculate_loss(data).detach())
    model.tokens[6:8] = model.tokens[4:6]  # of negatives
    assert float(model.calculate_loss(data).detach()) == loss
    model.tokens[4] = torch.tensor([1, 0, 0])[: model.tokens.shape[1]]
    changed = float(model.calculate_loss(data).detach())
    assert changed != loss
    shaken(model.caption, seed=8)
    assert torch.equal(model.eval().full_sort_predict(users), scores)
    assert "regions" not in model.all_items()


def test_text_reaches_the_attention_and_only_rows_of_positives(make):
    *_, model = make("VECF", caption_weight=1.0, reg_weight=0.0)
    shaken(model).train()
    user, item, rows = model.sides(rows_of([1, 2], [4, 5], [6, 7]))
    model.pair_loss = lambda positive, negative: 0.0 * positive.sum()
    model.ranking_loss(user, item, rows).backward()
    touched = lambda table: set(table.weight.grad.any(1).nonzero().squeeze(1).tolist())  # noqa: E731
    assert touched(model.item_embedding) == {4, 5}
    assert touched(model.user_embedding) == {1, 2}
    for layer in (model.attention, model.region_key, model.user_key, model.caption.region_map):
        assert layer.weight.grad.any()
    assert not model.projection.weight.grad.any()  # of the score only


def test_without_text_no_annotation_is_read(over_regions, tiny_folder, in_tmp):
    home = in_tmp / "bare" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    lines = [line.rsplit("\t", 1)[0] for line in (home / "tiny.item").read_text().splitlines()]
    (home / "tiny.item").write_text("\n".join(lines) + "\n")
    keys = over_regions(data_path=str(in_tmp / "bare"), epochs=1)
    assert run("VECF", "tiny", config_dict=keys | {"caption_weight": 0.0})["test_result"]
    with pytest.raises(DataError, match="no column annotations"):
        run("VECF", "tiny", config_dict=keys)


# -------------------------------------------------------------------------------- regions


def test_pooled_vectors_are_refused_in_one_line(tiny):
    with pytest.raises(DataError, match="one pooled vector a picture") as caught:
        run("VECF", "tiny", config_dict=tiny())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("merge", ["add", "mul", "concat"])
def test_an_unseen_item_is_ranked_by_its_picture_and_a_bare_one_by_nothing(make, merge):
    *_, model = make("VECF", merge=merge)
    shaken(model).eval()
    user, item = model.user_side(torch.arange(1, 4)), model.all_items()
    score, vector = model.user_view(user.map(lambda v: v.unsqueeze(1)), item)
    unseen, bare = (model.seen == 0), (model.has_picture == 0)
    assert (unseen & ~bare).any()
    assert (unseen & bare).sum() > 1  # the padding, and an item without a line
    assert (score[:, unseen & ~bare].abs() > 1e-4).all()
    assert (vector[:, unseen & bare] == 0).all()


@pytest.mark.parametrize("merge", ["add", "mul", "concat"])
def test_a_known_item_without_picture_is_ranked_by_its_id(make, merge):
    *_, model = make("VECF", merge=merge)
    shaken(model).eval()
    item = int((model.seen * model.has_picture).nonzero()[0])
    maps = model.regions
    blank = lambda items: maps(items) * (items != item).view(-1, 1, 1)  # noqa: E731
    blank.count, blank.size = maps.count, maps.size
    model.regions, model.has_picture[item] = blank, 0.0
    q = model.item_embedding.weight[item]
    vector = {"add": q / 2, "mul": q}.get(merge)
    if vector is None:
        vector = model.merge_map.weight @ torch.cat([q, torch.zeros_like(q)])
    _, found = model.user_view(
        model.user_side(torch.tensor([1])), model.item_side(torch.tensor([item]))
    )
    torch.testing.assert_close(found[0], vector)


def test_maps_are_read_once_for_all_rankings(make):
    *_, model = make("VECF")
    shaken(model).eval()
    maps, read = model.regions, []

    def counted(items):
        read.extend(items.tolist())
        return maps(items)

    counted.count, counted.size = maps.count, maps.size
    model.regions = counted
    for users in (torch.arange(1, 9), torch.arange(9, 20)):
        model.full_sort_predict(Interaction({"user_id": users}))
    assert sorted(read) == list(range(model.n_items))


def test_a_training_batch_reads_the_maps_of_its_items_alone(make):
    *_, model = make("VECF")
    maps, read = model.regions, []

    def counted(items):
        read.extend(items.tolist())
        return maps(items)

    counted.count, counted.size = maps.count, maps.size
    model.regions = counted
    model.train().calculate_loss(rows_of([1, 2, 2], [4, 5, 4], [6, 7, 4]))
    assert read == [4, 5, 6, 7]


def test_two_epochs_resumed_for_one_more_equal_three(over_regions):
    keys = {"caption_weight": 0.1}
    whole = run("VECF", "tiny", config_dict=over_regions(epochs=3, **keys))
    half = run("VECF", "tiny", config_dict=over_regions(epochs=2, **keys))
    last = half["checkpoint"].replace(".pth", ".last.pth")
    rest = run("VECF", "tiny", config_dict=over_regions(epochs=3, resume=last, **keys))
    assert rest["test_result"] == whole["test_result"]
