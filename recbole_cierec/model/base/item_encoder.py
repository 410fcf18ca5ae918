"""From an item id to its unified embedding e_i (Eq. 2: E(f) -> e_i).

The key ``encoder_training`` selects the method. ``frozen`` looks up the cached features,
``adapter`` also applies a linear map that starts as the identity, and ``finetune`` runs the network
(:mod:`recbole_cierec.vision.finetune`). An item without a picture has e_i = 0 and no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base.layers import wide_linear
from recbole_cierec.vision.finetune import PictureNetwork
from recbole_cierec.vision.item_pictures import Items, pictures_of

MODES = ("frozen", "adapter", "finetune")


class ItemEncoder(nn.Module):
    """e_i for a batch of distinct items.

    Args:
        content: The items of the data set.
        mode: One of :data:`MODES`.
        config: RecBole config; not read by ``frozen``.

    Raises:
        ConfigError: Features of pictures are given, with fine-tuning.
    """

    has_picture: Tensor
    features: Tensor
    picture_rows: Tensor

    def __init__(self, content: Items, mode: str, config: Any) -> None:
        super().__init__()
        self.mode, pictures = mode, pictures_of(content)
        self.register_buffer("has_picture", pictures.has_picture.clone(), persistent=False)
        if mode == "finetune":
            if pictures.given is not None:
                key = pictures.given.key
                raise ConfigError(
                    f"{key}: encoder_training finetune runs the network on the pictures; "
                    f"drop {key}, or set encoder_training to adapter"
                )
            self.norm = pictures.feature_norm
            self.network = pictures.encoder()
            self.on_pictures = PictureNetwork(self.network, pictures, config)
            rows = torch.from_numpy(pictures.store.rows)
            self.register_buffer("picture_rows", rows, persistent=False)
            # uint8 [m, S, S, 3] of items that came after training, which follow those of the store.
            self.added: Tensor | None = getattr(pictures, "added", None)
            self.out_size = int(pictures.features.shape[1])
            self.register_load_state_dict_post_hook(
                lambda module, _: module.on_pictures.weights_were_loaded()
            )
        else:
            self.register_buffer("features", pictures.features, persistent=False)
            self.out_size = int(self.features.shape[1])
        if mode == "adapter":
            self.adapter = nn.Linear(self.out_size, self.out_size)
            nn.init.eye_(self.adapter.weight)
            nn.init.zeros_(self.adapter.bias)
            self.low_precision = config["encoder_precision"] == "bfloat16"

    @property
    def trainable(self) -> bool:
        """Whether the gradient on e_i reaches any parameter."""
        return self.mode != "frozen"

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers for pictures: augmentation, dropout."""
        return self.mode == "finetune" and (
            self.on_pictures.augmentation != "none" or self.network.draws
        )

    def train(self, mode: bool = True) -> ItemEncoder:
        """Set the mode. All processes of a run call it together and share the work on inputs."""
        if self.mode == "finetune":
            self.on_pictures.open(self.has_picture.device)
        return super().train(mode)

    def forward(self, items: Tensor) -> Tensor:
        """items [m], preferably distinct -> e [m, D]."""
        if self.mode == "finetune":
            return (self._through_network if self.added is None else self._with_added)(items)
        e = self.features.index_select(0, items)
        if self.mode == "adapter":
            low, known = self.low_precision and self.training, self.has_picture[items]
            e = wide_linear(e, self.adapter.weight, self.adapter.bias, low)
            # On a GPU the check would cost a synchronisation.
            if known.is_cuda or not bool(known.all()):
                e = e * known.unsqueeze(1)
        return e

    def _through_network(self, items: Tensor) -> Tensor:
        known = self.has_picture[items].nonzero().squeeze(1)
        e = torch.zeros(len(items), self.out_size, device=items.device)
        if not len(known):
            return e
        # Items may share a picture.
        rows, places = torch.unique(self.picture_rows[items[known]], return_inverse=True)
        features = self.norm(self.on_pictures(rows))
        return e.index_copy(0, known, features.float().index_select(0, places))

    def _with_added(self, items: Tensor) -> Tensor:
        """Known items as always; the pictures of new ones are in memory."""
        first, device = len(self.picture_rows), items.device
        e = torch.zeros(len(items), self.out_size, device=device)
        known = (items < first).nonzero().squeeze(1)
        new = ((items >= first) & self.has_picture[items]).nonzero().squeeze(1)
        e[known] = self._through_network(items[known])
        for rows in new.split(self.on_pictures.block):
            pictures = self.added[(items[rows] - first).cpu()]  # type: ignore[index]
            e[rows] = self.norm(self.network(pictures.to(device)))
        return e
