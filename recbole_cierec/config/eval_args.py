"""``eval_args``: its four keys, the split, and what RecBole is given of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_cierec.config.yaml import parse_value
from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.evaluation.cold_split import COLD_KINDS, ColdSplit, check_shares
from recbole_cierec.evaluation.eval_mode import EvalMode

_KEYS = ("split", "order", "group_by", "mode")
_COMPLETE = {"split": {"RS": [1, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}
_LEAVE_ONE_OUT = "valid_and_test"


def checked_eval_args(value: Any, origin: str) -> dict[str, Any]:
    """The keys of ``eval_args`` that one place gives; the others come from other places.

    Args:
        value: A mapping, or its text.
        origin: Where it was given, for errors.

    Raises:
        ConfigError: A key is unknown or a value is of the wrong kind.
    """
    args = parse_value(value) if isinstance(value, str) else value
    if not isinstance(args, Mapping):
        raise ConfigError(f"{origin}: 'eval_args' must be a mapping, not {args!r}")
    _check({**_COMPLETE, **args}, origin)
    return dict(args)


def _check(args: Mapping[str, Any], origin: str) -> None:
    for key in args:
        if key not in _KEYS:
            hint = nearest(str(key), _KEYS) or f"; known are {', '.join(_KEYS)}"
            raise ConfigError(f"{origin}: unknown key '{key}' in eval_args{hint}")
    _check_split(args["split"], origin)
    for key, choices in (("order", ("TO", "RO")), ("group_by", ("user", "none", None))):
        if args[key] not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice)
            raise ConfigError(
                f"{origin}: eval_args.{key} must be one of {listed}, not {args[key]!r}"
            )
    _check_modes(args["mode"], origin)


def _check_split(split: Any, origin: str) -> None:
    if not isinstance(split, Mapping) or len(split) != 1:
        raise ConfigError(
            f"{origin}: eval_args.split must be {{RS: [train, valid, test]}}, "
            f"{{LS: valid_and_test}}, {{COLD_ITEM: [...]}} or {{COLD_USER: [...]}}, not {split!r}"
        )
    ((kind, parts),) = split.items()
    if kind == "RS":
        check_shares(parts, origin, "RS")
    elif kind == "LS":
        if parts != _LEAVE_ONE_OUT:
            raise ConfigError(
                f"{origin}: eval_args.split LS must be {_LEAVE_ONE_OUT}, not {parts!r}: validation "
                "chooses the epoch and the test is reported"
            )
    elif kind in COLD_KINDS:
        ColdSplit.parse(kind, parts, origin)
    else:
        raise ConfigError(
            f"{origin}: eval_args.split must be RS, LS, {' or '.join(COLD_KINDS)}, not '{kind}'"
        )


def _check_modes(modes: Any, origin: str) -> None:
    if isinstance(modes, Mapping):
        for phase in modes:
            if phase not in ("valid", "test"):
                raise ConfigError(f"{origin}: eval_args.mode takes valid and test, not '{phase}'")
    for mode in modes.values() if isinstance(modes, Mapping) else [modes]:
        try:
            EvalMode.parse(mode)
        except ValueError:
            raise ConfigError(
                f"{origin}: eval_args.mode must be full, labeled, uniN or popN (N negatives for"
                f" each positive, as uni100) or userN (N for each user), not {mode!r}"
            ) from None


def divide_split(
    final: Mapping[str, Any], origin: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Divide ``eval_args.split`` into RecBole's part and the cold split.

    Args:
        final: All keys, with ``eval_args`` and ``benchmark_filename``.
        origin: Where eval_args was given, for errors.

    Returns:
        (a split that RecBole knows, the value of ``strict_cold``).

    Raises:
        ConfigError: A cold split contradicts another key, or a part of RS has no share.
    """
    split = final["eval_args"]["split"]
    name = next((name for name in COLD_KINDS if name in split), None)
    if name is None:
        if 0 in split.get("RS", ()) and not final.get("benchmark_filename"):
            raise ConfigError(
                f"{origin}: eval_args.split {split} leaves a part empty; validation chooses the "
                "epoch and the test is reported, so give each part a share"
            )
        return split, None
    if final.get("benchmark_filename"):
        raise ConfigError(
            f"{origin}: eval_args.split {name} cannot divide files that are split already "
            "(benchmark_filename); cold_item_views: True evaluates their unseen items"
        )
    if final["eval_args"].get("group_by") != "user":
        raise ConfigError(f"{origin}: eval_args.split {name} needs eval_args.group_by: user")
    rule = ColdSplit.parse(name, split[name], origin)
    return {"RS": list(rule.rest)}, rule.plain()
