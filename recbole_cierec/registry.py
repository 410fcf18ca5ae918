"""The one table of models: name to class, trainer and properties, all imported lazily.

Nothing here imports a model before it is asked for, so one optional package cannot keep the others
from running. RecBole's own models need no row: they are found in RecBole by their name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_cierec.compat.optional_packages import named_where_missing
from recbole_cierec.errors import ConfigError

_GATED = "recbole_cierec.trainer.gated_trainer:GatedTrainer"
_PHASED = "recbole_cierec.trainer.two_phase_trainer:TwoPhaseTrainer"
_PHASED_GATED = "recbole_cierec.trainer.two_phase_trainer:TwoPhaseGatedTrainer"
_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)


@dataclass(frozen=True)
class ModelEntry:
    """What the table says of one model.

    Args:
        target: The class as ``module:Class``; the class bears the model's name.
        properties: The name of its file in ``properties/model/``, without ``.yaml``.
        trainer: Its trainer as ``module:Class``; None for RecBole's choice.
        stages: The models that it can start from, the default first; one of them is trained
            before it (see :mod:`recbole_cierec.trainer.warm_start_stages`).
    """

    target: str
    properties: str
    trainer: str | None = None
    stages: tuple[str, ...] = ()


MODELS: dict[str, ModelEntry] = {
    "CIERec": ModelEntry("recbole_cierec.model.cierec:CIERec", "CIERec", _GATED),
    "CIERec_Base": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_Base", "CIERec_Base"),
    "CIERec_CI": ModelEntry("recbole_cierec.model.cierec_ablations:CIERec_CI", "CIERec_CI", _GATED),
    "CIERec_CI_TA": ModelEntry(
        "recbole_cierec.model.cierec_ablations:CIERec_CI_TA", "CIERec_CI_TA", _GATED
    ),
    "CIERec_CI_TA_GR": ModelEntry(
        "recbole_cierec.model.cierec_ablations:CIERec_CI_TA_GR", "CIERec_CI_TA_GR", _GATED
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

    from recbole_cierec.compat.recbole_models import patch_model

    watching = torch.is_anomaly_enabled()
    try:
        with named_where_missing(f"model '{name}'"):
            return patch_model(get_model(name))
    finally:
        # RecBole's sine.py, read with any sequential model, has torch keep a trace of every
        # operation from then on.
        torch.autograd.set_detect_anomaly(watching)
