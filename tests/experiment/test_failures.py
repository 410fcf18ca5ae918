"""What fails, dies or is dropped in an experiment, and who else runs then."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from experiment_helpers import experiment, wait_for, write

from recbole_cierec.experiment import processes, work
from recbole_cierec.experiment.rows import read_rows

MODES = {
    "user5": {"eval_args": {"mode": "user5"}},
    "full": {"eval_args": {"mode": {"valid": "user5", "test": "full"}}},  # tests its models
}


def test_a_failed_search_holds_no_other_model_back(data, in_tmp):
    wild = {"name": "MF", "keys": {"init_std": 1e30}, "search": {"learning_rate": [0.1, 0.2]}}
    parts = {"models": [wild, {"name": "BPR", "search": "none"}], "search": {"trials": 2}}
    result = experiment(data, drop_below=0.5, **parts)
    assert [(row["model"], row["seed"]) for row in result["rows"]] == [("BPR", 1), ("BPR", 2)]
    assert "all 2 trials failed" in result["failed"][0]["error"]


def test_a_run_whose_leader_is_dropped_trains_itself(data, in_tmp, fits):
    parts = {"models": ["MF", "BPR"], "protocols": MODES}
    experiment(data, seeds=[1], **parts)
    path = Path("out/rows.jsonl")
    rows = read_rows(path)
    for row in rows:
        if (row["model"], row["protocol"]) == ("BPR", "user5"):
            row["valid_score"] = 0.0
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows = experiment(data, drop_below=0.3, **parts)["rows"]
    second = [(row["model"], row["protocol"]) for row in rows if row["seed"] == 2]
    assert second == [("MF", "user5"), ("MF", "full"), ("BPR", "full")]
    assert fits == ["MF", "BPR", "MF", "BPR"]


def test_the_checkpoint_of_a_leader_that_failed_is_not_tested(data, in_tmp, monkeypatch):
    plain = work.train_and_test

    def breaks(name, dataset, config_dict):
        result = plain(name, dataset, config_dict=config_dict)
        if config_dict["eval_args"]["mode"] == "user5":  # the leader, with its checkpoint written
            raise RuntimeError("out of memory")
        return result

    monkeypatch.setattr(work, "train_and_test", breaks)
    result = experiment(data, seeds=[1], protocols=MODES)
    assert [row["error"] for row in result["failed"]] == ["RuntimeError: out of memory"]
    (row,) = result["rows"]
    assert (row["protocol"], row["trained_by"], row["resumed"]) == ("full", None, False)


def test_a_process_that_dies_twice_is_a_row_and_the_others_go_on(data, in_tmp, capsys):
    Path("dying.py").write_text(
        "import os\n"
        "from recbole_cierec.model.mf import MF\n\n\n"
        "class Dying(MF):\n"
        "    def calculate_loss(self, interaction):\n"
        "        os._exit(3)\n"
    )
    result = experiment(data, models=["dying:Dying", "BPR"], seeds=[1], workers=1)
    assert [row["model"] for row in result["rows"]] == ["BPR"]
    (failed,) = result["failed"]
    assert failed["error"] == "its process ended 2 times, with code 3 (see its output)"
    assert "its process ended with code 3 (see its output); once more" in capsys.readouterr().err


def test_a_warning_of_several_runs_is_shown_once_and_is_in_each_log(data, in_tmp):
    Path("warning.py").write_text(
        "from logging import getLogger\n"
        "from recbole_cierec.model.mf import MF\n\n\n"
        "class Warns(MF):\n"
        "    def __init__(self, config, dataset):\n"
        "        super().__init__(config, dataset)\n"
        "        getLogger().warning('13 of 118 pictures cannot be used')\n"
    )
    file = write(data, models=["warning:Warns"], seeds=[1, 2])
    command = [sys.executable, "-m", "recbole_cierec", "experiment", str(file), "--out=out"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("13 of 118 pictures cannot be used") == 1
    logs = [path.read_text() for path in Path("log").rglob("*.log")]
    assert len(logs) == 2
    assert all("13 of 118 pictures cannot be used" in text for text in logs)


def server_of(group: int) -> bool:
    """Whether a process group has a server that forks the processes of runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if b"forkserver" in path.read_bytes() and os.getpgid(int(path.parent.name)) == group:
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="needs /proc")
def test_ctrl_c_while_the_server_of_processes_imports_is_one_line(data, in_tmp):
    command = [sys.executable, "-m", "recbole_cierec", "experiment", str(write(data)), "--out=out"]
    with Path("said").open("w") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said, start_new_session=True)
        wait_for(lambda: server_of(process.pid))
        time.sleep(1.0)  # it imports for longer
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) == 130
    wait_for(lambda: not server_of(process.pid))
    said = Path("said").read_text()
    assert said.splitlines()[-1] == "interrupted; continue by the same command"
    assert "Traceback" not in said
    assert len(experiment(data)["rows"]) == 2


def test_ctrl_c_while_a_process_starts_leaves_nothing_to_stop(monkeypatch, in_tmp):
    class Interrupted(multiprocessing.Process):
        def start(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_context", lambda threads: SimpleNamespace(Process=Interrupted))
    slot = processes.Slot(0, 1)
    task = SimpleNamespace(keys={})
    with pytest.raises(KeyboardInterrupt):
        slot.start(in_tmp, task, False, 1)
    slot.stop()


def test_the_order_of_seeds_changes_no_row(data, in_tmp, fits):
    experiment(data, seeds=[2, 1])
    before = Path("out/rows.jsonl").read_bytes()
    assert len(experiment(data, seeds=[3, 1, 2])["rows"]) == 3
    assert Path("out/rows.jsonl").read_bytes().startswith(before)
    assert fits == ["MF"] * 3
