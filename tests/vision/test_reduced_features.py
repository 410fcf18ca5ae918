"""The cache of principal components gives the bits of a new fit, and is never trusted blindly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_cierec.vision.feature_norm import FeatureNorm
from recbole_cierec.vision.reduced_features import Reduced, ReducedCache

RAW = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 8), dtype=np.float32))
ROWS = np.arange(30)


def cache(folder, **changed) -> ReducedCache:
    recipe = {"source": "a", "rows": ROWS, "kind": "l2", "dimensions": 3, **changed}
    return ReducedCache(folder, **recipe)


def fitted() -> Reduced:
    norm = FeatureNorm.fit(RAW, "l2", 3)
    return Reduced(norm, norm(RAW))


def never() -> Reduced:
    raise AssertionError("computed although it is cached")


def test_cached_features_and_map_have_the_bits_of_the_fit(tmp_path):
    made = cache(tmp_path).get(fitted)
    found = cache(tmp_path).get(never)
    assert torch.equal(found.features, made.features)
    assert torch.equal(found.norm(RAW), made.norm(RAW))


@pytest.mark.parametrize(
    "changed", [{"source": "b"}, {"rows": ROWS[::-1]}, {"kind": "center"}, {"dimensions": 2}]
)
def test_any_part_of_the_recipe_gives_another_cache(tmp_path, changed):
    cache(tmp_path).get(fitted)
    with pytest.raises(AssertionError, match="although"):
        cache(tmp_path, **changed).get(never)


def test_a_damaged_file_is_computed_again(tmp_path):
    made = cache(tmp_path).get(fitted)
    path = cache(tmp_path).folder / "features.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    assert torch.equal(cache(tmp_path).get(fitted).features, made.features)
    cache(tmp_path).get(never)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert cache(tmp_path / "file").get(fitted).features.shape == (30, 3)
