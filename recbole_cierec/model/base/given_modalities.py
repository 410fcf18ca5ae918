"""Given features f_m of the modalities other than pictures, and linear maps over them.

An item that lacks a modality has f_m = 0, so that maps without a bias give 0 for it. Each part is
initialised from a separate random stream: the rest of a model starts as it does without them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from recbole_cierec.model.base.layers import unit_linear
from recbole_cierec.vision.item_pictures import pictures_of

if TYPE_CHECKING:
    from recbole_cierec.vision.item_pictures import Items

RandomStream = Callable[[str], AbstractContextManager[None]]


class GivenModalities(nn.Module):
    """The features of all items, by modality; the key ``features`` without its image.

    Attributes:
        sizes: D_m of each modality.

    Args:
        content: The items' content; None: a model that reads pictures alone.
    """

    def __init__(self, content: Items | None) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        modalities = {} if content is None else pictures_of(content).modalities
        for name, given in modalities.items():
            self.sizes[name] = given.features.shape[1]
            self.register_buffer(name, given.features, persistent=False)
            self.register_buffer(f"has_{name}", given.has.clone(), persistent=False)

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        """f_m [m, D_m] of items [m], by modality."""
        return {name: getattr(self, name).index_select(0, items) for name in self.sizes}

    def has(self, name: str) -> Tensor:
        """bool [n_items]: the item has the modality."""
        return getattr(self, f"has_{name}")


class ModalityMaps(nn.ModuleDict):
    """The sum over modalities m of W_m f_m.

    Args:
        sizes: D_m of each modality.
        out_size: Output size of the sum.
        gain: Standard deviation of the initial outputs; 0 starts with zeros.
        stream: :meth:`VisualRecommender.random_stream`.
    """

    def __init__(
        self, sizes: dict[str, int], out_size: int, gain: float, stream: RandomStream
    ) -> None:
        super().__init__()
        for name, size in sizes.items():
            with stream(f"features of {name}"):
                self[name] = unit_linear(size, out_size, gain, bias=False)

    def forward(self, features: dict[str, Tensor], total: Tensor) -> Tensor:
        """``total`` [m, out_size] plus the sum."""
        for name, f in features.items():
            total = total + self[name](f)
        return total
