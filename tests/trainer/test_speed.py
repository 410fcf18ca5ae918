"""Optimizations change no number: optimizers, rows, deferred losses."""

from __future__ import annotations

import copy

import pytest
import torch
from recbole.trainer import Trainer
from run_helpers import last_of, same
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import NonFiniteLossError
from recbole_cierec.model.mf import MF
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import get_model_class
from recbole_cierec.trainer.deferred_loss import DeferredLoss, deferred, settled
from recbole_cierec.trainer.optimizers import RowAdagrad, quick
from recbole_cierec.trainer.trainer import TrainerMixin


def tables(sparse: bool) -> tuple[nn.Embedding, nn.Linear]:
    torch.manual_seed(3)
    return nn.Embedding(50, 7, sparse=sparse), nn.Linear(7, 3)


def train(optimizer_of, sparse: bool, twice: bool = False) -> list:
    table, layer = tables(sparse)
    optimizer = optimizer_of([*table.parameters(), *layer.parameters()])
    generator = torch.Generator().manual_seed(4)
    for _ in range(12):
        rows = torch.randperm(50, generator=generator)[:20].sort().values
        vectors = table(rows)
        if twice:
            vectors = vectors * table(rows.flip(0)) + table(rows[:1])
        optimizer.zero_grad()
        layer(vectors * (torch.arange(20) % 3 > 0).unsqueeze(1)).exp().sum().backward()
        optimizer.step()
    return [table.weight.detach(), layer.weight.detach(), optimizer.state_dict()["state"]]


def test_steps_on_rows_have_the_bits_of_the_dense_step():
    dense = train(lambda p: Adagrad(p, lr=0.1, foreach=False), sparse=False)
    same(train(lambda p: quick(Adagrad(p, lr=0.1), "plain"), sparse=True), dense)
    same(train(lambda p: quick(Adagrad(p, lr=0.1), "plain"), sparse=False), dense)


def test_a_table_looked_up_more_than_once_in_a_batch_takes_all_its_gradient():
    dense = train(lambda p: Adagrad(p, lr=0.1), sparse=False, twice=True)
    rows = train(lambda p: quick(Adagrad(p, lr=0.1), "plain"), sparse=True, twice=True)
    torch.testing.assert_close(rows[0], dense[0])


def test_rows_without_a_gradient_stay_to_the_bit():
    table = nn.Embedding(9, 4, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowAdagrad(table.parameters(), lr=0.5)
    table(torch.tensor([2, 5])).sum().backward()
    optimizer.step()
    moved = (table.weight.detach() != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == [2, 5]


def test_only_what_a_kernel_is_for_changes_its_kind():
    parameters = list(nn.Linear(3, 2).parameters())
    assert type(quick(Adagrad(parameters), "plain")) is RowAdagrad
    assert type(quick(Adagrad(parameters, weight_decay=0.1), "fused")) is Adagrad
    assert type(quick(RMSprop(parameters), "fused")) is RMSprop
    for kind in (Adam, AdamW, SGD):
        groups = [{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:]}]
        fused = quick(kind(groups, lr=0.1, weight_decay=0.2), "fused")
        assert type(fused) is kind
        assert [g["fused"] for g in fused.param_groups] == [True, True]
        assert [g["lr"] for g in fused.param_groups] == [0.3, 0.1]
        assert [g["weight_decay"] for g in fused.param_groups] == [0.2, 0.2]
        assert not any(g["fused"] for g in quick(kind(groups), "plain").param_groups)


@pytest.mark.parametrize("kind", [Adam, AdamW, SGD])
def test_a_fused_step_differs_from_the_plain_one_by_rounding_alone(kind):
    plain = train(lambda p: quick(kind(p, lr=0.01), "plain"), sparse=False)
    fused = train(lambda p: quick(kind(p, lr=0.01), "fused"), sparse=False)
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["MF", "VBPR", "CIERec", "AMF", "MF_Image"])
@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_training_by_rows_is_dense_training_to_the_bit(tiny, monkeypatch, name, loss):
    keys = tiny(loss=loss, epochs=2)
    rows = run(name, "tiny", config_dict=keys)
    with monkeypatch.context() as patch:
        patch.setattr("recbole_cierec.trainer.trainer.quick", lambda optimizer, _: optimizer)
        dense = run(name, "tiny", config_dict=keys)
    a, b = last_of(rows), last_of(dense)
    same(a["state_dict"], b["state_dict"])
    same(a["optimizers"], b["optimizers"])


@pytest.mark.parametrize(
    ("keys", "by_row"),
    [({}, True), ({"clip_grad_norm": {"max_norm": 1.0}}, False), ({"learner": "adam"}, False),
     ({"weight_decay": 0.01}, False)],
    ids=["adagrad", "clipped", "adam", "decayed"],
)  # fmt: skip
def test_tables_have_sparse_gradients_only_where_the_step_is_for_them(tiny, keys, by_row):
    job = prepare(Config("VBPR", "tiny", None, tiny(epochs=1, **keys), {}))
    assert {table.sparse for table in job.model.id_tables()} == {by_row}
    job.trainer.fit(*job.loaders[:2])


def test_a_model_of_recbole_does_not_leave_torch_tracing_every_operation(monkeypatch):
    """RecBole's sine.py switches that on when any sequential model is imported."""

    def traced(name):
        torch.autograd.set_detect_anomaly(True)
        return nn.Module

    with monkeypatch.context() as patch:
        patch.setattr("recbole.utils.get_model", traced)
        patch.setattr("recbole_cierec.compat.recbole_models.patch_model", lambda kind: kind)
        get_model_class("SASRec")
    assert not torch.is_anomaly_enabled()


def deferring(monkeypatch) -> None:
    """As on a GPU; here the numbers are immediately on the CPU."""
    monkeypatch.setattr(
        TrainerMixin, "_may_defer", lambda self, loop: loop.__func__ is Trainer._train_epoch
    )


@pytest.mark.parametrize("name", ["MF", "CIERec", "BPR", "LightGCN"])
def test_deferred_losses_train_to_the_same_bits(tiny, monkeypatch, name):
    keys = tiny(epochs=2, embedding_size=8)
    plain = run(name, "tiny", config_dict=keys)
    deferring(monkeypatch)
    later = run(name, "tiny", config_dict=keys)
    a, b = last_of(plain), last_of(later)
    same(a["state_dict"], b["state_dict"])
    same(a["train_loss"], b["train_loss"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_deferred_loss_that_is_not_finite_stops_before_its_step(tiny, monkeypatch, value):
    deferring(monkeypatch)
    plain, calls, kept = MF.calculate_loss, [], {}

    def broken(self, interaction):
        loss = plain(self, interaction)
        calls.append(1)
        if len(calls) == 10:  # 219 training pairs in batches of 32: epoch 1, batch 2
            kept["model"], kept["weights"] = self, copy.deepcopy(self.state_dict())
            return loss * value
        return loss

    monkeypatch.setattr(MF, "calculate_loss", broken)
    with pytest.raises(NonFiniteLossError, match="epoch 1, batch 2"):
        run("MF", "tiny", config_dict=tiny(epochs=3))
    assert len(calls) == 10
    same(dict(kept["model"].state_dict()), dict(kept["weights"]))


def test_a_deferred_sum_is_that_of_pythons_numbers():
    values = [torch.tensor(1 / k, requires_grad=True) for k in range(1, 40)]
    loss = deferred(lambda k: values[k] * 1.0)
    total = None
    for k in range(len(values)):
        one = loss(k)
        assert isinstance(one, DeferredLoss)
        total = one.item() if total is None else total + one.item()
    assert settled(total) == sum(value.item() for value in values)
    (one + 0).backward()
    assert values[-1].grad == 1.0
    pair = deferred(lambda _: (values[0], values[1] * 2))(0)
    assert settled(tuple(part.item() for part in pair)) == (1.0, 1.0)
