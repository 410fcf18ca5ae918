"""CIERec's alignment where a batch, or a process's share of it, has no annotated item."""

from __future__ import annotations

import pytest
import torch
from model_helpers import rows_of, shaken

from recbole_cierec.data.share import Share


@pytest.fixture
def aligned(make):
    """(model, internal ids of two annotated items and of two without annotations)."""
    _, dataset, _, model = make("CIERec", alignment_weight=0.5)
    tokens = ("i1", "i2", "i37", "i38")
    ids = [int(dataset.token2id(dataset.iid_field, token)) for token in tokens]
    assert (model.tokens[ids][:, 0] > 0).tolist() == [True, True, False, False]
    return shaken(model).train(), ids[:2], ids[2:]


def loss_and_gradients(model, batch):
    torch.manual_seed(5)  # alike in all processes
    model.zero_grad()
    loss = model.calculate_loss(batch)
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_a_batch_without_annotated_items_has_no_alignment_loss(aligned):
    model, _, (one, other) = aligned
    batch = rows_of([1, 2], [one, one], [other, other])
    loss, gradients = loss_and_gradients(model, batch)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    model.alignment_weight = 0.0
    assert torch.equal(loss, loss_and_gradients(model, batch)[0])


def test_a_process_whose_share_has_no_annotated_item_answers_for_the_rest(aligned):
    model, known, unknown = aligned
    whole = rows_of([1, 2], [known[0], unknown[0]], [known[1], unknown[1]])
    loss, gradients = loss_and_gradients(model, whole)
    parts = []
    for rank in range(2):
        model.share = Share(whole, rank, 2)
        parts.append(loss_and_gradients(model, model.share.own))
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, loss)
    for name, gradient in gradients.items():
        mean = sum(own.get(name, torch.zeros_like(gradient)) for _, own in parts) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-5)
