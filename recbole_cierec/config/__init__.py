"""The configuration of a run: RecBole's layers of YAML, with every key declared and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_cierec.config.config import Config, property_files

__all__ = ["Config", "property_files"]


def __getattr__(name: str) -> Any:
    """Import RecBole only when ``Config`` is asked for (PEP 562)."""
    if name in __all__:
        from recbole_cierec.config import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
