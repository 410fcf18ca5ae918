"""CLCRec: its negatives, the replaced share, and which vector scores which item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

SMALL = {"contrastive_negatives": 4, "content_hidden_size": 5}


def batch(model, seed=1, size=48):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"user_id": model.n_users, "item_id": model.n_items, "neg_item_id": model.n_items}
    return {k: torch.randint(1, n, (size,), generator=generator) for k, n in sizes.items()}


@pytest.fixture
def built(make):
    def build(**keys):
        *rest, model = make("CLCRec", **{"reg_weight": 0.0, **SMALL, **keys})
        return (*rest, model.train())

    return build


def test_three_rows_by_hand(built):
    """Two negatives each; the places that are replaced are fixed."""
    *_, model = built(contrastive_negatives=2, temperature=0.5, contrastive_weight=0.3)
    rows = [(1, 2, 3, 4), (1, 5, 6, 2), (7, 8, 2, 9)]
    swap = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
    model.draw = lambda users: torch.tensor([row[2:] for row in rows])
    model.replaced = lambda shape, device: torch.from_numpy(swap)
    columns = torch.tensor(rows).T
    assert all(model.seen[columns[1:].flatten()])
    with torch.no_grad():
        z_u = model.user_embedding.weight.double().numpy()
        z = model.item_embedding.weight.double().numpy()
        g = model.content(torch.arange(model.n_items)).double().numpy()

    def nce(anchor, others):
        logits = np.array([anchor @ x for x in others]) / 0.5
        return -(logits[0] - np.log(np.exp(logits).sum()))

    def unit(x):
        return x / np.linalg.norm(x)

    total = 0.0
    for (user, *items), swapped in zip(rows, swap, strict=True):
        total += 0.3 * nce(unit(z[items[0]]), [unit(g[k]) for k in items])
        mixed = [g[k] if s else z[k] for k, s in zip(items, swapped, strict=True)]
        total += 0.7 * nce(z_u[user], mixed)
    data = {"user_id": columns[0], "item_id": columns[1]}
    assert float(model.calculate_loss(data)) == pytest.approx(total / 3, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_exactly_the_share_of_places_is_replaced(built, share):
    """Public code draws the places with replacement: 39 % of them instead of 50 %."""
    *_, model = built(replaced_share=share)
    masks = [model.replaced((32, 5), torch.device("cpu")) for _ in range(5)]
    assert {int(mask.sum()) for mask in masks} == {int(share * 160)}
    if 0 < share < 1:
        assert not all(torch.equal(mask, masks[0]) for mask in masks)
        assert (sum(masks).sum(0) > 0).all(), "positives and negatives alike"


def test_replaced_places_score_by_content_and_the_others_by_id(built):
    for share, table, other in (
        (1.0, "content_out", "item_embedding"),
        (0.0, "item_embedding", "content_out"),
    ):
        *_, model = built(replaced_share=share, contrastive_weight=0.0)
        model.calculate_loss(batch(model)).backward()
        assert getattr(model, table).weight.grad.any()
        gradient = getattr(model, other).weight.grad
        assert gradient is None or not gradient.any()


def test_negatives_are_seen_items_that_the_user_has_not_taken(built):
    _, _, train, model = built(contrastive_negatives=200)
    users, items = (train.inter_feat[f].tolist() for f in ("user_id", "item_id"))
    taken = set(zip(users, items, strict=True))
    everyone = torch.arange(1, model.n_users)
    drawn = model.draw(everyone)
    assert drawn.shape == (len(everyone), 200)
    seen = set(items)
    for user, row in zip(everyone.tolist(), drawn.tolist(), strict=True):
        free = {item for item in seen if (user, item) not in taken}
        assert set(row) <= free
        assert len(set(row)) > 0.9 * len(free)


def test_negatives_of_all_items_by_key(built):
    *_, model = built(train_negatives="all", contrastive_negatives=200)
    drawn = model.draw(torch.arange(1, model.n_users))
    assert (model.seen[drawn] == 0).any()
    assert int(drawn.min()) >= 1, "never the padding"
    assert torch.isfinite(model.calculate_loss(batch(model)))


def test_its_own_number_of_negatives_and_not_recboles_one(built):
    *_, model = built(contrastive_negatives=7)
    data = batch(model)
    *_, rows = model.sides(data)
    assert rows.negative.shape == (48, 7)
    torch.manual_seed(0)
    first = model.calculate_loss(data)
    torch.manual_seed(0)
    assert torch.equal(model.calculate_loss(data | {"neg_item_id": data["item_id"]}), first)


def test_warm_items_score_by_id_and_unseen_ones_by_content(built):
    *_, model = built()
    model.eval()
    users, items = torch.arange(1, model.n_users), torch.arange(model.n_items)
    with torch.no_grad():
        scores = model.full_sort_predict({"user_id": users}).view(len(users), -1)
        z, g = model.item_embedding.weight, model.content(items)
        by_id, by_content = (model.user_embedding(users) @ x.T for x in (z, g))
    warm = model.seen > 0
    assert 2 <= int((~warm).sum()) < len(warm)
    torch.testing.assert_close(scores[:, warm], by_id[:, warm])
    torch.testing.assert_close(scores[:, ~warm], by_content[:, ~warm])


def test_each_loss_reaches_its_own_parameters(built):
    *_, model = built(contrastive_weight=1.0)  # only between id and content of items
    model.calculate_loss(batch(model)).backward()
    assert not model.user_embedding.weight.grad.any()
    assert model.item_embedding.weight.grad.any()
    assert model.content_in.weight.grad.any()


def test_the_length_term_is_not_squared(built):
    """Vectors of twice the length cost twice as much."""
    (*_, plain), (*_, ruled) = built(reg_weight=0.0), built(reg_weight=1.0)
    data, terms = batch(plain), []
    for _ in range(2):
        values = []
        for model in (ruled, plain):
            torch.manual_seed(0)  # the same negatives and places
            values.append(float(model.calculate_loss(data)))
            with torch.no_grad():
                model.user_embedding.weight *= 2.0
                model.item_embedding.weight *= 2.0
        terms.append(values[0] - values[1])
    assert terms[1] == pytest.approx(2.0 * terms[0], rel=1e-4)
