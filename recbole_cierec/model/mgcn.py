"""MGCN: views of items by content and by interaction (Yu et al., MM 2023, arXiv 2308.03588).

    g_m      = q * sigma(W'_m W_m f_m)                       purifier: the id, gated by the content
    t_m      = S_m g_m for items, R t_m for users            item view, ``content_layers`` products
    z        = LightGCN(p, q): mean of layers 0 to n on R    user-item view
    a_m      = softmax over m of w . tanh(W t_m)             fuser, for users and items alike
    c        = sum of a_m t_m                                what the modalities have in common
    s_m      = (t_m - c) * sigma(V_m z)                      what each adds, gated by behaviour
    side     = (c + sum of s_m) / (1 + number of modalities)
    y_ui     = (z_u + side_u) . (z_i + side_i)
    L        = BPR + align_weight * (InfoNCE(side_u, z_u) + InfoNCE(side_i, z_i))

R is D_u^-1/2 R D_i^-1/2. S_m and f_m are those of :mod:`recbole_cierec.model.base.modalities`, with
edges weighted by their cosine. W', W and V have biases. Users and items have none, as in the paper.

Choices: with one modality c is t_m and nothing is specific, so side is t_m. InfoNCE uses the
distinct users and positive items of a batch: an item that occurs twice would be its own negative.
The public code trains f_m further, one row for each item; here ``encoder_training: adapter`` trains
a map over them.

An unseen item has q = 0, so z and its own g_m are zero: the purified ids of its neighbours rank it.
It is no neighbour of other items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.model.base import graphs
from recbole_cierec.model.base.graph_recommender import Parts, info_nce
from recbole_cierec.model.base.modalities import MultimodalGraphs
from recbole_cierec.model.base.side import Rows, Side

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_cierec.data.dataset import VisualDataset


class MGCN(MultimodalGraphs):
    """Ids, pictures, and annotations by key, at training and inference."""

    weighted_neighbours = True

    def __init__(self, config: Config, dataset: VisualDataset) -> None:
        if config["encoder_training"] == "finetune":
            raise ConfigError(
                "MGCN reads the pictures of all items in each step, so encoder_training: finetune "
                "is not possible; use frozen or adapter"
            )
        super().__init__(config, dataset)
        self.align_weight = config["align_weight"]
        self.align_temperature = config["align_temperature"]
        self.purifiers = nn.ModuleDict()  # W'_m
        for name in self.modalities:
            with self.random_stream(f"purifier {name}"):
                self.purifiers[name] = nn.Linear(self.size, self.size)
        if len(self.modalities) > 1:
            with self.random_stream("fuser"):
                self.fuser = Fuser(self.size, self.modalities)

    def parts(self) -> Parts:
        """User-item view z and the item views t_m of all users and all items."""
        graph, (p, q) = self.graph_tensors(), self.ids()
        z = graphs.light_gcn(graph["users"], graph["items"], p, q, self.id_layers)
        users, of_items, items = {}, {}, torch.arange(self.n_items, device=q.device)
        for name in self.modalities:
            t = q * torch.sigmoid(self.purifiers[name](self.modality(name, items)))
            for _ in range(self.content_layers):
                t = graphs.product(graph[name], t)
            users[name], of_items[name] = graphs.product(graph["users"], t), t
        return Side(z[0], more=users), Side(z[1], more=of_items)

    def rows_of(self, which: int, rows: Tensor) -> Side:
        """The sums of z and side. The graphs reach all users and items, the fuser these rows."""
        views = self.current_parts()[which].map(lambda value: value[rows])
        z, t = views.vector, views.more
        side = self.fuser(t, z) if len(t) > 1 else t[self.modalities[0]]
        return Side(z + side, more={"id": z, "content": side} if self.training else {})

    def contrast(self, user: Side, item: Side, rows: Rows) -> tuple[Tensor, Tensor]:
        loss, norm = super().contrast(user.scoring(), item.scoring(), rows)
        chosen, heat = rows.positive.unique(), self.align_temperature
        alike = info_nce(user["content"], user["id"], heat)
        alike = alike + info_nce(item["content"][chosen], item["id"][chosen], heat)
        return loss + self.align_weight * alike, norm


class Fuser(nn.Module):
    """Item views of several modalities to the side: common part and gated specific parts.

    Args:
        size: d.
        modalities: Names of the modalities.
    """

    def __init__(self, size: int, modalities: list[str]) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size)  # W
        self.attention = nn.Linear(size, 1, bias=False)  # w
        self.gates = nn.ModuleDict({name: nn.Linear(size, size) for name in modalities})  # V_m

    def forward(self, views: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """Views t_m [n, d] by name and z [n, d] -> side [n, d]."""
        t = torch.stack(list(views.values()))  # [M, n, d]
        shares = self.attention(torch.tanh(self.hidden(t))).softmax(0)  # a [M, n, 1]
        common = (shares * t).sum(0)
        gates = torch.stack([torch.sigmoid(self.gates[name](z)) for name in views])
        return (common + ((t - common) * gates).sum(0)) / (1 + len(views))
