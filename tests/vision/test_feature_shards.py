"""Features in shards equal those of one process; missing or wrong parts are named."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from test_features import extract, make_store

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files import digest
from recbole_cierec.files.digest import stamp_of
from recbole_cierec.vision import features
from recbole_cierec.vision.feature_shards import Parts, Shard, read_shard
from recbole_cierec.vision.regions import extract_regions
from recbole_cierec.vision.visual_encoder import VisualEncoder

STORE = make_store(11)  # four batches of three, the last one short


def network(seed: int = 1) -> VisualEncoder:
    return VisualEncoder("squeezenet1_1", "random", seed=seed)


def shard(k: int, cache: Path, seed: int = 1, **options) -> np.ndarray | None:
    return extract(STORE, network(seed), cache, shard=Shard(k, 3), **options)


def parts_in(cache: Path) -> Path:
    (folder,) = cache.glob("features-*.parts")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The cache that one process writes."""
    cache = tmp_path_factory.mktemp("alone")
    extract(STORE, network(), cache)
    return cache


def files(cache: Path) -> tuple[bytes, dict]:
    (folder,) = cache.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["date"]
    return (folder / "features.npy").read_bytes(), manifest


def test_three_shards_make_the_file_of_one_process_and_list_themselves(alone, tmp_path):
    assert shard(2, tmp_path) is None
    assert shard(0, tmp_path) is None
    joined = shard(1, tmp_path)
    ours, manifest = files(tmp_path)  # and no other file is left
    theirs, expected = files(alone)
    assert ours == theirs
    assert np.array_equal(joined, np.load(next(alone.glob("*/features.npy"))))
    parts = manifest.pop("parts")
    assert manifest == expected
    assert [part["rows"] for part in parts] == [[0, 3], [3, 6], [6, 11]]
    assert len({part["sha256"] for part in parts}) == 3
    assert shard(0, tmp_path) is not None  # run again, it finds the complete file


def test_a_killed_shard_is_run_again_alone(tmp_path):
    for k in (0, 2):
        shard(k, tmp_path)
    encoder, calls = network(), []

    def killed(module, inputs):
        calls.append(len(inputs[0]))
        raise KeyboardInterrupt

    handle = encoder.register_forward_pre_hook(killed)
    with pytest.raises(KeyboardInterrupt):
        extract(STORE, encoder, tmp_path, shard=Shard(1, 3))
    handle.remove()
    assert len(list(parts_in(tmp_path).iterdir())) == 2
    calls.clear()
    encoder.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    assert extract(STORE, encoder, tmp_path, shard=Shard(1, 3)) is not None
    assert calls == [3]  # only its own batch; the others' parts were reused


def test_missing_shards_are_named_and_those_of_other_weights(tmp_path, caplog):
    shard(2, tmp_path, seed=2)
    caplog.clear()
    shard(1, tmp_path)
    text = caplog.text
    assert "2 of 3 shards are still missing (1/3, 3/3)" in text
    assert "shards of the same pictures by another network or other weights" in text


def spoil(part: Path, how: str) -> None:
    if how == "rows":
        path = part / "rows.npy"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return
    path = part / "manifest.json"
    manifest = json.loads(path.read_text())
    if how == "weights":
        manifest["inputs"]["weights_digest"] = "0" * 64
    if how == "batch":
        manifest["batch_size"] = 64
    path.write_text(json.dumps(manifest) if how != "manifest" else "{")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("rows", "is damaged"),
        ("manifest", "is missing or damaged"),
        ("weights", "is of other pictures or weights"),
        ("batch", "was made with encoder_batch_size 64"),
    ],
)
def test_a_part_that_cannot_be_used_is_named_in_one_line(alone, tmp_path, how, words):
    for k in (0, 1):
        shard(k, tmp_path)
    spoil(parts_in(tmp_path) / "1-of-3", how)
    with pytest.raises(DataError) as error:
        shard(2, tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert f"1-of-3: {words}; run the shard 1/3 again" in message
    assert shard(0, tmp_path) is not None  # run again, it replaces its own part
    assert files(tmp_path)[0] == files(alone)[0]


def run_shard(cache: Path, k: int, barrier, answers) -> None:
    """A separate machine."""
    torch.set_num_threads(1)
    barrier.wait()
    features = shard(k, cache)
    answers.put("" if features is None else hashlib.sha256(features.tobytes()).hexdigest())


def test_machines_that_run_the_same_shards_at_once_do_no_harm(alone, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    machines = [
        context.Process(target=run_shard, args=(tmp_path, k, barrier, answers))
        for k in (0, 1, 2, 2)
    ]
    for machine in machines:
        machine.start()
    returned = {answers.get(timeout=60) for _ in machines}
    for machine in machines:
        machine.join(60)
        assert machine.exitcode == 0
    whole = np.load(next(alone.glob("*/features.npy")))
    assert returned - {""} == {hashlib.sha256(whole.tobytes()).hexdigest()}
    assert files(tmp_path)[0] == files(alone)[0]


def test_a_part_that_another_machine_has_finished_is_never_replaced(tmp_path, monkeypatch):
    written, add = [], Parts.add

    def late(parts, batches, check):
        monkeypatch.setattr(Parts, "add", add)
        shard(0, tmp_path)  # the other machine, between this one's check and its write
        written.append((parts_in(tmp_path) / "1-of-3").stat().st_ino)
        add(parts, batches, check)

    monkeypatch.setattr(Parts, "add", late)
    shard(0, tmp_path)
    assert written == [(parts_in(tmp_path) / "1-of-3").stat().st_ino]


def test_parts_that_a_run_killed_after_joining_left_are_removed_by_the_next(tmp_path, monkeypatch):
    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_cierec.vision.features.drop_parts", killed)
    for k in (0, 1):
        shard(k, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        shard(2, tmp_path)
    monkeypatch.undo()
    others = tmp_path / "features-0123456789abcdef.parts"  # of other pictures or weights
    others.mkdir()
    assert len(list(tmp_path.glob("features-*.parts"))) == 2
    assert shard(0, tmp_path) is not None
    assert list(tmp_path.glob("features-*.parts")) == [others]


@pytest.mark.parametrize(
    ("rank", "told", "damaged", "checks"),
    [
        (0, None, False, 1),
        (0, None, True, 1),
        (1, "the same file", False, 0),
        (1, "another file", False, 1),
        (1, "another file", True, 1),
        (1, None, True, 1),
    ],
)
def test_the_first_process_checks_the_numbers_for_those_that_see_its_file(
    tmp_path, monkeypatch, rank, told, damaged, checks
):
    extract(STORE, network(), tmp_path)
    (file,) = tmp_path.glob("features-*/features.npy")
    if damaged:
        with file.open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"?")
    stamps = {"the same file": stamp_of(file), "another file": (1, 2, 3, 4), None: None}
    said, checked = [], []

    def of_first(value):
        said.append(value)
        return stamps[told]

    def file_digest(path):
        checked.append(path)
        return digest.file_digest(path)

    found = []
    monkeypatch.setattr(features, "world", lambda: (rank, 2))
    monkeypatch.setattr(features, "of_first", of_first)
    monkeypatch.setattr(features, "file_digest", file_digest)
    monkeypatch.setattr(features, "_in_parts", lambda cache, whole, shard: found.append(whole))
    extract(STORE, network(), tmp_path)
    assert checked == [file] * checks
    assert said == [stamp_of(file) if rank == 0 and not damaged else None]
    assert (found[0] is None) == damaged


def test_shards_replace_a_damaged_whole(alone, tmp_path):
    extract(STORE, network(), tmp_path)
    next(tmp_path.glob("features-*/features.npy")).write_bytes(b"")
    for k in range(3):
        joined = shard(k, tmp_path)
    assert joined is not None
    assert files(tmp_path)[0] == files(alone)[0]


def test_region_maps_come_in_shards_as_well(tmp_path):
    options = {"batch_size": 3, "device": "cpu", "progress": False}
    whole = extract_regions(STORE, network(), cache_dir=tmp_path / "alone", **options)
    for k in range(2):
        joined = extract_regions(
            STORE, network(), cache_dir=tmp_path / "parts", shard=Shard(k, 2), **options
        )
    assert np.array_equal(whole, joined)


@pytest.mark.parametrize("rows", [0, 1, 5, 64, 65])
@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_shards_tile_the_rows_in_whole_batches(rows, count):
    parts = [Shard(k, count).rows(rows, 4) for k in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert all(part.start % 4 == 0 for part in parts)


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "1/", "-1/4", "1/0", "1/2/3", ""])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(ConfigError, match="give K/N, as 3/16"):
        read_shard(text)
    assert read_shard("3/16") == Shard(2, 16)
