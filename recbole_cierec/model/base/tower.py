"""The network of DropoutNet (Volkovs et al., NIPS 2017, Sec. 4)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_cierec.distributed.world import world
from recbole_cierec.errors import ConfigError


class Tower(nn.Module):
    """(linear -> batch norm -> tanh) x L -> linear, rows [m, n_in] -> [m, n_out]."""

    def __init__(self, n_in: int, hidden: list[int], n_out: int) -> None:
        super().__init__()
        if not all(isinstance(size, int) and size > 0 for size in hidden):
            raise ConfigError(f"mlp_hidden_size must be whole numbers above 0, not {hidden}")
        sizes = [n_in, *hidden]
        # Batch norm takes any constant away, so that a bias before it would do nothing.
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3, momentum=0.1) for size in hidden)
        self.out = nn.Linear(sizes[-1], n_out)
        for layer in [*self.maps, self.out]:
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor) -> Tensor:
        for layer, norm in zip(self.maps, self.norms, strict=True):
            rows = torch.tanh(self._normalised(layer(rows), norm))
        return self.out(rows)

    def _normalised(self, rows: Tensor, norm: nn.BatchNorm1d | nn.SyncBatchNorm) -> Tensor:
        # RecBole's SyncBatchNorm counts the rows of all processes, at least one each: it has a
        # variance, and all must take part in its exchange.
        alone = not isinstance(norm, nn.SyncBatchNorm) or world()[1] == 1
        if self.training and alone and len(rows) == 1:  # a single row has no variance
            return F.batch_norm(
                rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return norm(rows)
