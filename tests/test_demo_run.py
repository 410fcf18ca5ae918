"""README's first command, cut to 60 epochs, and its result: content helps cold users (planted)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_cierec import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first_command(demo_folder):
    """``python run_recbole.py`` in an empty folder."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run_recbole.py")],
        cwd=demo_folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_row(output: str) -> list[float]:
    """Recall@10 of all, cold and warm users from the table at the end of a run."""
    table = output[output.index("Test result of CIERec on demo") :]
    groups = ("all", "cold", "warm")
    return [float(re.search(rf"{g} users +\d+ +(\S+)", table).group(1)) for g in groups]


test_row.__test__ = False


@pytest.mark.slow
def test_the_first_command_prints_cold_warm_and_all(first_command):
    done = first_command
    assert done.returncode == 0, done.stderr[-2000:]
    everyone, cold, warm = test_row(done.stdout)
    assert min(cold, warm) <= everyone <= max(cold, warm)
    assert 0.14 < everyone < 0.26  # planted: knowing the tastes reaches about 0.55


@pytest.mark.slow
def test_the_first_command_compares_with_a_plain_model_and_chance(first_command):
    said = first_command.stdout
    table = said[said.index("Recall@10 of CIERec and MF_Content on demo") :]
    recall = test_row(said)
    for group, value in zip(("all", "cold", "warm"), recall, strict=True):
        cells = re.search(rf"{group} users +\d+ +(\S+) +(\S+) +(\S+)", table).groups()
        ours, theirs, chance = map(float, cells)
        assert ours == pytest.approx(value, abs=1e-5)
        assert min(ours, theirs) > 5 * chance
    assert re.search(r"^Unseen items: .* chance", said, re.M)


@pytest.mark.slow
def test_cierec_beats_ids_alone_and_pictures_alone_on_cold_users(
    first_command, demo_folder, monkeypatch
):
    monkeypatch.chdir(demo_folder)
    _, cold, _ = test_row(first_command.stdout)
    keys = {"show_progress": False, "use_gpu": False, "state": "error"}
    tuned = {"learning_rate": 0.001, "train_batch_size": 256, "epochs": 300}  # by validation
    bpr = run("BPR", "demo", config_dict={**keys, **tuned})["test_result"]["recall@10_cold"]
    image = run("MF_Image", "demo", config_dict=keys)["test_result"]["recall@10_cold"]
    pop = run("Pop", "demo", config_dict=keys)["test_result"]["recall@10_cold"]
    assert cold > 1.05 * bpr
    assert cold > 1.2 * image
    assert min(bpr, image) > 1.3 * pop
