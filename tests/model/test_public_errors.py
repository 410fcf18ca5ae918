"""Errors of public code that models here must not have, each with a proof that the test detects it.

VBPR: the visual bias, kept as [B, 1] and added to scores [B], spreads them to [B, B]; the loss is
then one over all pairs of rows. Nothing crashes, and each row's loss depends on its batch.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from torch.nn import functional as F

from recbole_cierec.model.vbpr import VBPR


class SpreadVBPR(VBPR):
    """The error on purpose: a part [B, 1] of the items is added to scores [B]."""

    def contrast(self, user, item, rows):
        users = user.take(rows.user)
        scores = [
            self.pair_scores(users, side).score + side.vector[:, :1]
            for side in (item.take(rows.positive), item.take(rows.negative))
        ]
        return self.pair_loss(*scores), torch.zeros(())


class UncheckedVBPR(SpreadVBPR):
    """The same, with a loss that accepts scores of any shape."""

    def pair_loss(self, positive, negative):
        return F.softplus(negative - positive).mean()


@pytest.fixture
def model(make):
    *_, model = make("VBPR", reg_weight=0.02)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    return model.train()


def rows(users, items, negatives):
    columns = {"user_id": users, "item_id": items, "neg_item_id": negatives}
    return Interaction({name: torch.tensor(values) for name, values in columns.items()})


USERS, ITEMS, NEGATIVES = [1, 2, 3, 1], [4, 9, 17, 30], [5, 12, 9, 2]


def loss_together_and_alone(model):
    together = float(model.calculate_loss(rows(USERS, ITEMS, NEGATIVES)).detach())
    alone = [
        float(model.calculate_loss(rows([u], [i], [j])).detach())
        for u, i, j in zip(USERS, ITEMS, NEGATIVES, strict=True)
    ]
    return together, np.mean(alone)


def test_vbpr_loss_of_a_batch_is_the_mean_of_its_rows(model):
    together, alone = loss_together_and_alone(model)
    assert together == pytest.approx(alone, abs=1e-6)


def test_vbpr_visual_bias_gradient_is_that_of_its_own_rows(model):
    """d/d beta' of the mean BPR: -(1 - sigmoid(y_ui - y_uj)) (e_i - e_j), row by row."""
    model.reg_weight = 0.0
    model.calculate_loss(rows(USERS, ITEMS, NEGATIVES)).backward()
    e = model.encoder.features.numpy()
    score = lambda u, i: float(model.predict(rows([u], [i], [i]))[0])  # noqa: E731
    expected = np.zeros(e.shape[1])
    for u, i, j in zip(USERS, ITEMS, NEGATIVES, strict=True):
        difference = score(u, i) - score(u, j)
        expected -= (e[i] - e[j]) / (1 + np.exp(difference)) / len(USERS)
    np.testing.assert_allclose(model.visual_bias.weight.grad[0], expected, atol=1e-6)


def test_vbpr_scores_have_one_number_a_pair(model):
    users = model.user_side(torch.tensor(USERS))
    scores = model.pair_scores(users, model.item_side(torch.tensor(ITEMS)))
    assert scores.score.shape == (4,)
    assert model.predict(rows(USERS, ITEMS, NEGATIVES)).shape == (4,)


def test_the_check_of_rows_sees_scores_spread_over_the_batch(model):
    model.reg_weight = 0.0
    model.__class__ = UncheckedVBPR
    together, alone = loss_together_and_alone(model)
    assert abs(together - alone) > 1e-3


def test_the_loss_itself_refuses_scores_that_are_spread_over_the_batch(model):
    model.__class__ = SpreadVBPR
    with pytest.raises(ValueError, match=r"\[B\]"):
        model.calculate_loss(rows(USERS, ITEMS, NEGATIVES))
