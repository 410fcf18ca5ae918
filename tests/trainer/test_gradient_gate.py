"""The gate R: Eq. 6 by hand, its effect on gradients, and what it can and cannot learn."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.model.base.gates import scale_gradient
from recbole_cierec.quick_start import prepare
from recbole_cierec.trainer.gradient_gate import GradientGate

SCALES = [0.2, 0.4, 0.6, 0.8, 1.0]


def probabilities(gate, state):
    weight = gate.network.weight.detach().double().numpy()
    logits = weight[:, state] + gate.network.bias.detach().double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


def test_paper_gate_picks_the_likeliest_action_of_the_previous_one():
    gate = GradientGate(SCALES, "paper", 1e-3, seed=5)
    state = 4  # full gradient before the first batch
    for _ in range(6):
        wanted = int(probabilities(gate, state).argmax())
        assert gate.choose() == SCALES[wanted]
        state = wanted


def test_the_reward_comes_one_batch_late_and_follows_eq_6():
    gate = GradientGate(SCALES, "paper", 1e-2, seed=5)
    gate.choose()
    assert gate.learn(0.3) == {}, "the loss of the same batch says nothing of its action"
    first = gate.action
    gate.choose()
    before = copy.deepcopy(gate.network)
    logged = gate.learn(0.7)
    s_max, reward = float(probabilities(gate_like(before), 4)[first]), math.exp(-0.7)
    assert logged["reward"] == pytest.approx(reward)
    assert logged["q"] == pytest.approx(s_max, rel=1e-5)
    # d/dlogit of -log sigmoid(s * J) = -(1 - sigmoid(s J)) J s (onehot - s): sign of Adam's step
    s = probabilities(gate_like(before), 4)
    outer = -(1 - 1 / (1 + math.exp(-s_max * reward))) * reward * s_max
    gradient = outer * (np.eye(5)[first] - s)
    step = (gate.network.bias - before.bias).detach().numpy()
    np.testing.assert_allclose(step, -1e-2 * np.sign(gradient), rtol=1e-3)


def gate_like(network):
    gate = GradientGate(SCALES, "paper", 1e-2, seed=0)
    gate.network = network
    return gate


def test_the_study_of_the_gates_follows_the_path_of_an_untrained_one(benchmark_module):
    study = benchmark_module("gate")
    gate = GradientGate(SCALES, "paper", 1.0, seed=5)
    seen = study.watch(gate)
    for _ in range(6):
        gate.choose()
    assert seen["actions"] == study.untrained_actions(seen)
    with torch.no_grad():
        gate.network.weight.neg_()  # an action that the untrained network does not take
        gate.network.bias.neg_()
    gate.choose()
    assert seen["actions"] != study.untrained_actions(seen)


def test_paper_gate_raises_the_chosen_action_whatever_the_reward():
    finals = []
    for losses in ([0.1] * 300, list(np.linspace(3.0, 0.0, 300))):
        gate = GradientGate(SCALES, "paper", 5e-3, seed=3)
        actions = []
        for loss in losses:
            actions.append(gate.choose())
            gate.learn(loss)
        finals.append(actions)
    assert finals[0] == finals[1]


def test_reinforce_finds_the_action_that_is_rewarded():
    gate = GradientGate(SCALES, "reinforce", 5e-3, seed=0)
    scale = gate.choose()
    for _ in range(4000):
        loss = 0.2 if scale == 0.6 else 1.5  # of the batch after the action
        scale = gate.choose()
        gate.learn(loss)
    chosen = [gate.choose() for _ in range(200)]
    assert np.mean([c == 0.6 for c in chosen]) > 0.8


def test_state_dict_continues_the_same_choices():
    gate = GradientGate(SCALES, "reinforce", 1e-2, seed=2)
    for loss in (0.5, 0.9, 0.1):
        gate.choose()
        gate.learn(loss)
    other = GradientGate(SCALES, "reinforce", 1e-2, seed=77)
    other.load_state_dict(copy.deepcopy(gate.state_dict()))
    for loss in (0.4, 0.8, 0.6, 0.2):
        assert gate.choose() == other.choose()
        assert gate.learn(loss) == other.learn(loss)


@pytest.mark.parametrize("mode", ["paper", "reinforce"])
def test_a_gate_leaves_the_streams_of_the_run_alone(mode):
    def draws(with_gate: bool) -> tuple:
        init_seed(7, True)
        if with_gate:
            gate = GradientGate(SCALES, mode, 1e-3, seed=7)
            for _ in range(3):
                gate.choose()
                gate.learn(0.5)
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.getstate()

    assert draws(True) == draws(False)


def test_where_no_gate_can_act_every_mode_ends_in_the_same_bits(tiny):
    def weights(mode: str) -> dict:
        keys = tiny(encoder_training="frozen", gr_mode=mode, gr_fixed_scales=[0.2, 1.0])
        job = prepare(Config("CIERec", "tiny", None, keys, {}))
        job.trainer.fit(*job.loaders[:2], saved=False)
        return job.model.state_dict()

    off = weights("off")
    for mode in ("paper", "reinforce", "fixed"):
        found = weights(mode)
        assert all(torch.equal(found[name], off[name]) for name in off), mode


def test_the_mean_reward_remembers_ninety_nine_parts_of_a_hundred():
    gate = GradientGate(SCALES, "reinforce", 1e-3, seed=0)
    for loss in (0.1, 1.0, 2.0):  # no action was rewarded for the first yet
        gate.choose()
        gate.learn(loss)
    assert gate.mean_reward == pytest.approx(0.99 * math.exp(-1.0) + 0.01 * math.exp(-2.0))


@pytest.fixture
def gated(tiny):
    """``gated(**keys)`` -> a CIERec that was trained, and its trainer."""

    def trained(**keys):
        job = prepare(Config("CIERec", "tiny", None, tiny(**keys), {}))
        job.trainer.fit(*job.loaders[:2], saved=False)
        return job.model, job.trainer

    return trained


def test_fixed_scales_are_of_the_visual_and_then_of_the_semantic_branch(gated):
    model, _ = gated(gr_mode="fixed", gr_fixed_scales=[0.2, 0.7], epochs=1)
    assert model.gradient_scales == {"visual": 0.2, "semantic": 0.7}


def test_the_two_gates_start_apart(gated):
    gates = gated(epochs=0)[1].gates
    assert list(gates) == ["visual", "semantic"]
    assert not torch.equal(*(gate.network.weight for gate in gates.values()))


def test_the_rates_of_the_gates_decay_with_the_others(gated):
    parts = ("", "content_", "gate_", "encoder_")
    rates = {f"{part}learning_rate": 0.4 for part in parts}
    keys = {"gr_learning_rate": 0.01, "warmup_steps": 0, "lr_decay": 0.5, "lr_decay_epochs": 2}
    _, trainer = gated(epochs=4, **rates, **keys)
    assert {g["lr"] for g in trainer.optimizer.param_groups} == {0.1}
    for gate in trainer.gates.values():
        assert [g["lr"] for g in gate.optimizer.param_groups] == [0.0025]


def test_scale_gradient_is_identity_forward_and_exact_backward():
    x = torch.randn(4, 3, requires_grad=True)
    y = scale_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y * torch.arange(12.0).view(4, 3)).sum().backward()
    torch.testing.assert_close(x.grad, 0.3 * torch.arange(12.0).view(4, 3))


def test_the_gate_acts_below_e_and_nowhere_else(make):
    from gradients import gradients_with

    plain = gradients_with(make, visual=1.0, semantic=1.0)
    halved = gradients_with(make, visual=0.5, semantic=1.0)
    other = gradients_with(make, visual=1.0, semantic=0.5)
    both = gradients_with(make, visual=0.5, semantic=0.5)
    below = {n for n in plain if n.startswith("encoder.")}
    assert below
    for name in plain:
        if name in below:  # dL/de = a_v g_v + a_s g_s
            torch.testing.assert_close(both[name], 0.5 * plain[name])
            torch.testing.assert_close(halved[name] + other[name], 1.5 * plain[name])
            for one in (halved, other):
                assert not torch.allclose(one[name], plain[name])
                assert not torch.allclose(one[name], both[name])
        else:
            torch.testing.assert_close(halved[name], plain[name])


def test_off_and_fixed_ones_train_alike_and_other_scales_do_not(tiny):
    def result(**keys):
        given = tiny(encoder_learning_rate=0.1, **keys)
        return run("CIERec", "tiny", config_dict=given)["test_result"], keys

    off = result(gr_mode="off")[0]
    assert result(gr_mode="fixed", gr_fixed_scales=[1.0, 1.0])[0] == off
    scaled = result(gr_mode="fixed", gr_fixed_scales=[0.1, 1.0], epochs=4)[0]
    assert scaled != result(gr_mode="off", epochs=4)[0]


def test_gates_learn_when_the_batch_is_done_and_before_the_next_and_the_decay(tiny, monkeypatch):
    keys = tiny(epochs=2, gr_mode="reinforce", lr_decay=0.5, lr_decay_epochs=1, warmup_steps=0)
    job = prepare(Config("CIERec", "tiny", None, keys, {}))
    events: list[str] = []  # each once for all gates and optimizers

    def noted(name, plain):
        def call(*arguments):
            if events[-1:] != [name]:
                events.append(name)
            return plain(*arguments)

        return call

    for name in ("choose", "learn"):
        monkeypatch.setattr(GradientGate, name, noted(name, getattr(GradientGate, name)))
    for scheduler in job.trainer.schedulers.values():
        scheduler.step = noted("decay", scheduler.step)
    job.trainer.optimizer.register_step_post_hook(noted("step", lambda *_: None))
    job.trainer.fit(*job.loaders[:2], saved=False)
    batches = len(job.loaders[0])
    assert batches > 1
    assert events == 2 * [*batches * ["choose", "step", "learn"], "decay"]


@pytest.mark.parametrize("reward", ["branch", "common"])
def test_each_gate_is_rewarded_by_its_branch_or_both_by_the_loss(tiny, monkeypatch, reward):
    job = prepare(Config("CIERec", "tiny", None, tiny(epochs=1, gr_reward=reward), {}))
    model, gates, wanted, given = job.model, job.trainer.gates, [], []
    plain_loss, plain_learn = model.calculate_loss, GradientGate.learn

    def calculate_loss(interaction):
        loss = plain_loss(interaction)
        for name in ("visual", "semantic"):
            own = model.branch_losses[name] if reward == "branch" else loss.detach()
            wanted.append((gates[name], pytest.approx(float(own))))
        return loss

    def learn(gate, loss):
        given.append((gate, loss))
        return plain_learn(gate, loss)

    model.calculate_loss = calculate_loss
    monkeypatch.setattr(GradientGate, "learn", learn)
    job.trainer.fit(*job.loaders[:2], saved=False)
    assert len({loss for _, loss in given}) > 2
    assert given == wanted


def test_frozen_features_are_warned_about(tiny, caplog):
    caplog.set_level("WARNING")
    run("CIERec", "tiny", config_dict=tiny(encoder_training="frozen", state="warning", epochs=1))
    assert any("gr_mode has no effect" in r.getMessage() for r in caplog.records)


def test_actions_rewards_and_q_reach_tensorboard(tiny, in_tmp):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("CIERec", "tiny", config_dict=tiny())
    folder = next((in_tmp / "log_tensorboard").iterdir())
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    for branch in ("visual", "semantic"):
        assert {f"gradient_gate/{branch}/{k}" for k in ("reward", "q", "scale")} <= tags
    rewards = [e.value for e in events.Scalars("gradient_gate/visual/reward")]
    assert len(rewards) == 2
    assert all(0 < r < 1 for r in rewards)


@pytest.mark.parametrize(
    "changed",
    [
        {"action": torch.tensor(2)},
        {"action": 7},
        {"current": False},
        {"current": [torch.tensor(4.0), 1]},
        {"current": [1]},
        {"mean_reward": "0.5"},
    ],
)
def test_state_in_another_form_is_refused_when_it_is_read(changed):
    gate = GradientGate([0.2, 0.6, 1.0], "reinforce", 0.01, seed=0)
    with pytest.raises(ValueError, match=r"actions|reward"):
        gate.load_state_dict({**gate.state_dict(), **changed})
