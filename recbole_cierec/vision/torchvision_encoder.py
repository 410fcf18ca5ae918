"""Encoders from torchvision: any of its classification networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.terminal import reason
from recbole_cierec.vision.encoder import IMAGENET, Normalisation
from recbole_cierec.vision.encoder_weights import download_weights, fit_weights


class Head(NamedTuple):
    """Where a family of networks keeps its classifier, and what replaces it."""

    path: str
    regions: str  # the module that gives the last map [B, C, H, W] (vit: [B, 1 + H * W, C])
    substitute: Callable[[], nn.Module] = nn.Identity


def _global_mean() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


# By the beginning of torchvision's name. A whole `classifier` is replaced where it is dropout and
# one linear layer (its input is pooled already); only its last linear where layers before it belong
# to the features (vgg: the 4096-d layer; convnext, maxvit: norm and projection).
HEADS: dict[str, Head] = {
    "alexnet": Head("classifier.6", "features"),
    "convnext": Head("classifier.2", "features"),
    "densenet": Head("classifier", "features"),
    "efficientnet": Head("classifier", "features"),
    "googlenet": Head("fc", "inception5b"),
    "inception": Head("fc", "Mixed_7c"),
    "maxvit": Head("classifier.5", "blocks.3"),
    "mnasnet": Head("classifier", "layers"),
    "mobilenet_v2": Head("classifier", "features"),
    "mobilenet_v3": Head("classifier.3", "features"),
    "regnet": Head("fc", "trunk_output"),
    "resnet": Head("fc", "layer4"),
    "resnext": Head("fc", "layer4"),
    "shufflenet": Head("fc", "conv5"),
    # Its classifier is a convolution over the 512 maps, so they are not pooled before it.
    "squeezenet": Head("classifier", "features", _global_mean),
    "swin": Head("head", "permute"),
    "vgg": Head("classifier.6", "features"),
    "vit": Head("heads", "encoder"),
    "wide_resnet": Head("fc", "layer4"),
}

# Auxiliary classifiers serve the training on ImageNet alone; transform_input is how torchvision
# runs its weights of these two, which were made for another normalisation.
_NO_AUXILIARY = {"aux_logits": False, "transform_input": True, "init_weights": True}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": _NO_AUXILIARY,
    "inception_v3": _NO_AUXILIARY,
    "vit_h_14": {"image_size": 518},  # the size its weights were trained for
}
_NORMALISATIONS: dict[str, Normalisation] = {
    "efficientnet_v2_l": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
}


class TorchvisionEncoder:
    """A torchvision network; see :class:`recbole_cierec.vision.encoder.Encoder`.

    Args:
        name: E.g. ``resnet18``.
        pretrained: Load torchvision's weights, downloaded once; else the weights are random.

    Raises:
        ConfigError: The network is unknown, or its weights cannot be loaded.
    """

    source_digest = ""

    def __init__(self, name: str, pretrained: bool) -> None:
        models, head = _models(name), head_of(name)
        network = models.get_model(name, weights=None, **_ARGUMENTS.get(name, {}))
        parent, _, attribute = head.path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, head.substitute())
        self.trunk: nn.Module = network
        self.head: tuple[str, ...] = (head.path,)
        self.image_size = _ARGUMENTS.get(name, {}).get("image_size", 224)
        self.normalisation = _NORMALISATIONS.get(name, IMAGENET)
        self._regions = head.regions
        if pretrained:
            fit_weights(network, download_weights(name), self.head, f"visual_encoder {name}")

    def last_map(self, pictures: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> [B, C, H, W]."""
        kept: list[Tensor] = []
        layer = self.trunk.get_submodule(self._regions)
        handle = layer.register_forward_hook(lambda _, inputs, out: kept.append(out))
        try:
            self.trunk(pictures)
        finally:
            handle.remove()
        (regions,) = kept
        if regions.ndim == 3:  # a vision transformer, whose first token stands for no region
            side = round((regions.shape[1] - 1) ** 0.5)
            regions = regions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return regions


def _models(name: str) -> Any:
    """torchvision.models, or one line that says it is missing."""
    try:
        # Here, not above: without torchvision, models that see no pictures must still work.
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ConfigError(
            f"visual_encoder {name} needs torchvision, which cannot be imported "
            f"({reason(error, 80)}): pip install torchvision, or set features_file"
        ) from error
    return models


def head_of(name: str) -> Head:
    """Where the network of this name keeps its classifier.

    Raises:
        ConfigError: torchvision is not installed, or the network is unknown.
    """
    models = _models(name)
    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(
            f"visual_encoder: torchvision has no classification network {name!r} (write timm/NAME "
            f"for one of timm, module:Class for your own){nearest(name, names)}"
        )
    for family, head in HEADS.items():
        if name.startswith(family):
            return head
    raise ConfigError(
        f"visual_encoder: {name} is of no family whose classifier is known here: "
        f"choose one of {', '.join(HEADS)}"
    )
