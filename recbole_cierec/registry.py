"""The one table of models: name to class, trainer and properties, all imported lazily.

Nothing here imports a model before it is asked for, so one optional package cannot keep the others
from running. RecBole's own models need no row: they are found in RecBole by their name.

Users of RecBole's own functions make them find our models with one call::

    from recbole.quick_start import run_recbole
    from recbole_cierec.config import property_files
    from recbole_cierec.registry import register_with_recbole

    register_with_recbole()
    run_recbole(model="CIERec", dataset="demo", config_file_list=property_files("CIERec", "demo"))
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from recbole_cierec.errors import ConfigError
from recbole_cierec.optional_packages import named_where_missing

_GATED = "recbole_cierec.trainer.gated:GatedTrainer"
_PHASED = "recbole_cierec.trainer.phased:PhasedTrainer"
_PHASED_GATED = "recbole_cierec.trainer.phased:PhasedGatedTrainer"
_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)
_OUR_FAMILY = "recbole.model.general_recommender"  # where RecBole is told to look for ours


@dataclass(frozen=True)
class ModelEntry:
    """What the table says of one model.

    Args:
        target: The class as ``module:Class``; the class bears the model's name.
        properties: The name of its file in ``properties/model/``, without ``.yaml``.
        trainer: Its trainer as ``module:Class``; None for RecBole's choice.
        stages: The models that it can start from, the default first; one of them is trained
            before it (see :mod:`recbole_cierec.stages`).
    """

    target: str
    properties: str
    trainer: str | None = None
    stages: tuple[str, ...] = ()


MODELS: dict[str, ModelEntry] = {
    "CIERec": ModelEntry("recbole_cierec.model.cierec:CIERec", "CIERec", _GATED),
    "CIERec_Base": ModelEntry("recbole_cierec.model.ladder:CIERec_Base", "CIERec_Base"),
    "CIERec_CI": ModelEntry("recbole_cierec.model.ladder:CIERec_CI", "CIERec_CI", _GATED),
    "CIERec_CI_TA": ModelEntry("recbole_cierec.model.ladder:CIERec_CI_TA", "CIERec_CI_TA", _GATED),
    "CIERec_CI_TA_GR": ModelEntry(
        "recbole_cierec.model.ladder:CIERec_CI_TA_GR", "CIERec_CI_TA_GR", _GATED
    ),
    "MF": ModelEntry("recbole_cierec.model.mf:MF", "MF"),
    "HAFR": ModelEntry("recbole_cierec.model.hafr:HAFR", "HAFR"),
    "HAFR_non_i": ModelEntry("recbole_cierec.model.hafr:HAFR_non_i", "HAFR_non_i"),
    "VECF": ModelEntry("recbole_cierec.model.vecf:VECF", "VECF"),
    "VBPR": ModelEntry("recbole_cierec.model.vbpr:VBPR", "VBPR"),
    "AMF": ModelEntry("recbole_cierec.model.amf:AMF", "AMF", stages=("MF",)),
    "AMR": ModelEntry("recbole_cierec.model.amr:AMR", "AMR", stages=("VBPR",)),
    "DropoutNet": ModelEntry(
        "recbole_cierec.model.dropoutnet:DropoutNet", "DropoutNet", stages=("MF", "BPR")
    ),
    "CLCRec": ModelEntry("recbole_cierec.model.clcrec:CLCRec", "CLCRec"),
    "AlignRec": ModelEntry("recbole_cierec.model.alignrec:AlignRec", "AlignRec", _PHASED),
    "PiNet": ModelEntry("recbole_cierec.model.pinet:PiNet", "PiNet", _PHASED_GATED),
    "MF_Image": ModelEntry("recbole_cierec.model.mf_image:MF_Image", "MF_Image"),
    "MF_Semantics": ModelEntry("recbole_cierec.model.mf_semantics:MF_Semantics", "MF_Semantics"),
    "MF_Content": ModelEntry("recbole_cierec.model.mf_content:MF_Content", "MF_Content"),
    "DeepStyle": ModelEntry("recbole_cierec.model.deepstyle:DeepStyle", "DeepStyle"),
}


def load_object(target: str) -> Any:
    """Import ``module:Name`` and return the named object."""
    module, name = target.split(":")
    return getattr(import_module(module), name)


def _recbole_file(name: str) -> Path | None:
    """The source of a RecBole model, found without importing RecBole's models."""
    if not name.isidentifier() or len(name) > 100:  # no name of a file
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
    """The error for a model name that neither table knows, with the nearest name."""
    name = name[:100]  # for the search and the message
    known = {known.lower(): known for known in [*recbole_model_names(), *MODELS]}
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{known[near[0]]}'?" if near else "--help lists the models"
    return ConfigError(f"model '{name}' is not known; {hint}")


def get_model_class(name: str) -> type:
    """The class of a model: ours first, else RecBole's, mended where it needs it.

    Args:
        name: The model's name, in its exact spelling.

    Returns:
        The model class; its ``__name__`` is the name.

    Raises:
        ConfigError: If nothing bears the name, or if a package that the model needs is missing.
    """
    if name in MODELS:
        return load_object(MODELS[name].target)
    # RecBole's look-up dies of a missing lightgbm when the name is unknown, so ask the files first.
    if _recbole_file(name) is None:
        raise unknown_model(name)
    import torch
    from recbole.utils import get_model

    from recbole_cierec.compat import mend_model

    watching = torch.is_anomaly_enabled()
    try:
        with named_where_missing(f"model '{name}'"):
            return mend_model(get_model(name))
    finally:
        # RecBole's sine.py, read with any sequential model, has torch keep a trace of every
        # operation from then on.
        torch.autograd.set_detect_anomaly(watching)


def get_trainer_class(config: Any) -> type:
    """The trainer class to instantiate for a configuration.

    Args:
        config: A :class:`recbole_cierec.config.Config` (``model`` and ``MODEL_TYPE`` are read).

    Returns:
        Our trainer composed over the model's own: the table's, else RecBole's.
    """
    from recbole_cierec.trainer.trainer import compose

    entry = MODELS.get(config["model"])
    if entry is not None and entry.trainer is not None:
        return compose(load_object(entry.trainer))
    from recbole.utils import get_trainer

    return compose(get_trainer(config["MODEL_TYPE"], config["model"]))


class _ModelLoader(Loader):
    """Fills the module that RecBole asks for with the one class it looks up there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, self.name, get_model_class(self.name))


class _ModelFinder(MetaPathFinder):
    """Answers ``recbole.model.general_recommender.<lower name>`` for the names of the table."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, stem = fullname.rpartition(".")
        if package != _OUR_FAMILY:
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


def _add_attributes(module: ModuleType, find: Any) -> None:
    """Give a module attributes that are made when first read (PEP 562)."""
    earlier = module.__dict__.get("__getattr__")
    if getattr(earlier, "of_recbole_cierec", False):
        return

    def __getattr__(attribute: str) -> Any:
        found = find(attribute)
        if found is not None:
            return found
        if earlier is not None:
            return earlier(attribute)
        raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}")

    __getattr__.of_recbole_cierec = True
    module.__getattr__ = __getattr__


def register_with_recbole() -> None:
    """Make RecBole's own look-ups find our models, their trainers and their data set.

    After it ``recbole.utils.get_model``, ``get_trainer`` and ``recbole.data.create_dataset`` answer
    for the names in :data:`MODELS`. Models are still imported only when asked for. It may be called
    any number of times.
    """
    if not any(isinstance(finder, _ModelFinder) for finder in sys.meta_path):
        sys.meta_path.append(_ModelFinder())
    _add_attributes(import_module("recbole.trainer"), _trainer_attribute)
    _add_attributes(import_module("recbole.data.dataset"), _dataset_attribute)
