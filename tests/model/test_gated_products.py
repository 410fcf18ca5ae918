"""Products of gates in blocks, and their gradients, next to the equations written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbole_cierec.model.base import gated_products
from recbole_cierec.model.base.gated_products import pair_products, unit_product
from recbole_cierec.model.base.gates import VisualGate


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(params=[1, 2**19], ids=["rows", "whole"])
def block(request, monkeypatch):
    """A row at a time, or all at once."""
    monkeypatch.setattr(gated_products, "BLOCK_ROWS_BYTES", request.param)
    torch.manual_seed(0)


def test_unit_product(block):
    e, gate = numbers(7, 5), numbers(7, 5)
    torch.testing.assert_close(unit_product(e, gate), F.normalize(e * gate))
    assert torch.autograd.gradcheck(unit_product, (e, gate))


def test_a_row_of_zeros_stays_zero_and_has_no_gradient(block):
    e, gate, weight = numbers(3, 4), numbers(3, 4), torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        e[1] = 0.0
    found = []
    for function in (unit_product, lambda a, b: F.normalize(a * b, eps=1e-12)):
        result = function(e, gate)
        assert not result[1].any()
        found.append(torch.autograd.grad((result * weight).sum(), (e, gate)))
    for ours, theirs in zip(*found, strict=True):
        assert not ours[1].any()  # normalise has 1e12 times the gradient of a row of norm 1
        torch.testing.assert_close(ours[[0, 2]], theirs[[0, 2]])


def test_the_visual_gate_has_no_gradient_through_a_row_of_zeros():
    torch.manual_seed(0)
    gate = VisualGate(4, 5, 3).double()
    p, e = numbers(1, 4), numbers(2, 5)
    with torch.no_grad():
        e[0] = 0.0
    part = gate.item_part(e)
    rows, users = torch.tensor([0, 1]), torch.tensor([0, 0])
    for v in (gate(p, e, part), gate.of_rows(p, e, part, users, rows)):
        (on_e,) = torch.autograd.grad(v.sum(), e, retain_graph=True)
        assert not on_e[0].any()
        assert on_e[1].any()


@pytest.mark.parametrize("sigmoid", [False, True])
def test_pair_products(block, sigmoid):
    e, item, user, weight = numbers(6, 5), numbers(6, 5), numbers(3, 5), numbers(2, 5)
    items, users = torch.tensor([0, 5, 2, 5, 5, 1, 0, 3]), torch.tensor([2, 2, 0, 1, 2, 0, 0, 2])
    gate = item[items] + user[users]
    x = e[items] * (gate.sigmoid() if sigmoid else gate)
    mapped, norm = pair_products(e, item, user, weight, items, users, sigmoid)
    torch.testing.assert_close(mapped, x @ weight.T)
    torch.testing.assert_close(norm, x.norm(dim=1, keepdim=True))
    given = (e, item, user, weight)
    assert torch.autograd.gradcheck(
        lambda *parts: pair_products(*parts, items, users, sigmoid), given
    )


def test_a_pair_of_norm_zero_has_no_gradient_through_its_norm(block):
    e, item, user, weight = numbers(2, 3), numbers(2, 3), numbers(1, 3), numbers(2, 3)
    with torch.no_grad():
        e[0] = 0.0
    mapped, norm = pair_products(e, item, user, weight, torch.tensor([0, 1]), torch.tensor([0, 0]))
    (mapped / norm.clamp(min=1e-12) + norm).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (e, item, user, weight))
    assert not item.grad[0].any()
