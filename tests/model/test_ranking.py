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
