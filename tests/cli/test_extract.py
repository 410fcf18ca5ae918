"""``python -m recbole_cierec extract`` on a small data set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recbole_cierec.cli.extract import main
from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.logs import stop_log
from recbole_cierec.registry import get_model_class
from recbole_cierec.vision.item_pictures import pictures_of

ITEMS = 6
FLAGS = ["--dataset=tiny", "--image_size=40", "--visual_encoder=squeezenet1_1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with dataset/tiny: six items, the last one without a picture."""
    place = tmp_path / "dataset" / "tiny"
    place.mkdir(parents=True)
    events = [f"u{u}\ti{i}\t{u + i}" for u in range(5) for i in range(ITEMS)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (place / "tiny.inter").write_text("\n".join([header, *events]) + "\n")
    lines = ["item_id:token\timage_path:token\tannotations:token_seq"]
    for i in range(ITEMS):
        path = f"{i}.png" if i < ITEMS - 1 else ""
        lines.append(f"i{i}\t{path}\tred round")
        if path:
            Image.new("RGB", (50, 30), (40 * i, 255 - 40 * i, 9)).save(place / path)
    (place / "tiny.item").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    stop_log()


def feature_folders(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("features-*"))


def log_text(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("log/*/*.log"))


def test_pictures_and_features_are_cached_and_the_log_says_where(folder):
    assert main([*FLAGS, "--encoder_weights=random"]) == 0
    (cache,) = feature_folders(folder)
    manifest = json.loads((cache / "manifest.json").read_text())
    features = np.load(cache / "features.npy")
    assert features.shape == (5, 512)
    assert len(np.unique(features, axis=0)) == 5
    assert (folder / "cache" / manifest["picture_store"]).is_dir()
    log = log_text(folder)
    assert f"built in cache/{cache.name}" in log
    assert manifest["picture_store"] in log
    assert "512 for each of 5 of 6 items" in log
    assert "Pictures: 6 items, 1 without picture, 5 different" in log


def test_a_second_run_uses_the_caches(folder):
    for _ in range(2):
        assert main([*FLAGS, "--encoder_weights=random"]) == 0
    (cache,) = feature_folders(folder)
    assert log_text(folder).count(f"built in cache/{cache.name}") == 1


def manifest_and_features(folder: Path) -> tuple[dict, bytes]:
    (cache,) = feature_folders(folder)
    manifest = json.loads((cache / "manifest.json").read_text())
    return manifest, (cache / "features.npy").read_bytes()


@pytest.mark.parametrize(
    "runs", [[["--nproc=2"]], [["--shard=2/2"], ["--shard=1/2"]]], ids=["processes", "machines"]
)
def test_parts_by_processes_or_machines_are_the_file_of_one(folder, runs, quick_processes):
    flags = [*FLAGS, "--encoder_weights=random", "--encoder_batch_size=2"]
    assert main([*flags, "--cache_dir=one/cache", "--out=one.npy"]) == 0
    for more in runs:
        assert not Path("all.npy").exists()
        assert main([*flags, *more, "--out=all.npy"]) == 0
    assert Path("all.npy").read_bytes() == Path("one.npy").read_bytes()
    log = log_text(folder)
    assert ("Shard 2/2 is done" in log) == (len(runs) == 2)
    assert "512 for each of 5 of 6 items" in log
    manifest, features = manifest_and_features(folder)
    assert [part["rows"] for part in manifest["parts"]] == [[0, 2], [2, 5]]
    assert features == manifest_and_features(folder / "one")[1]


def test_region_maps_are_cached_for_a_model_over_regions(folder):
    for _ in range(2):
        assert main([*FLAGS, "--model=VECF", "--encoder_weights=random"]) == 0
    (cache,) = (folder / "cache").glob("regions-*")
    maps = np.load(cache / "regions.npy", mmap_mode="r")
    assert (maps.dtype, maps.shape) == (np.float16, (5, 4, 512))  # 2 x 2 of pictures of 40 pixels
    assert feature_folders(folder) == []
    log = log_text(folder)
    assert log.count(f"built in cache/{cache.name}") == 1
    assert "512 for each of 4 regions for each of 5 of 6 items" in log


def features_of_items(model: str = "VBPR", **keys) -> dict[str, list]:
    """What a model of a run reads of each item's picture, by the item's id."""
    given = {"image_size": 40, "visual_encoder": "squeezenet1_1", "show_progress": False, **keys}
    content = create_dataset(Config(model, "tiny", config_dict=given)).content
    pictures, ids = pictures_of(content), content.item_ids
    assert {ids[i] for i in np.flatnonzero(~pictures.has_picture.numpy())} == {"[PAD]", "i5"}
    if get_model_class(model).uses_regions:
        rows = pictures.regions(torch.arange(len(ids)))
    else:
        rows = pictures.features
    return dict(zip(ids, rows.tolist(), strict=True))


@pytest.mark.parametrize(
    ("model", "shape", "kind"),
    [("VBPR", (5, 512), np.float32), ("VECF", (5, 4, 512), np.float16)],
)
def test_a_run_reads_the_written_file_as_it_reads_the_pictures(folder, model, shape, kind):
    weights = {"encoder_weights": "random", "seed": 3}
    flags = [*FLAGS, *(f"--{key}={value}" for key, value in weights.items())]
    assert main([*flags, f"--model={model}", "--out=made/image.npy"]) == 0
    written = np.load("made/image.npy")
    assert (written.shape, written.dtype) == (shape, kind)
    ids = Path("made/image.ids.txt").read_text().splitlines()
    assert sorted(ids) == [f"i{i}" for i in range(5)]
    of_pictures = features_of_items(model, **weights)
    of_file = features_of_items(model, features={"image": "made/image.npy"})
    assert of_file == of_pictures
    assert "features: {image: made/image.npy}" in log_text(folder)


def test_the_rows_of_items_that_share_a_picture_are_equal(folder):
    shutil.copy("dataset/tiny/0.png", "dataset/tiny/3.png")
    assert main([*FLAGS, "--encoder_weights=random", "--out=image.npy"]) == 0
    ids = Path("image.ids.txt").read_text().splitlines()
    row_of = dict(zip(ids, np.load("image.npy").tolist(), strict=True))
    assert len(row_of) == 5
    assert row_of["i0"] == row_of["i3"] != row_of["i1"]


def test_out_replaces_no_input_and_no_cache(folder, capsys):
    np.save("good.npy", np.random.default_rng(0).random((ITEMS, 3)))
    Path("other.ids.txt").write_text("".join(f"i{i}\n" for i in range(ITEMS)))
    np.save("other.npy", np.ones((ITEMS, 2)))
    given = ["--features={image: good.npy, text: other.npy}"]
    for out in ("good.npy", "other.npy"):
        assert main([*FLAGS, *given, f"--out={out}"]) == 2
        assert f"{out}: cannot be written (this command reads it)" in capsys.readouterr().err
    assert main([*FLAGS, "--encoder_weights=random"]) == 0
    (cache,) = feature_folders(folder)
    before = (cache / "features.npy").read_bytes()
    assert main([*FLAGS, "--encoder_weights=random", f"--out={cache}/features.npy"]) == 2
    assert "this command reads it" in capsys.readouterr().err
    assert (cache / "features.npy").read_bytes() == before


def test_a_ready_made_file_is_checked_and_needs_no_encoder(folder, capsys):
    np.save("good.npy", np.random.default_rng(0).random((ITEMS, 3)))
    np.save("short.npy", np.ones((ITEMS - 1, 3)))
    assert main([*FLAGS, "--features_file=good.npy"]) == 0
    assert f"Features from good.npy: 3 for each of {ITEMS} of {ITEMS} items" in log_text(folder)
    assert feature_folders(folder) == []
    assert main([*FLAGS, "--features_file=short.npy"]) == 2
    assert "has 5 rows, but the .item file has 6" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "shape"), [("CIERec", (ITEMS, 3)), ("VECF", (ITEMS, 4, 3))])
def test_a_row_that_is_not_finite_is_named_with_its_item(folder, capsys, model, shape):
    rows = np.ones(shape)
    rows[4].flat[1] = np.inf
    np.save("bad.npy", rows)
    assert main([*FLAGS, f"--model={model}", "--features_file=bad.npy"]) == 2
    error = capsys.readouterr().err
    assert "1 of 6 rows hold NaN or infinity (counted from 0: 4 of item i4)" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--visual_encoder=resnet19"], "did you mean 'resnet18'?"),
        (["--encoder_weights=nowhere.pth"], "neither DEFAULT, nor random, nor a file"),
        (["--visual_encodr=resnet18"], "visual_encoder"),
        (["--model=LightGCN"], "LightGCN reads no pictures; leave --model out"),
        (["--nproc=0"], "--nproc must be 1 or more"),
        (["--shard=4/3"], "--shard=4/3: give K/N, as 3/16"),
        (["--shard=1/2", "--features_file=a.npy"], "features_file holds all features already"),
        (["resnet18"], "--key=value"),
        (["--out=image"], "--out=image: must end in .npy"),
        (
            ["--out=folder.npy"],
            "folder.npy: cannot be written (it is a folder, which is not replaced)",
        ),
        (["--out=a.npy", "--pictures_wrong=0.5"], "leave pictures_wrong out"),
        (["--shrd=1/2"], "unknown flag --shrd; did you mean 'shard'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, words, folder, capsys):
    np.save("a.npy", np.ones((ITEMS, 3)))
    Path("folder.npy").mkdir()
    rest = [f for f in FLAGS if f.partition("=")[0] not in {x.partition("=")[0] for x in flags}]
    assert main([*rest, *flags]) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert words in line


def test_it_is_a_command_of_the_package(folder):
    command = [sys.executable, "-m", "recbole_cierec", "extract"]
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root, "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "features_file" in done.stdout
