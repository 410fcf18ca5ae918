"""Two runs on a small data set with hostile names and bad pictures, and their pages."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from page_reader import Element, parsed
from PIL import Image
from tiny_data import N_ITEMS, write_tiny

from recbole_cierec import run
from recbole_cierec.__main__ import main

HOSTILE = '<script>alert("i3")</script>'
TOKEN = "<b>t0,_%22x%22&amp;</b>"  # noqa: S105  an annotation
USER = '"><img src=x onerror=alert(1)>'


@dataclass
class Runs:
    """What the tests share.

    Attributes:
        folder: Of all files.
        keys: Of the runs.
        ours: Result of CIERec.
        recboles: Result of BPR.
        page: The page on CIERec, parsed.
        html: Its text.
    """

    folder: Path
    keys: dict
    ours: dict
    recboles: dict
    page: Element
    html: str


def write_data(folder: Path) -> Path:
    """The data set ``tiny`` with pictures, of which those of items 5 to 7 cannot be used."""
    home = write_tiny(folder)
    for name in ("tiny.inter", "tiny.item"):
        text = (home / name).read_text()
        text = text.replace("\ti3\t", f"\t{HOSTILE}\t").replace("\ni3\t", f"\n{HOSTILE}\t")
        text = text.replace("t0", TOKEN).replace("\nu3\t", f"\n{USER}\t")
        (home / name).write_text(text.replace("images/7.png", "../../secret.png"))
    (home / "images").mkdir()
    rng = np.random.default_rng(0)
    for item in range(N_ITEMS - 1):
        pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(home / "images" / f"{item}.png")
    (home / "images" / "5.png").write_bytes(b"not a picture")
    (home / "images" / "6.png").unlink()
    return home


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("report")
    home = write_data(folder / "data")
    keys = {
        "data_path": str(folder / "data"),
        "checkpoint_dir": str(folder / "saved"),
        "embedding_size": 5,
        "train_batch_size": 32,
        "epochs": 3,
        "eval_step": 1,
        "show_progress": False,
        "use_gpu": False,
        "state": "error",
    }
    features = {"features_file": str(home / "features.npy"), "backbone": "VBPR"}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)
        ours = run("CIERec", "tiny", config_dict={**keys, **features})
        recboles = run("BPR", "tiny", config_dict=keys)
        assert main(["report", ours["checkpoint"], f"--out={folder / 'page.html'}"]) == 0
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    html = (folder / "page.html").read_text(encoding="utf-8")
    return Runs(folder, keys, ours, recboles, parsed(html), html)
