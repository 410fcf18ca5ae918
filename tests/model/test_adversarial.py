"""AMF and AMR: the perturbation, its effect on the loss, and the warm start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_helpers import shaken
from recbole.utils import init_seed

from recbole_cierec.model.amf import rows_of_length
from recbole_cierec.model.base.visual_recommender import VisualRecommender

both_models = pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("AMF", {"perturb": "both"}),
        ("AMF", {"perturb": "item"}),
        ("AMR", {}),
        ("AMR", {"encoder_training": "adapter"}),
        ("AMR", {"loss": "softmax"}),
    ],
)


@pytest.fixture
def trained(make):
    """A model with random weights far from zero, in training mode."""

    def build(name, **keys):
        *_, model = make(name, **{"embedding_size": 6, "reg_weight": 0.0, **keys})
        return shaken(model).train()

    return build


def batch(model, seed=1, size=48):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"user_id": model.n_users, "item_id": model.n_items, "neg_item_id": model.n_items}
    return {k: torch.randint(1, n, (size,), generator=generator) for k, n in sizes.items()}


def losses(model, data):
    """The clean loss and the perturbed one, with the same shared negatives if there are any."""
    if model.softmax is not None:
        kept = model.softmax.draw(0)
        model.softmax.draw = lambda width: kept
    clean = float(VisualRecommender.contrast(model, *model.sides(data))[0])
    return clean, (float(model.calculate_loss(data)) - clean) / model.adv_weight


def by_hand(p, q, beta, rows, eps, weight, users_too):
    """APR on a few rows (u, i, j) in plain numpy, with the closed form of the gradient."""

    def loss_and_gradients(p, q):
        total, g_p, g_q = 0.0, np.zeros_like(p), np.zeros_like(q)
        for u, i, j in rows:
            x = p[u] @ (q[i] - q[j]) + beta[i] - beta[j]
            total += np.log1p(np.exp(-x)) / len(rows)
            slope = -1.0 / (1.0 + np.exp(x)) / len(rows)
            g_p[u] += slope * (q[i] - q[j])
            g_q[i] += slope * p[u]
            g_q[j] -= slope * p[u]
        return total, g_p, g_q

    def unit(g):
        length = np.sqrt((g * g).sum(1, keepdims=True))
        return np.divide(g, length, out=np.zeros_like(g), where=length > 0)

    clean, g_p, g_q = loss_and_gradients(p, q)
    moved = p + eps * unit(g_p) if users_too else p
    return clean + weight * loss_and_gradients(moved, q + eps * unit(g_q))[0]


@pytest.mark.parametrize("perturb", ["both", "item"])
def test_three_rows_of_amf_by_hand(trained, perturb):
    """User 1 and item 2 come twice: their gradients are summed before they are normalised."""
    model = trained("AMF", perturb=perturb, adv_eps=0.7, adv_weight=0.6)
    rows = [(1, 2, 3), (1, 4, 2), (5, 6, 3)]
    weights = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
    truth = by_hand(
        weights["user_embedding.weight"],
        weights["item_embedding.weight"],
        weights["item_bias.weight"][:, 0],
        rows,
        0.7,
        0.6,
        perturb == "both",
    )
    columns = torch.tensor(rows).T
    data = dict(zip(("user_id", "item_id", "neg_item_id"), columns, strict=True))
    assert all(model.seen[columns[1:].flatten()])
    assert float(model.calculate_loss(data)) == pytest.approx(truth, abs=1e-6)


@both_models
def test_the_perturbation_raises_the_loss_as_far_as_first_order_says(trained, name, keys):
    """L(x + D) - L(x) is near eps times the sum of the rows' gradient lengths, so above zero.

    Public AMR code adds the gradient of the log likelihood, which lowers the loss.
    """
    rises = {}
    for eps in (1e-3, 2e-3):
        model = trained(name, adv_eps=eps, **keys)
        clean, attacked = losses(model.double(), batch(model))
        rises[eps] = attacked - clean
    assert rises[1e-3] > 1e-6
    assert rises[2e-3] / rises[1e-3] == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("mode", ["frozen", "adapter"])
def test_amrs_rise_is_the_steepest_that_there_is(trained, mode):
    model = trained("AMR", adv_eps=1e-3, encoder_training=mode).double()
    clean, attacked = losses(model, batch(model))
    user, item, rows = model.sides(batch(model))
    loss = VisualRecommender.contrast(model, user, item, rows)[0]
    pictured = model.encoder.has_picture[rows.items].unsqueeze(1)
    lengths = (model.feature_gradient(loss, item) * pictured).norm(dim=1)
    assert attacked - clean == pytest.approx(1e-3 * float(lengths.sum()), rel=0.02)


@both_models
def test_even_a_large_perturbation_hurts(trained, name, keys):
    model = trained(name, adv_eps=0.5, **keys)
    clean, attacked = losses(model, batch(model))
    assert attacked > clean + 0.01


@both_models
def test_the_clean_pass_is_clean(trained, name, keys):
    """Public AMF code has the flag inverted: clean scores have the noise of the previous batch."""
    model = trained(name, adv_weight=0.0, adv_eps=5.0, **keys)
    plain = trained({"AMF": "MF", "AMR": "AMR"}[name], adv_weight=0.0, adv_eps=0.0, **keys)
    plain.load_state_dict(model.state_dict())
    for seed in (1, 2):
        init_seed(0, True)
        ours = float(model.calculate_loss(batch(model, seed)))
        init_seed(0, True)
        assert ours == pytest.approx(float(plain.calculate_loss(batch(model, seed))), abs=1e-7)


@both_models
def test_a_batch_before_leaves_nothing_behind(trained, name, keys):
    """Public AMR code never zeroes the gradient of the features, so that it accumulates."""
    model, fresh = trained(name, **keys), trained(name, **keys)
    for seed in (5, 6, 7):
        model.calculate_loss(batch(model, seed)).backward()
    init_seed(0, True)
    late = float(model.calculate_loss(batch(model)))
    init_seed(0, True)
    assert late == float(fresh.calculate_loss(batch(fresh)))


@both_models
def test_the_loss_does_not_move_weights_through_the_choice_of_the_noise(trained, name, keys):
    """The perturbation is a constant: with it fixed the gradient is the same."""
    keys = {k: v for k, v in keys.items() if k != "loss"}
    model = trained(name, **keys).double()
    data = batch(model)
    model.calculate_loss(data).backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    user, item, rows = model.sides(data)
    loss = VisualRecommender.contrast(model, user, item, rows)[0]
    if name == "AMF":
        moved = model.perturbed(loss, user, item, rows)
        noise = [(m.vector - s.vector).detach() for m, s in zip(moved, (user, item), strict=True)]
        moved = [s.moved(s.vector + d) for s, d in zip((user, item), noise, strict=True)]
    else:
        moved = [user, model.perturbed(item, model.noises(loss, item, rows.items)[0].detach())]
    total = loss + model.adv_weight * VisualRecommender.contrast(model, *moved, rows)[0]
    total.backward()
    for parameter_name, gradient in wanted.items():
        torch.testing.assert_close(model.get_parameter(parameter_name).grad, gradient)


def test_items_alone_or_users_too(trained):
    for perturb, moves in (("item", False), ("both", True)):
        model = trained("AMF", perturb=perturb)
        user, item, rows = model.sides(batch(model))
        loss = VisualRecommender.contrast(model, user, item, rows)[0]
        moved_user, moved_item = model.perturbed(loss, user, item, rows)
        assert torch.equal(moved_user.vector, user.vector) is not moves
        lengths = (moved_item.vector - item.vector).norm(dim=1)
        seen = model.seen[rows.items] > 0
        torch.testing.assert_close(lengths[seen], torch.full_like(lengths[seen], model.adv_eps))
        assert not seen.all(), "the batch must hold an unseen item for the next line to say much"
        assert not lengths[~seen].any()


@pytest.mark.parametrize("kind", ["grad", "rand"])
def test_amr_moves_pictured_items_by_eps_and_no_others(trained, kind):
    model = trained("AMR", adv_type=kind, adv_eps=0.3)
    user, item, rows = model.sides(batch(model, size=200))
    loss = VisualRecommender.contrast(model, user, item, rows)[0]
    (noise,) = model.noises(loss, item, rows.items)
    pictured = model.encoder.has_picture[rows.items]
    assert not pictured.all()
    assert not noise[~pictured].any()
    torch.testing.assert_close(noise[pictured].norm(dim=1), torch.full((int(pictured.sum()),), 0.3))


def test_random_directions_favour_no_side(trained):
    model = trained("AMR")
    draws = model.random_directions(torch.arange(1, 401), torch.zeros(400, 6))
    assert float((draws > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(draws.abs().max()) <= 2.0  # truncated there
    assert draws.abs().mean() > 0.5


def test_random_noise_is_new_each_time_and_both_is_the_mean(trained):
    data = batch(trained("AMR"))
    for kind in ("rand", "both"):
        model = trained("AMR", adv_type=kind)
        assert losses(model, data) != losses(model, data)
    torch.manual_seed(4)
    mixed = losses(trained("AMR", adv_type="both"), data)[1]
    torch.manual_seed(4)
    parts = [losses(trained("AMR", adv_type=kind), data)[1] for kind in ("grad", "rand")]
    # make() seeds again, so the draw equals the first one after it
    assert min(parts) <= mixed <= max(parts)
    assert mixed == pytest.approx(sum(parts) / 2, abs=1e-6)


def test_the_feature_gradient_is_autograds_own(trained):
    """The chain rule by hand against a gradient on the features themselves."""
    model = trained("AMR", encoder_training="frozen").double()
    data = batch(model)
    model.encoder.features.requires_grad_()
    user, item, rows = model.sides(data)
    loss = VisualRecommender.contrast(model, user, item, rows)[0]
    ours = model.feature_gradient(loss, item)
    (truth,) = torch.autograd.grad(loss, model.encoder.features)
    torch.testing.assert_close(ours, truth[rows.items])


def test_rows_of_length_keep_zero_rows_and_take_tiny_ones():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-12, 4e-12], [1e-30, 0.0]])
    moved = rows_of_length(rows, 0.5)
    torch.testing.assert_close(moved[:3], torch.tensor([[0.3, 0.4], [0.0, 0.0], [0.3, 0.4]]))
    assert moved[3].norm() <= 0.5


# ------------------------------------------------------------------------ warm start


def scores(model):
    model.eval()
    users = torch.arange(1, model.n_users)
    return model.full_sort_predict({"user_id": users}).view(len(users), -1)[:, 1:]


@pytest.mark.parametrize("mode", ["frozen", "adapter"])
def test_amr_scores_as_the_vbpr_that_it_starts_from(make, trained, mode):
    *_, vbpr = make("VBPR", embedding_size=3, encoder_training=mode)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in vbpr.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model = trained("AMR", encoder_training=mode)
    model.start_from(vbpr.state_dict())
    torch.testing.assert_close(scores(model), scores(vbpr), atol=1e-5, rtol=1e-5)


def test_amf_starts_from_all_of_mf(make, trained):
    *_, mf = make("MF", embedding_size=6)
    model = trained("AMF")
    model.start_from(mf.state_dict())
    for name, weight in mf.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_amr_of_an_odd_size_is_refused(make):
    config, *_, model = make("AMR", embedding_size=6)
    with pytest.raises(ValueError, match="embedding_size of AMR must be even, not 7"):
        type(model).stage_keys({"embedding_size": 7})
    assert type(model).stage_keys(config)["embedding_size"] == 3
