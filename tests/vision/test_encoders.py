"""The encoders against torchvision's own networks, and what they refuse."""

from __future__ import annotations

import builtins
import os
import pickle
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models
from torchvision.transforms import functional as transforms

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.torchvision_encoder import HEADS
from recbole_cierec.vision.visual_encoder import VisualEncoder

WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2_features_imagenet.safetensors",
    "squeezenet1_1": "squeezenet1_1_torchvision_imagenet.safetensors",
}


@pytest.fixture
def given_weights(shared_dir):
    """Function from a network's name to its real ImageNet weights."""
    return lambda name: str(shared_dir / "data" / "weights" / WEIGHTS[name])


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=generator)


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """The input that torchvision's own transforms compute from the same pictures."""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = [transforms.to_tensor(picture.numpy()) for picture in pictures]
    return torch.stack([transforms.normalize(image, mean, std) for image in images])


def refusal(name: str, weights: str) -> str:
    """The one line of the error for an encoder."""
    with pytest.raises(ConfigError) as caught:
        VisualEncoder(name, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------ features


def test_mobilenet_features_equal_torchvision_pooled_by_hand(given_weights, pictures):
    path = given_weights("mobilenet_v2")
    encoder = VisualEncoder("mobilenet_v2", path)
    network = models.mobilenet_v2(weights=None).eval()
    network.load_state_dict(load_file(path), strict=False)
    with torch.no_grad():
        expected = network.features(normalised(pictures)).mean(dim=(2, 3))
        features = encoder(pictures)
    assert (features.dtype, encoder.out_dim) == (torch.float32, 1280)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_squeezenet_features_are_the_512_maps_pooled(given_weights, pictures):
    path = given_weights("squeezenet1_1")
    encoder = VisualEncoder("squeezenet1_1", path)
    network = models.squeezenet1_1(weights=None).eval()
    network.load_state_dict(load_file(path))
    assert encoder.out_dim == 512
    with torch.no_grad():
        inputs = normalised(pictures)
        expected = network.features(inputs).mean(dim=(2, 3))
        # These features are not normalised and far above 1, so errors are relative to the largest.
        atol = 1e-5 * expected.max().item()
        torch.testing.assert_close(encoder(pictures), expected, rtol=0, atol=atol)
        encoder.trunk.classifier = network.classifier  # with its head restored it classifies again
        torch.testing.assert_close(encoder(pictures), network(inputs), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 512),
        ("resnet50", 2048),
        ("mobilenet_v3_small", 1024),
        ("efficientnet_b0", 1280),
        ("mnasnet0_5", 1280),
        ("shufflenet_v2_x0_5", 1024),
        ("regnet_y_400mf", 440),
        ("googlenet", 1024),
        ("densenet121", 1024),
        ("swin_t", 768),
    ],
)
def test_features_times_the_removed_classifier_are_the_logits(name, size, pictures):
    encoder = VisualEncoder(name, "random", seed=5)
    googlenet = {"aux_logits": False, "init_weights": True, "transform_input": True}
    options = googlenet if name == "googlenet" else {}
    network = models.get_model(name, weights=None, **options).eval()
    network.load_state_dict(encoder.trunk.state_dict(), strict=False)
    with torch.no_grad():
        features = encoder(pictures)
        logits = network.get_submodule(HEADS_OF[name])(features)
        expected = network(normalised(pictures))
    assert features.shape == (3, size) == (3, encoder.out_dim)
    # Random weights give numbers of any size, so errors are relative to the largest one.
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


# Written out by hand, so that it checks the table of the encoders.
HEADS_OF = {
    "resnet18": "fc",
    "resnet50": "fc",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier",
    "mnasnet0_5": "classifier",
    "shufflenet_v2_x0_5": "fc",
    "regnet_y_400mf": "fc",
    "googlenet": "fc",
    "densenet121": "classifier",
    "swin_t": "head",
}


def test_every_torchvision_classification_network_is_of_exactly_one_family():
    for name in models.list_models(module=models):
        assert len([family for family in HEADS if name.startswith(family)]) == 1, name


def test_no_pictures_give_no_features():
    encoder = VisualEncoder("squeezenet1_1", "random")
    assert encoder(torch.zeros(0, 64, 64, 3, dtype=torch.uint8)).shape == (0, 512)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (64, 64, 3)])
def test_pictures_in_another_layout_are_refused(shape):
    encoder = VisualEncoder("squeezenet1_1", "random")
    with pytest.raises(ValueError, match=r"uint8 \[B, S, S, 3\]"):
        encoder(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 32), ("squeezenet1_1", 8)])
def test_a_size_the_network_cannot_take_is_refused_in_one_line(name, size):
    encoder = VisualEncoder(name, "random")
    with pytest.raises(ConfigError, match=rf"{name} cannot .* {size} x {size} .*image_size") as e:
        encoder(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    assert "\n" not in str(e.value)


# ------------------------------------------------------------------------ random, training


def test_random_weights_follow_the_seed_and_leave_the_global_state():
    before = torch.get_rng_state()
    one, same, other = (VisualEncoder("resnet18", "random", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights_digest == same.weights_digest != other.weights_digest
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_batch_norm_keeps_its_statistics_in_training(pictures):
    encoder = VisualEncoder("resnet18", "random")
    with torch.no_grad():
        expected = encoder(pictures)
    nn.Sequential(encoder).train()  # as a model does with its parts
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    torch.testing.assert_close(encoder(pictures), expected)
    assert encoder.training
    assert all(torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers())
    assert encoder(pictures[:1]).shape == (1, 512)


def test_dropout_follows_training_mode(pictures):
    encoder = VisualEncoder("mobilenet_v3_small", "random").train()
    assert any(m.training for m in encoder.modules() if isinstance(m, nn.Dropout))
    state = torch.get_rng_state()
    encoder.check_size(96)  # shapes only: no random draws, so that a resumed run has the same bits
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_reach_every_parameter_and_digest_follows_them(pictures):
    encoder = VisualEncoder("resnet18", "random").train()
    encoder(pictures).square().sum().backward()
    missing = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    assert encoder.digest() != encoder.weights_digest


def test_normalisation_is_no_part_of_a_checkpoint():
    assert all(k.startswith("trunk.") for k in VisualEncoder("resnet18", "random").state_dict())


# --------------------------------------------------------------------------- weight files


def save_network(network: nn.Module, path: Path, form: str) -> str:
    """Save a network in one of the common forms."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if form == "safetensors":
        save_file(state, path.with_suffix(".safetensors"))
        return str(path.with_suffix(".safetensors"))
    content = {
        "plain": state,
        "trunk": {k: v for k, v in state.items() if not k.startswith("fc.")},
        "old": {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        "half": {k: v.half() for k, v in state.items()},
        "lightning": {"epoch": 3, "state_dict": state},
        "parallel": {"model": {f"module.{k}": v for k, v in state.items()}, "lr": 0.1},
    }[form]
    torch.save(content, path.with_suffix(".pth"))
    return str(path.with_suffix(".pth"))


@pytest.mark.parametrize(
    "form", ["plain", "trunk", "old", "half", "lightning", "parallel", "safetensors"]
)
def test_usual_forms_of_a_weight_file_are_read(form, tmp_path):
    network = models.resnet18(weights=None).half().float()  # exact in half precision
    encoder = VisualEncoder("resnet18", save_network(network, tmp_path / "w", form))
    expected = network.state_dict()
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    plain = VisualEncoder("resnet18", save_network(network, tmp_path / "p", "plain"))
    assert encoder.weights_digest == plain.weights_digest


def test_names_of_old_densenet_files_are_understood(tmp_path):
    network = models.densenet121(weights=None)
    state = {}
    for name, tensor in network.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        state[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "old.pth")
    encoder = VisualEncoder("densenet121", str(tmp_path / "old.pth"))
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


def test_weights_of_another_network_are_refused_by_shape(tmp_path):
    path = save_network(models.resnet50(weights=None), tmp_path / "w", "plain")
    line = refusal("resnet18", path)
    shapes = "float32 [64, 64, 1, 1] instead of float32 [64, 64, 3, 3]"
    assert f"first: layer1.0.conv1.weight is {shapes}" in line
    assert path in line


def test_a_deeper_network_is_not_taken_for_a_shallower_one(tmp_path):
    path = save_network(models.resnet34(weights=None), tmp_path / "w", "plain")
    line = refusal("resnet18", path)
    assert "0 are missing and 0 differ" in line
    assert "layer1.2.conv1.weight is left over" in line


def test_a_missing_tensor_is_named_and_counted(tmp_path):
    state = models.resnet18(weights=None).state_dict()
    del state["layer2.0.conv1.weight"], state["layer4.1.bn2.bias"]
    torch.save(state, tmp_path / "w.pth")
    line = refusal("resnet18", str(tmp_path / "w.pth"))
    assert "of its 100 tensors 2 are missing" in line
    assert "first: layer2.0.conv1.weight is missing" in line


def test_integers_are_not_taken_for_weights(tmp_path):
    state = models.squeezenet1_1(weights=None).state_dict()
    torch.save({k: (v * 127).to(torch.int8) for k, v in state.items()}, tmp_path / "w.pth")
    assert "features.0.weight is int8" in refusal("squeezenet1_1", str(tmp_path / "w.pth"))


class Payload:
    """Unpickled, it touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def save_with_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [save_with_pickle, torch.save], ids=["pickle", "torch"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_code_in_a_weight_file_is_not_run(save, suffix, tmp_path):
    target, path = tmp_path / "touched", tmp_path / f"w{suffix}"
    save({"conv1.weight": torch.zeros(1), "x": Payload(target)}, path)
    assert str(path) in refusal("resnet18", str(path))
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02", b"PK\x03\x04" * 9])
def test_a_file_that_holds_no_weights_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal("resnet18", str(path))


def test_a_truncated_file_is_refused(tmp_path):
    path = Path(save_network(models.squeezenet1_1(weights=None), tmp_path / "w", "plain"))
    path.write_bytes(path.read_bytes()[:-20_000])
    assert "damaged" in refusal("squeezenet1_1", str(path))


@pytest.mark.parametrize("weights", ["default", "Random", "no/such/file.pth"])
def test_what_is_no_weights_names_the_choices(weights):
    assert "neither DEFAULT, nor random, nor a file" in refusal("resnet18", weights)


def test_another_type_of_file_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    assert ".safetensors, .pth or .pt" in refusal("resnet18", str(tmp_path / "w.npz"))


# ------------------------------------------------------------------- names and downloads


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet19", "resnet18"), ("ResNet50", "resnet50"), ("mobilenetv2", "mobilenet_v2")],
)
def test_an_unknown_network_names_the_nearest(name, nearest):
    assert nearest in refusal(name, "random")


@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "resnet", "", "../resnet18"])
def test_what_is_no_classification_network_is_refused(name):
    assert "no classification network" in refusal(name, "random")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty folder of torch hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    "error",
    [
        URLError(OSError("Name or service not known")),
        HTTPError("http://x", 403, "Forbidden", None, None),
        TimeoutError("timed\nout"),
    ],
    ids=["no network", "http", "timeout"],
)
def test_weights_that_cannot_be_downloaded_say_what_to_do(error, hub, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr("torch.hub.urlopen", fail)
    line = refusal("resnet18", "DEFAULT")
    assert "visual_encoder resnet18: the download of its DEFAULT weights failed" in line
    assert all(
        hint in line
        for hint in ("encoder_weights", ".safetensors", "random", str(hub), "resnet18-f37072fd.pth")
    )


def test_default_takes_the_file_in_the_hub_folder(hub):
    network = models.resnet18(weights=None)
    hub.mkdir(parents=True)
    torch.save(network.state_dict(), hub / "resnet18-f37072fd.pth")
    encoder = VisualEncoder("resnet18")
    assert torch.equal(encoder.trunk.conv1.weight, network.conv1.weight)


def test_a_damaged_or_malicious_file_in_the_hub_folder_is_refused(hub, tmp_path):
    hub.mkdir(parents=True)
    file = hub / "resnet18-f37072fd.pth"
    save_with_pickle({"conv1.weight": Payload(tmp_path / "touched")}, file)
    assert f"{file} is damaged" in refusal("resnet18", "DEFAULT")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("absent", ["torchvision", "safetensors"])
def test_an_absent_package_is_named_in_one_line(absent, monkeypatch, tmp_path):
    usual = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == absent:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual(name, *args, **kwargs)

    (tmp_path / "w.safetensors").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    assert f"pip install {absent}" in refusal("resnet18", str(tmp_path / "w.safetensors"))
