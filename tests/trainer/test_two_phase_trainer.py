"""Two phases in one run: what each trains, and that a stop in either changes no result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recbole.trainer import Trainer
from run_helpers import last_of, same
from torch.optim import Adam

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError
from recbole_cierec.quick_start import prepare
from recbole_cierec.trainer.trainer import TrainerMixin
from recbole_cierec.trainer.two_phase_trainer import ItemBatches

SMALL = {
    "PiNet": {"pretrain_epochs": 2},
    "AlignRec": {"pretrain_epochs": 2, "content_size": 8, "pretrain_batch_size": 16},
}
RUNS = [
    ("PiNet", {"gr_mode": "reinforce", "lr_decay": 0.5, "lr_decay_epochs": 1, "loss": "softmax"}),
    ("AlignRec", {}),
    ("AlignRec", {"clip_grad_norm": {"max_norm": 0.5}}),
    ("AlignRec", {"lr_decay": 0.5, "lr_decay_epochs": 1, "learner": "adagrad", "warmup_steps": 9}),
]
runs = pytest.mark.parametrize(
    ("name", "keys"), RUNS, ids=["-".join([n, *map(str, k.values())]) for n, k in RUNS]
)
both = pytest.mark.parametrize("name", ["PiNet", "AlignRec"])


class Power(Exception):
    """A simulated power cut."""


@runs
@pytest.mark.parametrize("after", [1, 2, 3])  # within phase 1, between the phases, in phase 2
def test_a_run_stopped_in_either_phase_goes_on_as_the_whole_one(
    tiny, monkeypatch, name, keys, after
):
    keys = {"epochs": 3, **SMALL[name], **keys}
    whole = run(name, "tiny", config_dict=tiny(**keys))
    job = prepare(Config(name, "tiny", None, tiny(**keys), {}))
    trainer, train_epoch = job.trainer, Trainer._train_epoch

    def until(self, train_data, epoch, *args, **kwargs):
        if epoch == after:
            raise Power
        return train_epoch(self, train_data, epoch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", until)
        with pytest.raises(Power):
            trainer.fit(*job.loaders[:2])
    file = str(trainer.last_file)
    rest = run(name, "tiny", config_dict=tiny(**keys, resume=file))
    a, b = last_of(whole), last_of(rest)
    a.pop("config"), b.pop("config")  # differ in the key resume
    same(a, b)
    assert whole["test_result"] == rest["test_result"]


@runs
def test_two_epochs_resumed_for_two_more_equal_four(tiny, name, keys):
    keys = {**SMALL[name], **keys}
    whole = run(name, "tiny", config_dict=tiny(epochs=4, **keys))
    half = run(name, "tiny", config_dict=tiny(epochs=2, **keys))
    file = str(Path(half["checkpoint"]).with_suffix(".last.pth"))
    rest = run(name, "tiny", config_dict=tiny(epochs=4, **keys, resume=file))
    assert whole["epochs"] == rest["epochs"] == 6
    a, b = last_of(whole), last_of(rest)
    a.pop("config"), b.pop("config")
    same(a, b)
    assert whole["test_result"] == rest["test_result"]


def begun(tiny, name, **keys):
    """The job of a run that trains only its first phase, and the weights before."""
    job = prepare(Config(name, "tiny", None, tiny(**{**SMALL[name], "epochs": 0, **keys}), {}))
    before = {k: v.clone() for k, v in job.model.named_parameters()}
    return job, before


def changed(before: dict, model) -> set[str]:
    return {k for k, v in model.named_parameters() if not torch.equal(before[k], v)}


def test_phase_one_of_alignrec_trains_the_encoder_and_phase_two_all_else(tiny):
    job, before = begun(tiny, "AlignRec")
    job.trainer.fit(*job.loaders[:2])
    encoder = {k for k in before if k.startswith("content_encoder.")}
    assert changed(before, job.model) == encoder
    assert bool(job.model.content_ready)
    vectors = job.model.content.clone()
    job, before = begun(tiny, "AlignRec", epochs=2)
    trained = job.trainer
    trained.fit(*job.loaders[:2])
    assert torch.equal(job.model.content, vectors), "content is frozen in phase 2"
    assert changed(before, job.model) == set(before)
    same_as_after_phase_one = last_of(run("AlignRec", "tiny", config_dict=tiny(
        **SMALL["AlignRec"], epochs=0)))["state_dict"]  # fmt: skip
    for name in encoder:
        assert torch.equal(same_as_after_phase_one[name], job.model.state_dict()[name])


def test_phase_one_of_pinet_leaves_the_visual_channel_alone(tiny):
    job, before = begun(tiny, "PiNet")
    job.trainer.fit(*job.loaders[:2])
    alone = {k for k in before if k.startswith(("user_visual", "visual_"))}
    cancel = {"global_bias", "user_bias.weight"}  # zero gradient, or rounding of it
    assert changed(before, job.model) - cancel == set(before) - alone - cancel


def test_phase_one_neither_validates_nor_marks_a_best_epoch(tiny, monkeypatch):
    job, _ = begun(tiny, "AlignRec", epochs=2)
    trainer, seen = job.trainer, []
    validate = trainer._valid_epoch
    monkeypatch.setattr(
        trainer,
        "_valid_epoch",
        lambda *args, **kwargs: seen.append(trainer._at[0]) or validate(*args, **kwargs),
    )
    saved = []
    save = trainer._save_checkpoint

    def note(epoch, *args, **kwargs):
        save(epoch, *args, **kwargs)
        if Path(trainer.saved_model_file).is_file():
            saved.append(epoch)

    monkeypatch.setattr(trainer, "_save_checkpoint", note)
    trainer.fit(*job.loaders[:2])
    assert seen == [2, 3]
    assert saved
    assert set(saved) <= {2, 3}


@both
def test_the_second_optimizer_starts_fresh_and_at_its_own_rate(tiny, name):
    keys = {"lr_decay": 0.5, "lr_decay_epochs": 1}
    job, _ = begun(tiny, name, epochs=1, **keys)
    trainer = job.trainer
    first = trainer.optimizer
    trainer._fit_first_phase(job.loaders[0], False, False, False)
    assert first is trainer.optimizer
    moved = [group["lr"] / group["initial_lr"] for group in first.param_groups]
    assert moved == [0.25] * len(moved)  # two epochs
    trainer._leave_first_phase()
    assert trainer.optimizer is not first
    assert all(g["lr"] == g["initial_lr"] for g in trainer.optimizer.param_groups)
    moments = [v for state in trainer.optimizer.state.values() for v in state.values()]
    if isinstance(trainer.optimizer, Adam):
        assert not moments
    else:  # Adagrad creates its sums immediately
        assert not any(bool(v.any()) for v in moments)


def test_the_gates_of_pinet_rest_in_phase_one(tiny):
    job, _ = begun(tiny, "PiNet")
    gates = job.trainer.gates
    assert set(gates) == {"visual", "semantic"}
    before = {k: v.state_dict() for k, v in gates.items()}
    job.trainer.fit(*job.loaders[:2])
    for name, gate in gates.items():
        assert gate.state_dict()["action"] == before[name]["action"]
        assert torch.equal(gate.network.weight, before[name]["network"]["weight"])
    job, _ = begun(tiny, "PiNet", epochs=1, gr_mode="reinforce")
    fresh = {k: v.network.weight.clone() for k, v in job.trainer.gates.items()}
    job.trainer.fit(*job.loaders[:2])
    for name, gate in job.trainer.gates.items():
        assert not torch.equal(gate.network.weight, fresh[name])


def test_fixed_gates_of_pinet_act_in_phase_two_only(tiny, monkeypatch):
    plain, seen = TrainerMixin._train_epoch, []

    def train_epoch(self, *args, **kwargs):
        seen.append(dict(self.model.gradient_scales))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "_train_epoch", train_epoch)
    keys = {"gr_mode": "fixed", "gr_fixed_scales": [0.5, 0.0]}
    job, _ = begun(tiny, "PiNet", epochs=1, **keys)
    job.trainer.fit(*job.loaders[:2])
    open_, fixed = {"visual": 1.0, "semantic": 1.0}, {"visual": 0.5, "semantic": 0.0}
    assert seen == [open_, open_, fixed]


@both
def test_pretrained_takes_the_first_phase_from_a_checkpoint(tiny, name):
    keys = SMALL[name]
    phase = run(name, "tiny", config_dict=tiny(**keys, epochs=0))
    assert phase["epochs"] == 2
    whole = run(name, "tiny", config_dict=tiny(**keys, epochs=2))
    short = run(name, "tiny", config_dict=tiny(**keys, epochs=2, pretrained=phase["checkpoint"]))
    assert (whole["epochs"], short["epochs"]) == (4, 2)
    job = prepare(Config(name, "tiny", None, tiny(**keys, pretrained=phase["checkpoint"]), {}))
    there, here = last_of(phase)["state_dict"], job.model.state_dict()
    parts = tuple(job.model.pretrained_parts)
    taken = [key for key in here if key.startswith(parts)]
    assert taken
    for key in here:
        if key in taken:
            assert torch.equal(here[key], there[key]), key
    assert not job.trainer.in_first_phase


def test_alignrec_from_a_checkpoint_has_the_content_of_the_whole_run(tiny):
    keys = SMALL["AlignRec"]
    whole = run("AlignRec", "tiny", config_dict=tiny(**keys, epochs=1))
    short = run("AlignRec", "tiny", config_dict=tiny(
        **keys, epochs=1, pretrained=whole["checkpoint"]))  # fmt: skip
    for name in ("content", "neighbours"):
        assert torch.equal(last_of(whole)["state_dict"][name], last_of(short)["state_dict"][name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "PiNet"}, ["AlignRec", "PiNet"]),
        ({"content_size": 4}, ["content_encoder", "8", "4"]),
        ({"eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}}}, ["other data"]),
    ],
    ids=["model", "size", "split"],
)
def test_a_pretrained_part_that_does_not_fit_is_refused_in_one_line(tiny, change, words):
    keys = dict(SMALL["AlignRec"])
    done = run("AlignRec", "tiny", config_dict=tiny(**keys, epochs=1))
    change = dict(change)
    name = change.pop("model", "AlignRec")
    keys = keys if name == "AlignRec" else {}
    with pytest.raises(CheckpointError) as error:
        run(name, "tiny", config_dict=tiny(**{**keys, **change}, pretrained=done["checkpoint"]))
    message = str(error.value)
    assert "\n" not in message
    for word in [done["checkpoint"], *words]:
        assert word in message


def test_another_length_of_phase_one_is_refused_on_resume(tiny):
    keys = dict(SMALL["AlignRec"])
    done = run("AlignRec", "tiny", config_dict=tiny(**keys, epochs=1))
    keys["pretrain_epochs"] = 3
    with pytest.raises(CheckpointError, match="2 epochs in its first phase"):
        run("AlignRec", "tiny", config_dict=tiny(**keys, resume=done["checkpoint"]))


def test_tensorboard_keeps_the_phases_apart(tiny, monkeypatch):
    job, _ = begun(tiny, "AlignRec", epochs=1)
    tags = []
    scalar = job.trainer.tensorboard.add_scalar
    monkeypatch.setattr(
        job.trainer.tensorboard,
        "add_scalar",
        lambda tag, value, step: tags.append((tag, step)) or scalar(tag, value, step),
    )
    job.trainer.fit(*job.loaders[:2])
    losses = [(tag, step) for tag, step in tags if tag.startswith("Loss/")]
    expected = [(f"Loss/Pretrain{k}", epoch) for epoch in (0, 1) for k in (0, 1)]
    assert losses == [*expected, ("Loss/Train", 2)]


def test_an_epoch_of_item_batches_has_each_item_once_in_a_new_order():
    items = torch.arange(5, 28)
    batches = ItemBatches(items, "item_id", 4, torch.Generator().manual_seed(0))
    first, second = (torch.cat([b["item_id"] for b in batches]) for _ in range(2))
    assert len(batches) == 6
    assert torch.equal(first.sort().values, items)
    assert torch.equal(second.sort().values, items)
    assert not torch.equal(first, second)


def test_processes_share_each_batch_of_items():
    items, epochs = torch.arange(5, 28), []
    for rank, world in ((0, 1), (0, 3), (1, 3), (2, 3)):
        batches = ItemBatches(items, "item_id", 4, torch.Generator().manual_seed(0))
        batches.rank, batches.world = rank, world
        epochs.append([b["item_id"] for b in batches])
        assert len(epochs[-1]) == len(batches) == 6
    for whole, *parts in zip(*epochs, strict=True):
        assert torch.equal(torch.cat(parts), whole)


def test_last_epochs_without_validation_are_warned_about(tiny, caplog):
    caplog.set_level("WARNING")
    for epochs, late in ((4, 2), (2, 0)):  # 2 epochs of phase 1 count as well
        caplog.clear()
        job, _ = begun(tiny, "PiNet", epochs=epochs, eval_step=4)
        job.trainer.fit(*job.loaders[:2])
        said = [
            r.getMessage() for r in caplog.records if "no multiple of eval_step" in r.getMessage()
        ]
        assert len(said) == bool(late)
        assert all(f"the last {late} have no validation" in text for text in said)
