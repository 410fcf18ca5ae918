"""Which configuration keys exist, and the error or note for those that do not.

RecBole answers None for a misspelt key and continues. Here each key that a user gives or that code
reads must be declared (:mod:`recbole_cierec.config.schema`, or ``keys`` of a model class), have a
default in a YAML file of RecBole, or be one of RecBole's keys without a default.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_cierec.config.properties import (
    model_keys,
    overall_defaults,
    own_files,
    recbole_dir,
)
from recbole_cierec.config.schema import IN_YAML, KEYS, Key, Role
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError, UnknownKeyError, nearest
from recbole_cierec.registry import MODELS, known_name

CONFIG_DICT = "config_dict"
_LISTED = (general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
_OF_RUNS = (Role.MODEL, Role.TRAINING, Role.CONTENT)  # of which a class may change the default
# Read by RecBole 1.2.0 and 1.2.1 although no YAML file of theirs has them: absent, they are None.
# A test compares them with RecBole's sources.
OPTIONAL = frozenset(
    "CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN INVERSE_ITEM_SEQ MASK_INDEX MASK_ITEM_SEQ NEG_ITEMS"
    " POS_ITEMS REORDER_ITEM_SEQ cin contrast eta feature_num has_residual norm sim tail_ratio"
    " token_num_threshold use_filter xgb_early_stopping_rounds".split()
)
# MMRec's names of keys, as in docs/coming-from-mmrec.md; those that RecBole has too are not here.
OF_MMREC = {
    "feat_embed_dim": "embedding_size",
    "n_ui_layers": "id_layers",
    "n_mm_layers": "content_layers",
    "knn_k": "neighbours_count",
    "mm_image_weight": "picture_share",
    "cl_loss": "align_weight",
    "vision_feature_file": "features: {image: FILE}",
    "text_feature_file": "features: {text: FILE}",
    "hyper_parameters": "a file of ranges (docs/tuning.md)",
}


def keys_read(source: str) -> set[str]:
    """The keys that Python source reads from a configuration.

    Recognised are ``config["key"]``, ``"key" in config`` and ``config.get("key")`` on names or
    attributes that end in ``config`` or ``config_dict``.
    """

    def is_config(node: ast.AST) -> bool:
        name = str(getattr(node, "attr", None) or getattr(node, "id", ""))
        return name.endswith(("config", "config_dict"))

    keys = set()
    for node in ast.walk(ast.parse(source)):
        found: ast.AST | None = None
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


@cache
def keys_of_sources(model_class: type) -> frozenset[str]:
    """The keys that the sources of a class and of its parents read."""
    files = set()
    for parent in model_class.__mro__:
        if parent.__module__.partition(".")[0] not in ("builtins", "torch"):
            try:
                files.add(Path(inspect.getfile(parent)))
            except (TypeError, OSError):  # defined in an interpreter session, without a file
                continue
    sources = (path.read_text(encoding="utf-8") for path in files)
    return frozenset().union(*map(keys_read, sources))


def declared_by(model_class: type) -> dict[str, Key]:
    """The keys that a class and its parents declare in ``keys``, the class's own last.

    Raises:
        ConfigError: ``keys`` is no tuple of :class:`Key`, or has a key that is not for models.
    """
    found: dict[str, Key] = {}
    for parent in reversed(model_class.__mro__):
        keys = vars(parent).get("keys", ())
        if callable(keys):  # a method of that name
            continue
        if not isinstance(keys, tuple | list) or not all(isinstance(key, Key) for key in keys):
            raise ConfigError(f"{parent.__name__}.keys must be a tuple of Key")
        for key in keys:
            known = KEYS.get(key.name)
            if known is not None and known.role not in _OF_RUNS:
                raise ConfigError(
                    f"{parent.__name__}.keys: '{key.name}' is a key of every model; choose another "
                    "name"
                )
            found[key.name] = key
    return found


def outside_defaults(model_class: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults of a model outside this package and RecBole.

    From the most distant parent to the class itself: the YAML file of each model of this package or
    of RecBole, and the defaults in ``keys``.

    Returns:
        (all defaults, those of RecBole's files alone).
    """
    defaults: dict[str, Any] = {}
    recboles: dict[str, Any] = {}
    for parent in reversed(model_class.__mro__):
        name = known_name(parent)
        if name in MODELS:
            defaults |= read_yaml(own_files(name, "")[0])
        elif name is not None:
            path = recbole_dir() / "properties" / "model" / f"{name}.yaml"
            values = read_yaml(path) if path.is_file() else {}
            defaults |= values
            recboles |= values
        keys = vars(parent).get("keys", ())
        defaults |= {
            key.name: deepcopy(key.default)
            for key in (() if callable(keys) else keys)
            if key.default is not IN_YAML
        }
    return defaults, recboles


def all_names() -> set[str]:
    """The keys of all models, those apart that a model outside the package declares."""
    return {*KEYS, *model_keys(), *overall_defaults(), *OPTIONAL}.union(*_LISTED)


def check_keys(
    given: Iterable[tuple[str, str]],
    internal: Mapping[str, object],
    model: str,
    model_class: type,
) -> dict[str, str]:
    """Refuse unknown keys; note keys that only other models read.

    A key of another model is no error, because one file often serves a whole comparison; the note
    goes to the log. This holds for files, dictionaries and the command line.

    Args:
        given: (key, where it came from) for each key that a user gave.
        internal: The defaults of this model and data set.
        model: The model's name.
        model_class: Its class; sources outside this package are searched in the last resort.

    Returns:
        A line for the log by key, for each key that this model does not read.

    Raises:
        ConfigError: For the first unknown key, with the nearest known one.
    """
    known = {name for name, key in KEYS.items() if key.role is not Role.MODEL}
    known.update(internal, *_LISTED)
    notes = {}
    for key, origin in given:
        declared = KEYS.get(key)
        if declared is not None and declared.refused:
            if declared.role is not Role.LAUNCH or origin != CONFIG_DICT:
                raise ConfigError(f"{origin}: '{key}' {declared.refused}")
        if key in known:
            continue
        # This package's YAML files are complete; a base class may read what a model does not use.
        if known_name(model_class) not in MODELS and key in keys_of_sources(model_class):
            continue
        if key in model_keys():
            owners = ", ".join(model_keys()[key][:3])
            notes[key] = f"{origin}: model {model} does not read '{key}' (a key of {owners})"
        elif key not in OPTIONAL:
            here = OF_MMREC.get(key)
            hint = f"; MMRec's {key} is {here} here" if here else nearest(key, known)
            hint = hint or nearest(key, model_keys())
            raise UnknownKeyError(f"{origin}: unknown key '{key}'{hint}", key)
    return notes


def refuse_unknown(key: str, known: Iterable[str], model_class: type) -> None:
    """Stop code that reads a key without a value, unless absence may mean None.

    Raises:
        ConfigError: Nothing declares the key; the line has the nearest one.
    """
    if key in KEYS or key in OPTIONAL or key in model_keys() or key in declared_by(model_class):
        return
    hint = nearest(key, {*KEYS, *model_keys(), *known})
    raise ConfigError(
        f"config['{key}']: there is no such key{hint or '; a model declares its own in keys'}"
    )
