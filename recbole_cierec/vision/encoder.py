"""What the package asks of a picture encoder, whichever library it comes from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Encoder(Protocol):
    """A network from pictures to pooled features, without its classifier.

    Attributes:
        trunk: The network: float32 pictures [B, 3, S, S], normalised, to features [B, D] (or
            [B, D, 1, 1]). Its tensors are trained, saved and hashed; its named parts can be frozen.
        image_size: Side S, in pixels, that the network was made for.
        normalisation: Mean and standard deviation by channel (R, G, B), of pixels in [0, 1].
        head: Names of removed classifiers; a weight file may hold their tensors.
        source_digest: sha256 (hex) of the code where it is the user's own, else "". Cached features
            depend on it.
    """

    trunk: nn.Module
    image_size: int
    normalisation: Normalisation
    head: tuple[str, ...]
    source_digest: str

    def last_map(self, pictures: Tensor) -> Tensor:
        """The last spatial map [B, C, H, W] of normalised pictures [B, 3, S, S].

        Raises:
            ConfigError: The network has none.
        """
        ...
