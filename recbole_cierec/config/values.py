"""Conversion and checks of the values of configuration keys, before anything runs.

:mod:`recbole_cierec.config.schema` declares types, choices and ranges. A key without a declared
type has the type of its default. Keys of RecBole's own models are checked loosely (a number stays a
number unless its name says that it counts something), because their YAML files write ``1`` where
the model takes any float.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from numbers import Integral, Real
from types import NoneType
from typing import Any

from recbole_cierec.config.schema.key import Key, Role, WrongPart
from recbole_cierec.config.schema.parts import LARGEST_NUMBER
from recbole_cierec.config.yaml import parse_value
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import shown

LARGEST_COUNT = 2**31 - 1  # of a whole number that declares no limit
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
_WORDS |= {list: "a list", dict: "a mapping", NoneType: "null"}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# Keys of RecBole's models whose default is a whole number because they count something.
_COUNTS = re.compile(r"^(n|num)_|_(size|dim|dimension|num|layers|heads|epochs|steps?|k)$")


def given_mapping(name: str, value: Any) -> dict[str, Any]:
    """A copy of an argument that holds keys and values; empty for None.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, Mapping | None):
        raise ConfigError(f"{name} must be keys with values, not {shown(value)}")
    return dict(value or {})


def check_value(
    key: Key, value: Any, default: Any, origin: str, *, text: str | None = None, loose: bool = False
) -> Any:
    """Check one value and convert it to its key's type.

    Args:
        key: The declaration.
        value: The value, as read.
        default: The key's default, whose type decides where the declaration has none. A null
            default takes anything.
        origin: Where the value was given, for the error.
        text: The command line's own text, which is the value of a key of type str.
        loose: Only distinguish numbers, truth values, lists and mappings.

    Returns:
        The value, converted where that loses nothing (``3e2`` to 300, ``off`` to False).

    Raises:
        ConfigError: It is of another type, none of the choices, or out of range.
    """
    if key.choices and value is not None:
        return _choice(key, value if text is None else text, origin)
    types = _types(key, default, loose)
    if types is None:
        return value
    if text is not None and str in types and not isinstance(value, (*types, NoneType)):
        value = text
    converted = _convert(value, types)
    if not isinstance(converted, types) or (isinstance(converted, bool) and bool not in types):
        kinds = types if float not in types else [k for k in types if k is not int]
        needed = " or ".join(_WORDS[kind] for kind in kinds)
        given = "null" if value is None else shown(value)
        raise ConfigError(f"{origin}: '{key.name}' must be {needed}, not {given}")
    if key.not_empty and converted == "":
        raise ConfigError(f"{origin}: '{key.name}' must not be empty")
    if loose and default and isinstance(default, list) and all(map(_is_number, default)):
        _check_like(key.name, converted, default, origin)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_range(key, converted, origin)
    if key.check is None or converted is None:
        return converted
    try:
        return key.check(f"'{key.name}'", converted)
    except WrongPart as error:
        raise ConfigError(f"{origin}: {error}") from None


def _types(key: Key, default: Any, loose: bool) -> tuple[type, ...] | None:
    if key.types and not (loose and key.role in (Role.MODEL, Role.TRAINING)):
        return key.types
    kind = type(default)
    if kind not in _WORDS or default is None or (loose and kind is str):
        return None
    if kind in (list, dict):
        return (kind, NoneType)
    if loose and kind in (int, float) and not (kind is int and _COUNTS.search(key.name)):
        return (int, float)
    return (kind,)


def _choice(key: Key, value: Any, origin: str) -> str:
    word = str(value)[:60]
    for choice in key.choices:
        if choice.lower() == word.lower():
            return choice
    ranked = sorted(key.choices, key=lambda choice: -SequenceMatcher(None, word, choice).ratio())
    raise ConfigError(f"{origin}: '{key.name}' must be one of {', '.join(ranked)}, not '{word}'")


def _convert(value: Any, allowed: tuple[type, ...]) -> Any:
    """The value in one of the allowed types if that loses nothing, else the value itself."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and str not in allowed:
        # Hyper-tuning and quoted yaml give lists and numbers as strings.
        word = value.strip().lower()
        value = _TRUTH[word] if bool in allowed and word in _TRUTH else parse_value(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, bool) or value is None or isinstance(value, allowed):
        return value
    if isinstance(value, Real):
        if int in allowed and (isinstance(value, Integral) or float(value).is_integer()):
            return int(value) if isinstance(value, Integral) else int(float(value))
        if float in allowed:
            return float(value)
        if str in allowed:
            return str(value)
    return value


def _check_range(key: Key, value: float, origin: str) -> None:
    if not math.isfinite(value):
        raise ConfigError(f"{origin}: '{key.name}' must be finite, not {value}")
    low, high = key.low, key.high
    if high is None:
        high = LARGEST_COUNT if isinstance(value, int) else LARGEST_NUMBER
    if (low, high) == (0, 1) and not 0 <= value <= 1:
        raise ConfigError(f"{origin}: '{key.name}' must be from 0 to 1, not {value}")
    if low is not None and value < low:
        raise ConfigError(f"{origin}: '{key.name}' must be {low} or more, not {value}")
    if value > high:
        raise ConfigError(f"{origin}: '{key.name}' must be {high} or less, not {value}")


def _check_like(key: str, values: Any, default: list, origin: str) -> None:
    """Check a list of numbers of a model of RecBole; weights must be as many as by default."""
    length = len(default) if key.endswith(("weight", "weights")) else None
    numbers = isinstance(values, list) and all(map(_is_number, values))
    if not numbers or length not in (None, len(values)):
        kind = f"{length} numbers" if length else "numbers"
        raise ConfigError(f"{origin}: '{key}' must be a list of {kind}, not {shown(values)}")


def _is_number(value: Any) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and abs(value) <= LARGEST_NUMBER
