"""The three exact ways to rank under a user-dependent gate, also where the norm cancels."""

from __future__ import annotations

import pytest
import torch
from model_helpers import shaken
from recbole.data.interaction import Interaction

from recbole_cierec.model.base import user_gate_ranking

KEYS = {"embedding_size": 2}  # of 6 features


@pytest.fixture
def models(make, monkeypatch):
    """``models(way)``: CIERec with large random weights, in float32, and its double."""

    def build(way):
        if way == "expansion":
            monkeypatch.setattr(user_gate_ranking, "MAPS_BYTES", 0)
        keys = KEYS | ({"gate_activation": "sigmoid"} if way == "literal" else {})
        *_, model = make("CIERec", **keys)
        return shaken(model, 0.5, seed=1).eval()

    return build


def truth(model, users, items):
    """Single pairs in float64."""
    model.double().forget_items()
    pairs = {"user_id": users.repeat_interleave(items.shape[1]), "item_id": items.reshape(-1)}
    scores = model.predict(Interaction(pairs)).view(items.shape)
    model.float().forget_items()
    return scores


def cancel(model, user, item):
    """Make the gate of one pair vanish: W_e e + W_g g + b = -W_p p, up to one part in a hundred."""
    with torch.no_grad():
        side = model.item_side(torch.tensor([item]))
        b = model.visual_gate.user_map(model.user_embedding(torch.tensor([user])))
        model.visual_gate.content_map.bias -= (side["gate"] + b * (1 - 1e-2))[0]
    model.forget_items()


@pytest.mark.parametrize("way", ["maps", "expansion", "literal"])
@pytest.mark.parametrize("vanishing", [False, True])
def test_all_and_lists_equal_float64_pairs(models, way, vanishing):
    model = models(way)
    if vanishing:
        cancel(model, 3, 5)
    users = torch.arange(1, model.n_users)
    everything = torch.arange(model.n_items).expand(len(users), -1)
    expected = truth(model, users, everything)
    batch = Interaction({"user_id": users})
    ranked = model.full_sort_predict(batch).view(everything.shape)
    used = model._ranking.maps is not None if way != "literal" else None
    assert used is {"maps": True, "expansion": False, "literal": None}[way]
    torch.testing.assert_close(ranked.double(), expected, atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(2)
    lists = torch.randint(1, model.n_items, (len(users), 17), generator=generator)
    lists[0] = 4  # one item many times
    scores = model.candidate_scores(batch, lists)
    torch.testing.assert_close(scores.double(), expected.gather(1, lists), atol=1e-5, rtol=1e-5)


def test_users_in_any_number_give_the_same_scores(models):
    model = models("maps")
    users = torch.arange(1, model.n_users)
    together = model.full_sort_predict(Interaction({"user_id": users})).view(len(users), -1)
    alone = model.full_sort_predict(Interaction({"user_id": users[4:5]}))
    torch.testing.assert_close(alone, together[4], atol=1e-6, rtol=1e-6)


def ranked_by(model, users):
    return model.full_sort_predict(Interaction({"user_id": users})).view(len(users), -1)


@pytest.mark.parametrize("fusion", ["mlp", "sum", "gated"])
@pytest.mark.parametrize("cache", [1, 2**20])
def test_blocks_of_any_size_and_every_fusion(make, monkeypatch, fusion, cache):
    monkeypatch.setattr(user_gate_ranking, "CACHE_BYTES", cache)
    model = shaken(make("CIERec", fusion=fusion, **KEYS)[-1], 0.5, seed=1).eval()
    users = torch.arange(1, model.n_users)
    expected = truth(model, users, torch.arange(model.n_items).expand(len(users), -1))
    torch.testing.assert_close(ranked_by(model, users).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-7, 1e4])
def test_items_with_features_of_any_length(models, scale):
    model = models("maps")
    with torch.no_grad():
        model.encoder.adapter.bias.zero_()
        model.encoder.features[5] *= scale
    model.forget_items()
    users = torch.arange(1, model.n_users)
    column = torch.full((len(users), 1), 5)
    expected = truth(model, users, column)
    got = ranked_by(model, users)[:, 5:6]
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_first_items_are_the_literal_ones_without_the_seen(make, spread):
    *_, model = make("CIERec", **KEYS)
    model = shaken(model, spread, seed=3).eval()
    with torch.no_grad():  # two equal items, whose order is open
        model.encoder.features[7] = model.encoder.features[4]
        for table in (model.item_embedding, model.item_bias):
            table.weight[7] = table.weight[4]
    model.forget_items()
    users = torch.arange(1, model.n_users)
    expected = truth(model, users, torch.arange(model.n_items).expand(len(users), -1))
    got = ranked_by(model, users).double()
    seen = torch.rand(got.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    for scores in (got, expected):
        scores[:, 0] = scores[seen] = -torch.inf
    top, literal = got.topk(10), expected.topk(10)
    assert not bool(seen.gather(1, top.indices).any())
    # Each place has the literal score: only items that tie may change places.
    torch.testing.assert_close(
        expected.gather(1, top.indices), literal.values, atol=1e-5, rtol=1e-5
    )
    apart = -literal.values.diff() > 1e-3 * literal.values[:, :-1].abs().clamp(min=1)
    clear = torch.cat([apart[:, :1], apart[:, 1:] & apart[:, :-1]], 1)  # of both neighbours
    assert int(clear.sum()) > len(users)
    assert torch.equal(top.indices[:, :-1][clear], literal.indices[:, :-1][clear])
