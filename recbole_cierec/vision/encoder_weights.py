"""Weights of an encoder: read from a file or torchvision's download, and copied into the network.

No pickled code is ever run: ``.pth`` is read by ``torch.load(weights_only=True)``, and
``.safetensors`` holds only data by design.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Container, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.files.torch_files import refuse_packed
from recbole_cierec.terminal import reason

# A training script wraps its weights in a dictionary under one of these names ...
_WRAPPERS = ("state_dict", "model")
# ... and DataParallel, DistributedDataParallel and torch.compile put a prefix before every key.
_PREFIXES = ("module.", "_orig_mod.")
# In files published before torchvision renamed these layers; torchvision still ships them.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
# Counters of BatchNorm, unused in eval mode and missing in old files: not required, not hashed.
_COUNTER = "num_batches_tracked"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running anything in it.

    Args:
        path: A ``.safetensors``, ``.pth`` or ``.pt`` file.

    Returns:
        Tensors on the CPU by name, wrappers and prefixes of training scripts removed.

    Raises:
        ConfigError: The file is missing, of another type, damaged, or more than plain tensors.
    """
    if not os.path.isfile(path):  # unlike is_file it never raises
        raise ConfigError(
            f"encoder_weights: {str(path)!r} is neither DEFAULT, nor random, nor a file: "
            "give the path of a .pth or .safetensors file"
        )
    if path.suffix == ".safetensors":
        return _unwrapped(_read_safetensors(path))
    if path.suffix in (".pth", ".pt"):
        return _unwrapped(_read_pth(path))
    raise ConfigError(
        f"encoder_weights {path}: files ending in {path.suffix!r} are not read: "
        "save the weights as .safetensors, .pth or .pt"
    )


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(
            f"encoder_weights {path}: the package safetensors is not installed: "
            "pip install safetensors, or give a .pth file"
        ) from error
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"encoder_weights {path}: not a readable safetensors file ({reason(error)}): "
            "fetch it again"
        ) from error


def _read_pth(path: Path) -> Mapping[str, Any]:
    try:
        refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler fails in many ways on arbitrary bytes
        raise ConfigError(
            f"encoder_weights {path}: damaged, or holds more than plain tensors, so it is refused "
            "and nothing in it was run: save its state_dict() again, or use .safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"encoder_weights {path}: holds a {type(content).__name__}, not named tensors: "
            "save the network's state_dict()"
        )
    return content


def download_weights(name: str) -> dict[str, Tensor]:
    """torchvision's default weights of a network, from torch hub's folder or the internet.

    Args:
        name: A torchvision classification network.

    Returns:
        Tensors on the CPU by name.

    Raises:
        ConfigError: They could not be downloaded, or the file in torch hub's folder is damaged.
    """
    from torchvision.models import get_model_weights

    url = get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    present = file.exists()
    try:
        # weights_only: an existing file in the folder may come from anywhere.
        content = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, HTTPException) as error:
        raise ConfigError(
            f"visual_encoder {name}: the download of its DEFAULT weights failed "
            f"({reason(error)}): set encoder_weights to a .pth or .safetensors file or to "
            f"random, or put the file from {url} at {file}"
        ) from error
    except Exception as error:  # a wrong hash, or what the unpickler raises on a damaged file
        blame = f"{file} is damaged" if present else "the download of its DEFAULT weights failed"
        raise ConfigError(
            f"visual_encoder {name}: {blame} ({reason(error)}): delete that file and run "
            "again, or set encoder_weights to another file"
        ) from error
    return _unwrapped(content)


def _unwrapped(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The named tensors inside the usual wrappers, with torchvision's current names."""
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(k): value for k, value in content.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return {_renamed(name): value for name, value in tensors.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name


def fit_weights(
    trunk: nn.Module, tensors: Mapping[str, Tensor], head: Collection[str], source: str
) -> None:
    """Copy tensors into a trunk; all of the trunk's tensors must be given, with their shapes.

    The removed classifier and parts unknown to the trunk (auxiliary classifiers, a projector) may
    be in the file. Additional layers in a known part are refused: a resnet34 holds every tensor of
    a resnet18.

    Args:
        trunk: The network without its classifier.
        tensors: What the file holds.
        head: Names of removed classifiers, e.g. ``classifier.3``.
        source: The file as errors name it, e.g. ``"encoder_weights x.pth: resnet18"``.

    Raises:
        ConfigError: A tensor is missing, left over, or of another shape or kind.
    """
    own = hashed_tensors(trunk)
    parts = {name.partition(".")[0] for name in own}
    missing = [f"{name} is missing" for name in own if name not in tensors]
    other = [
        f"{name} is {_form(tensors[name])} instead of {_form(own[name])}"
        for name in own
        if name in tensors and not _same_form(own[name], tensors[name])
    ]
    extra = [
        f"{name} is left over"
        for name in tensors
        if name not in own
        and name.partition(".")[0] in parts
        and not name.startswith(tuple(f"{part}." for part in head))
        and not name.endswith(_COUNTER)
    ]
    if faults := [*other, *missing, *extra]:
        raise ConfigError(
            f"{source}: these weights are not of this network: of its {len(own)} tensors "
            f"{len(missing)} are missing and {len(other)} differ in shape, {len(extra)} are left "
            f"over (first: {faults[0]}): set visual_encoder to the network they belong to"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _same_form(own: Tensor, given: Tensor) -> bool:
    return (
        own.shape == given.shape
        and own.is_floating_point() == given.is_floating_point()
        and given.layout is torch.strided
    )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def hashed_tensors(trunk: nn.Module) -> dict[str, Tensor]:
    """A trunk's parameters and buffers by name, without BatchNorm's counters."""
    return {n: t for n, t in trunk.state_dict().items() if not n.endswith(_COUNTER)}


def weights_digest(trunk: nn.Module, only: Container[str] | None = None) -> str:
    """sha256 (hex) over the names, shapes and bytes of a trunk's tensors.

    Args:
        only: Names of the tensors to include; None: all.
    """
    digest = hashlib.sha256()
    for name, tensor in hashed_tensors(trunk).items():
        if only is not None and name not in only:
            continue
        digest.update(f"{name} {_form(tensor)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
