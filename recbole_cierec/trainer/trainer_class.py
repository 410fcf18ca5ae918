"""The trainer class of a model."""

from __future__ import annotations

from typing import Any

from recbole.utils import get_trainer

from recbole_cierec.registry import MODELS, load_object, nearest_known
from recbole_cierec.trainer.trainer import compose


def get_trainer_class(config: Any) -> type:
    """The trainer class to instantiate for a configuration.

    Args:
        config: The run's configuration; ``model`` and ``MODEL_TYPE`` are read.

    Returns:
        :class:`TrainerMixin` over the trainer that the registry names, else over RecBole's. A
        model outside the package has that of its nearest parent in the registry or in RecBole.
    """
    name = nearest_known(getattr(config, "model_class", object)) or config["model"]
    entry = MODELS.get(name)
    if entry is not None and entry.trainer is not None:
        return compose(load_object(entry.trainer))
    return compose(get_trainer(config["MODEL_TYPE"], name))
