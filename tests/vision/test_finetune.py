"""The network in the training loop: optimizations do not change its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision import finetune, row_source
from recbole_cierec.vision.finetune import PictureNetwork
from recbole_cierec.vision.visual_encoder import VisualEncoder

ITEMS = torch.arange(1, 30)


@pytest.fixture
def model_of(pictured):
    """``model_of(**keys)`` -> a model whose network is fine-tuned on the tiny pictures."""
    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.registry import get_model_class

    def build(name: str = "MF_Image", **keys):
        keys = pictured(**{"encoder_training": "finetune", "feature_norm": "standard", **keys})
        config = Config(name, "tiny", None, keys, {})
        return get_model_class(name)(config, create_dataset(config).build()[0])

    return build


def gradient(model, items=ITEMS) -> dict[str, torch.Tensor]:
    """Gradients by parameter, of a function of e that differs by item and feature."""
    model.train()
    torch.manual_seed(9)  # dropout and augmentation
    e = model.encoder(items)
    weights = torch.linspace(-1, 1, e.numel()).view(e.shape)
    (e * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.encoder.named_parameters() if p.grad is not None}


def distance(a: dict, b: dict) -> float:
    """Largest relative difference of two gradients over their parameters."""
    assert a.keys() == b.keys()
    assert all(value.norm() > 0 for value in a.values())
    return max(float((a[k] - b[k]).norm() / a[k].norm()) for k in a)


def passes(model) -> list[int]:
    """Sizes of the batches that enter the network's first layer from now on."""
    seen: list[int] = []
    first = next(m for m in model.encoder.network.modules() if isinstance(m, nn.Conv2d))

    def note(layer, inputs, out):
        if not out.is_meta:  # computes shapes only
            seen.append(len(out))

    first.register_forward_hook(note)
    return seen


# ------------------------------------------------------------------------- memory, blocks


def test_pictures_that_pass_twice_have_the_gradient_of_those_that_pass_once(model_of):
    # This network has dropout: a second pass must drop the same features.
    keys = {"visual_encoder": "mobilenet_v3_small", "encoder_batch_size": 8}
    kept = gradient(model_of(**keys, encoder_memory=10**6))
    assert distance(kept, gradient(model_of(**keys, encoder_memory=0))) < 1e-6


@pytest.mark.parametrize(
    ("kept", "again"),
    [(29, []), (28, [8]), (16, [8, 8]), (15, [8, 8, 8]), (0, [8, 8, 8, 5])],
)
def test_only_blocks_beyond_the_memory_are_computed_again(model_of, monkeypatch, kept, again):
    monkeypatch.setattr(PictureNetwork, "_bytes_of_picture", lambda self, inputs: 2**20)
    model = model_of(encoder_batch_size=8, encoder_memory=kept)
    known = model.encoder.has_picture.nonzero().squeeze(1)[:29]
    seen = passes(model)
    gradient(model, known)
    assert seen[:4] == [8, 8, 8, 5]  # all once, then some in the backward pass
    assert sorted(seen[4:]) == sorted(again)


def test_memory_of_a_picture_is_what_the_backward_pass_holds(model_of, monkeypatch):
    weight = nn.Parameter(torch.randn(3))

    def run(self, inputs):
        product = inputs.float() * weight  # holds the inputs as floats
        return (product**2).exp().sum((1, 2))  # the square holds its input, exp its output

    monkeypatch.setattr(PictureNetwork, "_run", run)
    model = model_of()
    inputs = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
    assert model.encoder.on_pictures._bytes_of_picture(inputs) == 3 * 4 * 32 * 32 * 3


def test_memory_is_a_quarter_of_what_is_free_unless_it_is_given(model_of, monkeypatch):
    each = 2**20
    monkeypatch.setattr(PictureNetwork, "_bytes_of_picture", lambda self, inputs: each)
    monkeypatch.setattr(finetune, "free_memory", lambda device: 400 * each)
    inputs = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert model_of().encoder.on_pictures._most_kept(inputs) == 100
    assert model_of(nproc=4).encoder.on_pictures._most_kept(inputs) == 25  # all need gradients
    given = model_of(encoder_memory=3, nproc=4)
    assert given.encoder.on_pictures._most_kept(inputs) == 3


def test_measuring_the_memory_draws_no_random_number(model_of):
    model = model_of(visual_encoder="mobilenet_v3_small").train()
    state = torch.get_rng_state()
    model.encoder.on_pictures._bytes_of_picture(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert torch.equal(torch.get_rng_state(), state)


def test_items_that_share_a_picture_share_its_pass_and_both_gradients(model_of, monkeypatch):
    monkeypatch.setattr(PictureNetwork, "_bytes_of_picture", lambda self, inputs: 2**20)
    model = model_of()
    rows = model.encoder.picture_rows
    shared, other = ITEMS[model.encoder.has_picture[ITEMS]][:2]
    rows[other] = rows[shared]
    seen = passes(model)
    both = gradient(model, torch.stack([shared, other]))
    assert seen == [1]
    with torch.no_grad():
        e = model.encoder(torch.stack([shared, other]))
    assert torch.equal(e[0], e[1])
    truth = model_of()
    e = truth.train().encoder(torch.stack([shared, shared]))
    weights = torch.linspace(-1, 1, e.numel()).view(e.shape)
    (e * weights).sum().backward()
    single = {n: p.grad for n, p in truth.encoder.named_parameters()}
    assert distance(single, both) < 1e-5


def test_ready_made_features_are_refused_for_finetuning(model_of, tiny):
    with pytest.raises(ConfigError, match=r"features_file: .* drop features_file"):
        model_of(features_file=tiny()["features_file"])


# -------------------------------------------------------------------------- normalisation


def test_pixels_are_normalised_as_in_double_precision():
    encoder = VisualEncoder("squeezenet1_1", "random")
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (values.numpy() / 255 - mean) / std
    found = encoder._pixels(values).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert encoder._pixels(values).is_contiguous(memory_format=torch.channels_last)


def test_weights_lie_channels_last_and_load_from_either_layout(model_of):
    model = model_of()
    convolutions = [p for p in model.encoder.network.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    state = {name: value.contiguous() + 0.5 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)


# ------------------------------------------------------------------- bfloat16, torch.compile


def test_bfloat16_is_near_and_keeps_weights_and_gradients_in_float32(model_of):
    plain, half = (
        model_of(encoder_precision=kind, feature_norm="none") for kind in ("float32", "bfloat16")
    )
    with torch.no_grad():
        exact, near = plain.eval().encoder(ITEMS), half.eval().encoder(ITEMS)
    assert near.dtype is torch.float32
    assert 0 < (exact - near).norm() < 0.03 * exact.norm()
    a, b = gradient(plain), gradient(half)
    assert all(value.dtype is torch.float32 for value in b.values())
    whole = [torch.cat([g.flatten() for g in x.values()]) for x in (a, b)]
    assert torch.cosine_similarity(*whole, dim=0) > 0.95


def test_in_bfloat16_the_blocks_of_a_batch_are_still_added_up_in_float32(model_of):
    # In bfloat16 a sum would keep 8 bits and lose the last bits of a second summand.
    model = model_of(encoder_precision="bfloat16", encoder_batch_size=15)
    known = ITEMS[model.encoder.has_picture[ITEMS]]
    with torch.autocast("cpu", enabled=False):  # as in RecBole's trainer
        both = gradient(model, known)
    parts = []
    for rows in (known[:15], known[15:]):
        model.zero_grad()
        e = model.train().encoder(rows)
        weights = torch.linspace(-1, 1, len(known) * e.shape[1]).view(len(known), -1)
        (e * weights[:15] if len(parts) == 0 else e * weights[15:]).sum().backward()
        parts.append({n: p.grad.clone() for n, p in model.encoder.named_parameters()})
    assert distance({n: parts[0][n] + parts[1][n] for n in both}, both) < 1e-5


def test_a_gpu_that_only_imitates_bfloat16_is_one_line(monkeypatch):
    ability = {"cuda:0": (7, 5), "cuda:1": (8, 0)}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", ability.get)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.version, "hip", None)
    encoder = VisualEncoder("squeezenet1_1", "random")
    encoder.use_bfloat16(False, "cuda:0")
    with pytest.raises(ConfigError, match="Old GPU does not compute in bfloat16; set it to float3"):
        encoder.use_bfloat16(True, "cuda:0")
    encoder.use_bfloat16(True, "cuda:1")
    assert encoder.in_bfloat16


def test_compiled_it_has_the_same_gradient_and_the_same_names(model_of, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(finetune, "COMPILER", backend)
    plain, compiled = (
        model_of(encoder_batch_size=10),
        model_of(encoder_batch_size=10, encoder_compile=True, encoder_memory=0),
    )
    assert distance(gradient(plain), gradient(compiled)) < 1e-6
    assert graphs
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_a_compiler_that_fails_is_one_line(model_of, monkeypatch):
    def backend(graph, inputs):
        raise OSError("no C++ compiler\nanywhere")

    monkeypatch.setattr(finetune, "COMPILER", backend)
    with pytest.raises(ConfigError, match=r"encoder_compile: torch\.compile fails here") as error:
        gradient(model_of(encoder_compile=True))
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------- augmentation


def test_augmentation_changes_training_alone(model_of):
    plain, moved = model_of(), model_of(augmentation="crop_flip")
    with torch.no_grad():
        assert torch.equal(plain.eval().encoder(ITEMS), moved.eval().encoder(ITEMS))
        one, two = (moved.train().encoder(ITEMS) for _ in range(2))
        assert not torch.equal(one, two)
        assert torch.equal(plain.train().encoder(ITEMS), plain.encoder(ITEMS))


def test_augmentation_follows_the_seed_and_not_the_blocks(model_of):
    first, again, blocks = (
        gradient(model_of(augmentation="crop_flip", encoder_batch_size=size, encoder_memory=memory))
        for size, memory in ((64, None), (64, None), (7, 0))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert distance(first, blocks) < 1e-5


# ----------------------------------------------------------------------- where pictures lie


@pytest.mark.parametrize("place", ["host", "device"])
def test_the_place_of_the_pictures_changes_nothing(model_of, place):
    a, b = gradient(model_of()), gradient(model_of(picture_store_device=place))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_pictures_reach_a_gpu_through_the_reading_thread(model_of, monkeypatch):
    # On the CPU, which here uses the code for GPUs.
    seen = []
    inner = row_source.RowSource._ahead

    def noted(self, lists, device):
        seen.append(len(lists))
        return inner(self, lists, device)

    def as_gpu(self, wanted, device):
        return self._ahead([rows.numpy() for rows in wanted], device)

    a = gradient(model_of(encoder_batch_size=8))
    monkeypatch.setattr(row_source.RowSource, "_ahead", noted)
    monkeypatch.setattr(row_source.RowSource, "blocks", as_gpu)
    b = gradient(model_of(encoder_batch_size=8))
    assert seen == [4]
    assert all(torch.equal(a[name], b[name]) for name in a)
