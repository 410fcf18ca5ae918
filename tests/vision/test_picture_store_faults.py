"""The store of decoded pictures under damage, crashes, concurrent processes and many files."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from picture_folders import (
    TWENTY,
    assert_own_pictures,
    cache_folder,
    colour_of,
    leftovers,
    opened,
    paint,
    painted_folder,
    recorded_decoding,
    stores,
)

from recbole_cierec.errors import DataError
from recbole_cierec.files import locks
from recbole_cierec.vision import picture_index, picture_store
from recbole_cierec.vision.pictures import PictureSpec

REPOSITORY = Path(__file__).parents[2]


root = pytest.fixture(painted_folder)
cache = pytest.fixture(cache_folder)
decoded = pytest.fixture(recorded_decoding)


# ---- damage --------------------------------------------------------------------------------------


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def edit_manifest(change):
    def spoil(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def truncate(name, share):
    return lambda folder: os.truncate(folder / name, int((folder / name).stat().st_size * share))


def replace_by_pickle(folder):
    np.save(folder / "pictures.npy", np.array([{}], dtype=object), allow_pickle=True)


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


DAMAGE = {
    "pixels cut in half": truncate("pictures.npy", 0.5),
    "pixels empty": truncate("pictures.npy", 0),
    "pixels too long": truncate("pictures.npy", 1.5),
    "pixels missing": lambda folder: (folder / "pictures.npy").unlink(),
    "header zeroed": lambda folder: (folder / "pictures.npy").write_bytes(
        bytes(128) + (folder / "pictures.npy").read_bytes()[128:]
    ),
    "first pixel flipped": lambda folder: flip(folder / "pictures.npy", 128),
    "last pixel flipped": lambda folder: flip(folder / "pictures.npy", -1),
    "dtype changed": lambda folder: np.save(
        folder / "pictures.npy", np.load(folder / "pictures.npy").astype(np.int8)
    ),
    "pickle": replace_by_pickle,
    "manifest cut": truncate("manifest.json", 0.5),
    "manifest empty": truncate("manifest.json", 0),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "manifest binary": lambda folder: (folder / "manifest.json").write_bytes(bytes(range(256))),
    "manifest deep": lambda folder: (folder / "manifest.json").write_text("[" * 200_000),
    "manifest of another store": edit_manifest(lambda manifest: manifest.update(key="0" * 64)),
    "rows swapped": edit_manifest(lambda manifest: manifest["rows"].reverse()),
    "rows lost": edit_manifest(lambda manifest: manifest["rows"].pop()),
    "checksums lost": edit_manifest(lambda manifest: manifest["crc32"].pop()),
    "good picture called bad": edit_manifest(
        lambda manifest: manifest["bad"].append(
            {"path": "0.png", "content": manifest["rows"].pop(0), "reason": "x"}
        )
    ),
    "folder empty": lambda folder: [file.unlink() for file in folder.iterdir()],
    "a file in place of the folder": replace_by_file,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_store_is_built_anew(root, cache, decoded, damage):
    folder = opened(root, TWENTY, cache).folder
    DAMAGE[damage](folder)
    decoded.clear()
    store = opened(root, TWENTY, cache)
    assert len(decoded) == 20
    assert_own_pictures(store, TWENTY)
    assert (store.rows >= 0).all()
    opened(root, TWENTY, cache)
    assert len(decoded) == 20  # the new one is whole
    assert stores(cache) == [folder.name]
    assert leftovers(cache) == []


def test_large_store_is_checked_by_evenly_spread_rows(root, cache, decoded, monkeypatch):
    folder = opened(root, TWENTY, cache).folder
    row = 8 * 8 * 3
    monkeypatch.setattr(picture_store, "_CHECKED_BYTES", 5 * row)  # every fourth of the 20 rows
    whole = (folder / "pictures.npy").read_bytes()
    middle = 128 + 8 * row
    (folder / "pictures.npy").write_bytes(
        whole[:middle] + bytes(4 * row) + whole[middle + 4 * row :]
    )
    decoded.clear()
    assert_own_pictures(opened(root, TWENTY, cache), TWENTY)
    assert len(decoded) == 20


@pytest.mark.parametrize("content", [b"", b"PK\3\4 garbage", b"\x93NUMPY garbage", None])
def test_damaged_hash_index_is_ignored(root, cache, decoded, monkeypatch, content):
    monkeypatch.setattr(picture_index, "_YOUNG_NS", 0)
    opened(root, TWENTY, cache)
    (index,) = cache.glob("picture-hashes-*.npz")
    if content is None:  # arrays of objects would be unpickled, and could run any code
        with open(index, "wb") as stream:
            names = np.frombuffer(b"0.png", np.uint8)
            np.savez(stream, names=names, stamps=np.array([{}]), hashes=names)
    else:
        index.write_bytes(content)
    decoded.clear()
    assert_own_pictures(opened(root, TWENTY, cache), TWENTY)
    assert decoded == []


# ---- crashes and rivals --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_build_that_is_broken_off_leaves_nothing(root, cache, monkeypatch, error):
    decode = picture_store.decode_picture

    def breaking(path, spec):
        if Path(path).name == "13.png":
            raise error
        return decode(path, spec)

    with monkeypatch.context() as patch:
        patch.setattr(picture_store, "decode_picture", breaking)
        with pytest.raises(error):
            opened(root, TWENTY, cache)
    assert stores(cache) == []
    assert leftovers(cache) == []
    assert_own_pictures(opened(root, TWENTY, cache), TWENTY)


def test_picture_changed_during_the_build_stops_it(root, cache, monkeypatch):
    decode = picture_store.decode_picture

    def changing(path, spec):
        if Path(path).name == "13.png":
            paint(Path(path), (200, 0, 0), (6, 6))
        return decode(path, spec)

    with monkeypatch.context() as patch:
        patch.setattr(picture_store, "decode_picture", changing)
        with pytest.raises(DataError, match=r"13\.png changed while it was read"):
            opened(root, TWENTY, cache)
    assert stores(cache) == []
    assert leftovers(cache) == []


def test_full_disk_is_told_and_leaves_nothing(root, cache, monkeypatch):
    usage, wanted = shutil.disk_usage(root), 20 * 8 * 8 * 3
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=wanted - 1))
        with pytest.raises(DataError, match=r"take 3,840 bytes and cache_dir .* has 3,839 free"):
            opened(root, TWENTY, cache)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device") as caught:
        opened(root, TWENTY, cache)
    assert str(cache) in str(caught.value)
    assert stores(cache) == []
    assert leftovers(cache) == []


def test_cache_dir_that_is_a_file_is_told(root, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(DataError, match="cache_dir"):
        opened(root, TWENTY, tmp_path / "taken")


CHILD = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from recbole_cierec.vision import picture_store
from recbole_cierec.vision.pictures import PictureSpec
root, cache, name, wait_for = sys.argv[1:]
decode = picture_store.decode_picture
def meeting(path, spec):  # the first picture waits until the other process is building, too
    Path(root, "..", name).touch()
    limit = time.monotonic() + 60
    while not Path(root, "..", wait_for).exists():
        assert time.monotonic() < limit, "the other process did not come"
        time.sleep(0.01)
    return decode(path, spec)
picture_store.decode_picture = meeting
picture_store.one_builder = lambda folder: nullcontext(False)  # as on a disk without locks
store = picture_store.open_store(
    Path(root), [f"{n}.png" for n in range(20)], PictureSpec(8), bad_image="error",
    cache_dir=Path(cache), progress=False)
sys.stdout.write(f"{store.digest} {store.pictures.sum()} {store.rows.sum()}")
"""


def child(root, cache, name, wait_for):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(cache), name, wait_for],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("damaged_before", [False, True])
def test_two_processes_at_once_leave_one_valid_store(root, cache, decoded, damaged_before):
    if damaged_before:
        os.truncate(opened(root, TWENTY, cache).folder / "pictures.npy", 1000)
    rivals = [child(root, cache, "one", "two"), child(root, cache, "two", "one")]
    results = [rival.communicate(timeout=120) for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert len(stores(cache)) == 1
    assert leftovers(cache) == []
    decoded.clear()
    store = opened(root, TWENTY, cache)
    assert decoded == []
    assert_own_pictures(store, TWENTY)
    assert results[0][0] == f"{store.digest} {store.pictures.sum()} {store.rows.sum()}"


def test_loser_of_a_race_uses_what_the_winner_made(root, cache, monkeypatch):
    decode, inodes = picture_store.decode_picture, []
    # As on a disk without locks.
    monkeypatch.setattr(picture_store, "one_builder", lambda folder: nullcontext(False))

    def overtaken(path, spec):  # while this build is at its first picture, another one finishes
        with monkeypatch.context() as patch:
            patch.setattr(picture_store, "decode_picture", decode)
            winner = opened(root, TWENTY, cache, workers=1)
        inodes.append((winner.folder / "pictures.npy").stat().st_ino)
        monkeypatch.setattr(picture_store, "decode_picture", decode)
        return decode(path, spec)

    monkeypatch.setattr(picture_store, "decode_picture", overtaken)
    store = opened(root, TWENTY, cache, workers=1)
    assert inodes == [(store.folder / "pictures.npy").stat().st_ino]
    assert leftovers(cache) == []
    assert_own_pictures(store, TWENTY)


def test_of_two_that_need_the_same_store_one_decodes(root, cache, monkeypatch):
    """The second comes when the first has begun, and waits for it."""
    waits, stores_seen, decoded = threading.Event(), [], []
    monkeypatch.setattr(locks.CONSOLE, "info", lambda text, *_: "Waiting" in text and waits.set())
    second = threading.Thread(
        target=lambda: stores_seen.append(opened(root, TWENTY, cache)), daemon=True
    )
    decode = picture_store.decode_picture

    def let_it_come(path, spec):
        decoded.append(path)
        if not second.ident:
            second.start()
            assert waits.wait(60)
        return decode(path, spec)

    monkeypatch.setattr(picture_store, "decode_picture", let_it_come)
    store = opened(root, TWENTY, cache, workers=1)
    second.join(60)
    assert len(decoded) == len(set(decoded)) == 20
    assert stores_seen[0].folder == store.folder
    assert_own_pictures(stores_seen[0], TWENTY)
    assert leftovers(cache) == []


def test_rest_of_a_killed_build_is_cleared_at_the_next_start_and_no_living_one(root, cache):
    victim = child(root, cache, "begun", "never")
    limit = time.monotonic() + 60
    while not (root.parent / "begun").exists():
        assert time.monotonic() < limit
        time.sleep(0.01)
    rests = set(leftovers(cache))
    old = time.time() - 365 * 86400  # it looks so by another machine's clock
    for path in cache.glob("tmp-*/*"):
        os.utime(path, (old, old))
    opened(root, TWENTY[:3], cache)
    assert set(leftovers(cache)) == rests
    victim.kill()
    victim.communicate()
    assert len(stores(cache)) == 1
    assert_own_pictures(opened(root, TWENTY[:3], cache), TWENTY[:3])
    assert leftovers(cache) == []


# ---- bounds --------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_open_files_and_memory_are_bounded(tmp_path, cache, monkeypatch):
    for number in range(400):
        paint(tmp_path / "many" / f"{number}.png", colour_of(number), (2, 2))
    paths = [f"{number}.png" for number in range(400)]
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    counts, decode = [], picture_store.decode_picture

    def counting(path, spec):
        counts.append(len(os.listdir("/proc/self/fd")))
        return decode(path, spec)

    monkeypatch.setattr(picture_store, "decode_picture", counting)
    tracemalloc.start()
    store = opened(tmp_path / "many", paths, cache, PictureSpec(200), workers=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.pictures.nbytes > 45e6
    assert peak < 25e6  # 32 threads, and pictures that wait to be written
    assert max(counts) - before < 64
    assert threading.active_count() - threads < 32  # other tests leave some
    assert_own_pictures(store, paths)
    del store
    assert len(os.listdir("/proc/self/fd")) <= before
