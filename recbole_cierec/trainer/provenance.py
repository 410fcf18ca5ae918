"""Where a checkpoint comes from: versions, the command, and the digest of its settings."""

from __future__ import annotations

import platform
import sys
from functools import cache
from typing import Any

from recbole_cierec.compat.requirements import DISTRIBUTION, installed

PACKAGES = (DISTRIBUTION, "recbole", "torch", "torchvision", "numpy", "scipy")


@cache  # parsing the packages' metadata takes as long as an epoch of a small run
def _versions() -> dict[str, str | None]:
    packages = {package: installed(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages}


def provenance(config: Any) -> dict[str, Any]:
    """Plain data for a checkpoint; digests of the data are in its part ``data``.

    Returns:
        ``versions`` (package to version, with ``python``), ``command`` (the arguments of this
        process) and ``config_digest``, as in the result of ``run``.
    """
    return {
        "versions": _versions().copy(),
        "command": [str(word) for word in sys.argv],
        "config_digest": config.digest() if hasattr(config, "digest") else "",
    }
