"""TensorBoard: every metric by group, rates, gates; files are closed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_cierec import run
from recbole_cierec.evaluation.names import split_name
from recbole_cierec.trainer.history import History, history_file


def events(folder: Path) -> EventAccumulator:
    """The newest run's events."""
    newest = max(folder.glob("log_tensorboard/*"), key=lambda path: path.stat().st_mtime_ns)
    read = EventAccumulator(str(newest), size_guidance={"histograms": 0, "scalars": 0})
    return read.Reload()


def test_metrics_rates_and_gates_are_those_of_the_history(tiny, in_tmp):
    rates = {"lr_decay": 0.5, "lr_decay_epochs": 1, "warmup_steps": 0}
    keys = tiny(epochs=4, eval_step=2, gr_mode="reinforce", **rates)
    result = run("CIERec", "tiny", config_dict=keys)
    board = events(in_tmp)
    rows = History.read(history_file(Path(result["checkpoint"]))).rows
    for name, value in result["test_result"].items():
        metric, group = split_name(name)
        tag = f"{metric}/test/{group}"
        if math.isnan(value):
            assert tag not in board.Tags()["scalars"]
        else:
            assert [e.value for e in board.Scalars(tag)] == pytest.approx([value])
    validated = [row for row in rows if "valid" in row]
    cold = board.Scalars("recall@10/valid/cold")
    assert [e.step for e in cold] == [1, 3]
    assert [e.value for e in cold] == pytest.approx(
        [row["valid"]["recall@10_cold"] for row in validated]
    )
    rates = [e.value for e in board.Scalars("learning_rate/optimizer/0")]
    assert rates == pytest.approx([rates[0] / 2**k for k in range(4)])
    for e, row in zip(board.Histograms("gradient_gate/visual/actions"), rows, strict=True):
        actions = row["gates"]["visual"]["actions"]
        assert e.histogram_value.num == sum(actions.values())
        total = np.dot([float(scale) for scale in actions], list(actions.values()))
        assert e.histogram_value.sum == pytest.approx(total)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("model", ["BPR", "AMF"])
def test_event_files_are_closed_at_the_end(tiny, in_tmp, model):
    run(model, "tiny", config_dict=tiny(epochs=1))
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [path for path in opened if path.startswith(str(in_tmp)) and "tfevents" in path]
