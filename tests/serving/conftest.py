"""Trained models for the tests of `serve`, made once."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

LABEL, WORDS = "t6,_%22xl%22", 't6, "xl"'  # a token as a converter writes it, and its label


def draw(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(path)


def write_data(home: Path) -> None:
    """Pictures, an escaped annotation, and an item that only NAME.item has."""
    table = home / "tiny.item"
    table.write_text(table.read_text().replace("t6", LABEL))
    (home / "images").mkdir()
    for item in range(39):
        draw(home / "images" / f"{item}.png", item)
    draw(home / "images" / "extra.png", 99)
    with table.open("a") as stream:
        stream.write("extra\timages/extra.png\tt1 t5\n")


@pytest.fixture(scope="session")
def world(tiny_folder, tmp_path_factory):
    """Checkpoints of MF_Content and BPR on the tiny data with pictures, and their folder."""
    from recbole_cierec import run

    folder = tmp_path_factory.mktemp("serve")
    home = shutil.copytree(tiny_folder / "tiny", folder / "data" / "tiny")
    write_data(home)
    keys = {
        "data_path": str(home.parent),
        "visual_encoder": "squeezenet1_1",
        "encoder_weights": "random",
        "image_size": 32,
        "feature_norm": "l2",
        "embedding_size": 5,
        "init_std": 0.5,
        "epochs": 1,
        "show_progress": False,
        "use_gpu": False,
        "state": "error",
    }
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["test"])
            patch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)
            paths = [
                folder / run(name, "tiny", config_dict=keys)["checkpoint"]
                for name in ("MF_Content", "BPR")
            ]
    finally:
        os.chdir(before)
    return SimpleNamespace(
        folder=folder, home=home, content=paths[0], bpr=paths[1], label=(LABEL, WORDS)
    )


@pytest.fixture(scope="session")
def models(world):
    """The two models as `serve` has them."""
    from recbole_cierec.serving.trained import load_trained
    from recbole_cierec.serving.web.served import ServedModel

    before = Path.cwd()
    os.chdir(world.folder)  # of the cache
    try:
        made = [
            ServedModel(name, load_trained(path))
            for name, path in (("MF_Content", world.content), ("BPR", world.bpr))
        ]
        for model in made:
            model.warm_up()
    finally:
        os.chdir(before)
    return made


@pytest.fixture(scope="session")
def client(models):
    """A client of the application, without a socket."""
    from fastapi.testclient import TestClient

    from recbole_cierec.serving.web.app import make_app

    with TestClient(make_app(models, ["testserver"]), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="session")
def address(models):
    """The address of a server on the loopback."""
    import uvicorn

    from recbole_cierec.serving.web.app import make_app
    from recbole_cierec.serving.web.server import listening

    listener = listening("127.0.0.1", 0)
    config = uvicorn.Config(
        make_app(models, ["127.0.0.1"]), log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
