"""PiNet's privileged channel: what it learns from, what it never reads, and its priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_pinet import PiNetOracle
from test_model_contract import batch, full_scores, oracle_of, shake

from recbole_cierec.errors import DataError
from recbole_cierec.model.pinet import TokenHead, read_word_vectors
from recbole_cierec.vision.item_pictures import pictures_of


def test_ranking_never_reads_annotations(make):
    *_, model = make("PiNet")
    shake(model)
    before = full_scores(model).clone()
    model.tokens.zero_()
    model.labelled.zero_()
    with torch.no_grad():
        for parameter in [*model.head.parameters(), *model.semantic_gate.parameters()]:
            parameter.fill_(7.0)
    model.forget_items()
    assert torch.equal(full_scores(model), before)


def test_the_annotation_loss_of_three_rows_is_the_one_by_hand(make):
    *_, model = make("PiNet", positive_weight=2.0)
    shake(model).train()
    # Two tokens; logits (1, -1), (0, 2), (3, 0); rows have tokens {1}, {1, 2} and none known.
    model.head = TokenHead(2, 2, 1.0)
    with torch.no_grad():
        model.head.map.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    model.semantic_gate = torch.nn.Identity()
    model.tokens[4:7] = torch.tensor([[1, 0, 0], [2, 1, 0], [0, 0, 0]])[:, : model.tokens.shape[1]]
    model.labelled[4:7] = torch.tensor([True, True, False])
    e = torch.tensor([[1.0, -1.0], [0.0, 2.0], [3.0, 0.0]])
    cost = lambda z: np.log1p(np.exp(-z))  # noqa: E731
    wanted = (2 * cost(1.0) + cost(1.0) + 2 * cost(0.0) + 2 * cost(2.0)) / 4
    assert float(model.semantic_loss(e, torch.tensor([4, 5, 6]))) == pytest.approx(wanted, abs=1e-6)


def test_items_without_label_picture_or_training_are_no_evidence(make):
    _, dataset, _, model = make("PiNet")
    content = dataset.content
    usable = content.has_annotation & pictures_of(content).has_picture & (model.seen > 0)
    assert torch.equal(model.labelled, usable)
    assert 0 < int(usable.sum()) < model.n_items - 1
    shake(model).train()
    others = (~usable).nonzero().squeeze(1)[1:]
    e = model.encoder(others)
    loss = model.semantic_loss(e, others)
    assert float(loss) == 0.0
    loss.backward()
    assert model.head.map.weight.grad is None


def test_a_gradient_gate_scales_its_own_task_on_the_picture_and_nothing_else(make):
    def gradients(visual, semantic):
        *_, model = make("PiNet", reg_weight=0.0)
        shake(model).train()
        model.gradient_scales = {"visual": visual, "semantic": semantic}
        model.calculate_loss(batch(model)).backward()
        return {n: p.grad for n, p in model.named_parameters()}

    full, visual, semantic = gradients(1, 1), gradients(0.2, 1), gradients(1, 0.2)
    for name, grad in full.items():
        if name.startswith("encoder."):
            # g = g_v + g_s, so that (0.2 g_v + g_s) + (g_v + 0.2 g_s) = 1.2 g
            torch.testing.assert_close(visual[name] + semantic[name], 1.2 * grad)
            assert not torch.allclose(visual[name], grad)
            assert not torch.allclose(semantic[name], grad)
        else:
            torch.testing.assert_close(visual[name], grad)
            torch.testing.assert_close(semantic[name], grad)


def test_rewards_come_from_each_tasks_own_loss(make):
    config, dataset, train, model = make("PiNet", reg_weight=0.0, semantic_weight=0.5)
    shake(model).train()
    data = batch(model)
    loss = float(model.calculate_loss(data))
    oracle = oracle_of(config, dataset, train, model)
    semantic = oracle.semantic([*data["item_id"].tolist(), *data["neg_item_id"].tolist()])
    assert float(model.branch_losses["semantic"]) == pytest.approx(semantic, abs=1e-5)
    assert float(model.branch_losses["visual"]) == pytest.approx(loss - 0.5 * semantic, abs=1e-5)


def test_prior_one_is_the_log_odds_of_each_token_in_training(make):
    _, dataset, _, model = make("PiNet")
    items = model.labelled.nonzero().squeeze(1).tolist()
    for token, bias in enumerate(model.head.bias.tolist(), 1):
        have = sum(token in dataset.content.tokens[i].tolist() for i in items)
        assert bias == pytest.approx(np.log((have + 0.5) / (len(items) - have + 0.5)), abs=1e-5)
    *_, plain = make("PiNet", prior_frequency=False)
    assert not plain.head.bias.any()


def test_prior_two_starts_the_rows_as_word_vectors(make, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("t1 3.0 4.0\nelsewhere 1 1\nt0 0 -2\n", encoding="utf-8")
    config, dataset, train, model = make("PiNet", word_vectors=str(path))
    names = dataset.content.token_names[1:]
    rows = dict(zip(names, model.head.vectors.detach(), strict=True))
    assert rows["t1"].tolist() == pytest.approx([0.6, 0.8])
    assert rows["t0"].tolist() == pytest.approx([0.0, -1.0])
    assert all(float(row.norm()) == pytest.approx(1.0) for row in rows.values())
    shake(model).train()
    data = batch(model)
    columns = [data[k].tolist() for k in ("user_id", "item_id", "neg_item_id")]
    oracle = oracle_of(config, dataset, train, model)
    assert isinstance(oracle, PiNetOracle)
    loss = model.calculate_loss(data)
    assert float(loss) == pytest.approx(oracle.loss(*columns, config["reg_weight"]), abs=1e-5)
    loss.backward()
    assert model.head.vectors.grad.any()
    assert model.head.map.weight.grad.any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("b 1 2\n", "none of the 1 annotation tokens"),
        ("a 1 x\n", "line 1 is not a token"),
        ("b 1\na\n", "different lengths"),
        ("a 1 nan\n", "not finite"),
    ],
)
def test_bad_word_vectors_are_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "vectors.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words) as error:
        read_word_vectors(path, ["a"])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
