"""HAFR and HAFR_non_i: a loss by hand, and errors of public code."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from model_helpers import rows_of, shaken
from oracle_hafr import HafrOracle
from recbole.data.interaction import Interaction

from recbole_cierec import run
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.data.sampling import make_loaders
from recbole_cierec.model import hafr
from recbole_cierec.model.base import pairwise
from recbole_cierec.model.base.pairwise import masked_softmax
from recbole_cierec.trainer.trainer import TrainerMixin

BOTH = pytest.mark.parametrize("name", ["HAFR", "HAFR_non_i"])


def known_items(model, count):
    """Items with interaction, picture and at least two tokens."""
    fit = (model.seen > 0) & (model.encoder.has_picture > 0) & (model.tokens[:, 1] > 0)
    return fit.nonzero().squeeze(1)[:count].tolist()


@BOTH
def test_dropout_hides_hidden_units_in_training_only(make, name):
    *_, model = make(name, reg_weight=0.0)
    shaken(model)
    with torch.no_grad():
        for bias in (model.user_bias, model.item_bias):
            bias.weight.zero_()
    batch = rows_of([1, 2, 3], [4, 5, 6], [7, 8, 9])
    spread = model.eval().predict(batch)
    model.dropout = 1.0  # h . ReLU(...) is zero: all scores are alpha
    assert float(model.train().calculate_loss(batch)) == pytest.approx(math.log(2.0), abs=1e-6)
    assert torch.equal(model.eval().predict(batch), spread)
    assert spread.std() > 0.01


def test_loss_of_three_rows_computed_by_hand(make):
    """v_t = v_a = 0, so that all attention is uniform; W_h passes on x; h = 1; d = 1."""
    *_, model = make("HAFR", embedding_size=1, reg_weight=0.0, dropout_prob=0.0)
    a, b, c = known_items(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.hidden.weight.copy_(torch.tensor([[0.0, 1.0, 0.0]]))
        model.output.weight.fill_(1.0)
        model.image_map.bias.fill_(0.9)  # m_i = 0.9 for all
        model.token_embedding.weight.fill_(0.6)  # so that g_ui = 0.6 for all
        for item, q in ((a, 1.5), (b, -3.0), (c, 0.3)):
            model.item_embedding.weight[item] = q
    # x = (q + 0.6 + 0.9) / 3: 1.0, -0.5 and 0.6; ReLU makes the scores 1.0, 0.0 and 0.6
    loss = model.train().calculate_loss(rows_of([1, 2, 3], [a, a, b], [b, c, c]))
    by_hand = sum(math.log1p(math.exp(-x)) for x in (1.0 - 0.0, 1.0 - 0.6, 0.0 - 0.6)) / 3
    assert float(loss.detach()) == pytest.approx(by_hand, abs=1e-6)


def loss_is_the_mean_of_its_rows(model):
    generator = torch.Generator().manual_seed(5)
    draw = [torch.randint(1, n, (9,), generator=generator) for n in (30, 36, 36)]
    names = ("user_id", "item_id", "neg_item_id")
    whole = Interaction(dict(zip(names, draw, strict=True)))
    losses = [float(model.calculate_loss(whole[k : k + 1]).detach()) for k in range(9)]
    return float(model.calculate_loss(whole).detach()) == pytest.approx(np.mean(losses), abs=1e-5)


@BOTH
def test_component_attention_does_not_mix_rows(make, name, monkeypatch):
    """The authors' code stacks the logits by component and reshapes them to rows."""
    *_, model = make(name, reg_weight=0.0, dropout_prob=0.0)
    shaken(model).train()
    assert loss_is_the_mean_of_its_rows(model)

    def mixing(logits, mask):
        if mask.shape[-1] == model_components:
            logits = logits.mT.reshape(logits.shape)
        return masked_softmax(logits, mask)

    model_components = 3 if name == "HAFR" else 2
    monkeypatch.setattr(hafr, "masked_softmax", mixing)
    assert not loss_is_the_mean_of_its_rows(model)


def test_training_negatives_may_be_later_positives(make):
    """Excluding validation and test positives would reveal them to the model."""
    config, *_ = make("HAFR")
    train, valid, test = make_loaders(config, create_dataset(config))
    later = set()
    for part in (valid, test):
        columns = (part._dataset.inter_feat[k].tolist() for k in ("user_id", "item_id"))
        later |= set(zip(*columns, strict=True))
    drawn = set()
    for _ in range(20):
        for data in train:
            drawn |= set(zip(data["user_id"].tolist(), data["neg_item_id"].tolist(), strict=True))
    assert drawn & later


def test_biases_start_at_zero(make):
    for name in ("HAFR", "HAFR_non_i"):
        *_, model = make(name)
        biases = [p for n, p in model.named_parameters() if n.endswith(".bias")]
        assert len(biases) >= 3
        assert all((bias == 0).all() for bias in biases)


def test_the_best_epoch_is_tested_not_the_last(tiny, monkeypatch):
    """The authors keep a reference to the model, whose training continues."""
    seen = {}
    original = TrainerMixin.evaluate

    def spoil_then_evaluate(self, data, load_best_model=True, **kwargs):
        if load_best_model:  # the test; validations during training do not load
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(7.0)
        result = original(self, data, load_best_model, **kwargs)
        seen["spread"] = float(self.model.item_embedding.weight.std())
        return result

    monkeypatch.setattr(TrainerMixin, "evaluate", spoil_then_evaluate)
    run("HAFR", "tiny", config_dict=tiny(epochs=1))
    assert seen["spread"] > 0.1


def test_tokens_decide_scores_of_hafr_and_never_of_hafr_non_i(make):
    users = Interaction({"user_id": torch.arange(1, 30)})
    *_, with_tokens = make("HAFR")
    shaken(with_tokens).eval()
    before = with_tokens.full_sort_predict(users)
    with_tokens.tokens[:] = with_tokens.tokens.flip(0)
    with_tokens.forget_items()
    assert not torch.allclose(with_tokens.full_sort_predict(users), before)
    *_, without = make("HAFR_non_i")
    held = [*dict(without.named_parameters()), *dict(without.named_buffers())]
    assert not any("token" in name for name in held)


def test_hafr_non_i_needs_no_annotation_column_but_hafr_does(tiny, tiny_folder, in_tmp):
    home = in_tmp / "bare" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    lines = [line.rsplit("\t", 1)[0] for line in (home / "tiny.item").read_text().splitlines()]
    (home / "tiny.item").write_text("\n".join(lines) + "\n")
    keys = tiny(data_path=str(in_tmp / "bare"), epochs=1)
    assert run("HAFR_non_i", "tiny", config_dict=keys)["test_result"]
    for model, more in (("HAFR", {}), ("HAFR_non_i", {"non_i_reading": "attention"})):
        with pytest.raises(Exception, match="no column annotations"):
            run(model, "tiny", config_dict=keys | more)


def test_what_a_known_item_lacks_is_left_out(make):
    """Four items seen in training: complete, without picture, without tokens, without either."""
    *_, train, model = make("HAFR")
    shaken(model).eval()
    items = known_items(model, 4)
    for i in items[1::2]:
        model.encoder.has_picture[i], model.encoder.features[i] = False, 0.0
    for i in items[2:]:
        model.tokens[i] = 0
    counts = np.bincount(train.inter_feat["item_id"].numpy(), minlength=model.n_items)
    tokens = [[t for t in row if t] for row in model.tokens.tolist()]
    features = model.encoder.features.double().numpy()
    pictured = model.encoder.has_picture.numpy()
    oracle = HafrOracle(model, features, pictured, tokens, counts > 0, name="HAFR")
    scores = model.full_sort_predict(Interaction({"user_id": torch.tensor([1, 2])})).view(2, -1)
    for u in (1, 2):
        for i in items:
            assert float(scores[u - 1, i]) == pytest.approx(oracle.score(u, i), abs=1e-5)


def test_attention_follows_the_user(make):
    *_, model = make("HAFR")
    shaken(model).eval()
    items = torch.tensor(known_items(model, 2))
    item = model.item_side(items)
    views = [model.user_view(model.user_side(torch.tensor([u, u])), item)[1] for u in (1, 2)]
    assert not torch.allclose(*views)


@BOTH
def test_gradients_reach_the_rows_of_the_batch_and_no_other(make, name):
    *_, model = make(name, reg_weight=0.0, dropout_prob=0.0)
    shaken(model).train()
    data = rows_of([1, 2, 3], [4, 5, 36], [6, 7, 38])
    model.calculate_loss(data).backward()
    touched = lambda table: set(table.weight.grad.any(1).nonzero().squeeze(1).tolist())  # noqa: E731
    items = {4, 5, 6, 7, 36, 38}
    assert touched(model.user_embedding) == {1, 2, 3}
    assert touched(model.item_embedding) == {i for i in items if model.seen[i]}
    assert not model.encoder.features.requires_grad
    if name == "HAFR":
        tokens = set(model.tokens[sorted(items)].flatten().tolist()) - {0}
        assert touched(model.token_embedding) == tokens


def test_two_epochs_resumed_for_one_more_equal_three(tiny):
    whole = run("HAFR", "tiny", config_dict=tiny(epochs=3))
    half = run("HAFR", "tiny", config_dict=tiny(epochs=2))
    last = half["checkpoint"].replace(".pth", ".last.pth")
    rest = run("HAFR", "tiny", config_dict=tiny(epochs=3, resume=last))
    assert rest["test_result"] == whole["test_result"]


def test_masked_softmax_of_nothing_is_zero_with_finite_gradients():
    logits = torch.tensor([[1.0, 2.0, 500.0], [3.0, 4.0, 5.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    shares = masked_softmax(logits, mask)
    expected = torch.tensor([[1.0, math.e, 0.0], [0.0, 0.0, 0.0]])
    expected[0] /= 1 + math.e
    torch.testing.assert_close(shares, expected)
    (shares[:, 0].sum() + shares[1].sum()).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1] == 0).all()


@pytest.mark.parametrize("name", ["HAFR", "HAFR_non_i", "VECF"])
def test_pairs_are_scored_in_blocks_of_bounded_memory(make, name, monkeypatch):
    *_, model = make(name)
    shaken(model).eval()
    model.pair_width = 1000
    users = torch.arange(1, model.n_users)
    some = Interaction({"user_id": users})
    items = torch.arange(9 * len(users)) % 39 + 1
    every = Interaction({"user_id": users.repeat(9), "item_id": items})
    lists = torch.randint(1, model.n_items, (len(users), 6))
    ask = (
        lambda: model.full_sort_predict(some),
        lambda: model.predict(every),
        lambda: model.candidate_scores(some, lists),
    )
    whole = [scores() for scores in ask]
    by_user = whole[0].view(len(users), -1)
    torch.testing.assert_close(by_user.gather(1, lists), whole[2], atol=1e-5, rtol=1e-5)
    many = torch.randint(1, model.n_items, (len(users), 30))  # then all items are scored
    torch.testing.assert_close(by_user.gather(1, many), model.candidate_scores(some, many))
    same = by_user[every["user_id"] - 1, every["item_id"]]
    torch.testing.assert_close(same, whole[1], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(pairwise, "BLOCK_BYTES", 200_000)  # at most 50 pairs
    sizes = []
    user_view = type(model).user_view

    def watched(self, user, item):
        score, vector = user_view(self, user, item)
        sizes.append(score.numel())
        return score, vector

    monkeypatch.setattr(type(model), "user_view", watched)
    for one, scores in zip(whole, ask, strict=True):
        sizes.clear()
        torch.testing.assert_close(scores(), one, atol=1e-5, rtol=1e-5)
        assert max(sizes) <= 50
        assert len(sizes) > 3
