"""Loads the weights of the stage of a model: a model that is trained before it.

A model with a stage (:mod:`recbole_cierec.trainer.warm_start_stages`) has two methods:
``stage_keys(config)``, a class method that returns the keys that the stage must share, and
``start_from(weights)``, which fills the model from the ``state_dict`` of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recbole_cierec.errors import CheckpointError

Weights = Mapping[str, Tensor]


def stage_weight(weights: Weights, name: str, shape: Sequence[int]) -> Tensor:
    """The tensor ``name`` of a stage's ``state_dict``.

    Raises:
        CheckpointError: It is absent or not of ``shape``.
    """
    found = weights.get(name)
    if found is None or tuple(found.shape) != tuple(shape):
        state = "absent" if found is None else str(list(found.shape))
        raise CheckpointError(
            f"{name} is {state} in the pretrained model, and {list(shape)} is needed; "
            "pretrain it with the data and the settings of this run"
        )
    return found


@torch.no_grad()
def copy_weights(module: nn.Module, weights: Weights, prefix: str = "") -> None:
    """Copy every parameter of ``module`` from the stage's parameter of the same name.

    Raises:
        CheckpointError: A parameter is absent there or of another shape.
    """
    for name, parameter in module.named_parameters():
        parameter.copy_(stage_weight(weights, prefix + name, parameter.shape))
