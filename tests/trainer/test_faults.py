"""The files of a run that is stopped or whose numbers become NaN (F1, F2, F5, F23, F36)."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import programs
import pytest
import torch

from recbole_cierec import run
from recbole_cierec.errors import ConfigError, NonFiniteLossError, UserError
from recbole_cierec.evaluation.collector import PlanCollector
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.files.leftovers import TEMPORARY, claimed
from recbole_cierec.model.mf import MF
from recbole_cierec.registry import get_model_class
from recbole_cierec.trainer.trainer import TrainerMixin


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(tiny, monkeypatch, value):
    plain, calls, kept = MF.calculate_loss, [], {}

    def broken(self, interaction):
        loss = plain(self, interaction)
        calls.append(1)
        if len(calls) == 10:  # 219 training pairs in batches of 32: epoch 1, batch 2
            kept["weights"] = {k: v.clone() for k, v in self.state_dict().items()}
            kept["model"] = self
            return loss * value
        return loss

    monkeypatch.setattr(MF, "calculate_loss", broken)
    with pytest.raises(NonFiniteLossError) as error:
        run("MF", "tiny", config_dict=tiny(epochs=3))
    message = str(error.value)
    assert "\n" not in message
    assert "MF" in message
    assert "epoch 1, batch 2" in message
    for name, weight in kept["model"].state_dict().items():
        assert torch.equal(weight, kept["weights"][name])
    (last,) = Path("saved").glob("*.last.pth")
    assert str(last) in message
    state = read_checkpoint(last)
    assert state["epoch"] == 0
    assert all(torch.isfinite(w).all() for w in state["state_dict"].values())


@pytest.mark.parametrize("name", ["MF", "CIERec", "BPR"])
def test_a_gradient_that_is_not_finite_stops_before_the_step(tiny, monkeypatch, name):
    """The loss is finite, but its gradient is not: the square root at zero."""
    model = get_model_class(name)
    plain, calls, kept = model.calculate_loss, [], {}

    def broken(self, interaction):
        loss = plain(self, interaction)
        calls.append(1)
        if len(calls) == 10:
            kept.update(model=self, weights={k: v.clone() for k, v in self.state_dict().items()})
            loss = loss + (next(self.parameters()).sum() * 0).sqrt()
        return loss

    monkeypatch.setattr(model, "calculate_loss", broken)
    keys = tiny(epochs=3)
    keys = keys if name != "BPR" else {k: v for k, v in keys.items() if k != "init_std"}
    with pytest.raises(NonFiniteLossError) as error:
        run(name, "tiny", config_dict=keys)
    first = next(name for name, _ in kept["model"].named_parameters())
    assert f"the gradient of {first} is not finite in epoch 1, batch 2" in str(error.value)
    for key, weight in kept["model"].state_dict().items():
        assert torch.equal(weight, kept["weights"][key])
    for file in Path("saved").glob("*.pth"):
        state = read_checkpoint(file)
        assert all(torch.isfinite(w).all() for w in state["state_dict"].values())


def test_no_checkpoint_holds_a_parameter_that_is_not_finite(tiny, monkeypatch):
    plain = MF.calculate_loss

    def broken(self, interaction):
        with torch.no_grad():
            self.item_embedding.weight[3, 0] = float("inf")
        return plain(self, interaction) * 0

    monkeypatch.setattr(MF, "calculate_loss", broken)
    with pytest.raises(NonFiniteLossError):
        run("MF", "tiny", config_dict=tiny(train_batch_size=1000))
    monkeypatch.setattr(TrainerMixin, "_before_step", lambda *_: None)
    monkeypatch.setattr(TrainerMixin, "_check_nan", lambda *_: None)
    monkeypatch.setattr(PlanCollector, "_refuse_nan", lambda *_: None)
    with pytest.raises(NonFiniteLossError, match=r"item_bias.weight .*; no checkpoint of it"):
        run("MF", "tiny", config_dict=tiny(epochs=3))
    assert not list(Path("saved").glob("*.pth"))


@pytest.mark.parametrize("name", ["MF", "SASRec"])
def test_the_number_of_workers_changes_no_bit_and_says_so(tiny, name, caplog):
    keys = tiny(epochs=1)
    if name == "SASRec":
        keys = {k: v for k, v in keys.items() if k not in ("init_std", "embedding_size")}
        keys |= {"hidden_size": 4, "inner_size": 4, "n_layers": 1, "n_heads": 1}
    states = []
    for worker in (0, 2):
        done = run(name, "tiny", config_dict={**keys, "worker": worker, "state": "warning"})
        states.append(read_checkpoint(Path(done["checkpoint"]))["state_dict"])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert sum("worker" in record.getMessage() for record in caplog.records) == 1


def test_two_runs_in_one_second_have_files_of_their_own(tiny, monkeypatch):
    monkeypatch.setattr("recbole.trainer.trainer.get_local_time", lambda: "now")
    files = {run("MF", "tiny", config_dict=tiny(epochs=1))["checkpoint"] for _ in range(2)}
    assert len(files) == 2
    assert all(Path(f).is_file() for f in files)


def test_a_checkpoint_folder_that_cannot_be_made_is_refused_before_training(tiny, in_tmp):
    Path("saved").write_text("a file in the way")
    with pytest.raises((UserError, OSError)):
        run("MF", "tiny", config_dict=tiny(epochs=1))


def start(folder: Path, data: Path, epochs: int = 3000) -> programs.Program:
    command = ["--model=CIERec", "--dataset=tiny"]
    command += [f"--data_path={data}", f"--features_file={data}/tiny/features.npy"]
    command += [f"--epochs={epochs}", "--stopping_step=100000", "--train_batch_size=32"]
    command += ["--embedding_size=5", "--show_progress=False", "--use_gpu=False"]
    return programs.start(*command, cwd=folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_code_and_a_whole_checkpoint(
    tmp_path, tiny_folder, number, code
):
    folder = tmp_path / "run"
    folder.mkdir()
    process = start(folder, tiny_folder)
    last = process.wait_for("saved/*.last.pth", folder)
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait() == code
    assert "Traceback" not in process.stderr
    assert read_checkpoint(last)["model"] == "CIERec"
    assert not list(folder.glob(f"saved/{TEMPORARY}*"))


def test_kills_at_random_moments_leave_a_whole_checkpoint(tmp_path, tiny_folder):
    """Processes killed at several moments: the file that each leaves must load."""
    for k in range(4):
        folder = tmp_path / str(k)
        folder.mkdir()
        process = start(folder, tiny_folder)
        last = process.wait_for("saved/*.last.pth", folder)
        time.sleep(0.1 + 0.13 * k)
        process.kill()
        process.wait()
        assert read_checkpoint(last)["epoch"] >= 0  # which a broken file raises before


def test_a_run_that_saves_clears_what_killed_ones_left_and_nothing_else(tiny, in_tmp):
    folder = in_tmp / "saved"
    folder.mkdir()
    dead = f"{TEMPORARY}0123456789ab.tmp"
    others = {"MF-old.pth", ".tmp-of-another-program", f"{TEMPORARY}notes.tmp"}
    for name in {dead, *others}:
        (folder / name).write_bytes(b"half")
    with claimed(folder, suffix=".tmp") as at_work:
        at_work.write_bytes(b"half")
        names = {path.name for path in folder.iterdir()}
        run("MF", "tiny", config_dict=tiny(epochs=1), saved=False)
        assert {path.name for path in folder.iterdir()} == names
        run("MF", "tiny", config_dict=tiny(epochs=1))
        assert {path.name for path in folder.iterdir()} & names == names - {dead}


@pytest.mark.parametrize("name", ["CIERec", "VBPR", "MF_Semantics"])
def test_mixed_precision_and_clipping_train(tiny, name):
    keys = tiny(enable_amp=True, clip_grad_norm={"max_norm": 1.0}, epochs=2)
    result = run(name, "tiny", config_dict=keys)
    assert 0 <= result["test_result"]["recall@10"] <= 1


@pytest.mark.parametrize("name", ["Pop", "MF"])
def test_validation_less_often_than_epochs_still_leaves_a_best_checkpoint(tiny, name):
    result = run(name, "tiny", config_dict=tiny(epochs=2, eval_step=5))
    assert Path(result["checkpoint"]).is_file()


LABELS = {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("BPR", {"train_neg_sample_args": None}, ["train_neg_sample_args", "BPR", "remove"]),
        ("CIERec", {"train_neg_sample_args": None}, ["train_neg_sample_args", "CIERec"]),
        ("FM", {"train_neg_sample_args": None}, ["FM", "column label", "threshold"]),
        ("FM", LABELS, ["FM", "column label", "labeled"]),
        ("FM", {**LABELS, "eval_args": {"mode": {"valid": "uni5", "test": "labeled"}}}, ["label"]),
        ("MF", {"learner": "sparse_adam"}, ["learner", "sparse_adam", "MF"]),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(tiny, name, keys, words):
    with pytest.raises(ConfigError) as error:
        run(name, "tiny", config_dict=tiny(**keys))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_other_errors_of_the_loop_keep_their_names(tiny, monkeypatch):
    monkeypatch.setattr(MF, "calculate_loss", lambda *_: {}["mistake"])
    with pytest.raises(KeyError, match="mistake"):
        run("MF", "tiny", config_dict=tiny())
