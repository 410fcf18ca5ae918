"""The history of a run: a row an epoch, right under kill and resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import DataError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.quick_start import prepare
from recbole_cierec.trainer.history import History, history_file
from recbole_cierec.trainer.trainer import TrainerMixin


def rows_of(result) -> list[dict]:
    lines = history_file(Path(result["checkpoint"])).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_rows_hold_losses_rates_gates_and_every_metric_of_validation(tiny):
    keys = {"backbone": "VBPR", "gr_mode": "reinforce", "lr_decay_epochs": 1, "lr_decay": 0.5}
    keys["warmup_steps"] = 0
    result = run("CIERec", "tiny", config_dict=tiny(**keys, epochs=3, eval_step=2))
    path = history_file(Path(result["checkpoint"]))
    assert path.name == Path(result["checkpoint"]).stem + ".history.jsonl"
    assert path == history_file(Path(result["checkpoint"]).with_suffix(".last.pth"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    state = read_checkpoint(Path(result["checkpoint"]).with_suffix(".last.pth"))
    assert {row["epoch"]: row["loss"] for row in rows} == state["train_loss"]
    rates = [row["learning_rates"]["optimizer"][0] for row in rows]
    np.testing.assert_allclose(np.divide(rates, rates[0]), [1, 0.5, 0.25])
    assert [sorted(row["seconds"]) for row in rows] == [["train"], ["train", "valid"], ["train"]]
    known = {k: v if v == v else None for k, v in result["best_valid_result"].items()}
    assert [row.get("valid") for row in rows] == [None, known, None]
    for row in rows:
        for gate in row["gates"].values():
            scales = np.array([float(scale) for scale in gate["actions"]])
            counts = np.array(list(gate["actions"].values()))
            assert gate["scale"] == pytest.approx((scales * counts).sum() / counts.sum())
            assert 0 < gate["reward"] < 1


def test_rates_grow_by_the_batch_and_decay_by_the_epoch(tiny):
    keys = {"warmup_steps": 9, "lr_decay": 0.5, "lr_decay_epochs": 1, "learning_rate": 0.2}
    keys |= {"content_learning_rate": 0.1, "train_batch_size": 40}
    job = prepare(Config("VBPR", "tiny", None, tiny(**keys, epochs=2), {}))
    optimizer, rates = job.trainer.optimizer, []
    optimizer.register_step_pre_hook(
        lambda *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    job.trainer.fit(*job.loaders[:2], saved=False)
    batches = len(rates) // 2
    shares = [min(1.0, (k + 1) / 10) * (0.5 if k >= batches else 1.0) for k in range(2 * batches)]
    assert 1 < batches < 9 < 2 * batches  # the growth goes on in the second epoch and ends there
    np.testing.assert_allclose(rates, np.outer(shares, [0.2, 0.1]), rtol=1e-12)


@pytest.mark.parametrize("where", ["in an epoch", "after validation"])
def test_a_killed_and_resumed_run_ends_with_the_rows_of_a_whole_one(tiny, monkeypatch, where):
    keys = {"backbone": "VBPR", "gr_mode": "reinforce", "epochs": 4, "learning_rate": 0.05}
    whole = run("CIERec", "tiny", config_dict=tiny(**keys))
    killed = tiny(**keys, checkpoint_dir="killed")
    name = "_train_epoch" if where == "in an epoch" else "_save_checkpoint"
    plain = getattr(TrainerMixin, name)

    def stop(self, *args, **kwargs):
        done = plain(self, *args, **kwargs)
        if self.history.rows[-1]["epoch"] == 2:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(TrainerMixin, name, stop)
        with pytest.raises(KeyboardInterrupt):
            run("CIERec", "tiny", config_dict=killed)
    rest = run("CIERec", "tiny", config_dict={**killed, "resume": "auto"})
    assert rows_of(rest) == rows_of(whole)
    assert len(list(Path("killed").glob("*.history.jsonl"))) == 1


def test_a_longer_run_from_the_best_epoch_drops_later_rows(tiny):
    keys = {"learning_rate": 0.5, "stopping_step": 9, "seed": 1}
    whole = run("VBPR", "tiny", config_dict=tiny(**keys, epochs=5))
    part = run("VBPR", "tiny", config_dict=tiny(**keys, epochs=4))
    assert read_checkpoint(Path(part["checkpoint"]))["epoch"] < 3
    before = rows_of(part)
    again = run("VBPR", "tiny", config_dict=tiny(**keys, epochs=4, resume=part["checkpoint"]))
    assert rows_of(again) == before
    rest = run("VBPR", "tiny", config_dict=tiny(**keys, epochs=5, resume=part["checkpoint"]))
    assert rows_of(rest) == rows_of(whole)


def test_phases_and_stages_are_recorded(tiny):
    result = run("PiNet", "tiny", config_dict=tiny(pretrain_epochs=1, epochs=1))
    assert [row["phase"] for row in rows_of(result)] == ["pretraining", "training"]
    result = run("AMF", "tiny", config_dict=tiny(epochs=1))
    (stage,) = result["stages"]
    assert len(rows_of(stage)) == len(rows_of(result)) == 1
    assert len(list(Path("saved").glob("*.history.jsonl"))) == 3


def test_a_damaged_history_is_refused_in_one_line(tmp_path):
    path = tmp_path / "a.history.jsonl"
    for text in ("{", "[]\n", '{"epoch": "1"}\n', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DataError, match=r"a\.history\.jsonl: not a history"):
            History.read(path)
    assert History.read(tmp_path / "absent.history.jsonl").rows == []
