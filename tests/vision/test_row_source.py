"""Rows of a store copied to the device: the same bytes on every path, and the choice of the path.

No GPU is needed: its reading thread and its choices run here, and the test sets its memory.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import torch

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision import row_source
from recbole_cierec.vision.row_source import RowSource

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def store(tmp_path) -> np.ndarray:
    """uint8 [50, 4, 4, 3], mapped read-only from a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pixels)
    return np.load(tmp_path / "pictures.npy", mmap_mode="r")


def blocks_of(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 50, (n,), generator=generator) for n in sizes]


def same(found, store, wanted) -> bool:
    pairs = list(zip(found, wanted, strict=True))
    return all(np.array_equal(block.numpy(), store[rows.numpy()]) for block, rows in pairs)


@pytest.mark.parametrize("place", ["auto", "host", "device"])
@pytest.mark.parametrize("sizes", [(), (7,), (7, 7, 3), (1, 0, 2)])
def test_every_way_gives_the_rows_asked_for(store, place, sizes):
    wanted = blocks_of(*sizes)
    assert same(RowSource(store, place).blocks(wanted, CPU), store, wanted)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "u1"])
def test_the_reading_thread_gives_the_same_rows_in_their_type(dtype):
    array = np.random.default_rng(2).integers(0, 99, (50, 3, 5)).astype(dtype)
    wanted = blocks_of(6, 1, 9, 4)
    found = list(RowSource(array)._ahead([rows.numpy() for rows in wanted], CPU))
    assert same(found, array, wanted)
    assert {str(block.numpy().dtype) for block in found} == {np.dtype(dtype).name}
    assert list(RowSource(array)._ahead([], CPU)) == []


def test_the_next_block_is_read_while_this_one_is_computed_with(store, monkeypatch):
    read, inner = [threading.Event() for _ in range(3)], RowSource._read

    def noted(self, rows, block):
        result = inner(self, rows, block)
        next(event for event in read if not event.is_set()).set()
        return result

    monkeypatch.setattr(RowSource, "_read", noted)
    blocks = RowSource(store)._ahead([rows.numpy() for rows in blocks_of(5, 5, 5)], CPU)
    next(blocks)
    assert read[1].wait(10)  # although it was not requested
    assert not read[2].is_set()  # one block ahead, no more
    blocks.close()


def test_a_read_that_fails_is_raised_where_the_rows_are_used(store, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(RowSource, "_read", fail)
    with pytest.raises(OSError, match="Input/output"):
        list(RowSource(store)._ahead([np.arange(3)], CPU))


def test_a_gpu_gets_page_locked_memory_and_a_processor_does_not(store, monkeypatch):
    asked, empty = [], torch.empty

    def noted(*args, pin_memory, **keys):
        asked.append(pin_memory)
        return empty(*args, **keys)

    monkeypatch.setattr(row_source.torch, "empty", noted)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert len(list(RowSource(store)._ahead([np.arange(3)], CPU))) == 1
    assert asked == [True, False]


def test_a_gpu_keeps_the_store_if_it_takes_half_of_the_free_memory_at_most(store, monkeypatch):
    size = 50 * 4 * 4 * 3
    for free, fits in ((2 * size, True), (2 * size - 1, False)):
        source = RowSource(store, "auto")
        monkeypatch.setattr(row_source, "free_memory", lambda _, free=free: free)
        assert source.is_resident(GPU) is fits
        # Decided once: later changes of the free memory have no effect.
        monkeypatch.setattr(row_source, "free_memory", lambda _, fits=fits: 0 if fits else 10**9)
        assert source.is_resident(GPU) is fits


def test_the_choice_of_a_place_holds_against_the_rule(store, monkeypatch):
    monkeypatch.setattr(row_source, "free_memory", lambda _: 10**12)
    assert not RowSource(store, "host").is_resident(GPU)
    monkeypatch.setattr(row_source, "free_memory", lambda _: 0)
    assert RowSource(store, "device").is_resident(GPU)
    assert not RowSource(store, "auto").is_resident(CPU)


def test_a_store_that_does_not_fit_the_device_is_one_line(store, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(row_source.torch, "empty", full)
    with pytest.raises(ConfigError, match=r"picture_store_device: .*set it to host$") as error:
        list(RowSource(store, "device").blocks(blocks_of(3), CPU))
    assert "\n" not in str(error.value)


def test_a_whole_store_is_copied_in_pieces_and_once(store, monkeypatch):
    monkeypatch.setattr(row_source, "_CHUNK_BYTES", 7 * 4 * 4 * 3)
    source, wanted = RowSource(store, "device"), blocks_of(50, 50)
    assert same(source.blocks(wanted, CPU), store, wanted)
    kept = source._whole
    assert same(source.blocks(wanted, CPU), store, wanted)
    assert source._whole is kept
    assert np.array_equal(kept.numpy(), store)


def test_free_memory_of_a_gpu_counts_what_torch_keeps_and_does_not_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert row_source.free_memory(GPU) == 120


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "10000", "memory.current": "7000"}, 3000),
        ({"memory.max": "10000", "memory.current": "10500"}, 0),
        (
            {
                "memory.max": "10000",
                "memory.current": "9000",
                "memory.stat": "anon 7000\ninactive_file 1500",
            },
            2500,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "10000",
                "memory/memory.usage_in_bytes": "8000",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500",
            },
            2500,
        ),
        ({"memory.max": "max", "memory.current": "7000"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_a_container_has_what_its_limit_leaves(files, free, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert row_source.container_memory(tmp_path) == free
    monkeypatch.setattr(row_source, "container_memory", lambda: free)
    assert (row_source.free_memory(CPU) == free) is (free < 2**20)


def test_free_memory_of_this_machine_is_some_of_it():
    assert 0 < row_source.free_memory(CPU) < 2**50
