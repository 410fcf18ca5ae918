"""What needs a missing package names it in one line with code 2; everything else works.

In the ordinary test run an import of the packages fails as if they were missing. ``nox -s missing``
uninstalls one after another and names it in RECBOLE_CIEREC_MISSING; then only its tests run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.missing

CHILD = Path(__file__).resolve().parents[1] / "without_packages.py"
MISSING = os.environ.get("RECBOLE_CIEREC_MISSING", "")
RUN = "recbole_cierec.__main__"
IMAGES = "recbole_cierec.dataset_converters.images"
NEEDED_BY = {  # package -> (command of `commands`, beginning of its line, the advice in it)
    "torchvision": (
        "pictures",
        "visual_encoder squeezenet1_1 needs torchvision, which cannot be imported",
        "pip install torchvision, or set features_file",
    ),
    "timm": (
        "timm",
        "visual_encoder timm/resnet10t needs timm, which cannot be imported",
        "pip install 'recbole-cierec[timm]', or choose a network of torchvision",
    ),
    "wandb": ("wandb", "log_wandb needs the package wandb", "pip install wandb"),
    "optuna": ("tune", "tune needs the package optuna", "pip install optuna"),
    "aiohttp": ("images", "downloads need aiohttp", "pip install 'recbole-cierec[images]'"),
}
WORK = ("MF", "BPR", "features", "extract", "compare")


@pytest.fixture(scope="module")
def commands(tiny_folder, tmp_path_factory) -> dict[str, tuple[str, list[str]]]:
    """Name of a command -> its module and arguments; all in one folder, where they write."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "list.tsv").write_text("path\turl\na.jpg\thttp://127.0.0.1:9/a.jpg\n")
    (folder / "space.yaml").write_text("learning_rate: [0.01, 0.1]\n")
    run = [f"--data_path={tiny_folder}", "--dataset=tiny", "--embedding_size=4", "--use_gpu=False"]
    train = ["--epochs=1", "--show_progress=False", *run]
    features = f"--features_file={tiny_folder}/tiny/features.npy"
    network = ["--visual_encoder=squeezenet1_1", "--encoder_weights=random", "--image_size=32"]
    saved = [f"--checkpoint_dir={folder}/{name}" for name in ("a", "b")]
    return {
        "MF": (RUN, ["--model=MF", saved[0], *train]),
        "BPR": (RUN, ["--model=BPR", *train]),
        "features": (RUN, ["--model=VBPR", features, saved[1], *train]),
        "extract": (RUN, ["extract", "--model=VBPR", features, *run]),
        "compare": (RUN, ["compare", f"{folder}/a", f"{folder}/b"]),
        "pictures": (RUN, ["--model=VBPR", *network, f"--image_dir={pictures(folder)}", *train]),
        "timm": (RUN, ["--model=VBPR", "--visual_encoder=timm/resnet10t", network[1], *train]),
        "wandb": (RUN, ["--model=MF", "--log_wandb=True", *train]),
        "tune": (
            RUN,
            ["tune", "--model=MF", f"--search={folder}/space.yaml", f"--out={folder}/t", *run],
        ),
        "images": (IMAGES, [f"--list={folder}/list.tsv", f"--into={folder}/into"]),
    }


def pictures(folder: Path) -> Path:
    """A folder with a picture for every item of the tiny data set."""
    (folder / "images").mkdir()
    for item in range(40):
        Image.new("RGB", (32, 32), (item, 0, 0)).save(folder / "images" / f"{item}.png")
    return folder


def results(absent: list[str], chosen: dict[str, tuple], cwd: Path) -> dict[str, dict]:
    """Code and last line of each command, in one process without some packages."""
    done = subprocess.run(
        [sys.executable, str(CHILD), json.dumps(absent), json.dumps(list(chosen.values()))],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHILD.parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(chosen, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module")
def without(commands, tmp_path_factory) -> dict[str, dict]:
    """The results of all commands without the packages; RecBole imports tensorboard for each."""
    if MISSING == "tensorboard":
        pytest.skip("no run works without tensorboard")
    absent = [] if MISSING else [*NEEDED_BY, "matplotlib"]
    needing = [NEEDED_BY[name][0] for name in NEEDED_BY if MISSING in ("", name)]
    chosen = {name: commands[name] for name in (*WORK, *needing)}
    return results(absent, chosen, tmp_path_factory.mktemp("work"))


@pytest.mark.parametrize("name", WORK)
def test_what_does_not_need_the_packages_works(without, name):
    assert without[name]["code"] == 0, without[name]["last"]


@pytest.mark.parametrize("package", NEEDED_BY)
def test_what_needs_a_package_says_so_in_one_line(without, package):
    if MISSING not in ("", package):
        pytest.skip(f"it is {MISSING} that is missing")
    name, begin, cure = NEEDED_BY[package]
    assert without[name]["code"] == 2
    assert without[name]["last"].startswith(f"error: {begin}")
    assert without[name]["last"].endswith(cure)


@pytest.mark.skipif(MISSING not in ("", "tensorboard"), reason="it is another that is missing")
def test_recbole_needs_tensorboard_for_every_run(commands, tmp_path):
    absent = [] if MISSING else ["tensorboard"]
    chosen = {name: commands[name] for name in ("MF", "images")}
    said = results(absent, chosen, tmp_path)
    assert said["MF"] == {
        "code": 2,
        "last": "error: this needs the package tensorboard, which is not installed: "
        "pip install tensorboard",
    }
    assert "tensorboard" not in said["images"]["last"]  # converters do not need RecBole


@pytest.mark.skipif(MISSING not in ("", "matplotlib"), reason="it is another that is missing")
def test_figures_need_matplotlib_before_anything_is_measured(
    benchmark_module, monkeypatch, capsys, tmp_path
):
    growth = benchmark_module("growth")
    if not MISSING:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(growth, "measure", lambda *_: pytest.fail("it was measured first"))
    monkeypatch.setattr(sys, "argv", ["growth", "--data_path", str(tmp_path), "--figures", "f"])
    with pytest.raises(SystemExit) as end:
        growth.main()
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--figures needs the package matplotlib, which is not installed" in said
    assert "pip install matplotlib" in said


@pytest.mark.skipif(not MISSING, reason="only where a package was uninstalled")
def test_the_package_is_missing():
    assert find_spec(MISSING) is None
