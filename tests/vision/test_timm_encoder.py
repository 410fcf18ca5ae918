"""Encoders from timm against timm's own networks, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from recbole_cierec import run
from recbole_cierec.errors import ConfigError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.vision.frozen_trunk import FrozenTrunk
from recbole_cierec.vision.visual_encoder import VisualEncoder

timm = pytest.importorskip("timm")

# Tiny networks of several kinds: convolutions, [B, H, W, C] maps, tokens with a class token.
NETWORKS = ("resnet10t", "mobilenetv3_small_050", "test_convnext", "test_vit")


def pictures(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def twin(encoder: VisualEncoder) -> torch.nn.Module:
    """timm's own network, classifier included, with the weights of an encoder."""
    network = timm.create_model(encoder.name.removeprefix("timm/"), pretrained=False).eval()
    network.load_state_dict(encoder.trunk.state_dict(), strict=False)
    return network


def timms_input(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Pictures normalised by timm's own description of the network."""
    data = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(data[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std


def refusal(name: str, weights: str = "random", size: int | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        VisualEncoder(name, weights).check_size(size or 160)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_times_timms_classifier_are_its_logits(name):
    encoder = VisualEncoder(f"timm/{name}", "random", seed=5)
    network, batch = twin(encoder), pictures(encoder.image_size)
    with torch.no_grad():
        features = encoder(batch)
        logits = network.get_classifier()(features)
        expected = network(timms_input(network, batch))
    assert features.shape == (2, encoder.out_dim)
    atol = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(logits, expected, rtol=0, atol=atol)


def test_size_and_normalisation_are_the_networks_own():
    encoder = VisualEncoder("timm/test_vit", "random")
    assert (encoder.image_size, encoder.normalisation) == (160, ((0.5,) * 3, (0.5,) * 3))
    assert VisualEncoder("timm/resnet10t", "random").normalisation[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext"])
def test_the_mean_of_the_regions_is_the_pooled_map(name):
    encoder = VisualEncoder(f"timm/{name}", "random", seed=1)
    batch = pictures(160)
    with torch.no_grad():
        regions = encoder.region_map(batch, grid=99)
        last = encoder.trunk.forward_features(timms_input(encoder.trunk, batch))
    assert regions.shape == (2, 25, last.shape[1])
    torch.testing.assert_close(regions.mean(1), last.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_the_regions_of_a_transformer_are_its_patches_in_reading_order():
    encoder = VisualEncoder("timm/test_vit", "random")
    batch = pictures(160, 1)
    with torch.no_grad():
        tokens = encoder.trunk.forward_features(timms_input(encoder.trunk, batch))
        regions = encoder.region_map(batch, grid=10)
    assert regions.shape == (1, 100, 64)
    torch.testing.assert_close(regions, tokens[:, encoder.trunk.num_prefix_tokens :])


def test_a_network_without_a_map_is_refused():
    encoder = VisualEncoder("timm/test_vit", "random")
    encoder.trunk.forward_features = lambda inputs: torch.zeros(len(inputs), 99, 64)  # not a square
    with pytest.raises(ConfigError, match=r"timm/test_vit: its last layer is no map of regions"):
        encoder.region_map(pictures(160))


def test_random_weights_follow_the_seed():
    one, same, other = (VisualEncoder("timm/test_vit", "random", seed=s) for s in (1, 1, 2))
    assert one.weights_digest == same.weights_digest != other.weights_digest


def test_a_file_of_timms_own_names_is_read_with_or_without_classifier(tmp_path):
    network = timm.create_model("test_vit", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    encoder = VisualEncoder("timm/test_vit", str(tmp_path / "w.pth"))
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    torch.save(encoder.trunk.state_dict(), tmp_path / "t.pth")
    again = VisualEncoder("timm/test_vit", str(tmp_path / "t.pth"))
    assert again.weights_digest == encoder.weights_digest
    line = refusal("timm/resnet10t", str(tmp_path / "w.pth"))
    assert "these weights are not of this network" in line


# ------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("resnet10t", "layer2"),
        ("mobilenetv3_small_050", "blocks.2"),
        ("test_convnext", "stages.1"),
    ],
)
def test_frozen_part_and_rest_are_the_network(name, part):
    encoder = VisualEncoder(f"timm/{name}", "random", seed=2)
    batch = pictures(96)
    with torch.no_grad():
        whole = encoder(batch)
    cut = FrozenTrunk(encoder, part, 96)
    joined = cut.features(cut.output(batch))
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    joined.sum().backward()
    learns = {n for n, p in encoder.trunk.named_parameters() if p.grad is not None}
    assert learns
    assert not any(n.startswith(f"{part}.") for n in learns)


def test_a_transformer_is_not_cut_where_its_positions_would_be_added_twice():
    with pytest.raises(ConfigError, match=r"timm/test_vit cannot be cut after blocks.2 \("):
        FrozenTrunk(VisualEncoder("timm/test_vit", "random"), "blocks.2", 160)


def test_dropped_paths_count_as_random_draws():
    encoder = VisualEncoder("timm/test_vit", "random")
    assert not encoder.draws
    encoder.trunk.blocks[1].drop_path1 = timm.layers.DropPath(0.1)
    assert encoder.draws


def test_a_run_fine_tunes_a_network_of_timm(pictured):
    keys = pictured(
        visual_encoder="timm/resnet10t",
        encoder_training="finetune",
        encoder_freeze_until="layer2",
        epochs=1,
    )
    result = run("MF_Image", "tiny", config_dict=keys)
    state = read_checkpoint(Path(result["checkpoint"]))["state_dict"]
    start = VisualEncoder("timm/resnet10t", "random").trunk.state_dict()
    moved = {
        name: not torch.equal(value, state[f"encoder.network.trunk.{name}"])
        for name, value in start.items()
        if name.endswith("conv1.weight")
    }
    assert moved["layer4.0.conv1.weight"]
    assert not moved["layer2.0.conv1.weight"]


# ------------------------------------------------------------------------------- refusals


def test_an_unknown_network_names_the_nearest():
    assert "timm has no network 'resnt18'; did you mean 'resnet18'?" in refusal("timm/resnt18")
    assert "timm has no network 'hf-hub:a/b'" in refusal("timm/hf-hub:a/b")
    assert "Invalid pretrained tag (nope)" in refusal("timm/resnet18.nope")


def test_a_size_that_a_transformer_cannot_take_is_refused():
    assert "cannot take pictures of 100 x 100" in refusal("timm/test_vit", size=100)
    assert "set image_size to 160" in refusal("timm/test_vit", size=100)


def test_the_size_is_refused_before_pictures_are_decoded(pictured):
    keys = pictured(visual_encoder="timm/test_vit", image_size=40)
    with pytest.raises(ConfigError, match="set image_size to 160"):
        run("MF_Image", "tiny", config_dict=keys)
    assert not list(Path("cache").glob("pictures-*"))


def test_weights_that_cannot_be_loaded_say_what_to_do(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no\nroute")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    line = refusal("timm/test_vit", "DEFAULT")
    assert "its DEFAULT weights cannot be loaded (no route)" in line
    assert "encoder_weights" in line


def test_a_network_without_weights_is_not_left_random_in_silence():
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    assert "timm has no weights of it" in refusal(f"timm/{name}", "DEFAULT")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'recbole-cierec[timm]'" in refusal("timm/resnet10t")
