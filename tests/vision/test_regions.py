"""Region maps: the encoder's last map, its cache, ready-made files, and items without a picture."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec.errors import DataError
from recbole_cierec.vision import regions as regions_module
from recbole_cierec.vision.features import extract_features
from recbole_cierec.vision.regions import RegionMaps, extract_regions, load_region_file
from recbole_cierec.vision.visual_encoder import VisualEncoder


@dataclass
class Pictures:
    """The part of a picture store that the extraction uses."""

    pictures: np.ndarray
    digest: str = "d" * 64
    folder: Path = Path("cache/pictures-0")

    def item_of(self, row: int) -> str:
        return f"i{row}"


def make_store(n: int = 5, side: int = 40) -> Pictures:
    pictures = np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    pictures.flags.writeable = False  # as in a store
    return Pictures(pictures)


@pytest.fixture
def encoder() -> VisualEncoder:
    return VisualEncoder("squeezenet1_1", "random", seed=1)


def extract(store, encoder, cache, **options) -> np.ndarray:
    options = {"batch_size": 2, "device": "cpu", "progress": False, **options}
    return extract_regions(store, encoder, cache_dir=cache, **options)


# --------------------------------------------------------------------------- the encoder


@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        "mnasnet0_5",
        "mobilenet_v2",
        "regnet_y_400mf",
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "swin_t",
    ],
)
def test_the_mean_of_the_regions_is_the_pooled_feature(name):
    encoder = VisualEncoder(name, "random", seed=2)
    pictures = torch.tensor(make_store(2, 96).pictures)
    with torch.inference_mode():
        regions, pooled = encoder.region_map(pictures, grid=99), encoder(pictures)
    assert regions.shape == (2, regions.shape[1], encoder.out_dim)
    assert regions.shape[1] in (9, 25)  # 3 x 3; squeezenet 5 x 5
    scale = pooled.abs().max().item()
    torch.testing.assert_close(regions.mean(1), pooled, rtol=0, atol=1e-5 * scale)


def test_resnet_has_49_regions_of_usual_pictures_in_reading_order():
    encoder = VisualEncoder("resnet18", "random")
    pictures = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    with torch.inference_mode():
        plain = encoder.region_map(pictures)
        pictures[:, :8, -8:] = 255  # the corner at the top right
        changed = (encoder.region_map(pictures) - plain).square().sum(2)[0]
    assert plain.shape == (1, 49, 512)
    assert int(changed.argmax()) == 6


def test_a_vision_transformer_gives_its_patches(encoder):
    encoder = VisualEncoder("vit_b_16", "random")
    with torch.inference_mode():
        pictures = torch.tensor(make_store(1, 224).pictures)
        assert encoder.region_map(pictures, 14).shape == (1, 196, 768)
        assert encoder.region_map(pictures, 7).shape == (1, 49, 768)


def test_larger_maps_are_averaged_down_and_smaller_ones_kept(encoder):
    pictures = torch.tensor(make_store(2, 112).pictures)  # a map of 6 x 6
    with torch.inference_mode():
        whole, coarse = encoder.region_map(pictures, 9), encoder.region_map(pictures, 3)
    assert whole.shape == (2, 36, 512)
    blocks = whole.view(2, 3, 2, 3, 2, 512).mean((2, 4)).view(2, 9, 512)
    torch.testing.assert_close(coarse, blocks)


# ----------------------------------------------------------------------------- the cache


def test_maps_are_cached_as_float16_on_the_disk(encoder, tmp_path):
    store = make_store()
    maps = extract(store, encoder, tmp_path)
    assert isinstance(maps, np.memmap)
    assert (maps.dtype, maps.shape, maps.flags.writeable) == (np.float16, (5, 4, 512), False)
    with torch.inference_mode():
        exact = encoder.region_map(torch.tensor(store.pictures)).numpy()
    np.testing.assert_allclose(maps, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())
    (folder,) = tmp_path.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["shape"], manifest["rows"], manifest["grid"]) == ([4, 512], 5, 7)
    assert folder.name.startswith("regions-")
    seen = []
    encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    np.testing.assert_array_equal(extract(store, encoder, tmp_path), maps)
    assert seen == [1]  # one blank picture, for the shape


def test_features_and_each_grid_have_caches_of_their_own(encoder, tmp_path):
    store = make_store()
    extract(store, encoder, tmp_path)
    assert extract(store, encoder, tmp_path, grid=1).shape == (5, 1, 512)
    options = {"batch_size": 2, "device": "cpu", "progress": False}
    extract_features(store, encoder, cache_dir=tmp_path, **options)
    assert sorted(p.name.split("-")[0] for p in tmp_path.iterdir()) == [
        "features",
        "regions",
        "regions",
    ]


def test_a_damaged_map_is_built_again(encoder, tmp_path, caplog):
    expected = np.array(extract(make_store(), encoder, tmp_path))
    (folder,) = tmp_path.iterdir()
    content = bytearray((folder / "regions.npy").read_bytes())
    content[999] ^= 4
    (folder / "regions.npy").write_bytes(content)
    np.testing.assert_array_equal(extract(make_store(), encoder, tmp_path), expected)
    assert "Regions in" in caplog.text
    assert "damaged" in caplog.text


def test_what_float16_cannot_hold_is_refused(encoder, tmp_path):
    with torch.no_grad():
        for parameter in encoder.trunk.features[-1].parameters():
            parameter.mul_(1e7)
    with pytest.raises(DataError, match=r"regions of squeezenet1_1: . of 5 rows") as caught:
        extract(make_store(), encoder, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def build_at_once(cache: Path, barrier, answers) -> None:
    torch.set_num_threads(1)
    network = VisualEncoder("squeezenet1_1", "random", seed=1)
    barrier.wait()
    answers.put(extract(make_store(), network, cache).tobytes())


def test_processes_that_build_at_once_leave_one_valid_cache(encoder, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=build_at_once, args=(tmp_path, barrier, answers)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    returned = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert returned == {extract(make_store(), encoder, tmp_path).tobytes()}
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------ by item


def test_regions_belong_to_their_items_and_are_zero_without_a_picture():
    maps = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float16)
    regions = RegionMaps(maps, np.array([-1, 2, 0, -1]), "none")
    got = regions(torch.tensor([2, 0, 1, 3, 1]))
    assert (regions.count, regions.size, got.dtype) == (4, 6, torch.float32)
    expected = torch.tensor(maps.astype(np.float32))[[0, 0, 2, 0, 2]]
    expected[[1, 3]] = 0.0
    assert torch.equal(got, expected)
    assert (regions(torch.tensor([0, 3])) == 0).all()


@pytest.mark.parametrize("norm", ["l2", "center", "standard"])
def test_regions_come_on_a_scale_near_one(norm):
    maps = (100 + 30 * np.random.default_rng(0).standard_normal((20, 9, 8))).astype(np.float16)
    got = RegionMaps(maps, np.arange(20), norm)(torch.arange(20)).flatten(0, 1)
    assert float(got.norm(dim=1).mean()) == pytest.approx(1.0, abs=1e-3)
    if norm != "l2":
        assert got.mean(0).abs().max() < 1e-3


def test_principal_components_of_regions_can_be_kept():
    maps = np.random.default_rng(0).standard_normal((20, 9, 8)).astype(np.float32)
    regions = RegionMaps(maps, np.arange(20), "center", 3)
    assert regions.size == 3
    assert regions(torch.arange(4)).shape == (4, 9, 3)


def test_components_kept_in_memory_are_those_computed_each_time(monkeypatch):
    maps = np.random.default_rng(4).normal(size=(20, 4, 12)).astype(np.float16)
    rows, items = np.array([-1, *range(19, -1, -1)]), torch.tensor([3, 0, 20, 3])
    kept = RegionMaps(maps, rows, "center", 3)
    monkeypatch.setattr(regions_module, "_KEPT_BYTES", 4 * 20 * 4 * 3 - 1)
    computed = RegionMaps(maps, rows, "center", 3)
    assert (kept.kept is None, computed.kept is None) == (False, True)
    torch.testing.assert_close(kept(items), computed(items), rtol=0, atol=1e-6)
    assert not kept(items)[1].any()


def test_only_rows_that_are_asked_for_are_read():
    class Watched:
        def __init__(self, maps):
            self.maps, self.shape, self.read = maps, maps.shape, []

        def __getitem__(self, rows):
            self.read.append(rows.tolist())
            return self.maps[rows]

    watched = Watched(np.ones((40_000, 2, 1), dtype=np.float16))
    regions = RegionMaps(watched, np.arange(40_000), "center")
    assert len(watched.read[0]) == 8_192  # a sample of 16384 regions for the normalisation
    regions(torch.tensor([7, 5]))
    assert watched.read[1:] == [[7, 5]]


# -------------------------------------------------------------------- ready-made files


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "u1"])
def test_a_ready_made_file_keeps_its_rows(dtype, tmp_path):
    rows = np.arange(24).reshape(4, 3, 2).astype(dtype)
    np.save(tmp_path / "r.npy", rows)
    maps = load_region_file(tmp_path / "r.npy", list("abcd"))
    got = RegionMaps(maps, np.arange(4), "none")(torch.arange(4))
    np.testing.assert_array_equal(got, rows.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 3), "one pooled vector a picture"),
        ((4,), "has shape (4,)"),
        ((4, 3, 2, 2), "has shape (4, 3, 2, 2)"),
        ((4, 0, 2), "has shape (4, 0, 2)"),
        ((3, 3, 2), "has 3 rows, but the .item file has 4"),
    ],
)
def test_a_file_without_region_maps_is_refused_in_one_line(shape, words, tmp_path):
    np.save(tmp_path / "r.npy", np.ones(shape, dtype=np.float32))
    with pytest.raises(DataError) as caught:
        load_region_file(tmp_path / "r.npy", list("abcd"))
    assert words in str(caught.value)
    assert str(tmp_path / "r.npy") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_finite_are_named(tmp_path):
    rows = np.ones((400, 49, 1000), dtype=np.float16)  # checked in more than one block
    rows[[5, 399], 40, 7] = np.nan
    np.save(tmp_path / "r.npy", rows)
    with pytest.raises(DataError, match=r"2 of 400 rows .*: 5 of item i5, 399 of item i399\)"):
        load_region_file(tmp_path / "r.npy", [f"i{k}" for k in range(400)])
