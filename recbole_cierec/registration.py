"""Makes RecBole's own functions find this package's models::

from recbole.quick_start import run_recbole
from recbole_cierec.config import property_files
from recbole_cierec.registration import register_with_recbole

register_with_recbole()
run_recbole(model="CIERec", dataset="demo", config_file_list=property_files("CIERec", "demo"))
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recbole_cierec.registry import MODELS, get_model_class, load_object

_FAMILY = "recbole.model.general_recommender"  # where RecBole looks for these models


class _ModelLoader(Loader):
    """Creates the module that RecBole imports, with the one class it looks up there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, self.name, get_model_class(self.name))


class _ModelFinder(MetaPathFinder):
    """Finds ``recbole.model.general_recommender.<lower name>`` for the names in the table."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, stem = fullname.rpartition(".")
        if package != _FAMILY:
            return None
        for name in MODELS:
            if name.lower() == stem:
                return ModuleSpec(fullname, _ModelLoader(name), origin=MODELS[name].target)
        return None


def _trainer_attribute(attribute: str) -> type | None:
    name = attribute.removesuffix("Trainer")
    if attribute == name or name not in MODELS:
        return None
    from recbole.trainer import Trainer

    from recbole_cierec.trainer.trainer import compose

    trainer = MODELS[name].trainer
    return compose(load_object(trainer) if trainer else Trainer)


def _dataset_attribute(attribute: str) -> type | None:
    name = attribute.removesuffix("Dataset")
    if attribute == name or name not in MODELS:
        return None
    return load_object("recbole_cierec.data.dataset:VisualDataset")


def _add_attributes(module: Any, find: Callable[[str], Any]) -> None:
    """Add attributes to a module that are created when first read (PEP 562)."""
    earlier = module.__dict__.get("__getattr__")
    if getattr(earlier, "of_recbole_cierec", False):
        return

    def answer(attribute: str) -> Any:
        found = find(attribute)
        if found is not None:
            return found
        if earlier is not None:
            return earlier(attribute)
        raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}")

    vars(answer)["of_recbole_cierec"] = True
    module.__getattr__ = answer


def register_with_recbole() -> None:
    """Make RecBole's own look-ups find this package's models, their trainers and their data set.

    Afterwards ``recbole.utils.get_model``, ``get_trainer`` and ``recbole.data.create_dataset`` know
    the names in :data:`MODELS`. Models are still imported only when requested. Repeated calls
    have no effect.
    """
    if not any(isinstance(finder, _ModelFinder) for finder in sys.meta_path):
        sys.meta_path.append(_ModelFinder())
    _add_attributes(import_module("recbole.trainer"), _trainer_attribute)
    _add_attributes(import_module("recbole.data.dataset"), _dataset_attribute)
