"""Strict cold start: some items, or users, are held out of training entirely.

::

    eval_args: {split: {COLD_ITEM: [0.8, 0.1, 0.1]}}                     # shares of the items
    eval_args: {split: {COLD_USER: {share: [0.8, 0.1, 0.1], seed: 7}}}   # shares of the users

``COLD_ITEM`` splits the *items* into warm, validation and test items; every interaction of a
held-out item goes to its phase. Interactions of warm items are split as usual (``rest``), so each
phase has cold and warm positives. ``COLD_USER`` does the same with users. The first ``history``
interactions of a held-out user are known to every model, but neither trained on nor targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from recbole_cierec.errors import ConfigError, nearest

WARM, VALID, TEST = 0, 1, 2
COLD_KINDS = {"COLD_ITEM": "item", "COLD_USER": "user"}
EIGHT_ONE_ONE = (0.8, 0.1, 0.1)


def check_shares(parts: Any, origin: str, name: str) -> None:
    """Refuse anything but three shares that are not negative and not all zero.

    Raises:
        ConfigError: With a message that begins with ``origin``.
    """
    numbers = isinstance(parts, Sequence) and not isinstance(parts, str) and len(parts) == 3
    numbers = numbers and all(type(part) in (int, float) and 0 <= part < math.inf for part in parts)
    if not numbers or not sum(parts) > 0:
        raise ConfigError(f"{origin}: eval_args.split {name} must be three shares, not {parts!r}")


@dataclass(frozen=True)
class ColdSplit:
    """The rule of a cold split.

    Attributes:
        kind: ``item`` or ``user``.
        share: Shares of items or users for training, validation and test.
        by: ``random``, or ``newest``: hold out those that occur first at the latest times.
        seed: Seed of the random choice.
        rest: Shares of the split of all interactions that are not held out.
        history: With ``user``: number of first interactions that are known and not targets.
    """

    kind: str
    share: tuple[float, ...] = EIGHT_ONE_ONE
    by: str = "random"
    seed: int = 2020
    rest: tuple[float, ...] = EIGHT_ONE_ONE
    history: int = 1

    @classmethod
    def parse(cls, name: str, given: Any, origin: str) -> ColdSplit:
        """The rule in a configuration.

        Args:
            name: COLD_ITEM or COLD_USER.
            given: Three shares, or a mapping with attributes of this class.
            origin: Where it was set, for errors.

        Raises:
            ConfigError: A key is unknown or a value is of the wrong kind.
        """
        values = dict(given) if isinstance(given, Mapping) else {"share": given}
        known = [field.name for field in fields(cls) if field.name != "kind"]
        for key in values:
            if key not in known:
                hint = nearest(str(key), known) or f"; known are {', '.join(known)}"
                raise ConfigError(f"{origin}: unknown key '{key}' in eval_args.split {name}{hint}")
        rule = cls(COLD_KINDS[name], **values)
        check_shares(rule.share, origin, f"{name} share")
        check_shares(rule.rest, origin, f"{name} rest")
        if min(rule.share) == 0:
            raise ConfigError(f"{origin}: eval_args.split {name} share must have no part of 0")
        if rule.by not in ("random", "newest"):
            raise ConfigError(
                f"{origin}: eval_args.split {name} by must be random or newest, not {rule.by!r}"
            )
        for key in ("seed", "history"):
            value = getattr(rule, key)
            if type(value) is not int or value < 0:
                raise ConfigError(
                    f"{origin}: eval_args.split {name} {key} must be a whole number of 0 or more, "
                    f"not {value!r}"
                )
        return cls(**{**asdict(rule), "share": tuple(rule.share), "rest": tuple(rule.rest)})

    @classmethod
    def of(cls, config: Any) -> ColdSplit | None:
        """The rule of a run; None without a cold split."""
        rule = config["strict_cold"]
        if not rule:
            return None
        return cls(**{**rule, "share": tuple(rule["share"]), "rest": tuple(rule["rest"])})

    def plain(self) -> dict[str, Any]:
        """The rule as plain values, as configuration and checkpoints store it."""
        return {**asdict(self), "share": list(self.share), "rest": list(self.rest)}


def hold_out(counts: np.ndarray, times: np.ndarray | None, rule: ColdSplit) -> np.ndarray:
    """The phase of each item or user.

    Args:
        counts: Interactions [n]; row 0 is RecBole's padding.
        times: Times of the first interaction [n], for ``by: newest``.
        rule: Only ``share``, ``by`` and ``seed`` are used.

    Returns:
        int8 [n] of WARM, VALID, TEST; with ``by: newest`` TEST is the latest.
    """
    real = np.flatnonzero(counts > 0)
    if rule.by == "newest" and times is not None:
        order = real[np.argsort(times[real], kind="stable")]
    else:
        order = np.random.default_rng(rule.seed).permutation(real)
    share = np.cumsum(rule.share) / np.sum(rule.share)
    first, second = (round(len(order) * part) for part in share[:2])
    phase = np.zeros(len(counts), dtype=np.int8)
    phase[order[first:second]] = VALID
    phase[order[second:]] = TEST
    return phase


def first_times(ids: np.ndarray, times: np.ndarray, n: int) -> np.ndarray:
    """The earliest time [n] of each id; inf for ids that do not occur."""
    first = np.full(n, np.inf)
    np.minimum.at(first, ids, times)
    return first
