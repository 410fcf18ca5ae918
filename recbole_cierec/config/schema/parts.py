"""Checks of values with parts: mappings, lists of names, intervals.

RecBole reads the parts late, or passes them on as they are: ``user_inter_num_interval: 7`` filters
nothing, ``load_col: {inter: user_id}`` loads the columns u, s, e and so on.

Each check takes a description of the value and the value, and returns the value in its final form
or raises :class:`recbole_cierec.config.schema.key.WrongPart`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from recbole_cierec.config.schema.key import Check, WrongPart
from recbole_cierec.config.yaml import parse_value
from recbole_cierec.errors import nearest
from recbole_cierec.terminal import shown

LARGEST_NUMBER = 3.4e38  # that a float32 can hold
MOST_POWER = 10.0  # of popularity: larger powers leave shares of 0
_GPU = re.compile(r"\s*(-1|[0-9]+|(GPU|MIG)-[\w/-]+)\s*", re.ASCII)  # CUDA's names; -1 is none
_BOUNDS = re.compile(r"\s*[\[(]\s*([^,\s]+)\s*,\s*([^,\s]+)\s*[\])]\s*")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# -- single values -----------------------------------------------------------------------------


def number(low: float, high: float = math.inf, *, above: bool = False) -> Check:
    """A number from ``low`` to ``high``; ``above``: not ``low`` itself."""

    def check(what: str, value: Any) -> float:
        value = parse_value(value) if isinstance(value, str) else value
        good = _is_number(value) and low <= value <= high
        if not good or (above and value == low):
            limits = f"above {low:g}" if above else f"of {low:g} or more"
            limits += f" and {high:g} or less" if high < math.inf else ""
            limits = "" if low == -math.inf else f" {limits}"
            raise WrongPart(f"{what} must be a number{limits}, not {shown(value)}")
        return value

    return check


def count(low: int) -> Check:
    """A whole number of ``low`` or more."""

    def check(what: str, value: Any) -> int:
        value = parse_value(value) if isinstance(value, str) else value
        whole = _is_number(value) and value == value // 1
        if not whole or not low <= value < 2**31:
            raise WrongPart(f"{what} must be a whole number of {low} or more, not {shown(value)}")
        return int(value)

    return check


def truth(what: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise WrongPart(f"{what} must be True or False, not {shown(value)}")
    return value


def choice(*choices: Any) -> Check:
    """One of some values."""

    def check(what: str, value: Any) -> Any:
        if value not in choices:
            listed = ", ".join(str(one) for one in choices if one is not None)
            raise WrongPart(f"{what} must be one of {listed}, not {shown(value)}")
        return value

    return check


def word(what: str, value: Any) -> str:
    """A name; numbers are names too."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise WrongPart(f"{what} must be a name, not {shown(value)}")
    return str(value)


def interval(what: str, value: Any) -> str:
    """RecBole's intervals: ``[5,inf)``, ``(1,3];[5,5]``."""
    text = str(value)  # yaml reads [5,10] as a list, which RecBole writes out again
    for piece in text.split(";"):
        match = _BOUNDS.fullmatch(piece)
        try:
            low, high = (float(bound) for bound in match.groups()) if match else (1.0, 0.0)
        except ValueError:
            low, high = 1.0, 0.0
        if not low <= high:
            raise WrongPart(
                f'{what} must be an interval, as "[5,inf)" for 5 or more, not {shown(value)}'
            )
    return text


def gpus(what: str, value: str) -> str:
    """Numbers or identifiers of GPUs, separated by commas."""
    names = [name.strip() for name in value.split(",")] if value.strip() else []
    if not all(map(_GPU.fullmatch, names)) or len(set(names)) < len(names):
        raise WrongPart(f"{what} must be numbers of GPUs, as in 0 or 0,1, not {shown(value)}")
    return value


def numbers(length: int | None = None) -> Check:
    """A list of ``length`` numbers of 0 or more; null passes the types of a key, not this."""

    def check(what: str, value: Any) -> Any:
        good = value and all(_is_number(v) and 0 <= v <= LARGEST_NUMBER for v in value)
        if not good or length not in (None, len(value)):
            kind = f"{length} numbers" if length else "numbers"
            raise WrongPart(f"{what} must be a list of {kind}, 0 or more each, not {shown(value)}")
        return value

    return check


# -- values of several parts -------------------------------------------------------------------


def words(what: str, value: Any) -> list[str]:
    """A list of names."""
    if not isinstance(value, list | tuple):
        raise WrongPart(f"{what} must be a list of names, not {shown(value)}")
    return [word(f"each name in {what}", name) for name in value]


def three_parts(what: str, value: Any) -> list[str]:
    """The names of three files."""
    names = words(what, value)
    if len(names) != 3 or len(set(names)) != 3:
        raise WrongPart(
            f"{what} must name three files, for training, validation and test, as "
            f"[train, valid, test] does NAME.train.inter and so on, not {shown(value)}"
        )
    return names


def one_or_more(what: str, value: Any) -> list[str]:
    """One name or a list of names."""
    return words(what, [value] if isinstance(value, str) else value)


def columns(what: str, value: Any) -> Any:
    """A list of names, or ``*`` for all."""
    return value if value == "*" else words(what, value)


def tokens_or_interval(what: str, value: Any) -> Any:
    """An interval for a column of numbers, the list of tokens to keep for one of tokens."""
    return list(value) if isinstance(value, list | tuple) else interval(what, value)


def mapping(check: Check, *, only: int | None = None) -> Check:
    """A mapping with any names, ``only`` so many, whose values pass ``check``."""

    def check_all(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise WrongPart(f"{what} must be a mapping, not {shown(value)}")
        if only is not None and len(value) != only:
            raise WrongPart(f"{what} must name one column, as in {{rating: 3}}, not {shown(value)}")
        return {
            word(f"each name in {what}", name): check(f"{name} in {what}", part)
            for name, part in value.items()
        }

    return check_all


def record(required: tuple[str, ...] = (), **fields: Check) -> Check:
    """A mapping with these names only, each with its own check."""

    def check_all(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise WrongPart(f"{what} must be a mapping, not {shown(value)}")
        for name in value:
            if name not in fields:
                hint = nearest(str(name), fields) or f"; known are {', '.join(fields)}"
                raise WrongPart(f"unknown key '{name}' in {what}{hint}")
        for name in required:
            if name not in value:
                raise WrongPart(f"{what} needs {name}")
        return {name: fields[name](f"{name} in {what}", part) for name, part in value.items()}

    return check_all


def file(what: str, value: Any) -> str:
    """The path of a file."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise WrongPart(f"{what} must be the path of a file, not {shown(value)}")
    return os.fspath(value)


MODALITIES = ("image", "text", "audio", "video")
_files = record((), **dict.fromkeys(MODALITIES, file))


def modality_files(what: str, value: Any) -> dict[str, Any] | None:
    """``features``: always in the same order, on which last bits of results depend."""
    value = _files(what, value)
    return {name: value[name] for name in MODALITIES if name in value} or None


clipping = record(
    ("max_norm",),
    max_norm=number(0, above=True),
    norm_type=number(0, above=True),
    error_if_nonfinite=truth,
    foreach=choice(None, True, False),
)
drawing = record(
    distribution=choice("uniform", "popularity", "none", None),
    sample_num=count(1),
    alpha=number(0, MOST_POWER),
    dynamic=truth,
    candidate_num=count(0),
)


def negatives(what: str, value: Any) -> dict[str, Any]:
    """``train_neg_sample_args``."""
    value = drawing(what, value)
    if value.get("dynamic") and not value.get("candidate_num"):
        raise WrongPart(f"candidate_num in {what} must be 1 or more where dynamic is True")
    if value.get("distribution") == "none":
        value["distribution"] = None  # RecBole's word
    return value


def buckets(what: str, value: Any) -> dict[str, Any]:
    """How ``discretization`` divides a column."""
    value = record(("method",), method=choice("ED", "LD"), bucket=count(1))(what, value)
    if value["method"] == "ED" and "bucket" not in value:
        raise WrongPart(f"{what} needs bucket, the number of equal parts, for method ED")
    return value


def checkpoint_or_auto(what: str, value: str) -> str:
    """``auto`` or a path; a truth value would be read as the name of a file."""
    if value.lower() in ("true", "yes", "on"):
        raise WrongPart(f"{what} must be auto, or a checkpoint, not {value}; did you mean 'auto'?")
    return value
