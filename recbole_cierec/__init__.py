"""CIERec and its kin for RecBole: recommendation from pictures and annotations.

Example:
    >>> from recbole_cierec import run
    >>> run("CIERec", "demo", config_dict={"epochs": 5})  # doctest: +SKIP

Importing the package is cheap: RecBole, torch and the models are imported when first used.
:mod:`recbole_cierec.compat.patches` lists what current packages break in RecBole.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_cierec.compat.slow_imports import defer_imports

__version__ = "0.2.0.dev0"
__all__ = [
    "Config",
    "VisualRecommender",
    "__version__",
    "load",
    "recommend",
    "run",
    "run_experiment",
    "tune",
]
if TYPE_CHECKING:
    from recbole_cierec.config import Config
    from recbole_cierec.experiment import run_experiment
    from recbole_cierec.model.base.visual_recommender import VisualRecommender
    from recbole_cierec.quick_start import load, run
    from recbole_cierec.serving.recommend import recommend
    from recbole_cierec.tuning import tune

# Where each name of __all__ is.
_MODULES = {
    "Config": "config",
    "VisualRecommender": "model.base.visual_recommender",
    "load": "quick_start",
    "recommend": "serving.recommend",
    "run": "quick_start",
    "run_experiment": "experiment",
    "tune": "tuning",
}

# RecBole uses names that numpy has dropped, in some places before any of its Config objects exists
# to restore them. This, and that some slow imports are deferred, is all that importing the package
# changes outside of it.
defer_imports()
try:
    from recbole_cierec.compat.numpy_names import numpy_aliases
except ImportError:  # without numpy only the doctor works, and says so
    pass
else:
    numpy_aliases()


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the functions and classes only when they are asked for (PEP 562)."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
