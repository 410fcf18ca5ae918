"""DropoutNet: constant targets, what is hidden and how much, and cold users and items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_stages import random_stage
from torch import nn

from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.model import dropoutnet
from recbole_cierec.model.base.side import PairScores
from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.model.dropoutnet import Tower
from recbole_cierec.quick_start import run
from recbole_cierec.trainer.warm_start_stages import stage_config

BATCH = {"target_pairs": "batch", "user_dropout": 0.0, "item_dropout": 0.0}


@pytest.fixture
def started(make):
    def build(**keys):
        *_, train, model = make("DropoutNet", **{"mlp_hidden_size": [7], **keys})
        model.start_from(random_stage(model))
        return train, model.train()

    return build


def batch(model, seed=1, size=48):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"user_id": model.n_users, "item_id": model.n_items, "neg_item_id": model.n_items}
    return {k: torch.randint(1, n, (size,), generator=generator) for k, n in sizes.items()}


def step(model, times=5, rate=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for k in range(times):
        optimizer.zero_grad()
        model.calculate_loss(batch(model, k)).backward()
        optimizer.step()


def test_three_rows_by_hand_without_hidden_layers(started):
    """Without a hidden layer a tower is one linear map, so the loss can be written by hand."""
    _, model = started(mlp_hidden_size=[], reg_weight=0.0, **BATCH)
    stage = {k: v.double().numpy() for k, v in random_stage(model).items()}
    w = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
    seen, met = model.seen.numpy() > 0, model.train_counts.numpy() > 0
    v = np.hstack([stage["item_embedding.weight"], stage["item_bias.weight"]])
    u = stage["user_embedding.weight"]
    errors = []
    rows = [(1, 2, 3), (1, 4, 2), (5, 6, 3)]
    for user, *items in rows:
        x = (u[user] - u[met].mean(0)) / u[met].std(0)
        a = w["user_tower.out.weight"] @ np.clip(x, -5, 5) + w["user_tower.out.bias"]
        for item in items:
            y = np.clip((v[item] - v[seen].mean(0)) / v[seen].std(0), -5, 5)
            e = model.encoder.features[item].double().numpy()
            y = np.concatenate([y, np.clip(e * np.sqrt(len(e)), -5, 5)])
            b = w["item_tower.out.weight"] @ y + w["item_tower.out.bias"]
            errors.append((a @ b - (u[user] @ v[item, :-1] + v[item, -1])) ** 2)
    columns = torch.tensor(rows).T
    assert all(seen[columns[1:].flatten()])
    data = dict(zip(("user_id", "item_id", "neg_item_id"), columns, strict=True))
    assert float(model.calculate_loss(data)) == pytest.approx(np.mean(errors), rel=1e-5)


def test_targets_do_not_move(started):
    """In public code the vectors are parameters and are trained with the towers."""
    _, model = started()
    names = ("user_preference", "item_preference")
    before = {name: getattr(model, name).clone() for name in names}
    step(model)
    for name in names:
        assert torch.equal(getattr(model, name), before[name])
        assert not getattr(model, name).requires_grad
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {getattr(model, name).data_ptr() for name in names}
    model.calculate_loss(batch(model)).backward()
    assert all(getattr(model, name).grad is None for name in names)


def test_a_perfect_score_has_no_loss(started):
    _, model = started(**BATCH)
    model.pair_scores = lambda user, item: PairScores(
        (user["target"] * item["target"][:, :-1]).sum(1) + item["target"][:, -1]
    )
    assert float(model.calculate_loss(batch(model))) == 0.0


def test_unseen_items_have_no_target(started):
    """Their vectors were never trained, so a loss on them would be meaningless."""
    _, model = started(reg_weight=0.0, **BATCH)
    unseen = (model.seen == 0).nonzero().squeeze(1)[1:]
    assert not model.item_preference[unseen].any()
    size = len(unseen)
    data = {"user_id": torch.arange(1, size + 1), "item_id": unseen, "neg_item_id": unseen}
    assert float(model.calculate_loss(data)) == 0.0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_exactly_the_share_is_hidden_and_only_in_training(started, share):
    _, model = started(user_dropout=share, item_dropout=share)
    rows = torch.arange(1, 29)
    for side in ("user", "item"):
        draws = [model.hidden(side, rows) for _ in range(5)]
        assert {int(mask.sum()) for mask in draws} == {int(share * 28)}
        if 0 < share < 1:
            assert not all(torch.equal(mask, draws[0]) for mask in draws)
        model.eval()
        assert not model.hidden(side, rows).any()
        model.train()


def test_a_hidden_item_is_its_content_alone(started):
    _, model = started(item_dropout=1.0)
    model.eval()
    items = torch.arange(1, 20)
    model.hidden = lambda side, rows: torch.ones(len(rows), dtype=torch.bool)
    with torch.no_grad():
        hidden = model.item_side(items).vector.clone()
        model.item_preference += 3.0
        assert torch.equal(model.item_side(items).vector, hidden)
        model.encoder.features += 0.1
        assert not torch.equal(model.item_side(items).vector, hidden)


def test_an_unseen_item_is_scored_as_a_hidden_one(started):
    _, model = started()
    model.eval()
    item = (model.seen == 0).nonzero()[1]
    with torch.no_grad():
        before = model.item_side(item).vector.clone()
        model.item_preference[item] = 9.0
        assert torch.equal(model.item_side(item).vector, before)


def test_a_user_without_training_interaction_is_nobody_in_particular(started):
    _, model = started(user_transform=2)
    model.eval()
    model.train_counts[3:5] = 0
    model.train_few[3:5] = False
    with torch.no_grad():
        model.user_tower.out.bias.fill_(1.0)  # the vector of a hidden user in training
        vectors = model.serving_side(torch.tensor([3, 4, 5])).vector
    assert torch.equal(vectors[0], vectors[1])
    assert vectors[0].all(), "the base class would make it zero"
    assert not torch.equal(vectors[0], vectors[2])


def test_the_user_transform_is_the_mean_vector_of_their_items(started):
    train, model = started(user_transform=6)
    users, items = (train.inter_feat[f].tolist() for f in ("user_id", "item_id"))
    stage = random_stage(model)["item_embedding.weight"]
    counts = np.bincount(users, minlength=model.n_users)
    few = [u for u in range(1, model.n_users) if counts[u] <= 6]
    assert 0 < len(few) < model.n_users - 1
    model.eval()
    vectors = model.user_side(torch.arange(model.n_users)).vector
    for u in range(1, model.n_users):
        own = [stage[i] for v, i in zip(users, items, strict=True) if v == u]
        x = (
            torch.stack(own).mean(0)
            if u in few
            else random_stage(model)["user_embedding.weight"][u]
        )
        truth = model.user_tower(model.standardised("user", x).unsqueeze(0))[0]
        torch.testing.assert_close(vectors[u], truth, atol=1e-5, rtol=1e-5)


def test_with_the_transform_hidden_users_are_given_it_in_training(started):
    _, model = started(user_transform=1, user_dropout=1.0)
    users = torch.arange(1, 11)
    assert (model.train_counts[users] > 1).all()
    seen = {}
    model.user_tower.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    model.user_side(users)
    torch.testing.assert_close(seen["x"], model.standardised("user", model.item_means()[users]))
    _, plain = started(user_dropout=1.0)
    plain.user_tower.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    plain.user_side(users)
    assert not seen["x"].any()


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
def test_half_of_the_pairs_come_from_the_top_of_the_users_own_list(
    kept_bytes, started, monkeypatch
):
    monkeypatch.setattr(dropoutnet, "KEPT_BYTES", kept_bytes)
    _, model = started(target_top=0.2)
    users = torch.arange(1, 30).repeat(200)
    drawn = model.draw_top(users)
    stage = random_stage(model)
    scores = stage["user_embedding.weight"] @ stage["item_embedding.weight"].T
    scores = scores + stage["item_bias.weight"].T
    scores[:, model.seen == 0] = -np.inf
    count = round(0.2 * int(model.seen.sum()))
    for user in range(1, 30):
        top = set(scores[user].topk(count).indices.tolist())
        got = set(drawn[users == user].tolist())
        assert got == top, "two hundred draws of seven items miss none"


@pytest.mark.parametrize("way", ["start_from", "load_state_dict"])
def test_tops_follow_the_vectors(way, started):
    """Lists computed for other vectors are not used."""
    _, model = started(target_top=0.1)
    users = torch.arange(1, 30)
    model.draw_top(users)
    mirrored = {name: -value for name, value in random_stage(model).items()}
    mirrored["user_embedding.weight"].neg_()  # the same users, opposite items: tops are bottoms
    if way == "start_from":
        model.start_from(mirrored)
    else:
        _, other = started(target_top=0.1)
        other.start_from(mirrored)
        model.load_state_dict(other.state_dict())
    v = model.item_preference[model.pool]
    scores = model.user_preference[users] @ v[:, :-1].T + v[:, -1]
    place = (model.pool == model.draw_top(users).unsqueeze(1)).int().argmax(1)
    assert bool((scores.gather(1, place.unsqueeze(1)).squeeze(1) > scores.mean(1)).all())


def test_a_model_without_vectors_says_what_it_lacks(make):
    *_, model = make("DropoutNet")
    with pytest.raises(ConfigError, match="no preference vectors"):
        model.calculate_loss(batch(model))


def test_vectors_of_another_size_are_refused(make):
    *_, model = make("DropoutNet")
    weights = random_stage(model)
    weights["item_embedding.weight"] = weights["item_embedding.weight"][:, :-1]
    with pytest.raises(CheckpointError, match=r"item_embedding.weight is \[41, 4\].*\[41, 5\]"):
        model.start_from(weights)


def test_recboles_bpr_without_biases_will_do(make):
    *_, model = make("DropoutNet")
    weights = random_stage(model)
    del weights["item_bias.weight"]
    model.start_from(weights)
    assert not model.item_preference[:, -1].any()
    assert torch.isfinite(model.train().calculate_loss(batch(model)))


def test_loss_softmax_is_the_stages(tiny, make):
    config, *_, model = make("DropoutNet", loss="softmax")
    assert "it is the loss of the model that is trained first" in " ".join(config.notes)
    assert model.softmax is None
    assert stage_config(config, "MF")["loss"] == "softmax"
    keys = tiny(loss="softmax", target_pairs="batch", epochs=1)
    assert run("DropoutNet", "tiny", config_dict=keys)["stages"][0]["model"] == "MF"


@pytest.mark.parametrize("hidden", [[0], [-3], ["a"], [2.5]])
def test_a_layer_of_no_size_is_one_line(hidden):
    with pytest.raises(ConfigError, match="mlp_hidden_size"):
        Tower(3, hidden, 2)


def test_one_row_alone_passes_batch_norm_in_training():
    tower = Tower(3, [4], 2).train()
    before = tower.norms[0].running_mean.clone()
    row = torch.randn(1, 3)
    assert torch.equal(tower(row), tower.eval()(row))
    assert torch.equal(tower.norms[0].running_mean, before)


def test_one_row_takes_part_in_the_exchange_of_batch_norm(monkeypatch):
    """If a process skipped it, the others would wait for ever."""
    tower = nn.SyncBatchNorm.convert_sync_batchnorm(Tower(3, [4], 2)).train()
    exchanged = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda _, x: exchanged.append(len(x)) or x)
    tower(torch.randn(1, 3))
    assert exchanged == [1]


def test_the_other_half_of_the_pairs_comes_from_all_seen_items(started, monkeypatch):
    _, model = started(target_top=0.1)
    given = {}
    monkeypatch.setattr(VisualRecommender, "sides", lambda _, rows: given.update(rows))
    users = torch.arange(1, 30).repeat(200)
    model.sides({"user_id": users})
    assert torch.equal(given["user_id"], users)
    assert set(given["neg_item_id"].tolist()) == set(model.pool.tolist())
    stage = random_stage(model)
    scores = stage["user_embedding.weight"] @ stage["item_embedding.weight"].T
    scores = scores + stage["item_bias.weight"].T
    scores[:, model.seen == 0] = -np.inf
    place = scores.argsort(1, descending=True).argsort(1)  # 0 for a user's first item
    top = round(0.1 * len(model.pool))
    assert bool((place[users, given["item_id"]] < top).all())
    among_top = (place[users, given["neg_item_id"]] < top).float().mean()
    assert float(among_top) == pytest.approx(top / len(model.pool), abs=0.04)


def test_inputs_end_at_five_deviations(started):
    _, model = started()
    far = model.user_center + torch.tensor([[7.0], [-7.0], [3.0]]) / model.user_scale
    wanted = torch.tensor([[5.0], [-5.0], [3.0]]).expand(3, model.size)
    torch.testing.assert_close(model.standardised("user", far), wanted, atol=1e-4, rtol=1e-4)
