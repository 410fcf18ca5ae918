"""The one table of models: name to class and trainer, all imported lazily.

Nothing here imports a model before it is requested, so a missing optional package affects only the
models that need it. RecBole's own models need no row: they are found in RecBole by their name. A
model outside both packages is written ``module:Class``.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_cierec.errors import ConfigError, nearest

_GATED = "recbole_cierec.trainer.gated_trainer:GatedTrainer"
_PHASED = "recbole_cierec.trainer.two_phase_trainer:TwoPhaseTrainer"
_PHASED_GATED = "recbole_cierec.trainer.two_phase_trainer:TwoPhaseGatedTrainer"
_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
)
_TREES = ("LightGBM", "XGBoost")  # the other family of RecBole, exlib_recommender


@dataclass(frozen=True)
class ModelEntry:
    """The entry of one model.

    Args:
        target: The class as ``module:Class``; the class has the model's name.
        trainer: The trainer as ``module:Class``; None for RecBole's choice.
        stages: The models that this one can start from, the default first; one of them is trained
            before it (see :mod:`recbole_cierec.trainer.warm_start_stages`).
    """

    target: str
    trainer: str | None = None
    stages: tuple[str, ...] = ()


MODELS: dict[str, ModelEntry] = {
    "CIERec": ModelEntry("recbole_cierec.model.cierec:CIERec", _GATED),
    "CIERec_Base": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_Base"),
    "CIERec_CI": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_CI", _GATED),
    "CIERec_CI_TA": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_CI_TA", _GATED),
    "CIERec_CI_TA_GR": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_CI_TA_GR", _GATED),
    "MF": ModelEntry("recbole_cierec.model.mf:MF"),
    "HAFR": ModelEntry("recbole_cierec.model.hafr:HAFR"),
    "HAFR_non_i": ModelEntry("recbole_cierec.model.hafr:HAFR_non_i"),
    "VECF": ModelEntry("recbole_cierec.model.vecf:VECF"),
    "VBPR": ModelEntry("recbole_cierec.model.vbpr:VBPR"),
    "AMF": ModelEntry("recbole_cierec.model.amf:AMF", stages=("MF",)),
    "AMR": ModelEntry("recbole_cierec.model.amr:AMR", stages=("VBPR",)),
    "DropoutNet": ModelEntry("recbole_cierec.model.dropoutnet:DropoutNet", stages=("MF", "BPR")),
    "CLCRec": ModelEntry("recbole_cierec.model.clcrec:CLCRec"),
    "AlignRec": ModelEntry("recbole_cierec.model.alignrec:AlignRec", _PHASED),
    "FREEDOM": ModelEntry("recbole_cierec.model.freedom:FREEDOM"),
    "MGCN": ModelEntry("recbole_cierec.model.mgcn:MGCN"),
    "PiNet": ModelEntry("recbole_cierec.model.pinet:PiNet", _PHASED_GATED),
    "MF_Image": ModelEntry("recbole_cierec.model.mf_image:MF_Image"),
    "MF_Semantics": ModelEntry("recbole_cierec.model.mf_semantics:MF_Semantics"),
    "MF_Content": ModelEntry("recbole_cierec.model.mf_content:MF_Content"),
    "ContentPrior": ModelEntry("recbole_cierec.model.content_prior:ContentPrior"),
    "DeepStyle": ModelEntry("recbole_cierec.model.deepstyle:DeepStyle"),
}


def load_object(target: str) -> Any:
    """Import ``module:Name`` and return the named object."""
    module, name = target.split(":")
    return getattr(import_module(module), name)


def _recbole_file(name: str) -> Path | None:
    """The source of a RecBole model, found without importing RecBole's models."""
    if not name.isidentifier() or len(name) > 100:  # not a file name
        return None
    spec = find_spec("recbole")
    if spec is None or spec.origin is None:
        return None
    for family in _FAMILIES:
        path = Path(spec.origin).parent / "model" / family / f"{name.lower()}.py"
        if path.is_file() and name in _classes(path):
            return path
    return None


def _classes(path: Path) -> list[str]:
    return re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def recbole_model_names() -> list[str]:
    """The names of RecBole's own models, read from its sources without importing them."""
    spec = find_spec("recbole")
    if spec is None or spec.origin is None:
        return []
    names = []
    for family in _FAMILIES:
        for path in (Path(spec.origin).parent / "model" / family).glob("*.py"):
            names += [name for name in _classes(path) if name.lower() == path.stem]
    return sorted(names)


def unknown_model(name: str) -> ConfigError:
    """The error for an unknown model name, with the nearest known one."""
    name = name[:100]  # for the search and the message
    hint = nearest(name, [*recbole_model_names(), *MODELS], cutoff=0.5)
    return ConfigError(f"model '{name}' is not known{hint or '; --help lists the models'}")


def get_model_class(name: str) -> type:
    """The class of a model: this package's, else RecBole's with its patch, if it has one.

    Args:
        name: The model's name in its exact spelling, or ``module:Class``.

    Raises:
        ConfigError: No model has this name, or it is one of RecBole's trees.
    """
    if name in MODELS:
        return load_object(MODELS[name].target)
    if ":" in name:
        return outside_model(_import_outside(name))
    if name in _TREES:
        raise ConfigError(
            f"model '{name}' has no epochs to validate and resume; run it with RecBole itself"
        )
    # RecBole's look-up fails without lightgbm when the name is unknown, so search the files first.
    if _recbole_file(name) is None:
        raise unknown_model(name)
    import torch
    from recbole.utils import get_model

    from recbole_cierec.compat.recbole_models import patch_model

    watching = torch.is_anomaly_enabled()
    try:
        return patch_model(get_model(name))
    finally:
        # Importing RecBole's sine.py, as for any sequential model, turns on torch's anomaly
        # detection, which slows down every operation from then on.
        torch.autograd.set_detect_anomaly(watching)


# -- models outside the package ----------------------------------------------------------------


def outside_model(model_class: type) -> type:
    """A class given instead of a name, with the patch of RecBole's part, if it has one.

    Raises:
        ConfigError: The class is not a RecBole model.
    """
    from recbole.model.abstract_recommender import AbstractRecommender

    from recbole_cierec.compat.recbole_models import patch_model

    if not issubclass(model_class, AbstractRecommender):
        raise ConfigError(
            f"model {model_class.__module__}:{model_class.__qualname__} is not a RecBole model; "
            "derive it from VisualRecommender or from a model of RecBole"
        )
    return patch_model(model_class)


def _import_outside(target: str) -> type:
    module, _, name = target.partition(":")
    if "<locals>" in name:
        raise ConfigError(
            f"model '{target}' was defined inside a function and cannot be imported; define it at "
            "the top level of a module"
        )
    if not all(part.isidentifier() for part in module.split(".")) or not name.isidentifier():
        raise ConfigError(f"model '{target[:100]}' is not of the form my_package.my_module:MyModel")
    if os.getcwd() not in sys.path and "" not in sys.path:  # as with python -m
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"model '{target}' needs the package {error.name}, which is not installed"
            ) from error
        raise ConfigError(
            f"model '{target}': there is no module {module}; run where it can be imported, or add "
            "its folder to PYTHONPATH"
        ) from error
    if not isinstance(found, type):
        where = "this script or notebook" if module == "__main__" else f"the module {module}"
        raise ConfigError(f"model '{target}': {where} has no class {name}")
    return found


def known_name(model_class: type) -> str | None:
    """The name of a class of this package's table or of RecBole; None for any other class."""
    name, module = model_class.__name__, model_class.__module__
    if name in MODELS and MODELS[name].target == f"{module}:{name}":
        return name
    return name if module.startswith("recbole.model.") else None


def nearest_known(model_class: type) -> str | None:
    """The known name of a class or of its nearest parent with one; None without any."""
    return next((name for each in model_class.__mro__ if (name := known_name(each))), None)


def stages_of(model_class: type) -> tuple[str, ...]:
    """The models that can be trained before this one; a class outside has those of its parent."""
    entry = MODELS.get(nearest_known(model_class) or "")
    return entry.stages if entry is not None else ()


def model_spelling(model_class: type) -> str:
    """What finds the class again: its known name, else ``module:Class``."""
    known = known_name(model_class)
    return known or f"{model_class.__module__}:{model_class.__qualname__}"
