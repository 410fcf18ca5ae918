"""The store of decoded pictures: assignment to items, bad pictures, and reuse."""

import json
import logging
import os
import shutil
import sys
import time
import warnings
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
from PIL import Image

from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.vision import picture_files, picture_index
from recbole_cierec.vision.pictures import PictureSpec

root = pytest.fixture(painted_folder)
cache = pytest.fixture(cache_folder)
decoded = pytest.fixture(recorded_decoding)


# ---- what a store holds --------------------------------------------------------------------------


def test_every_item_has_its_own_picture(root, cache):
    paths = [TWENTY[number] for number in np.random.default_rng(1).permutation(20)] + ["", "3.png"]
    store = opened(root, paths, cache)
    assert_own_pictures(store, paths)
    assert store.pictures.shape == (20, 8, 8, 3)
    assert store.pictures.dtype == np.uint8
    assert store.rows.dtype == np.int64
    assert store.rows[20] == -1  # no picture is not a bad picture
    assert store.rows[21] == store.rows[paths.index("3.png")]
    assert not store.blank.any()
    assert store.bad == []
    assert leftovers(cache) == []


def test_pictures_are_mapped_and_read_only(root, cache):
    store = opened(root, TWENTY, cache)
    assert isinstance(store.pictures, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.pictures[0] = 0


def test_files_of_equal_content_share_a_row(root, cache, decoded):
    shutil.copy(root / "4.png", root / "twin.png")
    (root / "link.png").symlink_to("4.png")
    store = opened(root, ["4.png", "5.png", "twin.png", "link.png"], cache)
    assert store.rows.tolist() == [0, 1, 0, 0]
    assert decoded == ["4.png", "5.png"]


@pytest.mark.parametrize("paths", [[], ["", ""]])
def test_data_set_without_pictures_gives_an_empty_store(tmp_path, cache, paths):
    store = opened(tmp_path / "no such folder", paths, cache)
    assert store.pictures.shape == (0, 8, 8, 3)
    assert store.rows.tolist() == [-1] * len(paths)


def test_strange_file_names_are_only_ever_names(root, cache):
    names = [
        "con",
        "a b/%2e%2e.png",
        "\N{SLICE OF PIZZA}.png",
        "n" * 200,
        "line\nbreak.png",
        "-rf",
        "~",
    ]
    for number, name in enumerate(names):
        paint(root / name, colour_of(number))
    before = set(root.rglob("*"))
    store = opened(root, names, cache)
    for number, row in enumerate(store.rows):
        assert (store.pictures[row] == colour_of(number)).all()
    assert set(root.rglob("*")) == before
    assert opened(root, names, cache).digest == store.digest


def test_manifest_tells_what_the_store_holds(root, cache):
    (root / "1.png").write_bytes(b"text")
    store = opened(root, TWENTY, cache, bad_image="skip")
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["key"] == store.digest
    assert (manifest["size"], manifest["resize"], manifest["bad_image"]) == (8, "squash", "skip")
    assert manifest["counts"] == {"items": 20, "rows": 19, "bad": 1}
    assert manifest["bad"][0]["path"] == "1.png"
    assert len(set(manifest["rows"])) == 19


# ---- bad pictures --------------------------------------------------------------------------------

BAD = {
    "text.jpg": "not a JPEG",
    "empty.jpg": "empty file",
    "cut.png": "damaged",
    "folder.png": "a folder",
    "gone.png": "broken symbolic link",
    "missing.png": "no such file",
    "0.png/x": "no such file",
    "../secret.png": "leaves the picture folder",
    "way-out.png": "leaves the picture folder",
    "door/secret.png": "leaves the picture folder",
    "nul\0.png": "not a possible file name",
    "loop.png": "broken symbolic link",
}


@pytest.fixture
def spoiled(root, tmp_path):
    """The folder with every kind of bad picture, and the paths, good ones between the bad."""
    paint(tmp_path / "secret.png", (1, 2, 3))
    (root / "text.jpg").write_text("<html>404</html>")
    (root / "empty.jpg").touch()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(root / "cut.png")
    os.truncate(root / "cut.png", 1500)
    (root / "folder.png").mkdir()
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "way-out.png").symlink_to(tmp_path / "secret.png")
    (root / "door").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    bad = [*BAD, str(tmp_path / "secret.png")]
    return [path for pair in zip(TWENTY, bad, strict=False) for path in pair] + ["", "19.png"]


def assert_all_bad_listed(bad, spoiled):
    reasons = dict(bad)
    assert list(reasons) == [path for path in spoiled[1::2] if path != "19.png"]
    for path, reason in BAD.items():
        assert reason in reasons[path]
    assert "leaves the picture folder" in bad[-1][1]


def test_skip_leaves_bad_pictures_out(spoiled, root, cache, caplog):
    store = opened(root, spoiled, cache, bad_image="skip")
    good = np.array([path in TWENTY for path in spoiled])
    assert ((store.rows >= 0) == good).all()
    assert_own_pictures(store, spoiled)
    assert not store.blank.any()
    assert len(store.pictures) == good.sum()
    assert_all_bad_listed(store.bad, spoiled)
    assert "13 of 27 pictures cannot be used" in caplog.text


def test_blank_gives_bad_pictures_one_grey_row(spoiled, root, cache):
    store = opened(root, spoiled, cache, bad_image="blank")
    good = np.array([path in TWENTY for path in spoiled])
    none = np.array([path == "" for path in spoiled])
    assert (store.blank == ~(good | none)).all()
    assert len(set(store.rows[store.blank])) == 1
    assert (store.rows[store.blank] >= 0).all()
    assert (store.pictures[store.rows[store.blank][0]] == 128).all()
    assert (store.rows[none] == -1).all()
    for row, path in zip(store.rows, spoiled, strict=True):
        if path in TWENTY:
            assert (store.pictures[row] == colour_of(int(Path(path).stem))).all()
    assert_all_bad_listed(store.bad, spoiled)


def test_error_names_all_bad_pictures_and_keeps_nothing(spoiled, root, cache):
    with pytest.raises(DataError) as caught:
        opened(root, spoiled, cache)
    message = str(caught.value)
    assert "\n" not in message
    assert "13 of 27 pictures" in message
    assert "text.jpg: not a JPEG" in message
    assert "bad_image to skip or blank" in message
    (listed,) = cache.glob("bad-pictures-*.txt")
    assert str(listed) in message
    lines = [line.split("\t") for line in listed.read_text().splitlines()]
    assert [len(line) for line in lines] == [2] * 13
    assert lines[0][0] == "text.jpg"
    assert stores(cache) == []
    assert leftovers(cache) == []


def test_path_with_line_breaks_cannot_break_the_list(root, cache):
    path = "a\nb\tc\x1b[31m.png"
    with pytest.raises(DataError) as caught:
        opened(root, ["1.png", path], cache)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    (listed,) = cache.glob("bad-pictures-*.txt")
    assert listed.read_text() == "a\\nb\\tc\\x1b[31m.png\tno such file\n"


@pytest.mark.parametrize("policy", ["skip", "blank"])
def test_files_outside_the_folder_are_never_opened(spoiled, root, cache, policy):
    touched, watching = [], True

    def watch(event, arguments):  # Python cannot remove an audit hook
        if watching and event == "open":
            touched.append(str(arguments[0]))

    sys.addaudithook(watch)
    opened(root, spoiled, cache, bad_image=policy)
    watching = False
    assert any(name.endswith("0.png") for name in touched)
    assert not [name for name in touched if "secret" in name or "way-out" in name]


def test_mended_picture_is_used(spoiled, root, cache):
    opened(root, spoiled, cache, bad_image="skip")
    paint(root / "text.jpg", (9, 9, 9))
    paint(root / "missing.png", (8, 8, 8))
    store = opened(root, spoiled, cache, bad_image="skip")
    assert (store.pictures[store.rows[spoiled.index("text.jpg")]] == 9).all()
    assert (store.pictures[store.rows[spoiled.index("missing.png")]] == 8).all()
    assert len(store.bad) == 11


def test_bad_pictures_are_told_again_without_decoding(spoiled, root, cache, decoded, caplog):
    first = opened(root, spoiled, cache, bad_image="skip")
    decoded.clear()
    caplog.clear()
    again = opened(root, spoiled, cache, bad_image="skip")
    assert decoded == []
    assert again.bad == first.bad
    assert "cannot be used" in caplog.text


def test_dots_and_links_that_stay_inside_are_fine(root, cache, tmp_path):
    (root / "sub").mkdir()
    (root / "link.png").symlink_to(root / "7.png")
    (tmp_path / "root-link").symlink_to(root)
    store = opened(tmp_path / "root-link", ["sub/../7.png", "./7.png", "link.png"], cache)
    assert store.rows.tolist() == [0, 0, 0]
    assert (store.pictures[0] == colour_of(7)).all()


def test_pillow_warnings_neither_stop_nor_spoil_a_build(root, cache):
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff"  # damaged; Pillow warns
    Image.new("RGB", (9, 9), (0, 255, 0)).save(root / "exif.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = opened(root, ["exif.jpg"], cache)
    assert store.pictures[0, 4, 4, 1] > 250


@pytest.mark.parametrize(
    ("change", "error"),
    [({"bad_image": "ignore"}, ConfigError), ({"root": Path("nowhere")}, DataError)],
)
def test_wrong_arguments_are_refused(root, cache, change, error):
    arguments = {"root": root, "paths": TWENTY, "cache": cache} | change
    with pytest.raises(error):
        opened(**arguments)


# ---- reuse and renewal ---------------------------------------------------------------------------


def test_second_opening_decodes_and_hashes_nothing(root, cache, decoded, monkeypatch):
    monkeypatch.setattr(picture_index, "_YOUNG_NS", 0)
    first = opened(root, TWENTY, cache)
    assert sorted(decoded) == sorted(TWENTY)
    decoded.clear()
    monkeypatch.setattr(picture_files, "_hash_file", None)
    again = opened(root, TWENTY, cache)
    assert decoded == []
    assert again.digest == first.digest
    assert (again.pictures == first.pictures).all()
    assert (again.rows == first.rows).all()


def test_only_changed_files_are_hashed_again(root, cache, monkeypatch):
    monkeypatch.setattr(picture_index, "_YOUNG_NS", 0)
    opened(root, TWENTY, cache)
    hashed, hash_file = [], picture_files._hash_file
    monkeypatch.setattr(
        picture_files, "_hash_file", lambda file: hashed.append(file.relative) or hash_file(file)
    )
    paint(root / "6.png", (1, 1, 1))
    opened(root, TWENTY, cache)
    assert hashed == ["6.png"]


def test_file_changed_within_a_clock_tick_of_its_hashing_is_hashed_again(root, cache, monkeypatch):
    opened(root, TWENTY, cache)  # the files are younger than 2 s
    hashed, hash_file = [], picture_files._hash_file
    monkeypatch.setattr(
        picture_files, "_hash_file", lambda file: hashed.append(file.relative) or hash_file(file)
    )
    opened(root, TWENTY, cache)
    assert sorted(hashed) == sorted(TWENTY)


def test_changed_picture_is_never_served_stale(root, cache, monkeypatch):
    monkeypatch.setattr(picture_index, "_YOUNG_NS", 0)
    first = opened(root, TWENTY, cache)
    old = (root / "2.png").stat()
    time.sleep(0.02)  # past the tick of the kernel's clock
    paint(root / "2.png", (14, 1, 253))
    assert (root / "2.png").stat().st_size == old.st_size  # the same length,
    os.utime(root / "2.png", ns=(old.st_atime_ns, old.st_mtime_ns))  # and the old time
    store = opened(root, TWENTY, cache)
    assert store.digest != first.digest
    assert (store.pictures[store.rows[2]] == (14, 1, 253)).all()
    assert (store.pictures[store.rows[3]] == colour_of(3)).all()


def test_touched_but_equal_file_keeps_the_store(root, cache, decoded):
    first = opened(root, TWENTY, cache)
    decoded.clear()
    os.utime(root / "2.png")
    assert opened(root, TWENTY, cache).digest == first.digest
    assert decoded == []


@pytest.mark.parametrize(
    "other",
    [
        {"spec": PictureSpec(9)},
        {"spec": PictureSpec(8, "crop")},
        {"spec": PictureSpec(8, "pad")},
        {"spec": PictureSpec(8, "squash", 1000)},
        {"bad_image": "skip"},
        {"bad_image": "blank"},
        {"paths": TWENTY[::-1]},
        {"paths": [*TWENTY, ""]},
        {"paths": [*TWENTY, "0.png"]},
    ],
)
def test_other_parameters_or_items_make_another_store(root, cache, decoded, other):
    first = opened(root, TWENTY, cache)
    decoded.clear()
    arguments = {"paths": TWENTY} | other
    store = opened(root, cache=cache, **arguments)
    assert store.digest != first.digest
    assert len(decoded) == 20
    if "pad" not in str(other):  # 5 x 4 pixels get white borders
        assert_own_pictures(store, arguments["paths"])
    assert len(stores(cache)) == 2


def test_digest_does_not_depend_on_where_the_pictures_lie(root, cache, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    first = opened(root, TWENTY, cache)
    assert opened(tmp_path / "elsewhere", TWENTY, tmp_path / "cache2").digest == first.digest


def test_log_names_counts_and_folder(root, cache, caplog):
    caplog.set_level(logging.INFO)
    store = opened(root, [*TWENTY, ""], cache)
    assert "21 items, 1 without picture, 20 different of 8 x 8" in caplog.text
    assert str(store.folder) in caplog.text


def test_padding_item_is_not_counted(root, cache, caplog):
    caplog.set_level(logging.INFO)
    store = opened(root, ["", *TWENTY, ""], cache, ids=["[PAD]", *"abcdefghijklmnopqrstu"])
    assert "21 items, 1 without picture, 20 different of 8 x 8" in caplog.text
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["counts"]["items"] == 21
    assert [store.item_of(row) for row in (0, 19)] == ["a", "t"]


@pytest.mark.parametrize("policy", ["error", "skip", "blank"])
@pytest.mark.parametrize("address", ["https://host.example/1.jpg", "HTTP://host.example/"])
def test_web_addresses_lead_to_the_command_that_downloads(root, cache, caplog, policy, address):
    paths = [address] * 20
    if policy == "error":
        with pytest.raises(DataError) as caught:
            opened(root, paths, cache)
        message = str(caught.value)
        assert f"{address}: a web address, not a file" in message
    else:
        opened(root, paths, cache, bad_image=policy)
        message = caplog.records[-1].getMessage()
        listed = (cache / message.partition("listed in ")[2].partition(";")[0]).read_text()
        assert listed == f"{address}\ta web address, not a file\n"
    assert "python -m recbole_cierec convert images --list=FILE" in message
    assert "\n" not in message


def test_long_path_is_cut_in_the_message(root, cache):
    with pytest.raises(DataError) as caught:
        opened(root, ["x" * 50_000], cache)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("policy", ["skip", "blank"])
def test_a_folder_without_any_usable_picture_is_told_from_one_with_some(
    root, cache, tmp_path, caplog, policy
):
    (empty := tmp_path / "elsewhere").mkdir()
    with caplog.at_level(logging.WARNING):
        opened(root, [*TWENTY, "gone.png"], cache, bad_image=policy)
        assert "NO picture is left" not in caplog.text
        opened(empty, TWENTY, cache, bad_image=policy)
    told = [r.getMessage() for r in caplog.records if "NO picture is left" in r.getMessage()]
    assert len(told) == 1
    assert "image_dir" in told[0]
    assert "\n" not in told[0]
