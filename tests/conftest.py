"""Shared fixtures: a small data set with known gaps, and configs that never read sys.argv."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads compete for busy cores

import gc
import importlib
import logging
import signal
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from tiny_data import write_tiny

torch.set_num_threads(1)
# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
OVER_REGIONS = {"VECF"}  # models whose ready-made features are region maps


@pytest.fixture
def benchmark_module(monkeypatch):
    """Imports a script of benchmarks/ by its name, as the scripts import each other."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    return importlib.import_module


@pytest.fixture(autouse=True)
def root_level():
    """Warnings are logged, whatever level the previous test set on RecBole's logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(level)


@pytest.fixture(autouse=True)
def no_second_lost(monkeypatch):
    """RecBole measures the CPU for a second at the end of each run."""
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)


@pytest.fixture(autouse=True, scope="module")
def no_search_in_modules():
    """A garbage collection, as after each stage of a run, looks at the objects of tests only."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def no_traces_of_seeds():
    """Without a GPU, torch formats the stack at each seed, for errors when one is first used."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setattr("torch.cuda._lazy_call", lambda *_, **__: None)
        yield


@pytest.fixture
def quick_processes(monkeypatch):
    """The processes of ``nproc=2`` start at once (programs.py)."""
    monkeypatch.setattr("multiprocessing.get_context", programs.get_context)


@pytest.fixture
def shared_dir() -> Path:
    """Real data and encoder weights, which may not be redistributed."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real data in {SHARED}, which are not part of this project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Folder that holds the data set ``tiny``; read only."""
    folder = tmp_path_factory.mktemp("data")
    write_tiny(folder)
    return folder


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """A separate working folder (RecBole writes log/ and saved/ there); loggers are restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["test"])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the contract of models runs"
    )


@pytest.fixture(scope="session")
def device(request):
    """The device that ``--device`` names; models of ``make`` are on it."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def tiny(tiny_folder, in_tmp, device):
    """``tiny(model, **keys)`` -> dict of keys for that model on the tiny data set."""

    def keys(**extra) -> dict:
        return {
            "data_path": str(tiny_folder),
            "features_file": str(tiny_folder / "tiny" / "features.npy"),
            "embedding_size": 5,
            "train_batch_size": 32,
            "init_std": 0.5,  # large enough that every branch affects the scores
            "epochs": 2,
            "keep_last_checkpoint": True,  # tests compare it
            "show_progress": False,
            "use_gpu": device.type != "cpu",
            "state": "error",
            **extra,
        }

    return keys


@pytest.fixture
def make(tiny):
    """``make(name, **keys)`` -> (config, dataset, train part, model) on the tiny data set."""
    from recbole.utils import init_seed

    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.registry import get_model_class

    def build(name: str, **extra):
        if name in OVER_REGIONS and "features_file" not in extra:
            extra["features_file"] = tiny()["features_file"].replace("features.npy", "regions.npy")
        config = Config(name, "tiny", None, tiny(**extra), {})
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        train = dataset.build()[0]
        init_seed(config["seed"], True)
        return config, dataset, train, get_model_class(name)(config, train).to(config["device"])

    return build


@pytest.fixture
def pictured(tiny, tiny_folder, in_tmp):
    """``pictured(**keys)`` -> keys of the tiny data set with pictures, for a small network."""
    import shutil

    from PIL import Image

    home = in_tmp / "pictures" / "tiny"
    shutil.copytree(tiny_folder / "tiny", home)
    (home / "images").mkdir()
    rng = np.random.default_rng(0)
    for item in range(39):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(home / "images" / f"{item}.png")

    def keys(**extra) -> dict:
        own = {
            "data_path": str(home.parent),
            "features_file": None,
            "visual_encoder": "squeezenet1_1",
            "encoder_weights": "random",
            "image_size": 32,
            "encoder_batch_size": 16,
        }
        return tiny(**{**own, **extra})

    return keys
