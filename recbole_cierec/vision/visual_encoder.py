"""Picture encoders in use: pictures as they are stored in, features and region maps out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import reason
from recbole_cierec.vision.encoder import Encoder
from recbole_cierec.vision.encoder_weights import fit_weights, read_weights, weights_digest
from recbole_cierec.vision.timm_encoder import PREFIX, TimmEncoder, named_timm
from recbole_cierec.vision.torchvision_encoder import TorchvisionEncoder, head_of
from recbole_cierec.vision.user_encoder import UserEncoder, load_class

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Parts of torchvision and timm that leave out whole paths at random, and where they keep how often.
_PATH_DROPS = {"StochasticDepth": "p", "DropPath": "drop_prob"}
_SMALL = 30_000_000  # parameters
# What networks raise on an input that they cannot take.
MISFIT = (AssertionError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class VisualEncoder(nn.Module):
    """Runs an :class:`~recbole_cierec.vision.encoder.Encoder` on stored pictures.

    Args:
        name: A classification network of torchvision (``resnet18``), a network of timm
            (``timm/NAME``), or a class of the user's own (``package.module:Class``).
        weights: ``DEFAULT`` (those of the library or class), ``random``, or the path of a ``.pth``,
            ``.pt`` or ``.safetensors`` file with the network's names; it may lack the classifier.
        seed: Seed of random weights. The global random state stays as it was.

    Attributes:
        out_dim: D, the number of features of a picture.
        weights_digest: sha256 (hex) of the tensors as loaded; :meth:`digest` is the current one.
        normalisation: Mean and standard deviation by channel, of pixels scaled to [0, 1].
        image_size: Side of pictures, in pixels, that the network was made for.
        source_digest: As of the encoder.
        in_bfloat16: Whether it computes in half precision; see :meth:`use_bfloat16`.

    Raises:
        ConfigError: The network is unknown, or its weights cannot be loaded or do not fit.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, weights: str = "DEFAULT", seed: int = 0) -> None:
        super().__init__()
        self.name = name
        # The CPU generator alone is seeded: torch.manual_seed would reseed every GPU as well.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._encoder = _make(name, weights == "DEFAULT")
        self.trunk = self._encoder.trunk
        if weights not in ("DEFAULT", "random"):
            path = Path(weights).expanduser()
            source = f"encoder_weights {path} for {name}"
            fit_weights(self.trunk, read_weights(path), self._encoder.head, source)
        self.weights_digest = self.digest()
        self.normalisation = self._encoder.normalisation
        self.image_size = self._encoder.image_size
        self.source_digest = self._encoder.source_digest
        # (x / 255 - mean) / std as one multiplication and addition, made in double precision.
        mean, std = (torch.tensor(values, dtype=torch.double) for values in self.normalisation)
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)
        self.in_bfloat16 = False
        self._widths: dict[int, int] = {}  # features by side of the pictures
        self.eval()
        self.out_dim = self.check_size(self.image_size)

    def digest(self) -> str:
        """sha256 (hex) of the network's tensors as they are now."""
        return weights_digest(self.trunk)

    def train(self, mode: bool = True) -> VisualEncoder:
        """Set training mode for all but BatchNorm, which always uses its stored statistics.

        A batch holds the few distinct items that were drawn together, often the popular ones: its
        own mean would make an item's features depend on the others, fail for a batch of one, and
        let the stored statistics drift to popular items, so that ranking would use other features
        than training did.
        """
        super().train(mode)
        for module in self.trunk.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
        return self

    @property
    def draws(self) -> bool:
        """Whether a forward pass in training mode draws random numbers (dropout)."""
        return any(
            (isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0)
            or getattr(part, _PATH_DROPS.get(type(part).__name__, ""), 0)
            for part in self.trunk.modules()
        )

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
        self.in_bfloat16 = wanted

    def run(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Run the trunk or a part of it that ends where it ends.

        Args:
            network: The trunk, or a module that shares its parameters.
            inputs: float32 [B, ...].

        Returns:
            float32 [B, out_dim].

        Raises:
            ConfigError: torch.compile fails.
        """
        precision: AbstractContextManager[Any] = nullcontext()
        if self.in_bfloat16:
            # Without the cache of converted weights: through it the gradients of a batch's blocks
            # would be added up in bfloat16.
            precision = torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False)
        try:
            with precision:
                features = network(inputs)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise ConfigError(
                f"encoder_compile: torch.compile fails here ({reason(error, 120)}); set it to False"
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

        Raises:
            ConfigError: The network has no such map, or cannot take pictures of this size.
        """
        self._check(pictures)
        regions = self._encoder.last_map(self._pixels(pictures)).float()
        sides = [min(side, grid) for side in regions.shape[2:]]
        return F.adaptive_avg_pool2d(regions, (sides[0], sides[1])).flatten(2).transpose(1, 2)

    def region_shape(self, size: int, grid: int = 7) -> tuple[int, int]:
        """(R, C) of :meth:`region_map` for pictures of this side.

        Raises:
            ConfigError: The network has no map, or cannot take pictures of this size.
        """
        blank = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=self.shift.device)
        with torch.inference_mode():
            _, regions, width = self.region_map(blank, grid).shape
        return regions, width

    def _check(self, pictures: Tensor) -> None:
        """Refuse what is no batch of pictures, or of a size that the network cannot take."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(
                f"pictures must be uint8 [B, S, S, 3], got {pictures.dtype} {list(pictures.shape)}"
            )
        if len(pictures):
            self.check_size(pictures.shape[1])

    def _pixels(self, pictures: Tensor) -> Tensor:
        """The network's input [B, 3, S, S]."""
        pixels = torch.addcmul(self.shift, pictures.to(torch.float32), self.scale)
        # NHWC in memory seen as NCHW is exactly torch's channels_last: no copy, and the faster
        # layout for convolutions on a CPU.
        return pixels.permute(0, 3, 1, 2)

    def check_size(self, size: int) -> int:
        """The number of features for pictures of this side; computed once a side.

        Raises:
            ConfigError: The network cannot take pictures of this size.
        """
        if size not in self._widths:
            self._widths[size] = self._width_of(size)
        return self._widths[size]

    def _width_of(self, size: int) -> int:
        # A small network computes a blank picture in less time than torch takes to import its
        # compiler, which it does for "meta": 1.8 s. A large one needs milliseconds after that.
        if sum(p.numel() for p in self.trunk.parameters()) > _SMALL:
            with suppress(*MISFIT):  # the size, or a network that does not run on this device
                return self._width("meta", size)
        return self._real_width(size)

    def _width(self, device: torch.device | str, size: int) -> int:
        state = {**dict(self.trunk.named_parameters()), **dict(self.trunk.named_buffers())}
        state = {key: tensor.detach().to(device) for key, tensor in state.items()}
        picture = torch.zeros(1, 3, size, size, device=device)
        with torch.no_grad():
            features = torch.func.functional_call(self.trunk, state, (picture,))
        return features.flatten(1).shape[1]

    def _real_width(self, size: int) -> int:
        training = self.training
        try:
            return self.eval()._width(self.shift.device, size)  # eval draws nothing
        except MISFIT as error:
            raise ConfigError(
                f"visual_encoder {self.name} cannot take pictures of {size} x {size} "
                f"({reason(error, 80)}): set image_size to {self.image_size}"
            ) from error
        finally:
            self.train(training)


def check_name(name: str) -> None:
    """Refuse a network that does not exist, without making it.

    Raises:
        ConfigError: It is unknown, or its library is not installed.
    """
    if name.startswith(PREFIX):
        named_timm(name)
    elif ":" in name:
        load_class(name)
    else:
        head_of(name)


def _make(name: str, pretrained: bool) -> Encoder:
    if name.startswith(PREFIX):
        return TimmEncoder(name, pretrained)
    return (UserEncoder if ":" in name else TorchvisionEncoder)(name, pretrained)


def _has_bfloat16(device: torch.device | str) -> bool:
    """Whether a GPU has bfloat16 in hardware; by default torch.cuda.is_bf16_supported also accepts
    emulation, which is slower than float32."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
