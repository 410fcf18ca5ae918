"""Values with parts: mappings, lists of names and intervals, checked part by part.

RecBole reads the parts late, or passes them on as they are: ``user_inter_num_interval: 7`` filters
nothing, ``load_col: {inter: user_id}`` loads the columns u, s, e and so on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from recbole_cierec.config.keys import nearest
from recbole_cierec.config.yaml import parse_value
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import shown

MOST_POWER = 10.0  # of popularity: a larger one leaves shares of 0
_GPU = re.compile(r"\s*(-1|[0-9]+|(GPU|MIG)-[\w/-]+)\s*", re.ASCII)  # CUDA's names; -1 is none
_BOUNDS = re.compile(r"\s*[\[(]\s*([^,\s]+)\s*,\s*([^,\s]+)\s*[\])]\s*")
_Check = Callable[[str, Any], Any]  # (what it is of, value) -> value; raises _Wrong


class _Wrong(Exception):
    """What a value must be."""


def check_parts(key: str, value: Any, origin: str) -> Any:
    """Check the parts of a value.

    Args:
        key: The key; one that has no parts passes.
        value: The value, of a type that the key takes. Null passes.
        origin: Where it was given.

    Returns:
        The value, with its parts in their types.

    Raises:
        ConfigError: A part is unknown, missing, of another type or out of range.
    """
    if key not in PARTS or value is None:
        return value
    try:
        return PARTS[key](f"'{key}'", value)
    except _Wrong as error:
        raise ConfigError(f"{origin}: {error}") from None


# -- single values -----------------------------------------------------------------------------


def _number(low: float, high: float = math.inf, *, above: bool = False) -> _Check:
    def check(what: str, value: Any) -> float:
        value = parse_value(value) if isinstance(value, str) else value
        good = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high
        if not good or (above and value == low):
            limits = f"above {low:g}" if above else f"of {low:g} or more"
            limits += f" and {high:g} or less" if high < math.inf else ""
            limits = "" if low == -math.inf else f" {limits}"
            raise _Wrong(f"{what} must be a number{limits}, not {shown(value)}")
        return value

    return check


def _count(low: int) -> _Check:
    def check(what: str, value: Any) -> int:
        value = parse_value(value) if isinstance(value, str) else value
        whole = isinstance(value, Real) and not isinstance(value, bool) and value == value // 1
        if not whole or not low <= value < 2**31:
            raise _Wrong(f"{what} must be a whole number of {low} or more, not {shown(value)}")
        return int(value)

    return check


def _truth(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"{what} must be True or False, not {shown(value)}")
    return value


def _choice(*choices: Any) -> _Check:
    def check(what: str, value: Any) -> Any:
        if value not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise _Wrong(f"{what} must be one of {listed}, not {shown(value)}")
        return value

    return check


def _name(what: str, value: Any) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise _Wrong(f"{what} must be a name, not {shown(value)}")
    return str(value)


def _interval(what: str, value: Any) -> str:
    text = str(value)  # yaml reads [5,10] as a list, which RecBole writes out again
    for piece in text.split(";"):
        match = _BOUNDS.fullmatch(piece)
        try:
            low, high = (float(bound) for bound in match.groups()) if match else (1.0, 0.0)
        except ValueError:
            low, high = 1.0, 0.0
        if not low <= high:
            raise _Wrong(
                f'{what} must be an interval, as "[5,inf)" for 5 or more, not {shown(value)}'
            )
    return text


def _gpus(what: str, value: str) -> str:
    names = [name.strip() for name in value.split(",")] if value.strip() else []
    if not all(map(_GPU.fullmatch, names)) or len(set(names)) < len(names):
        raise _Wrong(f"{what} must be numbers of GPUs, as in 0 or 0,1, not {shown(value)}")
    return value


# -- values of several parts -------------------------------------------------------------------


def _names(what: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _Wrong(f"{what} must be a list of names, not {shown(value)}")
    return [_name(f"each name in {what}", name) for name in value]


def _three_parts(what: str, value: Any) -> list[str]:
    names = _names(what, value)
    if len(names) != 3 or len(set(names)) != 3:
        raise _Wrong(
            f"{what} must name three files, for training, validation and test, as "
            f"[train, valid, test] does NAME.train.inter and so on, not {shown(value)}"
        )
    return names


def _one_or_more(what: str, value: Any) -> list[str]:
    return _names(what, [value] if isinstance(value, str) else value)


def _columns(what: str, value: Any) -> Any:
    return value if value == "*" else _names(what, value)


def _tokens_or_interval(what: str, value: Any) -> Any:
    """Of a column of numbers an interval; of tokens the list of those that stay."""
    return list(value) if isinstance(value, list | tuple) else _interval(what, value)


def _map(check: _Check, *, only: int | None = None) -> _Check:
    """Any names, each with a value of one kind."""

    def check_all(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Wrong(f"{what} must be a mapping, not {shown(value)}")
        if only is not None and len(value) != only:
            raise _Wrong(f"{what} must name one column, as in {{rating: 3}}, not {shown(value)}")
        return {
            _name(f"each name in {what}", name): check(f"{name} in {what}", part)
            for name, part in value.items()
        }

    return check_all


def _record(required: tuple[str, ...] = (), **fields: _Check) -> _Check:
    """Fixed names, each with a value of its own kind."""

    def check_all(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Wrong(f"{what} must be a mapping, not {shown(value)}")
        for name in value:
            if name not in fields:
                hint = nearest(str(name), fields) or f"; known are {', '.join(fields)}"
                raise _Wrong(f"unknown key '{name}' in {what}{hint}")
        for name in required:
            if name not in value:
                raise _Wrong(f"{what} needs {name}")
        return {name: fields[name](f"{name} in {what}", part) for name, part in value.items()}

    return check_all


_clipping = _record(
    ("max_norm",),
    max_norm=_number(0, above=True),
    norm_type=_number(0, above=True),
    error_if_nonfinite=_truth,
    foreach=_choice(None, True, False),
)
_drawing = _record(
    distribution=_choice("uniform", "popularity", "none", None),
    sample_num=_count(1),
    alpha=_number(0, MOST_POWER),
    dynamic=_truth,
    candidate_num=_count(0),
)


def _negatives(what: str, value: Any) -> dict[str, Any]:
    value = _drawing(what, value)
    if value.get("dynamic") and not value.get("candidate_num"):
        raise _Wrong(f"candidate_num in {what} must be 1 or more where dynamic is True")
    if value.get("distribution") == "none":
        value["distribution"] = None  # RecBole's word
    return value


def _buckets(what: str, value: Any) -> dict[str, Any]:
    value = _record(("method",), method=_choice("ED", "LD"), bucket=_count(1))(what, value)
    if value["method"] == "ED" and "bucket" not in value:
        raise _Wrong(f"{what} needs bucket, the number of equal parts, for method ED")
    return value


PARTS: dict[str, _Check] = {
    "gpu_id": _gpus,
    "clip_grad_norm": _clipping,
    "train_neg_sample_args": _negatives,
    "load_col": _map(_columns),
    "unload_col": _map(_names),
    "unused_col": _map(_names),
    "seq_len": _map(_count(1)),
    "threshold": _map(_number(-math.inf), only=1),
    "val_interval": _map(_tokens_or_interval),
    "preload_weight": _map(_name),
    "discretization": _map(_buckets),
    "normalize_field": _names,
    "numerical_features": _names,
    "benchmark_filename": _three_parts,
    "additional_feat_suffix": _one_or_more,
    **dict.fromkeys(
        "alias_of_user_id alias_of_item_id alias_of_entity_id alias_of_relation_id".split(), _names
    ),
    **dict.fromkeys(
        "user_inter_num_interval item_inter_num_interval entity_kg_num_interval"
        " relation_kg_num_interval".split(),
        _interval,
    ),
}
