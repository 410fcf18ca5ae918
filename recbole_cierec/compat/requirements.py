"""The requirements in ``pyproject.toml``, as pip recorded them at installation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from recbole_cierec.compat.optional_packages import PIP_NAMES

DISTRIBUTION = "recbole-cierec"
# Packages that only one feature needs; some are in an extra of pyproject.toml.
OPTIONAL = {
    "aiohttp": "convert images: downloads pictures",
    "aiolimiter": "convert images: rates of requests",
    "dgl": "RecBole's KGAT",
    "faiss-cpu": "RecBole's NCL",
    "fastapi": "serve",
    "furo": "docs: theme of the site",
    "kmeans-pytorch": "RecBole's LDiffRec",
    "latex2mathml": "docs: equations",
    "jinja2": "report",
    "matplotlib": "report; plots of experiment; figures of benchmarks",
    "myst-parser": "docs: Markdown",
    "python-louvain": "RecBole's NNCF",
    "python-multipart": "serve: pictures sent to it",
    "scikit-learn": "report: t-SNE",
    "sphinx": "docs: the site",
    "tenacity": "convert images: further attempts",
    "timm": "visual_encoder: timm/NAME",
    "uvicorn": "serve",
    "wandb": "log_wandb",
}
DEVELOPMENT = ("test", "dev")  # extras that add no feature
_MODULES = {package: module for module, package in PIP_NAMES.items()}


@dataclass(frozen=True)
class Requirement:
    """A package that pyproject.toml names.

    Args:
        name: As for ``pip install``.
        limits: Allowed versions, such as ``>=2.4``; may be empty.
        extra: The extra that lists it; empty: every installation needs it.
    """

    name: str
    limits: str = ""
    extra: str = ""


def module_of(package: str) -> str:
    """The name by which a package is imported."""
    return _MODULES.get(package, package.replace("-", "_"))


def installed(package: str) -> str | None:
    """The installed version; None if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """The requirements for the running Python, including those of all extras.

    An extra that names others of this package, such as ``all``, adds nothing to them.

    Raises:
        PackageNotFoundError: This package is not installed but runs from a checkout.
        ImportError: The package ``packaging`` is missing or broken.
    """
    from packaging.requirements import Requirement as Parsed

    found = []
    for parsed in map(Parsed, requires(DISTRIBUTION) or ()):
        if parsed.name == DISTRIBUTION:
            continue
        match = re.search(r"""extra == ["']([\w-]+)""", str(parsed.marker or ""))
        extra = match[1] if match else ""
        if parsed.marker is None or parsed.marker.evaluate({"extra": extra}):
            found.append(Requirement(parsed.name, str(parsed.specifier), extra))
    return found


def allows(limits: str, version: str) -> bool:
    """Whether limits such as ``>=2.4`` allow a version, pre-releases included."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(limits).contains(version, prereleases=True)
