"""Encoders defined by users: the code of docs/encoders.md, and refusals."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from recbole_cierec import run
from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.frozen_trunk import FrozenTrunk
from recbole_cierec.vision.visual_encoder import VisualEncoder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"


@pytest.fixture
def module(in_tmp, monkeypatch):
    """``module(old=new, ...)`` -> name of the page's class, in a module of the current folder."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.syspath_prepend(in_tmp)

    def write(changes: dict[str, str] | None = None, name: str = "my_encoder") -> str:
        text = code
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        (in_tmp / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{name}:MyEncoder"

    return write


def pictures(size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)


def refusal(name: str, weights: str = "random") -> str:
    with pytest.raises(ConfigError) as error:
        VisualEncoder(name, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_features_and_regions_are_what_the_class_computes(module):
    encoder = VisualEncoder(module(), "random", seed=1)
    inputs = (pictures().permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        maps = encoder.trunk.last_map(inputs)
        torch.testing.assert_close(encoder(pictures()), maps.mean((2, 3)), rtol=1e-4, atol=1e-6)
        regions = encoder.region_map(pictures(), grid=99)
    torch.testing.assert_close(regions, maps.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-6)
    assert (encoder.out_dim, encoder.image_size) == (32, 64)


def test_its_weights_are_random_by_the_seed_its_own_or_a_file(module):
    name = module()
    seeded = [VisualEncoder(name, "random", seed=s) for s in (1, 1, 2)]
    one, same, other = (encoder.weights_digest for encoder in seeded)
    assert one == same != other
    torch.save(seeded[2].trunk.state_dict(), "my_encoder.pth")
    assert VisualEncoder(name, "DEFAULT").weights_digest == other
    assert VisualEncoder(name, "my_encoder.pth").weights_digest == other


@pytest.mark.parametrize(
    ("model", "kind", "extra"),
    [
        ("VBPR", "features", {"encoder_training": "frozen"}),
        ("VBPR", "features", {"encoder_training": "finetune"}),
        ("VECF", "regions", {}),
    ],
)
def test_a_run_uses_it_and_finds_its_features_again(module, pictured, model, kind, extra):
    keys = pictured(visual_encoder=module(), image_size=64, epochs=1, **extra)
    run(model, "tiny", config_dict=keys)
    found = list(Path("cache").glob(f"{kind}-*"))
    run(model, "tiny", config_dict=keys)
    assert len(found) == 1
    assert list(Path("cache").glob(f"{kind}-*")) == found
    keys["visual_encoder"] = module({".relu()).relu()": ".relu()).abs()"})
    run(model, "tiny", config_dict=keys)  # the same weights with other code
    assert len(list(Path("cache").glob(f"{kind}-*"))) == 2


def test_it_is_cut_after_a_part_unless_something_before_would_run_twice(module):
    encoder = VisualEncoder(module(), "random")
    cut = FrozenTrunk(encoder, "edges", 64)
    torch.testing.assert_close(cut.features(cut.output(pictures())), encoder(pictures()))
    added = module({"self.edges(pictures)": "self.edges(pictures + 1)"}, "with_addition")
    with pytest.raises(ConfigError, match="cannot be cut after edges"):
        FrozenTrunk(VisualEncoder(added, "random"), "edges", 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pretrained: bool": ""}, "MyEncoder(pretrained=False) fails with TypeError"),
        ({"(nn.Module)": ""}, "is no class of torch.nn.Module"),
        ({"image_size = 64": "image_size = '64'"}, "image_size is '64'"),
        ({"(0.25, 0.25, 0.25)": "(0.25, 0.25, 0)"}, "normalisation is "),
        ({"(0.25, 0.25, 0.25)": "0.25"}, "normalisation is "),
        ({"import torch\n": "import torchh\n"}, "cannot be imported (No module named 'torchh')"),
        ({"class MyEncoder": "class Mine"}, "has no attribute 'MyEncoder'"),
        ({"self.shapes(self": "self.shpes(self"}, "cannot take pictures of 64 x 64"),
    ],
)
def test_a_class_that_is_not_what_is_needed_is_one_line(module, changes, words):
    name = module(changes)
    line = refusal(name)
    assert f"visual_encoder {name}" in line
    assert words in line


def test_a_missing_module_says_where_it_is_looked_for(in_tmp):
    line = refusal("no_such_module:Mine")
    assert "No module named 'no_such_module'" in line
    assert "PYTHONPATH" in line


def test_without_last_map_regions_are_refused_before_pictures_are_decoded(module, pictured):
    name = module({"def last_map": "def other", "self.last_map": "self.other"})
    keys = pictured(visual_encoder=name, image_size=64)
    with pytest.raises(ConfigError, match="it has no method last_map"):
        run("VECF", "tiny", config_dict=keys)
    assert not list(Path("cache").glob("pictures-*"))
