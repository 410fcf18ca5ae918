"""A run over two machines, each simulated by the first process of its machine: who writes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import programs
import pytest
from run_helpers import same

from recbole_cierec import run
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.trainer import checkpoints

# The stage is best before its last epoch.
STAGED = {"embedding_size": 6, "epochs": 1, "pretrain": {"epochs": 4, "learning_rate": 1.0}}


def run_and_report(keys: str) -> None:
    """Train in a process of its own and print which checkpoints it wrote."""
    wrote, write = [], checkpoints.write_checkpoint

    def note(path, state):
        wrote.append(path.name)
        write(path, state)

    checkpoints.write_checkpoint = note
    result = run("AMF", "tiny", config_dict=json.loads(keys))
    told = {"wrote": wrote, "stage": result["stages"][0]["checkpoint"]}
    print(json.dumps({**told, "checkpoint": result["checkpoint"]}), flush=True)


def on_two_machines(folders: list[Path], keys: dict) -> list[dict]:
    """What each machine reports on its run in its folder."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    machines = []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        world = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environ = {key: str(value) for key, value in world.items()}
        words = json.dumps(keys)
        machines.append(programs.start(words, cwd=folder, job=run_and_report, **environ))
    codes = [machine.wait(300) for machine in machines]
    assert codes == [0, 0], [machine.stderr for machine in machines]
    return [json.loads(machine.stdout.splitlines()[-1]) for machine in machines]


def best_epoch_alone(keys: dict) -> int:
    """The best epoch of the stage, trained by one process."""
    (stage,) = run("AMF", "tiny", config_dict={**keys, "checkpoint_dir": "alone"})["stages"]
    best = read_checkpoint(Path(stage["checkpoint"]))["epoch"]
    assert best < keys["pretrain"]["epochs"] - 1
    return best


@pytest.mark.slow
def test_on_a_shared_disk_one_machine_writes_and_the_stage_is_its_best_epoch(tiny, in_tmp):
    keys = tiny(**STAGED)
    first, second = on_two_machines([in_tmp / "shared"] * 2, keys)
    assert first["wrote"]
    assert second["wrote"] == []
    stage = read_checkpoint(in_tmp / "shared" / first["stage"])
    assert stage["epoch"] == best_epoch_alone(keys)
    left = {path.name for path in (in_tmp / "shared" / "saved").iterdir()}
    kept, stage = (Path(first[part]).stem for part in ("checkpoint", "stage"))
    expected = {f"{kept}{end}" for end in (".pth", ".last.pth", ".users.npz", ".history.jsonl")}
    assert left == expected | {f"{stage}{end}" for end in (".pth", ".history.jsonl")}


@pytest.mark.slow
def test_machines_without_a_common_disk_have_a_copy_each(tiny, in_tmp):
    folders = [in_tmp / "one", in_tmp / "two"]
    first, second = on_two_machines(folders, tiny(**STAGED))
    assert first == second
    for part in ("stage", "checkpoint"):
        mine, theirs = (read_checkpoint(folder / first[part]) for folder in folders)
        same(mine["state_dict"], theirs["state_dict"])
        assert mine["epoch"] == theirs["epoch"]
