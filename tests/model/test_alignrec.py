"""AlignRec's content encoder, its graphs, and unseen items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_alignrec import AlignRecOracle, linear
from recbole.data.interaction import Interaction
from test_model_contract import full_scores, oracle_of, shake

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.alignrec import info_nce
from recbole_cierec.model.base import graphs
from recbole_cierec.vision.item_pictures import pictures_of


def scores_of(model):
    model.forget_items()
    return full_scores(model).clone()


def test_guessing_costs_on_three_rows_are_those_by_hand(make):
    config, dataset, train, model = make("AlignRec")
    shake(model)
    oracle = oracle_of(config, dataset, train, model)
    assert isinstance(oracle, AlignRecOracle)
    tokens = torch.tensor([[2, 5, 0], [3, 0, 0], [1, 4, 6]])
    features = pictures_of(dataset.content).features[[3, 7, 9]]
    picture = torch.tensor([True, True, False])
    # Row 0 hides token 5 and its picture, row 1 its only token, row 2 tokens 1 and 6.
    hidden = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 0, 1]]).bool(), torch.tensor([1, 0, 0]).bool()
    token, image = model.content_encoder.losses(features, tokens, picture, (*hidden, {}))
    w = {k.removeprefix("content_encoder."): v for k, v in oracle.w.items()}
    rows = [
        oracle.encode(features[0].double().numpy(), [2], False),
        oracle.encode(features[1].double().numpy(), [], True),
        oracle.encode(features[2].double().numpy(), [4], False),
    ]
    cost = 0.0
    for row, guessed in zip(rows, ([5], [3], [1, 6]), strict=True):
        logits = linear(row, w, "guess_token")
        for t in guessed:
            cost += np.log(np.exp(logits).sum()) - logits[t - 1]
    distance = linear(rows[0], w, "guess_image") - features[0].double().numpy()
    assert float(token) == pytest.approx(cost / 4, abs=1e-5)
    assert float(image) == pytest.approx(distance @ distance, abs=1e-4)


def test_what_is_hidden_leaves_something_to_guess_from(make):
    *_, model = make("AlignRec")
    encoder, share = model.content_encoder, 0.4
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 7, (4000, 3), generator=generator)
    picture = torch.rand(4000, generator=generator) < 0.7
    token, image, _ = encoder.hide(tokens, picture, share)
    assert not (token & (tokens == 0)).any()
    assert not (image & ~picture).any()
    left = ((tokens > 0) & ~token).any(1)
    shown = picture & ~image
    touched = token.any(1) | image
    assert (left | shown)[touched].all()
    assert left[image].all()
    free = picture & (tokens > 0).all(1)  # rows where no rule interferes with tokens
    assert float(token[free].float().mean()) == pytest.approx(share, abs=0.03)


def test_the_content_stage_sends_gradients_to_the_encoder_alone(make):
    *_, model = make("AlignRec")
    model.train()
    torch.manual_seed(0)
    items = model.pretrain_items()
    for _ in range(5):
        sum(model.pretrain_loss(Interaction({"item_id": items}))).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {n for n, _ in model.named_parameters() if n.startswith("content_encoder.")}


def test_the_content_stage_sees_only_items_of_the_training_part(make):
    _, dataset, _, model = make("AlignRec")
    content = dataset.content
    filled = pictures_of(content).has_picture | content.has_annotation
    for item in range(model.n_items):
        wanted = bool(filled[item]) and bool(model.seen[item])
        assert (item in model.pretrain_items().tolist()) == wanted


def test_image_weight_is_that_of_hidden_pictures_alone(make):
    *_, model = make("AlignRec", mask_share=0.5)
    costs = []
    for weight in (1.0, 0.25):
        model.image_weight = weight
        torch.manual_seed(2)  # the same hidden parts
        costs.append([float(x) for x in model.pretrain_loss({"item_id": model.pretrain_items()})])
    (token, image), (same, quarter) = costs
    assert image > 0.0
    assert (same, quarter) == pytest.approx((token, image / 4))


def test_the_content_stage_lowers_both_costs(make):
    *_, model = make("AlignRec", mask_share=0.5)
    optimizer = torch.optim.Adam(model.pretrain_groups(), lr=0.01)
    data = Interaction({"item_id": model.pretrain_items()})
    torch.manual_seed(0)
    costs = []
    for _ in range(120):
        optimizer.zero_grad()
        losses = model.pretrain_loss(data)
        sum(losses).backward()
        optimizer.step()
        costs.append([float(x) for x in losses])
    first, last = np.mean(costs[:10], axis=0), np.mean(costs[-10:], axis=0)
    # The annotations are random, so only the frequency of each token can be predicted; they
    # distinguish the pictures.
    assert (last < [0.95, 0.8] * first).all()


def test_info_nce_of_three_rows_is_the_one_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    second = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    root = 0.5**0.5
    cosines = np.array([[1, root, 0], [0, root, 1], [root, 1, root]])
    cost = [np.log(np.exp(row / 0.5).sum()) - row[k] / 0.5 for k, row in enumerate(cosines)]
    assert float(info_nce(first, second, 0.5)) == pytest.approx(np.mean(cost), abs=1e-6)


def test_content_vectors_are_centred_over_training_items_and_of_length_one(make):
    *_, model = make("AlignRec")
    shake(model)
    model.end_pretraining()
    with torch.no_grad():
        raw = model.content_encoder(model.features, model.tokens, model.has_picture)
    raw, filled = raw.double().numpy(), model.filled.numpy()
    moved = raw - raw[filled & (model.seen > 0).numpy()].mean(0)
    wanted = moved / np.linalg.norm(moved, axis=1, keepdims=True) * filled[:, None]
    np.testing.assert_allclose(model.content.numpy(), wanted, atol=1e-5)


def test_neighbours_are_the_nearest_seen_items_in_blocks_of_any_size(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(30, 4, generator=generator))
    vectors[5] = 0.0
    sources = torch.rand(30, generator=generator) < 0.6
    sources[5] = True
    whole = graphs.nearest(vectors, sources, 3)
    monkeypatch.setattr(graphs, "BLOCK_BYTES", 300)
    assert torch.equal(graphs.nearest(vectors, sources, 3), whole)
    assert (whole[5] == -1).all()
    for i in set(range(30)) - {5}:
        others = [j for j in range(30) if sources[j] and j not in (i, 5)]
        ranked = sorted(others, key=lambda j: -float(vectors[i] @ vectors[j]))
        assert whole[i].tolist() == ranked[:3]


def test_fewer_items_than_neighbours_leave_places_empty():
    vectors = torch.eye(3)
    found = graphs.nearest(vectors, torch.tensor([True, True, False]), 4)
    assert found[0].tolist() == [1, -1, -1, -1]
    assert found[2, 2:].tolist() == [-1, -1]
    assert sorted(found[2, :2].tolist()) == [0, 1]
    assert (graphs.nearest(vectors, torch.zeros(3).bool(), 2) == -1).all()


def test_an_unseen_items_content_moves_its_own_scores_and_no_other(make):
    *_, model = make("AlignRec")
    shake(model)
    unseen = ((model.seen == 0) & model.has_picture).nonzero().squeeze(1)
    assert len(unseen)
    item = int(unseen[-1])
    before = scores_of(model)
    model.features[item] = -model.features[item]
    model.end_pretraining()
    after = scores_of(model)
    moved = (after != before).any(0).nonzero().squeeze(1).tolist()
    assert moved == [item - 1]


def test_without_id_part_an_unseen_item_still_has_scores_of_its_own(make):
    _, dataset, _, model = make("AlignRec")
    shake(model)
    content = dataset.content
    filled = pictures_of(content).has_picture | content.has_annotation
    scores = scores_of(model)
    unseen = [i for i in range(1, model.n_items) if not model.seen[i]]
    assert {bool(filled[i]) for i in unseen} == {True, False}
    for i in unseen:
        column = scores[:, i - 1]
        assert bool(column.any()) == bool(filled[i])


def test_the_frozen_vectors_answer_to_the_encoder_only_when_asked(make):
    *_, model = make("AlignRec")
    shake(model)
    before = scores_of(model)
    with torch.no_grad():
        for parameter in model.content_encoder.parameters():
            parameter.neg_()
    assert torch.equal(scores_of(model), before)
    model.end_pretraining()
    assert not torch.equal(scores_of(model), before)


def test_heads_that_do_not_divide_the_width_are_refused(make):
    with pytest.raises(ConfigError, match="content_size 10 is not a multiple of attention_heads 4"):
        make("AlignRec", content_size=10)
