"""The splits that RecBole does not have: strict cold start by items or by users.

::

    eval_args: {split: {COLD_ITEM: [0.8, 0.1, 0.1]}}                     # shares of the items
    eval_args: {split: {COLD_USER: {share: [0.8, 0.1, 0.1], seed: 7}}}   # shares of the users

The long form has the keys of :data:`COLD_DEFAULTS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_cierec.config.keys import nearest
from recbole_cierec.errors import ConfigError

COLD_KINDS = {"COLD_ITEM": "item", "COLD_USER": "user"}
COLD_DEFAULTS: dict[str, Any] = {
    "share": [0.8, 0.1, 0.1],  # of training, validation and test, in items or users
    "by": "random",  # or newest: those first seen last are held out
    "seed": 2020,  # of the random choice
    "rest": [0.8, 0.1, 0.1],  # how interactions of what is not held out are split
    "history": 1,  # COLD_USER: first interactions that are known and not asked for
}


def check_shares(parts: Any, origin: str, name: str) -> None:
    """Three shares, none negative, not all zero."""
    numbers = isinstance(parts, Sequence) and not isinstance(parts, str) and len(parts) == 3
    numbers = numbers and all(type(part) in (int, float) and 0 <= part < math.inf for part in parts)
    if not numbers or not sum(parts) > 0:
        raise ConfigError(f"{origin}: eval_args.split {name} must be three shares, not {parts!r}")


def cold_rule(kind: str, given: Any, origin: str) -> dict[str, Any]:
    """The whole rule of a cold split, checked.

    Args:
        kind: COLD_ITEM or COLD_USER.
        given: Three shares, or a mapping with keys of :data:`COLD_DEFAULTS`.
        origin: Where it was given, for errors.

    Returns:
        All keys of :data:`COLD_DEFAULTS`, and ``kind``: item or user.

    Raises:
        ConfigError: A key is unknown or a value is of the wrong kind.
    """
    values = dict(given) if isinstance(given, Mapping) else {"share": given}
    for key in values:
        if key not in COLD_DEFAULTS:
            hint = nearest(str(key), COLD_DEFAULTS) or f"; known are {', '.join(COLD_DEFAULTS)}"
            raise ConfigError(f"{origin}: unknown key '{key}' in eval_args.split {kind}{hint}")
    rule = {**COLD_DEFAULTS, **values, "kind": COLD_KINDS[kind]}
    check_shares(rule["share"], origin, f"{kind} share")
    check_shares(rule["rest"], origin, f"{kind} rest")
    if min(rule["share"]) == 0:
        raise ConfigError(f"{origin}: eval_args.split {kind} share must have no part of 0")
    if rule["by"] not in ("random", "newest"):
        raise ConfigError(
            f"{origin}: eval_args.split {kind} by must be random or newest, not {rule['by']!r}"
        )
    for key in ("seed", "history"):
        if type(rule[key]) is not int or rule[key] < 0:
            raise ConfigError(
                f"{origin}: eval_args.split {kind} {key} must be a whole number of 0 or more, "
                f"not {rule[key]!r}"
            )
    return rule


def split_of(final: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """RecBole's part of ``eval_args.split`` and the cold rule, if there is one.

    Args:
        final: All keys, with ``eval_args`` and ``benchmark_filename``.
        origin: Where eval_args was given, for errors.

    Returns:
        (a split that RecBole knows, the rule or None).
    """
    split = final["eval_args"]["split"]
    kind = next((kind for kind in COLD_KINDS if kind in split), None)
    if kind is None:
        return split, None
    if final.get("benchmark_filename"):
        raise ConfigError(
            f"{origin}: eval_args.split {kind} cannot part files that are split already "
            "(benchmark_filename); cold_item_views: True evaluates their unseen items"
        )
    if final["eval_args"].get("group_by") != "user":
        raise ConfigError(f"{origin}: eval_args.split {kind} needs eval_args.group_by: user")
    rule = cold_rule(kind, split[kind], origin)
    return {"RS": list(rule["rest"])}, rule
