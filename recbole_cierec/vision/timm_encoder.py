"""Encoders from timm (PyTorch Image Models), an optional package: ``visual_encoder: timm/NAME``."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.terminal import reason

PREFIX = "timm/"


class TimmEncoder:
    """A timm network; see :class:`recbole_cierec.vision.encoder.Encoder`.

    Args:
        name: E.g. ``timm/vit_small_patch14_dinov2``; a tag of weights may follow (``.lvd142m``).
        pretrained: Load timm's weights, downloaded once; else the weights are random.

    Raises:
        ConfigError: timm is not installed, the network is unknown, or its weights cannot be loaded.
    """

    source_digest = ""

    def __init__(self, name: str, pretrained: bool) -> None:
        timm = named_timm(name)
        self.name = name
        trunk = _create(timm, name, pretrained)
        self.trunk: nn.Module = trunk
        data = timm.data.resolve_model_data_config(trunk)
        self.image_size = int(data["input_size"][-1])
        self.normalisation = tuple(data["mean"]), tuple(data["std"])
        head = trunk.pretrained_cfg.get("classifier") or ()
        self.head = (head,) if isinstance(head, str) else tuple(head)

    def last_map(self, pictures: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> [B, C, H, W]."""
        trunk: Any = self.trunk
        features = trunk.forward_features(pictures)
        if isinstance(features, Tensor) and features.ndim == 4:
            channels_last = features.shape[1] != trunk.num_features
            return features.permute(0, 3, 1, 2) if channels_last else features
        if isinstance(features, Tensor) and features.ndim == 3:  # tokens of a transformer
            tokens = features[:, getattr(trunk, "num_prefix_tokens", 0) :]
            side = math.isqrt(tokens.shape[1])
            if side and side**2 == tokens.shape[1]:
                return tokens.transpose(1, 2).unflatten(2, (side, side))
        raise ConfigError(
            f"visual_encoder {self.name}: its last layer is no map of regions, which models over "
            "regions need; choose another network"
        )


def named_timm(name: str) -> Any:
    """The module timm, which has the network of this name.

    Raises:
        ConfigError: timm is not installed, or the network is unknown.
    """
    timm, own = _timm(name), name.removeprefix(PREFIX)
    if ":" in own or not timm.is_model(own):  # a colon would load from a hub or folder
        near = nearest(own, timm.list_models())
        raise ConfigError(f"visual_encoder: timm has no network {own!r}{near}")
    return timm


def _timm(name: str) -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision for another torch
        raise ConfigError(
            f"visual_encoder {name} needs timm, which cannot be imported ({reason(error, 80)}): "
            "pip install 'recbole-cierec[timm]', or choose a network of torchvision"
        ) from error
    return timm


def _create(timm: Any, name: str, pretrained: bool) -> Any:
    own = name.removeprefix(PREFIX)
    advice = "set encoder_weights to a .pth or .safetensors file or to random"
    try:
        described = timm.get_pretrained_cfg(own)
        if pretrained and not (described and described.has_weights):  # timm would only warn
            raise ConfigError(f"visual_encoder {name}: timm has no weights of it: {advice}")
        return timm.create_model(own, pretrained=pretrained, num_classes=0)
    except ConfigError:
        raise
    except Exception as error:  # timm, its hub and its networks fail in many ways
        what = "its DEFAULT weights cannot be loaded" if pretrained else "timm cannot make it"
        raise ConfigError(
            f"visual_encoder {name}: {what} ({reason(error, 80)})"
            + (f": {advice}" if pretrained else "; choose another network")
        ) from error
