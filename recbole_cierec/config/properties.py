"""The YAML files with the defaults: this package's ``properties/`` and RecBole's."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError
from recbole_cierec.registry import MODELS


def properties_dir() -> Path:
    """``properties/``: inside an installed package, next to it in a checkout."""
    package = Path(str(resources.files("recbole_cierec")))
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise ConfigError(f"{package}/properties/overall.yaml is missing; reinstall recbole-cierec")


def recbole_dir() -> Path:
    """RecBole's package folder."""
    spec = find_spec("recbole")
    if spec is None or spec.origin is None:
        raise ConfigError("the package recbole is missing; reinstall recbole-cierec")
    return Path(spec.origin).parent


def overall_defaults() -> dict[str, Any]:
    """The defaults of this package for every model."""
    return read_yaml(properties_dir() / "overall.yaml")


@cache
def model_keys() -> dict[str, tuple[str, ...]]:
    """Each key of any model's YAML file, with the models that have it; RecBole's included."""
    owners: dict[str, tuple[str, ...]] = {}
    for folder in (properties_dir(), recbole_dir() / "properties"):
        for path in sorted((folder / "model").glob("*.yaml")):
            for key in read_yaml(path):
                owners[key] = (*owners.get(key, ()), path.stem)
    return owners


def own_files(model: str, dataset: str) -> list[Path]:
    """This package's YAML files of a model and a data set that exist, in their order.

    Raises:
        ConfigError: The file of one of this package's models is missing.
    """
    folder = properties_dir()
    files = [folder / "model" / f"{model}.yaml", folder / "dataset" / f"{dataset}.yaml"]
    if model in MODELS and not files[0].is_file():
        raise ConfigError(f"{files[0]}: the defaults of {model} are missing")
    return [path for path in files if path.is_file()]


def property_files(model: str, dataset: str) -> list[str]:
    """The YAML files to give to RecBole's own functions as ``config_file_list``.

    Args:
        model: A model's name.
        dataset: A data set's name.

    Returns:
        The overall file, then those of the model and the data set, if there are any.
    """
    overall = properties_dir() / "overall.yaml"
    return [str(path) for path in (overall, *own_files(model, dataset))]
