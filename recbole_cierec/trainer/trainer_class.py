"""Which trainer a model has."""

from __future__ import annotations

from typing import Any

from recbole.utils import get_trainer

from recbole_cierec.registry import MODELS, load_object
from recbole_cierec.trainer.trainer import compose


def get_trainer_class(config: Any) -> type:
    """The trainer class to instantiate for a configuration.

    Args:
        config: A :class:`recbole_cierec.config.config.Config` (``model`` and ``MODEL_TYPE`` are read).

    Returns:
        Our trainer composed over the model's own: the table's, else RecBole's.
    """
    entry = MODELS.get(config["model"])
    if entry is not None and entry.trainer is not None:
        return compose(load_object(entry.trainer))
    return compose(get_trainer(config["MODEL_TYPE"], config["model"]))
