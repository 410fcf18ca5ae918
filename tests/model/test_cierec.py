"""CIERec's guidance and alignment, also where a batch or a process's share lacks annotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_helpers import rows_of, shaken

from recbole_cierec.distributed.batch_share import Share, SharedBatch


@pytest.fixture
def aligned(make):
    """(model, internal ids of two annotated items and of two without annotations)."""
    _, dataset, _, model = make("CIERec", alignment_weight=0.5)
    ids = ids_of(dataset, "i1", "i2", "i37", "i38")
    assert (model.tokens[ids][:, 0] > 0).tolist() == [True, True, False, False]
    return shaken(model).train(), ids[:2], ids[2:]


def ids_of(dataset, *tokens):
    return [int(dataset.token2id(dataset.iid_field, token)) for token in tokens]


def loss_and_gradients(model, batch):
    torch.manual_seed(5)  # the same in all processes
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
        share = Share(whole, rank, 2)
        model.batch = SharedBatch(share, "user_id", ["item_id", "neg_item_id"], None)
        parts.append(loss_and_gradients(model, share.own))
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, loss)
    for name, gradient in gradients.items():
        mean = sum(own.get(name, torch.zeros_like(gradient)) for _, own in parts) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-5)


def test_alignment_by_hand(aligned):
    """0.5 times the mean squared distance of s_i without annotations from s_i with them, over the
    annotated items of the batch, each once."""
    model, known, (plain, _) = aligned
    batch = rows_of([1, 2, 3], [known[0], known[1], known[0]], [known[1], plain, plain])
    losses = []
    for weight in (0.5, 0.0):
        model.alignment_weight = weight
        losses.append(float(loss_and_gradients(model, batch)[0]))
    items = torch.tensor(known)
    with torch.no_grad():
        c = model.inference_gate(model.encoder(items)) if model.use_gates else model.encoder(items)
        read = model.semantic(c, model.tokens[items], torch.tensor([True, True]))
        apart = (model.semantic(c, None, None) - read).square().mean()
    assert float(apart) > 0.01
    assert losses[0] - losses[1] == pytest.approx(0.5 * float(apart), rel=1e-4)


def test_alignment_pulls_the_side_without_annotations_only(aligned):
    model, known, _ = aligned
    batch = rows_of([1, 2], [known[0]] * 2, [known[1]] * 2)
    _, with_it = loss_and_gradients(model, batch)
    model.alignment_weight = 0.0
    _, without = loss_and_gradients(model, batch)
    # Token vectors affect only the side with annotations, the cell both.
    torch.testing.assert_close(with_it["semantic.tokens.weight"], without["semantic.tokens.weight"])
    name = "semantic.cell.weight_ih"
    assert not torch.allclose(with_it[name], without[name])


def test_privileged_dropout_hides_its_share_of_the_annotations(aligned):
    model, known, (plain, _) = aligned
    model.privileged_dropout, model.alignment_weight = 0.3, 0.0
    items = torch.tensor([*known, *known, plain])
    draws = torch.tensor([0.0, 0.29, 0.31, 0.99, 0.99])
    model.batch.uniform = lambda items: draws
    seen = {}
    model.semantic.register_forward_pre_hook(lambda _, inputs: seen.update(readable=inputs[2]))
    model.item_side(items)
    assert seen["readable"].tolist() == [False, False, True, True, False]


def test_rows_score_as_pairs_do(aligned):
    model, known, (plain, other) = aligned
    batch = rows_of([1, 2, 2], [known[0], plain, known[0]], [known[1], plain, other])
    model.privileged_dropout = 0.0
    user, item, rows = model.sides(batch)
    items = torch.stack([rows.positive, rows.negative])
    ours = model.scores_of_rows(user, item, rows.user, items)
    pairs = model.pair_scores(user.take(rows.user), item.take(items))
    torch.testing.assert_close(ours.score, pairs.score)
    torch.testing.assert_close(ours.norm, pairs.norm)
    for name, score in pairs.branches.items():
        torch.testing.assert_close(ours.branches[name], score)


def test_bfloat16_rounds_the_maps_of_training_and_of_nothing_else(make, aligned):
    plain, known, unknown = aligned
    *_, model = make("CIERec", alignment_weight=0.5, encoder_precision="bfloat16")
    model.load_state_dict(plain.state_dict())
    batch = rows_of([1, 2, 3], [*known, unknown[0]], [unknown[1], known[0], known[1]])
    ((loss, gradients), (other, others)) = (
        loss_and_gradients(one.train(), batch) for one in (plain, model)
    )
    assert loss != other
    torch.testing.assert_close(other, loss, rtol=0.02, atol=0.0)
    for name, gradient in gradients.items():
        apart = (others[name].float() - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert others[name].dtype == gradient.dtype
        assert float(apart) < 0.1, name
    users = torch.arange(1, model.n_users)
    ranked = [one.eval().full_sort_predict({"user_id": users}) for one in (plain, model)]
    assert torch.equal(*ranked)


def test_guidance_by_hand(make):
    """0.3 times the mean, over the annotated items of the batch, of the mean of -log P(k | c_i)
    over the item's tokens k."""
    _, dataset, _, model = make("CIERec", guidance_weight=0.3)
    known, plain = ids_of(dataset, "i1", "i2"), ids_of(dataset, "i37")[0]
    shaken(model).train()
    batch = rows_of([1, 2, 3], [known[0], known[1], known[0]], [known[1], plain, plain])
    losses = []
    for weight in (0.3, 0.0):
        model.guidance_weight = weight
        losses.append(float(loss_and_gradients(model, batch)[0]))
    table = model.semantic.tokens.weight.detach().double().numpy()
    counts = np.zeros(len(table))
    for item in model.seen.nonzero().squeeze(1).tolist():
        for k in model.tokens[item].tolist():
            counts[k] += k > 0
    share = np.maximum(counts, 0.5) / counts.sum()
    expected = []
    for item in known:
        with torch.no_grad():
            c = model.inference_gate(model.encoder(torch.tensor([item])))[0].double().numpy()
        weights = [0.0]
        for k in range(1, len(table)):
            cosine = c @ table[k] / np.linalg.norm(table[k])
            weights.append(share[k] * np.exp(cosine / 0.1))
        own = [k for k in model.tokens[item].tolist() if k > 0]
        expected.append(-np.mean([np.log(weights[k] / sum(weights)) for k in own]))
    assert losses[0] - losses[1] == pytest.approx(0.3 * np.mean(expected), rel=1e-4)
