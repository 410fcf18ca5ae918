"""How a model takes the weights of the model that was trained before it.

A model with a stage (:mod:`recbole_cierec.trainer.warm_start_stages`) has two methods:
``stage_keys(config)``, a class method with the keys that the stage must share, and
``start_from(weights)``, which fills the model from the stage's ``state_dict``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recbole_cierec.errors import CheckpointError

Weights = Mapping[str, Tensor]


def stage_weight(weights: Weights, name: str, shape: Sequence[int]) -> Tensor:
    """One tensor of a stage's ``state_dict``.

    Args:
        weights: The ``state_dict``.
        name: The tensor's name there.
        shape: The shape that the model needs.

    Raises:
        CheckpointError: It is absent or of another shape.
    """
    found = weights.get(name)
    if found is None or tuple(found.shape) != tuple(shape):
        there = "absent" if found is None else str(list(found.shape))
        raise CheckpointError(
            f"{name} is {there} in the pretrained model, and {list(shape)} is needed; "
            "pretrain it with the data and the settings of this run"
        )
    return found


@torch.no_grad()
def copy_weights(module: nn.Module, weights: Weights, prefix: str = "") -> None:
    """Fill every parameter of ``module`` with the stage's of the same name.

    Raises:
        CheckpointError: One is absent there or of another shape.
    """
    for name, parameter in module.named_parameters():
        parameter.copy_(stage_weight(weights, prefix + name, parameter.shape))
