"""Partly frozen networks, with and without cached output, against the same networks whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recbole_cierec import run
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.vision.frozen_trunk import FrozenTrunk, extract_frozen
from recbole_cierec.vision.visual_encoder import VisualEncoder

ITEMS = torch.arange(1, 30)
PART = "features.6"  # of squeezenet1_1, the network of the tiny pictures


@pytest.fixture
def model_of(pictured):
    """``model_of(**keys)`` -> a model whose network is fine-tuned from :data:`PART` on."""
    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.registry import get_model_class

    def build(**keys):
        own = {"encoder_training": "finetune", "encoder_freeze_until": PART}
        config = Config("MF_Image", "tiny", None, pictured(**{**own, **keys}), {})
        return get_model_class("MF_Image")(config, create_dataset(config).build()[0])

    return build


def gradient(model) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    e = model.encoder(ITEMS)
    (e * torch.linspace(-1, 1, e.numel()).view(e.shape)).sum().backward()
    return {n: p.grad.clone() for n, p in model.encoder.named_parameters() if p.grad is not None}


def first_layer(model) -> list[int]:
    """Sizes of the batches that enter the network's first layer from now on."""
    seen: list[int] = []
    layer = next(m for m in model.encoder.network.modules() if isinstance(m, nn.Conv2d))
    layer.register_forward_hook(lambda _, inputs, out: seen.append(len(inputs[0])))
    return seen


def refusal(name: str, part: str, size: int = 64) -> str:
    with pytest.raises(ConfigError) as error:
        FrozenTrunk(VisualEncoder(name, "random"), part, size)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------- the cut


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("resnet18", "conv1"),
        ("resnet18", "layer3"),
        ("resnet18", "layer3.0"),
        ("mobilenet_v2", "features.14"),
        ("squeezenet1_1", "features.6"),
        ("densenet121", "features.denseblock2"),
        ("mobilenet_v3_small", "features.4"),
        ("shufflenet_v2_x0_5", "stage2"),
        ("regnet_y_400mf", "trunk_output.block2"),
    ],
)
def test_frozen_part_and_rest_are_the_network_and_only_the_rest_learns(name, part):
    encoder = VisualEncoder(name, "random", seed=2)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        whole = encoder(pictures)
    cut = FrozenTrunk(encoder, part, 64)
    joined = cut.features(cut.output(pictures))
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    joined.sum().backward()
    order = [n for n, _ in encoder.trunk.named_parameters()]
    learns = [p.requires_grad for p in encoder.trunk.parameters()]
    assert learns == sorted(learns)  # first the frozen ones
    last = order[learns.index(True) - 1]
    assert last.startswith(f"{part}.")
    assert not any(n.startswith(f"{part}.") for n in order[learns.index(True) :])
    assert all(p.requires_grad == (p.grad is not None) for p in encoder.trunk.parameters())


def test_an_unknown_part_names_the_nearest():
    line = refusal("resnet18", "layr3")
    assert "encoder_freeze_until: resnet18 has no part 'layr3'; did you mean 'layer3'?" in line


@pytest.mark.parametrize("part", ["layer2.0.conv1", "layer1.1.bn2"])
def test_a_place_that_more_than_one_path_crosses_is_refused(part):
    assert f"resnet18 cannot be cut after {part} (" in refusal("resnet18", part)


def test_a_part_after_which_nothing_learns_is_refused():
    assert "nothing of resnet18 is left to train after layer4" in refusal("resnet18", "layer4")


# ---------------------------------------------------------------------------- the cache


@pytest.mark.parametrize(("kind", "close"), [("float32", 1e-5), ("float16", 2e-3)])
def test_from_the_cache_features_and_gradients_are_those_without_it(model_of, kind, close):
    # Unnormalised: random weights give all pictures nearly the same features, and what is left
    # when their mean is subtracted is mostly rounding.
    cached, plain = (
        model_of(encoder_stage_cache=how, feature_norm="none") for how in (kind, "none")
    )
    with torch.no_grad():
        found, truth = (m.eval().encoder(ITEMS) for m in (cached, plain))
    assert (found - truth).norm() < close * truth.norm()
    if kind == "float16":  # rounding changes some maxima and zeros, and their gradient
        part = plain.encoder.on_pictures.frozen
        exact = part.output
        part.output = lambda pictures: exact(pictures).half()
    a, b = gradient(cached), gradient(plain)
    assert a.keys() == b.keys()
    assert 0 < len(a) < len(list(cached.encoder.parameters()))
    for name, value in b.items():
        assert value.norm() > 0
        assert (a[name] - value).norm() < 1e-5 * value.norm(), name


def test_the_cache_holds_the_output_rounded_and_nothing_else(model_of):
    model = model_of()
    runner = model.encoder.on_pictures
    rows = runner._frozen_outputs(torch.device("cpu"))
    pictures = torch.from_numpy(np.array(runner.pictures.store.pictures))
    layers = model.encoder.network.trunk.features[:7]
    with torch.no_grad():
        truth = layers(model.encoder.network._pixels(pictures)).permute(0, 2, 3, 1)
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows, truth.numpy(), rtol=2**-10, atol=1e-6)


def test_a_step_does_not_run_the_frozen_part_and_a_second_run_not_at_all(model_of):
    first = model_of()
    seen = first_layer(first)
    gradient(first)
    assert sum(seen) >= 38  # all pictures, once, into the cache
    seen.clear()
    gradient(first)
    assert seen == []
    (folder,) = Path("cache").glob("frozen-*")
    before = folder.stat().st_mtime_ns
    second = model_of()
    seen = first_layer(second)
    gradient(second)
    assert seen == [1]  # a blank one, to get the shape
    assert [path.stat().st_mtime_ns for path in Path("cache").glob("frozen-*")] == [before]


def test_parts_and_types_have_caches_of_their_own(model_of):
    others = [{"encoder_stage_cache": "float32"}, {"encoder_freeze_until": "features.3"}]
    for keys in ({}, *others, {"encoder_precision": "bfloat16"}):
        gradient(model_of(**keys))
    assert len(list(Path("cache").glob("frozen-*"))) == 4
    with torch.autocast("cpu", torch.bfloat16):  # no other cache for the trainer's
        shutil.rmtree("cache")
        gradient(model_of())
    (file,) = Path("cache").glob("frozen-*/frozen.npy")
    values = torch.from_numpy(np.load(file)).float()
    assert not torch.equal(values, values.bfloat16().float())


def test_loading_other_frozen_weights_leaves_the_old_cache(model_of):
    model = model_of(encoder_stage_cache="float32")
    with torch.no_grad():
        before = model.eval().encoder(ITEMS)
        state = model.state_dict()
        model.load_state_dict(state)  # the same weights: the cache stays
        kept = model.encoder.on_pictures._source
        assert kept is not None
        name = "encoder.network.trunk.features.0.weight"
        model.load_state_dict({**state, name: state[name].flip(0)})
        assert model.encoder.on_pictures._source is None
        after = model.encoder(ITEMS)
        plain = model_of(encoder_stage_cache="none")
        plain.load_state_dict(model.state_dict())
        truth = plain.eval().encoder(ITEMS)
    torch.testing.assert_close(after, truth, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after, rtol=1e-2)


def test_numbers_beyond_float16_are_refused_with_the_way_out(model_of):
    model = model_of()
    runner = model.encoder.on_pictures
    with torch.no_grad():
        model.encoder.network.trunk.features[0].weight.mul_(1e7)
    with pytest.raises(DataError, match=r"hold NaN or infinity .* encoder_stage_cache to float32"):
        extract_frozen(
            runner.frozen,
            runner.pictures.store,
            kind="float16",
            cache_dir=Path("cache"),
            batch_size=8,
            device="cpu",
            progress=False,
        )


def test_augmentation_and_a_cached_output_exclude_each_other(model_of):
    with pytest.raises(ConfigError, match=r"augmentation: flip .* encoder_stage_cache to none"):
        model_of(augmentation="flip")
    model = model_of(augmentation="flip", encoder_stage_cache="none").train()
    with torch.no_grad():
        assert not torch.equal(model.encoder(ITEMS), model.encoder(ITEMS))


# ------------------------------------------------------------------------------- training


@pytest.mark.parametrize("cache", ["float16", "none"])
def test_training_leaves_the_frozen_part_and_moves_the_rest(model_of, pictured, cache):
    keys = {"encoder_training": "finetune", "encoder_freeze_until": PART, "epochs": 1}
    start = model_of(encoder_stage_cache=cache)
    groups = start.parameter_groups()
    counted = sum(len(group["params"]) for group in groups)
    assert counted == sum(p.requires_grad for p in start.parameters())
    result = run("MF_Image", "tiny", config_dict=pictured(**keys, encoder_stage_cache=cache))
    state = read_checkpoint(Path(result["checkpoint"]))["state_dict"]
    for name, value in start.encoder.named_parameters():
        moved = not torch.equal(value, state[f"encoder.{name}"])
        assert moved == value.requires_grad, name
