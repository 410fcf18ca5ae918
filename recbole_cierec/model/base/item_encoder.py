"""From an item id to its unified embedding e_i (Eq. 2: E(f) -> e_i).

Three ways, key ``encoder_training``: ``frozen`` looks up the cached features, ``adapter`` passes
them through a linear map that starts as the identity, ``finetune`` runs the network itself on the
pictures (:mod:`recbole_cierec.vision.finetune`). In each, an item without a picture has e_i = 0 and
sends no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.finetune import PictureNetwork

MODES = ("frozen", "adapter", "finetune")


class ItemEncoder(nn.Module):
    """e_i for a batch of distinct items.

    Args:
        content: :class:`recbole_cierec.data.content.ItemContent`.
        mode: One of :data:`MODES`.
        config: RecBole config; read where the network is fine-tuned.
    """

    def __init__(self, content, mode: str, config) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("has_picture", content.has_picture.clone(), persistent=False)
        if mode == "finetune":
            if config["features_file"]:
                raise ConfigError(
                    "features_file: encoder_training finetune runs the network on the pictures "
                    "themselves; drop features_file, or set encoder_training to adapter"
                )
            self.norm = content.feature_norm
            self.network = content.encoder()
            self.on_pictures = PictureNetwork(self.network, content, config)
            rows = torch.from_numpy(content.store.rows)
            self.register_buffer("picture_rows", rows, persistent=False)
            self.out_size = int(content.features.shape[1])
            self.register_load_state_dict_post_hook(
                lambda module, _: module.on_pictures.weights_were_loaded()
            )
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

    @property
    def draws(self) -> bool:
        """Whether training draws for the pictures that are given: moves, dropout in the network."""
        if self.mode != "finetune":
            return False
        # Here: its import takes longer than RecBole's, and models without a network do without.
        from torchvision.ops import StochasticDepth

        drops = (nn.modules.dropout._DropoutNd, StochasticDepth)
        return self.on_pictures.augmentation != "none" or any(
            isinstance(module, drops) and module.p > 0 for module in self.network.modules()
        )

    def train(self, mode: bool = True) -> ItemEncoder:
        """Switch mode, which all processes of a run do at the same time."""
        if self.mode == "finetune":
            self.on_pictures.open(self.has_picture.device)
        return super().train(mode)

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
        # Items may share a picture.
        rows, places = torch.unique(self.picture_rows[items[known]], return_inverse=True)
        features = self.norm(self.on_pictures(rows))
        return e.index_copy(0, known, features.float().index_select(0, places))
