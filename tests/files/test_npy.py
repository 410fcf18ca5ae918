"""Archives of arrays that are damaged, or declare more than they contain."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from recbole_cierec.files.npy import npz_names, read_npz

ARRAYS = {
    "items": np.array(["i1", "i22", "ü"]),
    "test/0": np.arange(12, dtype=np.int32).reshape(3, 4),
    "about": np.array('{"n": 4}'),
    "empty": np.empty((0, 3)),
}


def header(shape, dtype="<i4"):
    stream = io.BytesIO()
    form = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, form)
    return stream.getvalue()


def archive(file, content, method=zipfile.ZIP_DEFLATED, name="items.npy"):
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr(name, content)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def whole(request, tmp_path):
    request.param(tmp_path / "whole.npz", **ARRAYS)
    return (tmp_path / "whole.npz").read_bytes()


def assert_whole(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_that_are_asked_for_are_read(whole, tmp_path):
    file = tmp_path / "whole.npz"
    assert_whole(read_npz(file))
    some = read_npz(file, {"items", "absent"})
    assert {name for name, array in some.items() if array is not None} == {"items"}
    assert npz_names(file) == ARRAYS.keys()


def test_any_flipped_bit_is_an_error_or_harmless(whole, tmp_path):
    file, random = tmp_path / "x.npz", np.random.default_rng(0)
    caught = 0
    for place in range(0, len(whole), 2):
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(8))
        file.write_bytes(content)
        try:
            arrays = read_npz(file)
        except (OSError, ValueError):
            caught += 1
        else:
            assert_whole(arrays)
    assert caught > len(whole) / 8


def test_a_cut_file_is_an_error(whole, tmp_path):
    file = tmp_path / "x.npz"
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises((OSError, ValueError)):
            npz_names(file)


CRAFTED = {
    "more entries than bytes": lambda file: archive(file, header((10**11,))),
    "a negative length": lambda file: archive(file, header((-1, -(10**11)))),
    "entries of no bytes": lambda file: archive(file, header((10**11,), "<U0")),
    "fewer entries than bytes": lambda file: archive(file, header((1,)) + bytes(8)),
    "objects": lambda file: archive(file, header((1,), "|O") + bytes(8)),
    "no characters": lambda file: archive(file, header((1,), "<U1") + b"\xff" * 4),
    "an unusual method": lambda file: archive(file, header((1,)) + bytes(4), zipfile.ZIP_LZMA),
    "no array": lambda file: archive(file, b"text"),
    "a code": lambda file: archive(file, b"\x93NUMPY\1\0\x0e\0__import__('')"),
    "a version of the future": lambda file: archive(file, b"\x93NUMPY\7\0" + header((1,))[8:]),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_file_is_an_error_and_takes_no_memory(tmp_path, name):
    file = tmp_path / "x.npz"
    CRAFTED[name](file)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_npz(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 2**20


def test_what_unpacks_to_far_more_than_the_file_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_cierec.files.npy._UNPACKED_AT_LEAST", 2**20)
    file = tmp_path / "x.npz"
    np.savez_compressed(file, items=np.zeros(2**21, np.uint8))
    with pytest.raises(ValueError, match=r"2,097,280 bytes of arrays in a file of \d,\d\d\d"):
        read_npz(file)
    ids = np.array([f"https://catalogue.example.org/item/{k:09d}" for k in range(20_000)])
    np.savez_compressed(file, items=ids)
    np.testing.assert_array_equal(read_npz(file)["items"], ids)
