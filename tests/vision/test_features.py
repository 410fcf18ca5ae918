"""The feature cache: correct numbers, reused only when valid; ready-made files."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files import locks
from recbole_cierec.files.cache_folder import build_folder
from recbole_cierec.files.leftovers import TEMPORARY
from recbole_cierec.vision import features as features_module
from recbole_cierec.vision.feature_files import load_feature_file
from recbole_cierec.vision.feature_norm import KINDS, FeatureNorm
from recbole_cierec.vision.features import extract_features
from recbole_cierec.vision.visual_encoder import VisualEncoder


@dataclass
class Pictures:
    """The part of a picture store that the extraction uses."""

    pictures: np.ndarray
    digest: str = "d" * 64
    folder: Path = Path("cache/pictures-0")

    def item_of(self, row: int) -> str:
        return f"i{row}"


def make_store(n: int = 7, digest: str = "d" * 64) -> Pictures:
    pictures = np.random.default_rng(n).integers(0, 256, (n, 40, 40, 3), dtype=np.uint8)
    pictures.flags.writeable = False  # as in a store
    return Pictures(pictures, digest)


@pytest.fixture
def encoder() -> VisualEncoder:
    return VisualEncoder("squeezenet1_1", "random", seed=1)


@pytest.fixture
def calls(encoder) -> list[int]:
    """Sizes of the batches that pass through the encoder."""
    sizes: list[int] = []
    encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def extract(store: Pictures, encoder: VisualEncoder, cache: Path, **options) -> np.ndarray:
    options = {"batch_size": 3, "device": "cpu", "progress": False, **options}
    return extract_features(store, encoder, cache_dir=cache, **options)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


# -------------------------------------------------------------------------------- the cache


def test_features_are_those_of_each_picture_alone(encoder, calls, tmp_path):
    store = make_store()
    features = extract(store, encoder, tmp_path)
    assert calls == [3, 3, 1]
    with torch.no_grad():
        expected = [encoder(torch.tensor(picture[None]))[0].numpy() for picture in store.pictures]
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)
    assert isinstance(features, np.memmap)
    assert (features.dtype, features.flags.writeable) == (np.float32, False)


def test_a_second_call_reads_the_cache(encoder, calls, tmp_path):
    first = np.array(extract(make_store(), encoder, tmp_path))
    calls.clear()
    again = extract(make_store(), encoder, tmp_path, batch_size=5)
    assert calls == []
    np.testing.assert_array_equal(again, first)


def test_the_manifest_describes_the_features(encoder, tmp_path):
    extract(make_store(), encoder, tmp_path)
    (folder,) = tmp_path.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder.name.startswith("features-")
    assert manifest["encoder"] == "squeezenet1_1"
    assert manifest["weights_digest"] == encoder.weights_digest
    assert manifest["store_digest"] == "d" * 64
    assert (manifest["rows"], manifest["out_dim"], manifest["image_size"]) == (7, 512, 40)
    assert manifest["picture_store"] == "pictures-0"
    assert manifest["normalisation"] == [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    file = (folder / "features.npy").read_bytes()
    assert manifest["features_sha256"] == hashlib.sha256(file).hexdigest()


def test_other_pictures_weights_or_network_have_another_cache(encoder, tmp_path):
    extract(make_store(), encoder, tmp_path)
    extract(make_store(digest="e" * 64), encoder, tmp_path)
    assert len(folders(tmp_path)) == 2
    extract(make_store(), VisualEncoder("squeezenet1_1", "random", seed=2), tmp_path)
    assert len(folders(tmp_path)) == 3
    extract(make_store(), VisualEncoder("squeezenet1_0", "random", seed=1), tmp_path)
    assert len(folders(tmp_path)) == 4


def test_an_encoder_trained_since_does_not_get_its_old_features(encoder, tmp_path):
    before = np.array(extract(make_store(), encoder, tmp_path))
    with torch.no_grad():
        encoder.trunk.features[0].bias += 1
    assert np.abs(extract(make_store(), encoder, tmp_path) - before).max() > 1e-3


def truncate(folder: Path) -> None:
    os.truncate(folder / "features.npy", 900)


def flip_one_bit(folder: Path) -> None:
    content = bytearray((folder / "features.npy").read_bytes())
    content[2000] ^= 1
    (folder / "features.npy").write_bytes(content)


def lose_the_features(folder: Path) -> None:
    (folder / "features.npy").unlink()


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"")


def swap_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1]")


def put_a_file_in_its_place(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("x")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_one_bit,
        lose_the_features,
        empty_the_manifest,
        swap_the_manifest,
        put_a_file_in_its_place,
    ],
)
def test_a_damaged_cache_is_built_again(damage, encoder, calls, tmp_path, caplog):
    expected = np.array(extract(make_store(), encoder, tmp_path))
    (folder,) = tmp_path.iterdir()
    damage(folder)
    calls.clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(extract(make_store(), encoder, tmp_path), expected)
    assert "damaged" in caplog.text
    assert sum(calls) == 7
    calls.clear()
    extract(make_store(), encoder, tmp_path)
    assert calls == []
    assert folders(tmp_path) == [folder.name]


def test_no_pictures_give_no_rows(encoder, tmp_path):
    for _ in range(2):  # built, then read
        assert extract(make_store(0), encoder, tmp_path).shape == (0, 512)


def test_features_that_are_not_finite_name_their_rows(encoder, tmp_path):
    encoder.register_forward_hook(lambda _, inputs, out: out.index_fill(0, torch.tensor(1), np.nan))
    with pytest.raises(
        DataError, match=r"3 of 8 rows .*: 1 of item i1, 4 of item i4, 7 of item i7\)"
    ) as caught:
        extract(make_store(8), encoder, tmp_path)
    assert "\n" not in str(caught.value)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("training", [True, False])
def test_extraction_runs_in_eval_mode_and_keeps_the_callers(training, encoder, tmp_path):
    seen = []
    encoder.train(training).register_forward_hook(lambda *_: seen.append(encoder.training))
    extract(make_store(), encoder, tmp_path)
    assert not any(seen)
    assert encoder.training is training


def test_an_interrupted_extraction_leaves_nothing(encoder, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    encoder.train().register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(make_store(), encoder, tmp_path)
    assert folders(tmp_path) == []
    assert encoder.training


def test_a_batch_size_of_zero_is_refused(encoder, tmp_path):
    with pytest.raises(ConfigError, match="encoder_batch_size: 0"):
        extract(make_store(), encoder, tmp_path, batch_size=0)


def test_a_cache_that_cannot_be_written_says_so_in_one_line(encoder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="set cache_dir") as caught:
        extract(make_store(), encoder, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def build_at_once(cache: Path, barrier, answers) -> None:
    """Build the same cache when all processes are ready; send back what was returned."""
    torch.set_num_threads(1)
    network = VisualEncoder("squeezenet1_1", "random", seed=1)
    barrier.wait()
    features = extract(make_store(), network, cache)
    answers.put(hashlib.sha256(features.tobytes()).hexdigest())


def test_processes_that_build_at_once_leave_one_valid_cache(encoder, calls, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    arguments = (tmp_path, barrier, answers)
    workers = [context.Process(target=build_at_once, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    returned = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    features = extract(make_store(), encoder, tmp_path)
    assert calls == []
    assert returned == {hashlib.sha256(features.tobytes()).hexdigest()}
    assert len(folders(tmp_path)) == 1


def test_a_cache_that_another_machine_has_built_meanwhile_is_kept(encoder, tmp_path, monkeypatch):
    built = []
    # Machines may share a disk without locks.
    monkeypatch.setattr(features_module, "one_builder", lambda folder: nullcontext(False))

    def build_elsewhere(*_):
        if not built:
            extract(make_store(), VisualEncoder("squeezenet1_1", "random", seed=1), tmp_path)
            built.extend(path.stat().st_ino for path in tmp_path.glob("features-*/features.npy"))

    encoder.register_forward_pre_hook(build_elsewhere)
    features = extract(make_store(), encoder, tmp_path)
    (path,) = tmp_path.glob("*/features.npy")
    assert [path.stat().st_ino] == built
    np.testing.assert_array_equal(features, np.load(path))


def test_of_two_that_need_the_same_features_one_computes_them(encoder, tmp_path, monkeypatch):
    """The second comes when the first has begun, and waits for it."""
    waits, results = threading.Event(), []
    monkeypatch.setattr(locks.CONSOLE, "info", lambda text, *_: "Waiting" in text and waits.set())
    idle = VisualEncoder("squeezenet1_1", "random", seed=1)
    idle.register_forward_pre_hook(lambda *_: pytest.fail("computed twice"))
    second = threading.Thread(
        target=lambda: results.append(extract(make_store(), idle, tmp_path)), daemon=True
    )

    def let_it_come(*_):
        if not second.ident:
            second.start()
            assert waits.wait(60)

    encoder.register_forward_pre_hook(let_it_come)
    features = extract(make_store(), encoder, tmp_path)
    second.join(60)
    np.testing.assert_array_equal(features, results[0])
    assert len(folders(tmp_path)) == 1


def test_a_folder_moved_away_as_soon_as_it_stood_in_the_way_is_no_fault(tmp_path, monkeypatch):
    """Two others replace the same folder at once: it exists at the rename, and not afterwards."""
    final, rename, met = tmp_path / "cache", Path.rename, []

    def contended(path: Path, target: Path) -> Path:
        if target == final and not met:
            met.append(path)
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", contended)
    with build_folder(final) as folder:
        (folder / "x").write_text("whole")
    assert len(met) == 1
    assert (final / "x").read_text() == "whole"


def test_a_folder_replaced_while_it_is_read_stays_readable(tmp_path):
    final = tmp_path / "cache"
    for value in (1.0, 2.0):
        with build_folder(final) as folder:
            np.save(folder / "x.npy", np.full(5000, value))
        if value == 1.0:
            old = np.load(final / "x.npy", mmap_mode="r")
    assert old.sum() == 5000
    assert np.load(final / "x.npy").sum() == 10000
    assert folders(tmp_path) == ["cache"]


def test_what_a_killed_extraction_left_is_cleared_whatever_is_extracted_next(encoder, tmp_path):
    dead = tmp_path / f"{TEMPORARY}0123456789ab"
    dead.mkdir()
    (dead / "features.npy").write_text("half")
    for _ in range(2):  # built, then found in the cache
        extract(make_store(), encoder, tmp_path)
        assert len(folders(tmp_path)) == 1
        dead.mkdir(exist_ok=True)
    with build_folder(tmp_path / "cache"):
        assert not dead.exists()


@pytest.mark.parametrize("target", ["a folder on another disk", "nothing"])
def test_a_folder_is_built_where_a_link_leads(tmp_path, target):
    real, link = tmp_path / "disk" / "cache", tmp_path / "cache"
    real.parent.mkdir()
    if target != "nothing":
        real.mkdir()
        (real / "x").write_text("damaged")
    link.symlink_to(real)
    with build_folder(link) as folder:
        (folder / "x").write_text("whole")
    assert link.is_symlink()
    assert (real / "x").read_text() == "whole"
    assert folders(real.parent) == ["cache"]


def test_a_pipe_in_the_place_of_a_cache_stays(tmp_path):
    os.mkfifo(tmp_path / "cache")
    with pytest.raises(DataError, match="is a pipe") as caught, build_folder(tmp_path / "cache"):
        pass
    assert "\n" not in str(caught.value)
    assert (tmp_path / "cache").is_fifo()
    assert folders(tmp_path) == ["cache"]


@pytest.mark.parametrize("manifest", ["[" * 200_000, "[]", "{}"])
def test_a_manifest_of_another_making_is_a_damaged_cache(encoder, tmp_path, manifest):
    extract(make_store(), encoder, tmp_path)
    (path,) = tmp_path.glob("*/manifest.json")
    whole = path.read_text()
    path.write_text(manifest)
    extract(make_store(), encoder, tmp_path)
    assert json.loads(path.read_text()).keys() == json.loads(whole).keys()


# ------------------------------------------------------------------------ ready-made files


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "u1"])
def test_a_ready_made_file_keeps_its_rows(dtype, tmp_path):
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "f.npy", rows)
    features = load_feature_file(tmp_path / "f.npy", list("abcd"))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, rows.astype(np.float32))


def bad_file(path: Path, kind: str) -> None:
    rows = np.ones((4, 3), dtype=np.float32)
    if kind == "objects":
        np.save(path, np.array([[{}]] * 4, dtype=object), allow_pickle=True)
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, rows=rows)
    elif kind == "text":
        path.write_text("1 2 3\n")
    elif kind == "truncated":
        np.save(path, rows)
        os.truncate(path, path.stat().st_size - 4)
    elif kind == "header":
        path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    elif kind not in ("missing", "long name"):
        shapes = {"one dimension": rows[:, 0], "no features": rows[:, :0], "rows": rows[:3]}
        values = {**shapes, "complex": rows * 1j, "words": rows.astype(str)}
        np.save(path, values[kind])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read"),
        ("long name", "File name too long"),
        ("folder", "cannot be read"),
        ("pipe", "not a regular file"),
        ("text", "is no .npy file"),
        ("archive", "is no .npy file"),
        ("objects", "Python objects"),
        ("truncated", "cannot be read"),
        ("header", "cannot be read"),
        ("one dimension", "has shape (4,)"),
        ("no features", "has shape (4, 0)"),
        ("rows", "has 3 rows, but the .item file has 4"),
        ("complex", "holds complex64"),
        ("words", "holds <U"),
    ],
)
def test_a_file_without_proper_features_is_refused_in_one_line(kind, words, tmp_path):
    path = tmp_path / ("x" * 300 if kind == "long name" else "f.npy")
    bad_file(path, kind)
    with pytest.raises(DataError) as caught:
        load_feature_file(path, list("abcd"))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", np.nan), ("f4", np.inf), ("f8", -np.inf), ("f8", 1e300)]
)
def test_rows_that_are_not_finite_are_named(dtype, value, tmp_path):
    rows = np.ones((20_000, 2), dtype=dtype)
    rows[[5, 19_999], [0, 1]] = value
    np.save(tmp_path / "f.npy", rows)
    with pytest.raises(
        DataError, match=r"2 of 20000 rows .*: 5 of item i5, 19999 of item i19999\)"
    ):
        load_feature_file(tmp_path / "f.npy", [f"i{k}" for k in range(20_000)])


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_a_norm_leaves_the_rows_as_they_were(kind):
    rows = torch.randn(9, 4, dtype=torch.float64) + 3
    before = rows.clone()
    FeatureNorm.fit(rows, kind, 2)
    assert torch.equal(rows, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_components_kept_are_those_of_largest_variance(kind):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 6, generator=generator) * torch.tensor([1.0, 5, 2, 0.3, 4, 3]) + 2
    whole = FeatureNorm.fit(rows, kind)(rows).double().numpy()
    kept = FeatureNorm.fit(rows, kind, 2)(rows).double().numpy()
    variances = np.sort(np.linalg.eigvalsh(np.cov(whole.T)))[::-1]
    wanted = variances[:2] / variances[0]  # except for the common scale
    found = np.linalg.eigvalsh(np.cov(kept.T))[::-1]
    np.testing.assert_allclose(found / found[0], wanted, rtol=1e-4)
    if kind in ("none", "l2"):
        assert found[0] == pytest.approx(variances[0], rel=1e-4)


def test_norms_are_what_they_are_called():
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3
    made = {kind: FeatureNorm.fit(rows, kind)(rows) for kind in KINDS}
    assert torch.equal(made["none"], rows)
    torch.testing.assert_close(made["l2"], rows / rows.norm(dim=1, keepdim=True))
    for kind in ("center", "standard"):
        assert made[kind].mean(0).abs().max() < 1e-6
        assert float(made[kind].norm(dim=1).mean()) == pytest.approx(1.0, abs=1e-6)
    moved = made["l2"] - made["l2"].mean(0)
    torch.testing.assert_close(made["center"], moved / moved.norm(dim=1).mean())
    deviations = made["standard"].std(0)
    torch.testing.assert_close(deviations, deviations.mean().expand(6))
