"""From an item id to its unified embedding e_i (Eq. 2: E(f) -> e_i).

Three ways, key ``encoder_training``: ``frozen`` looks up the cached features, ``adapter`` passes
them through a linear map that starts as the identity, ``finetune`` runs the network itself on the
pictures. In each, an item without a picture has e_i = 0 and sends no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MODES = ("frozen", "adapter", "finetune")


class ItemEncoder(nn.Module):
    """e_i for a batch of distinct items.

    Args:
        content: :class:`recbole_cierec.data.content.ItemContent`.
        mode: One of :data:`MODES`.
        block: Pictures that pass the network at a time (bounds memory).
    """

    def __init__(self, content, mode: str, block: int = 64) -> None:
        super().__init__()
        self.mode = mode
        self.block = block
        self.register_buffer("has_picture", content.has_picture.clone(), persistent=False)
        if mode == "finetune":
            self.content = content
            self.norm = content.feature_norm
            self.network = content.encoder()
            self.out_size = int(content.features.shape[1])
        else:
            self.register_buffer("features", content.features, persistent=False)
            self.out_size = int(self.features.shape[1])
        if mode == "adapter":
            self.adapter = nn.Linear(self.out_size, self.out_size)
            nn.init.eye_(self.adapter.weight)
            nn.init.zeros_(self.adapter.bias)

    @property
    def trainable(self) -> bool:
        """Whether a gradient on e_i reaches any parameter."""
        return self.mode != "frozen"

    def forward(self, items: Tensor) -> Tensor:
        """items [m], best without repeats -> e [m, D]."""
        if self.mode == "finetune":
            return self._through_network(items)
        e = self.features.index_select(0, items)
        if self.mode == "adapter":
            e = self.adapter(e) * self.has_picture[items].unsqueeze(1)
        return e

    def _through_network(self, items: Tensor) -> Tensor:
        known = self.has_picture[items].nonzero().squeeze(1)
        e = torch.zeros(len(items), self.out_size, device=items.device)
        if not len(known):
            return e
        parts = [self._encode(items[chunk]) for chunk in known.split(self.block)]
        return e.index_copy(0, known, torch.cat(parts).float())

    def _encode(self, items: Tensor) -> Tensor:
        """A block of items that have a picture."""
        pictures = self.content.pictures(items).to(items.device)
        if not torch.is_grad_enabled():
            return self.norm(self.network(pictures))
        # What a block needs for its gradient is computed again in the backward pass: a batch of
        # a thousand items would hold tens of gigabytes of it otherwise.
        return self.norm(checkpoint(self.network, pictures, use_reentrant=False))
