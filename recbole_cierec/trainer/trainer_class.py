"""Which trainer a model has."""

from __future__ import annotations

from typing import Any

from recbole.utils import get_trainer

from recbole_cierec.registry import MODELS, known_name, load_object
from recbole_cierec.trainer.trainer import compose


def get_trainer_class(config: Any) -> type:
    """The trainer class to instantiate for a configuration.

    Args:
        config: A :class:`recbole_cierec.config.Config`.

    Returns:
        This package's trainer composed over the model's own: the table's, else RecBole's. A model
        outside the package has that of its nearest parent that is a model of either.
    """
    parents = getattr(getattr(config, "model_class", None), "__mro__", ())
    name = next((known for parent in parents if (known := known_name(parent))), config["model"])
    entry = MODELS.get(name)
    if entry is not None and entry.trainer is not None:
        return compose(load_object(entry.trainer))
    return compose(get_trainer(config["MODEL_TYPE"], name))
