"""Which configuration keys exist, and the error or note for those that do not.

RecBole answers None for a misspelt key and goes on. Here a key from a user's file, dictionary or
command line must be known: to a yaml table or argument list of RecBole or of ours, or, failing
those, to the sources that read it. The sources are only scanned when a key is about to be refused.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError
from recbole_cierec.registry import MODELS

# Keys that say what to run and where; RecBole reads them without listing them anywhere.
LAUNCH_KEYS = frozenset(
    "model dataset config_file config_files nproc world_size ip port offset group_offset local_rank"
    " encoding".split()
)
# Of these the launch tells each process by config_dict; elsewhere they would have no effect.
_OF_LAUNCH = LAUNCH_KEYS - {"model", "dataset", "encoding"}
_SET_BY_LAUNCH = {"config_file", "offset", "local_rank"}  # others are arguments of the command
# RecBole 1.2.1 only warns that it no longer reads these.
RETIRED_KEYS = {
    "neg_sampling": "train_neg_sample_args",
    "training_neg_sample_num": "train_neg_sample_args",
}
# Keys that are set from others; a value of the user's would be overwritten.
DERIVED_KEYS = {
    "device": "use_gpu and gpu_id",
    "single_spec": "nproc",
    "strict_cold": "eval_args.split",
    "valid_neg_sample_args": "eval_args.mode",
    "test_neg_sample_args": "eval_args.mode",
    "eval_type": "metrics",
    "MODEL_TYPE": "the model",
    "MODEL_INPUT_TYPE": "the model and loss_type",
}


def properties_dir() -> Path:
    """The folder of our yaml files: inside an installed package, beside it in a checkout."""
    package = Path(str(resources.files("recbole_cierec")))
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise ConfigError(f"{package}/properties/overall.yaml is missing; reinstall recbole-cierec")


def recbole_dir() -> Path:
    """RecBole's package folder."""
    spec = find_spec("recbole")
    return Path(spec.origin).parent


@cache
def model_keys() -> dict[str, tuple[str, ...]]:
    """Each key of any model's yaml, ours and RecBole's, with the models that have it."""
    owners: dict[str, tuple[str, ...]] = {}
    for folder in (properties_dir(), recbole_dir() / "properties"):
        for path in sorted((folder / "model").glob("*.yaml")):
            for key in read_yaml(path):
                owners[key] = (*owners.get(key, ()), path.stem)
    return owners


def keys_read(source: str) -> set[str]:
    """The keys that Python source reads from a configuration.

    Recognised are ``config["key"]``, ``"key" in config`` and ``config.get("key")`` on names or
    attributes that end in ``config`` or ``config_dict``.

    Args:
        source: Python source text.

    Returns:
        The literal keys.
    """

    def is_config(node: ast.AST) -> bool:
        name = getattr(node, "attr", None) or getattr(node, "id", "")
        return name.endswith(("config", "config_dict"))

    keys = set()
    for node in ast.walk(ast.parse(source)):
        found = None
        if isinstance(node, ast.Subscript) and is_config(node.value):
            found = node.slice
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            found = node.left if is_config(node.comparators[0]) else None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            is_get = node.func.attr == "get" and is_config(node.func.value)
            found = node.args[0] if is_get else None
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            keys.add(found.value)
    return keys


def framework_keys() -> set[str]:
    """The keys that RecBole's framework and ours read, models apart."""
    files: set[Path] = set((recbole_dir() / "model").glob("*.py"))
    for folder in ("config", "data", "evaluator", "sampler", "trainer", "utils"):
        files.update((recbole_dir() / folder).rglob("*.py"))
    package = Path(str(resources.files("recbole_cierec")))
    files.update(package.glob("*.py"))
    for folder in ("config", "data", "distributed", "evaluation", "trainer", "vision"):
        files.update((package / folder).rglob("*.py"))
    return _read_all(files)


def class_keys(model_class: type) -> set[str]:
    """The keys that the sources of a class and of its parents read."""
    files = set()
    for parent in model_class.__mro__:
        if parent.__module__.partition(".")[0] not in ("builtins", "torch"):
            try:
                files.add(Path(inspect.getfile(parent)))
            except (TypeError, OSError):  # made in an interpreter session: there is no file to read
                continue
    return _read_all(files)


def _read_all(files: Iterable[Path]) -> set[str]:
    return set().union(*(keys_read(path.read_text(encoding="utf-8")) for path in files))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` did you mean 'x'?`` for the nearest known word, or nothing if none is near."""
    lower = {str(name).lower(): str(name) for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.65)
    return f"; did you mean '{lower[close[0]]}'?" if close else ""


def check_keys(
    given: Iterable[tuple[str, str]], internal: Mapping[str, object], model: str, model_class: type
) -> list[str]:
    """Refuse keys that nothing knows; note those that only other models read.

    A key of another model is no error, because one file often serves a whole comparison; the note
    goes to the log. This holds for files, dictionaries and the command line alike.

    Args:
        given: (key, where it came from) for each key that a user gave.
        internal: The defaults of this model and data set.
        model: The model's name.
        model_class: Its class, whose sources are read in the last resort.

    Returns:
        One line for each key that this model does not read.

    Raises:
        ConfigError: For the first unknown key, with the nearest known one.
    """
    known = LAUNCH_KEYS.union(
        internal, general_arguments, training_arguments, evaluation_arguments, dataset_arguments
    )
    notes = []
    for key, origin in given:
        if key in DERIVED_KEYS:
            raise ConfigError(f"{origin}: '{key}' follows from {DERIVED_KEYS[key]}; remove it")
        if key in _OF_LAUNCH and origin != "config_dict":
            what = (
                "is set by the launch" if key in _SET_BY_LAUNCH else "is a flag of the command line"
            )
            raise ConfigError(f"{origin}: '{key}' {what} and has no effect here; remove it")
        if key in known:
            continue
        if key in RETIRED_KEYS:
            raise ConfigError(
                f"{origin}: '{key}' is no longer read; use '{RETIRED_KEYS[key]}' instead"
            )
        # A file of ours is complete; a base class may read what a model has no use for.
        if model not in MODELS and key in class_keys(model_class):
            continue
        if key in model_keys():
            owners = ", ".join(model_keys()[key][:3])
            notes.append(f"{origin}: model {model} does not read '{key}' (a key of {owners})")
            continue
        in_framework = framework_keys()
        if key not in in_framework:
            hint = nearest(key, known) or nearest(key, {*in_framework, *model_keys()})
            raise ConfigError(f"{origin}: unknown key '{key}'{hint}")
    return notes
