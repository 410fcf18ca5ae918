"""Picture encoders: any torchvision classification network, without its classifier."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.encoder_weights import (
    download_weights,
    fit_weights,
    one_line,
    read_weights,
    weights_digest,
)


class Head(NamedTuple):
    """Where a family keeps its classifier, what takes its place, and where its last map is."""

    path: str
    regions: str  # the module that gives the last map [B, C, H, W] (vit: [B, 1 + H * W, C])
    substitute: Callable[[], nn.Module] = nn.Identity


def _global_mean() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


# By the beginning of torchvision's name. A whole `classifier` goes where it is dropout and one
# linear layer (its input is pooled already); its last linear goes where layers before it belong
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
_USUAL_SIZE = 224  # pixels a side; vision transformers take no other
_OWN_SIZE = {"vit_h_14": 518}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OWN_NORMALISATION = {"efficientnet_v2_l": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class VisualEncoder(nn.Module):
    """A torchvision network from pictures to its pooled penultimate features.

    Args:
        name: A torchvision classification network, e.g. ``"resnet18"``.
        weights: ``"DEFAULT"`` (torchvision's, downloaded once), ``"random"``, or the path of a
            ``.pth``, ``.pt`` or ``.safetensors`` file with torchvision's key names; it may lack
            the classifier.
        seed: Seed of random weights. The global random state is left as it was.

    Attributes:
        out_dim: Number of features of a picture.
        weights_digest: sha256 (hex) of the tensors as loaded; :meth:`digest` tells today's.
        normalisation: Mean and standard deviation by channel, of pixels scaled to [0, 1].
        bfloat16: Whether it computes in half precision; see :meth:`use_bfloat16`.

    Raises:
        ConfigError: The network is unknown, or its weights cannot be had or do not fit.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, weights: str = "DEFAULT", seed: int = 0) -> None:
        super().__init__()
        self.name = name
        head = _head_of(name)
        self.trunk = _build_trunk(name, head, seed)
        _load(self.trunk, name, head, str(weights))
        self.weights_digest = self.digest()
        self.normalisation = _OWN_NORMALISATION.get(name, _IMAGENET)
        # (x / 255 - mean) / std as one multiplication and addition, made in double precision.
        mean, std = (torch.tensor(values, dtype=torch.double) for values in self.normalisation)
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)
        self.bfloat16 = False
        self._known_sizes: set[int] = set()
        self.eval()
        self.out_dim = self._dry_run(_OWN_SIZE.get(name, _USUAL_SIZE))

    def digest(self) -> str:
        """Return the sha256 (hex) of the network's tensors as they are now."""
        return weights_digest(self.trunk)

    def train(self, mode: bool = True) -> VisualEncoder:
        """Set training mode for all but BatchNorm, which always uses its stored statistics.

        A batch here holds the few distinct items that were drawn together, shuffled by
        popularity: its own mean would make an item's features depend on its neighbours, fail for
        a batch of one, and let the stored statistics drift to the popular items, so that ranking
        would see other features than training did.
        """
        super().train(mode)
        for module in self.trunk.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pictures: uint8 [B, S, S, 3], RGB, on the encoder's device.

        Returns:
            float32 [B, out_dim].

        Raises:
            ConfigError: The network cannot take pictures of this size.
            ValueError: The tensor is no batch of uint8 RGB pictures.
        """
        self._check(pictures)
        if len(pictures) == 0:
            return self.shift.new_zeros(0, self.out_dim)
        return self.run(self.trunk, self._pixels(pictures))

    def use_bfloat16(self, wanted: bool, device: torch.device | str) -> None:
        """Compute in bfloat16 from now on, where torch's autocast does; weights stay float32.

        Raises:
            ConfigError: The device cannot.
        """
        if wanted and torch.device(device).type == "cuda" and not _has_bfloat16(device):
            raise ConfigError(
                f"encoder_precision: {torch.cuda.get_device_name(device)} does not compute in "
                "bfloat16; set it to float32"
            )
        self.bfloat16 = wanted

    def run(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Run the trunk or a part of it that ends where it ends.

        Args:
            network: The trunk, or a module over its parameters.
            inputs: float32 [B, ...].

        Returns:
            float32 [B, out_dim].
        """
        if self.bfloat16:
            # Without the cache of converted weights: through it the gradients of a batch's blocks
            # would be added up in bfloat16.
            precision = torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False)
        else:
            precision = nullcontext()
        try:
            with precision:
                features = network(inputs)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise ConfigError(
                f"encoder_compile: torch.compile fails here ({one_line(error, 120)}); set it to "
                "False"
            ) from error
        return features.flatten(1).float()  # (B, D); float: autocast would give half precision

    def region_map(self, pictures: Tensor, grid: int = 7) -> Tensor:
        """Encode the regions of pictures: the last spatial map, before it is pooled.

        Args:
            pictures: uint8 [B, S, S, 3], RGB, on the encoder's device; B is not 0.
            grid: A map with more rows or columns than this is averaged down to it; a smaller one
                stays as it is. Most networks give 7 x 7 for pictures of 224 pixels a side.

        Returns:
            float32 [B, R, C], regions row by row; R = 49 for 7 x 7.
        """
        self._check(pictures)
        kept: list[Tensor] = []
        layer = self.trunk.get_submodule(_head_of(self.name).regions)
        handle = layer.register_forward_hook(lambda _, inputs, out: kept.append(out))
        try:
            self.trunk(self._pixels(pictures))
        finally:
            handle.remove()
        (regions,) = kept
        if regions.ndim == 3:  # a vision transformer: its first token stands for no region
            side = round((regions.shape[1] - 1) ** 0.5)
            regions = regions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        sides = [min(side, grid) for side in regions.shape[2:]]
        return F.adaptive_avg_pool2d(regions.float(), sides).flatten(2).transpose(1, 2)

    def _check(self, pictures: Tensor) -> None:
        """Refuse what is no batch of pictures, or of a size that the network cannot take."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(
                f"pictures must be uint8 [B, S, S, 3], got {pictures.dtype} {list(pictures.shape)}"
            )
        if len(pictures) and pictures.shape[1] not in self._known_sizes:
            self._dry_run(pictures.shape[1])

    def _pixels(self, pictures: Tensor) -> Tensor:
        """The network's input [B, 3, S, S]."""
        pixels = torch.addcmul(self.shift, pictures.to(torch.float32), self.scale)
        # NHWC in memory seen as NCHW is exactly torch's channels_last: no copy, and the faster
        # layout for convolutions on a CPU.
        return pixels.permute(0, 3, 1, 2)

    def _dry_run(self, size: int) -> int:
        """Return the number of features for pictures of a size, computing shapes alone.

        On the meta device this costs milliseconds for the largest network, and finds sizes that
        the network refuses before the first real batch does so with a traceback.
        """
        state = {**dict(self.trunk.named_parameters()), **dict(self.trunk.named_buffers())}
        shapes = {key: tensor.detach().to("meta") for key, tensor in state.items()}
        picture = torch.empty(1, 3, size, size, device="meta")
        try:
            with torch.no_grad():
                features = torch.func.functional_call(self.trunk, shapes, (picture,))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"visual_encoder {self.name} cannot take pictures of {size} x {size} "
                f"({one_line(error, 80)}): set image_size to "
                f"{_OWN_SIZE.get(self.name, _USUAL_SIZE)}"
            ) from error
        self._known_sizes.add(size)
        return features.flatten(1).shape[1]


def _has_bfloat16(device: torch.device | str) -> bool:
    """Whether a GPU computes in it itself. torch.cuda.is_bf16_supported would by default say yes
    of the others as well, which only imitate it and are slower than in float32."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def _models(name: str) -> Any:
    """Return torchvision.models, or say in one line that it is absent."""
    try:
        # Here, not above: without torchvision, models that see no pictures must still work.
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ConfigError(
            f"visual_encoder {name} needs torchvision, which cannot be imported "
            f"({one_line(error, 80)}): pip install torchvision, or set features_file"
        ) from error
    return models


def _head_of(name: str) -> Head:
    """Return where a network's classifier is; refuse names torchvision does not have."""
    models = _models(name)
    names = models.list_models(module=models)
    if name not in names:
        nearest = difflib.get_close_matches(str(name).lower(), names, n=3) or ["resnet18"]
        raise ConfigError(
            f"visual_encoder: torchvision has no classification network {name!r}; "
            f"nearest: {', '.join(nearest)}"
        )
    for family, head in HEADS.items():
        if name.startswith(family):
            return head
    raise ConfigError(
        f"visual_encoder: {name} is of no family whose classifier is known here: "
        f"choose one of {', '.join(HEADS)}"
    )


def _build_trunk(name: str, head: Head, seed: int) -> nn.Module:
    """Build a network with seeded random weights and put the substitute where its head was."""
    # The CPU generator alone is seeded: torch.manual_seed would reseed every GPU as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _models(name).get_model(name, weights=None, **_ARGUMENTS.get(name, {}))
    parent, _, attribute = head.path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, head.substitute())
    return network


def _load(trunk: nn.Module, name: str, head: Head, weights: str) -> None:
    """Give a trunk the weights that the configuration asks for."""
    if weights == "random":
        return
    if weights == "DEFAULT":
        fit_weights(trunk, download_weights(name), head.path, f"visual_encoder {name}")
        return
    path = Path(weights).expanduser()
    fit_weights(trunk, read_weights(path), head.path, f"encoder_weights {path} for {name}")
