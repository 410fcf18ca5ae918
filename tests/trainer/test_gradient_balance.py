"""Rules in place of the gates of Eq. 6, each against a step by hand, and the bandit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base.gates import branch_edges
from recbole_cierec.quick_start import prepare
from recbole_cierec.trainer import gated_trainer
from recbole_cierec.trainer.bandit_gate import BanditGate
from recbole_cierec.trainer.gradient_balance import GradNorm, PCGrad, UncertaintyWeights, balance

JOINT = ["gradnorm", "pcgrad", "uncertainty"]


def test_pcgrad_projects_conflicting_gradients_and_adds_others():
    rule = PCGrad()
    conflicting = rule.join(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]]))
    # (1, 0) loses its part along (-1, 1)/sqrt 2: (1/2, 1/2); (-1, 1) along (1, 0): (0, 1)
    assert conflicting.tolist() == [[0.5, 1.5]]
    logged = rule.learn([0.0, 0.0])["visual"]
    assert logged == {"cosine": pytest.approx(-(0.5**0.5)), "conflict": 1.0}
    assert rule.join(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])).tolist() == [[2, 2]]
    assert rule.learn([0.0, 0.0])["semantic"]["conflict"] == 0.0
    zeros = torch.zeros(1, 2)
    assert rule.join(zeros, torch.tensor([[1.0, 2.0]])).tolist() == [[1, 2]]


def test_pcgrad_sees_all_rows_as_one_vector():
    v, s = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(PCGrad().join(v, s), v + s)  # row 1 conflicts, the whole does not


def test_gradnorm_moves_the_weights_as_its_algorithm_does():
    rule = GradNorm(alpha=1.0, learning_rate=0.1)
    v, s = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.equal(rule.join(v, s), v + s)
    assert rule.learn([2.0, 1.0])["visual"] == {"scale": 1.0, "norm": 5.0}
    # mean G = 3, r = 1: L_grad = |5 - 3| + |1 - 3|, gradients 5 and -1; Adam's first step is the
    # rate times the sign; 0.9 + 1.1 = 2
    assert rule.weights() == pytest.approx([0.9, 1.1], rel=1e-6)
    assert torch.equal(rule.join(v, s), rule.weights()[0] * v + rule.weights()[1] * s)
    first = rule.numbers.detach().clone().requires_grad_()
    # The second step's gradient, by autograd on L_grad: L = (1, 1), so r = (0.5, 1) / 0.75
    lengths = first * torch.tensor([5.0, 1.0])
    targets = lengths.mean().detach() * torch.tensor([0.5, 1.0]) / 0.75
    (lengths - targets).abs().sum().backward()
    rule.learn([1.0, 1.0])
    assert rule.numbers.grad.tolist() == pytest.approx(first.grad.tolist())
    assert sum(rule.weights()) == pytest.approx(2.0)


def test_gradnorm_evens_out_two_tasks_of_different_scale():
    """Two tasks |x - t|^2 with gradients a hundred times apart end with equal lengths."""
    rule = GradNorm(alpha=0.0, learning_rate=0.01)
    v, s = torch.tensor([[100.0]]), torch.tensor([[1.0]])
    for _ in range(600):
        rule.join(v, s)
        logged = rule.learn([1.0, 1.0])
    assert logged["visual"]["norm"] == pytest.approx(logged["semantic"]["norm"], rel=0.7)
    assert rule.weights()[0] < 0.05


def test_uncertainty_follows_the_derivative_of_its_loss():
    rule = UncertaintyWeights(learning_rate=0.1)
    rule.learn([2.0, 0.1])
    assert rule.numbers.grad.tolist() == pytest.approx([0.5 - 2.0, 0.5 - 0.1])
    z = rule.numbers.detach().clone().requires_grad_()
    (torch.exp(-z) * torch.tensor([0.7, 0.2]) + z / 2).sum().backward()
    rule.learn([0.7, 0.2])
    assert rule.numbers.grad.tolist() == pytest.approx(z.grad.tolist())
    for _ in range(800):
        rule.learn([2.0, 0.1])
    assert rule.weights() == pytest.approx([1 / 4, 1 / 0.2], rel=0.01)  # exp(-z) = 1 / (2 L)


@pytest.mark.parametrize("mode", ["gradnorm", "uncertainty"])
def test_a_rule_continues_from_its_state(mode):
    def step(rule, v, losses):
        rule.join(torch.full((1, 2), v), torch.ones(1, 2))
        return rule.learn(losses)

    rule = balance(mode, 1.5, 0.05)
    for v, losses in ((3.0, [0.7, 0.6]), (2.0, [0.5, 0.6])):
        step(rule, v, losses)
    other = balance(mode, 1.5, 0.05)
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    for v, losses in ((1.0, [0.6, 0.2]), (4.0, [0.3, 0.4])):
        assert step(rule, v, losses) == step(other, v, losses)
    assert rule.weights() == other.weights() != [1.0, 1.0]
    for wrong in ({"numbers": torch.ones(3)}, {"numbers": None}, {"optimizer": {}}):
        with pytest.raises((ValueError, LookupError)):
            other.load_state_dict({**rule.state_dict(), **wrong})


def test_gradients_of_both_branches_arrive_at_the_rule_and_its_result_at_e():
    e = torch.randn(3, 2, requires_grad=True)
    seen = []

    def join(visual, semantic):
        seen.append((visual.clone(), semantic.clone()))
        return visual - 2 * semantic

    v, s = branch_edges(e, {}, join)
    assert torch.equal(v, e)
    (v * 3 + s * 5 + s.square()).sum().backward()
    assert torch.equal(seen[0][0], torch.full((3, 2), 3.0))
    torch.testing.assert_close(seen[0][1], 5 + 2 * e.detach())
    torch.testing.assert_close(e.grad, 3 - 2 * (5 + 2 * e.detach()))


def test_the_bandit_finds_the_scale_that_is_rewarded():
    gate = BanditGate([0.2, 0.4, 0.6, 0.8, 1.0])
    scale = gate.choose()
    assert gate.learn(0.3) == {}  # the loss of the same batch
    for _ in range(1500):
        loss = 0.1 if scale == 0.6 else 2.0  # of the batch after the action
        scale = gate.choose()
        gate.learn(loss)
    assert [gate.choose() for _ in range(5)] == 5 * [0.6]


def test_the_bandit_takes_the_arm_with_the_largest_upper_bound():
    gate = BanditGate([0.5, 1.0])
    taken = []
    rewards = {0.5: 0.5, 1.0: 0.6}
    counts, sums = [0, 0], [0.0, 0.0]
    scale = gate.choose()
    for _ in range(40):
        taken.append(scale)
        last = scale
        scale = gate.choose()
        if 0 not in counts:  # by hand: the last reward is not known yet
            total = sum(counts)
            bounds = [s / n + math.sqrt(2 * math.log(total) / n) for n, s in zip(counts, sums)]  # noqa: B905
            assert scale == (0.5, 1.0)[bounds.index(max(bounds))]
        logged = gate.learn(-math.log(rewards[last]))
        counts[last == 1.0] += 1
        sums[last == 1.0] += logged["reward"]
    assert taken[:2] == [0.5, 1.0]


def test_the_state_of_a_bandit():
    gate = BanditGate([0.2, 0.6, 1.0])
    for loss in (0.5, 0.9, 0.1, 0.4, 0.6):
        gate.choose()
        gate.learn(loss)
    other = BanditGate([0.2, 0.6, 1.0])
    other.load_state_dict(copy.deepcopy(gate.state_dict()))
    for loss in (0.4, 0.8, 0.6, 0.2):
        assert gate.choose() == other.choose()
        assert gate.learn(loss) == other.learn(loss)
    for wrong in ({"counts": [1]}, {"sums": [1, 2, 3]}, {"current": 4.0}, {"current": 3}):
        with pytest.raises(ValueError, match="of a gate with 3 scales"):
            other.load_state_dict({**gate.state_dict(), **wrong})


@pytest.mark.parametrize("mode", [*JOINT, "bandit"])
def test_a_mode_changes_what_lies_below_e_and_no_draw(tiny, mode):
    def job_of(mode: str, training: str, **keys):
        keys = tiny(encoder_training=training, gr_mode=mode, backbone="VBPR", **keys)
        job = prepare(Config("CIERec", "tiny", None, keys, {}))
        job.trainer.fit(*job.loaders[:2], saved=False)
        return job, torch.rand(3)

    (off, draws), (job, others) = (job_of(m, "frozen") for m in ("off", mode))
    assert torch.equal(draws, others)
    state = off.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in job.model.state_dict().items())
    (off, draws), (job, others) = (
        job_of(m, "adapter", epochs=3, gr_scales=[0.1, 0.5, 0.9]) for m in ("off", mode)
    )
    assert torch.equal(draws, others)
    assert not torch.equal(off.model.encoder.adapter.weight, job.model.encoder.adapter.weight)
    cells = job.trainer.history.rows[-1]["gates"]
    wanted = {"gradnorm": "norm", "pcgrad": "cosine", "uncertainty": "scale", "bandit": "q"}
    assert all(math.isfinite(cells[name][wanted[mode]]) for name in ("visual", "semantic"))


@pytest.mark.parametrize("mode", ["gradnorm", "pcgrad"])
def test_a_rule_that_needs_the_whole_batch_refuses_several_processes(tiny, monkeypatch, mode):
    monkeypatch.setattr(gated_trainer, "world", lambda: (0, 2))
    with pytest.raises(ConfigError, match=f"gr_mode: {mode} reads the gradients of the whole"):
        prepare(Config("CIERec", "tiny", None, tiny(gr_mode=mode), {}))
