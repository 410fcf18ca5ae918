"""Softmax over shared negatives against numpy, and how its negatives are drawn."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec import run
from recbole_cierec.model.base.losses import SharedSoftmax

COUNTS = torch.tensor([0, 6, 3, 0, 1, 2])  # item 0 is padding, item 3 is unseen
KEYS = {
    "softmax_temperature": 1.0,
    "popularity_correction": 0.0,
    "shared_negatives": 3,
    "shared_negatives_memory": 1,
    "train_batch_size": 32,
    "train_negatives": "seen",
}
# Three rows with own items 1, 4, 5 against the shared items 4, 2: the second row's is drawn.
POSITIVE, NEGATIVE = [0.5, -1.0, 2.0], [[0.1, 0.7], [-1.0, 0.3], [1.5, -0.4]]
OWN, SHARED = [1, 4, 5], [4, 2]


def softmax_of(**keys):
    return SharedSoftmax(COUNTS, KEYS | keys)


def taken(softmax):
    scores = torch.tensor(POSITIVE, requires_grad=True), torch.tensor(NEGATIVE, requires_grad=True)
    return softmax(*scores, torch.tensor(OWN), torch.tensor(SHARED)), scores


def by_hand(temperature=1.0, correction=0.0):
    share = np.array([1, 6, 3, 1, 1, 2]) / 12
    losses = []
    for score, others, own in zip(POSITIVE, NEGATIVE, OWN, strict=True):
        wanted = np.exp(score / temperature) * share[own] ** correction
        rest = [
            np.exp(other / temperature) * share[item] ** correction
            for other, item in zip(others, SHARED, strict=True)
            if item != own
        ]
        losses.append(-np.log(wanted / (wanted + sum(rest))))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [1.0, 0.25, 3.0])
@pytest.mark.parametrize("correction", [0.0, 0.5, 1.0])
def test_loss_of_three_rows_equals_the_hand_computed_one(temperature, correction):
    keys = {"softmax_temperature": temperature, "popularity_correction": correction}
    assert float(taken(softmax_of(**keys))[0].detach()) == pytest.approx(
        by_hand(temperature, correction), abs=1e-6
    )


def test_correction_and_temperature_are_told_apart():
    values = {by_hand(), by_hand(temperature=0.25), by_hand(correction=1.0)}
    assert len({round(value, 3) for value in values}) == 3


def test_gradient_is_probability_minus_one_and_none_on_the_own_item_as_negative():
    loss, (positive, negative) = taken(softmax_of())
    loss.backward()
    weights = np.exp(np.column_stack([POSITIVE, NEGATIVE]))
    weights[1, 1] = 0.0
    shares = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(positive.grad, (shares[:, 0] - 1) / 3, atol=1e-6)
    np.testing.assert_allclose(negative.grad, shares[:, 1:] / 3, atol=1e-6)
    assert float(negative.grad[1, 0]) == 0.0


def test_a_row_whose_only_negative_is_its_own_item_adds_nothing():
    scores = torch.tensor([2.0], requires_grad=True), torch.tensor([[2.0]], requires_grad=True)
    loss = softmax_of()(*scores, torch.tensor([4]), torch.tensor([4]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(scores[0].grad) == float(scores[1].grad) == 0.0


@pytest.mark.parametrize(("which", "allowed"), [("seen", {1, 2, 4, 5}), ("all", {1, 2, 3, 4, 5})])
def test_draws_are_distinct_and_uniform_over_what_train_negatives_allows(which, allowed):
    np.random.seed(0)
    softmax = softmax_of(train_negatives=which)
    draws = [softmax.draw().tolist() for _ in range(2000)]
    assert all(len(set(draw)) == len(draw) == 3 for draw in draws)
    counts = np.bincount(np.concatenate(draws), minlength=6)
    assert set(np.flatnonzero(counts)) == allowed
    expected = 6000 / len(allowed)
    assert np.abs(counts[sorted(allowed)] - expected).max() < 6 * expected**0.5


def test_more_negatives_than_items_draws_each_item_once():
    assert sorted(softmax_of(shared_negatives=99).draw().tolist()) == [1, 2, 4, 5]


def test_pairs_of_user_dependent_vectors_bound_the_number_in_memory(caplog):
    softmax = softmax_of()
    assert softmax.count(pair_width=2**13 // 2) == 2  # 32 rows x 4096 floats x 4 bytes = 0.5 MiB
    assert softmax.count(pair_width=2**20) == 1
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert len(softmax.draw(pair_width=2**13)) == 1
    told = [r.getMessage() for r in caplog.records if "shared_negatives" in r.getMessage()]
    assert len(told) == 1
    assert "1 instead of 3" in told[0]
    assert "8192 floats" in told[0]


def test_the_same_generator_state_draws_the_same_items():
    softmax = softmax_of()
    state = np.random.get_state()
    first = [softmax.draw().tolist() for _ in range(5)]
    np.random.set_state(state)
    assert [softmax.draw().tolist() for _ in range(5)] == first
    assert len({tuple(draw) for draw in first}) > 1


def test_branch_losses_follow_the_loss(make):
    """L_v and L_s of Eq. 6: softmax over the branches' own scores, hand-computed."""
    *_, model = make("CIERec", loss="softmax", shared_negatives=6, privileged_dropout=0.0)
    model.train()
    torch.manual_seed(1)
    data = Interaction({"user_id": torch.tensor([1, 2, 3]), "item_id": torch.tensor([4, 5, 6])})
    user, item, rows = model.sides(data)
    model.ranking_loss(user, item, rows)
    for branch in ("visual", "semantic"):
        losses = []
        for k in range(3):
            p = user.vector[rows.user[k]].expand(len(rows.items), -1)
            if branch == "visual":
                vector = model.visual_gate(p, item["e"], item["gate"])
            else:
                vector = item["s"]
            scores = (p * vector).sum(1).detach().double().numpy()
            own = int(rows.positive[k])
            others = [int(n) for n in rows.negative if int(n) != own]
            total = np.exp(scores[own]) + np.exp(scores[others]).sum()
            losses.append(np.log(total) - scores[own])
        assert float(model.branch_losses[branch]) == pytest.approx(np.mean(losses), abs=1e-5)
        assert not model.branch_losses[branch].requires_grad


@pytest.mark.parametrize("name", ["MF_Content", "CIERec"])
def test_a_softmax_run_resumes_to_the_same_bits(tiny, name):
    keys = {"loss": "softmax", "shared_negatives": 12, "epochs": 4}
    whole = run(name, "tiny", config_dict=tiny(**keys))
    half = run(name, "tiny", config_dict=tiny(**keys | {"epochs": 2}))
    last = half["checkpoint"].replace(".pth", ".last.pth")
    rest = run(name, "tiny", config_dict=tiny(**keys, resume=last))
    ours, theirs = (
        torch.load(r["checkpoint"].replace(".pth", ".last.pth"), weights_only=True)["state_dict"]
        for r in (whole, rest)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert str(whole["test_result"]) == str(rest["test_result"])  # a group without users is nan
