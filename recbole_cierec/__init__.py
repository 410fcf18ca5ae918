"""CIERec and its kin for RecBole: recommendation from pictures and annotations.

Example:
    >>> from recbole_cierec import run
    >>> run("CIERec", "demo", config_dict={"epochs": 5})  # doctest: +SKIP

Importing the package is cheap: RecBole, torch and the models are imported when first used.
:mod:`recbole_cierec.compat.patches` lists what current packages break in RecBole.
"""

from __future__ import annotations

from typing import Any

from recbole_cierec.compat.slow_imports import defer_imports

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "load", "recommend", "run"]

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
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import ``run``, ``load`` and ``recommend`` only when they are asked for (PEP 562)."""
    if name in ("run", "load"):
        from recbole_cierec import quick_start

        return getattr(quick_start, name)
    if name == "recommend":
        from recbole_cierec.serving.recommend import recommend

        return recommend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
