"""Products with sampled rows, against the whole product and its gradients."""

from __future__ import annotations

import pytest
import torch

from recbole_cierec.model.base.sampled_products import sampled_products


@pytest.fixture(params=["sparse", "whole"])
def way(request, monkeypatch):
    if request.param == "whole":
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    elif not torch.backends.mkl.is_available():
        pytest.skip("this torch has no MKL, which the sparse products need")


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 1), (5, 7, 112), (2, 10, 300)])
@pytest.mark.filterwarnings("error::UserWarning")
def test_products_and_gradients_are_those_of_single_pairs(shape, way):
    n_rows, n, m = shape
    generator = torch.Generator().manual_seed(3)
    anchor = torch.randn(n_rows, 4, generator=generator, requires_grad=True)
    others = torch.randn(m, 4, generator=generator, requires_grad=True)
    places = torch.randint(m, (n_rows, n), generator=generator)
    places[:, -1] = places[:, 0]
    weights = torch.randn(n_rows, n, generator=generator)

    made = sampled_products(anchor, others, places)
    found = torch.autograd.grad((made * weights).sum(), [anchor, others])
    rows = zip(anchor, places, strict=True)
    pairs = torch.stack([torch.stack([a @ others[k] for k in row]) for a, row in rows])
    expected = torch.autograd.grad((pairs * weights).sum(), [anchor, others])
    torch.testing.assert_close(made, pairs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_anchor_without_gradient_is_none_of_the_others_business(way):
    anchor, others = torch.ones(2, 3), torch.ones(40, 3, requires_grad=True)
    sampled_products(anchor, others, torch.tensor([[0, 0], [3, 0]])).sum().backward()
    assert others.grad[:, 0].tolist() == [3.0, 0.0, 0.0, 1.0, *[0.0] * 36]


def test_vectors_of_half_precision_are_taken(way):
    anchor, others = torch.randn(2, 8), torch.randn(40, 8)
    places = torch.tensor([[0, 1], [3, 2]])
    with torch.autocast("cpu", torch.bfloat16):
        made = sampled_products(anchor.bfloat16(), others.bfloat16(), places)
    exact = (anchor.bfloat16().double() @ others.bfloat16().double().T).gather(1, places)
    torch.testing.assert_close(made.double(), exact, rtol=0.02, atol=0.02)
