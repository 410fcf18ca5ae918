"""Search spaces: the ranges in ``properties/search/``, or in a user's own file.

A list holds the values to choose from; ``{low: 0.001, high: 0.1, log: true}`` is an interval, of
whole numbers for a key of that type. In a study with ``loss: softmax``, keys of
``MODEL-softmax.yaml`` replace those in ``MODEL.yaml``: the loss decides which rates are sensible,
so the user sets it and it is never searched.

The settings of trial k depend only on the ranges, the seed and k, and each key has a separate
generator. So models with the same range of a key draw the same values of it, trial by trial.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from recbole_cierec.config.config import Config
from recbole_cierec.config.keys import check_keys
from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.schema import KEYS
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.registry import MODELS

_INTERVAL = ("low", "high", "log")


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.values)

    def draw(self, chance: Random) -> Any:
        """One value, all with equal probability."""
        return chance.choice(self.values)

    def holds(self, value: Any) -> bool:
        """Whether the value is one of them."""
        return any(same(value, mine) for mine in self.values)

    def plain(self) -> Any:
        """As in a yaml file."""
        return list(self.values)


@dataclass(frozen=True)
class Interval:
    """A number from ``low`` to ``high``, both included; ``log``: uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int)

    @property
    def count(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    def draw(self, chance: Random) -> float:
        """One number."""
        if self.whole and not self.log:
            return chance.randint(int(self.low), int(self.high))
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.log:
            value = math.exp(chance.uniform(math.log(low), math.log(high)))
        else:
            value = chance.uniform(low, high)
        value = round(value) if self.whole else float(f"{value:.6g}")
        return min(max(value, self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether the value lies in it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def plain(self) -> Any:
        """As in a yaml file."""
        return {"low": self.low, "high": self.high, "log": self.log}


Space = dict[str, Choice | Interval]


def same(a: Any, b: Any) -> bool:
    """Whether two values of a setting are equal, also after conversion to JSON and back."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def range_files(config: Config) -> list[Path]:
    """The files of the project that hold the ranges of a model.

    Args:
        config: The study's configuration; its model and its loss decide.

    Returns:
        One file, or two of which the second wins.

    Raises:
        ConfigError: There is none.
    """
    folder, model = properties_dir() / "search", config["model"]
    path = folder / f"{model}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"there is no search range for {model} ({path}); name a file of your own by "
            "--search=FILE.yaml, as 'learning_rate: [0.001, 0.01]'"
        )
    softmax = folder / f"{model}-softmax.yaml"
    if model in MODELS and config["loss"] == "softmax" and softmax.is_file():
        return [path, softmax]
    return [path]


def read_space(
    config: Config, source: Iterable[Path] | Mapping[str, Any], fixed: Iterable[str] = ()
) -> Space:
    """Read ranges and check each key and each value as if a user had given it.

    Args:
        config: The study's configuration.
        source: Files, of which later ones win, or the ranges themselves.
        fixed: Keys that are not searched although a file has them.

    Returns:
        Key to range, in the order of the files.

    Raises:
        ConfigError: A key is unknown, not read by the model or not to be searched; a value is
            wrong; nothing is left to search.
    """
    found: dict[str, tuple[Any, str]] = {}
    if isinstance(source, Mapping):
        found = {key: (value, "search") for key, value in source.items()}
        source = []
    for file in source:
        found |= {key: (value, str(file)) for key, value in read_yaml(file).items()}
    if not found:
        raise ConfigError(f"{', '.join(map(str, source)) or 'search'}: holds no range")
    space = {
        key: _range(config, key, value, origin)
        for key, (value, origin) in found.items()
        if key not in set(fixed)
    }
    if not space:
        raise ConfigError(f"nothing is left to search: {', '.join(found)} are all given")
    return space


def _range(config: Config, key: str, value: Any, origin: str) -> Choice | Interval:
    # Trials with other protocols do not compare, and of other seeds the search picks the luckiest.
    if key in KEYS and not KEYS[key].may_be_searched:
        raise ConfigError(f"{origin}: '{key}' cannot be searched; give it as --{key}=VALUE")
    known = config.internal_config_dict
    unread = check_keys([(key, origin)], known, config.model, config.model_class)
    if unread:
        raise ConfigError(unread[key])

    def checked(one: Any) -> Any:
        return config.checked(key, one, origin)

    if isinstance(value, list) and value:
        values = tuple(checked(one) for one in value)
        if any(same(a, b) for k, a in enumerate(values) for b in values[:k]):
            raise ConfigError(f"{origin}: '{key}' has a value twice in {value}")
        return Choice(values)
    if isinstance(value, Mapping):
        return _interval(key, value, origin, checked)
    raise ConfigError(
        f"{origin}: '{key}' must be a list of values or {{low: , high: , log: }}, not {value!r}"
    )


def _interval(key: str, value: Mapping[str, Any], origin: str, checked: Any) -> Interval:
    for name in value:
        if name not in _INTERVAL:
            raise ConfigError(
                f"{origin}: '{key}' has the unknown part '{name}'{nearest(str(name), _INTERVAL)}"
            )
    low, high = (value.get(name) for name in ("low", "high"))
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
        raise ConfigError(f"{origin}: '{key}' needs numbers as low and high, not {dict(value)}")
    low, high, log = checked(low), checked(high), value.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{origin}: '{key}': log is true or false, not {log!r}")
    if not low < high or (log and low <= 0):
        above = "above 0 and " if log else ""
        raise ConfigError(f"{origin}: '{key}' needs a low {above}below high, not {dict(value)}")
    if isinstance(low, int) != isinstance(high, int):
        low, high = float(low), float(high)
    return Interval(low, high, log)


def defaults(space: Space, config: Config) -> dict[str, Any]:
    """The settings of trial 0: what the configuration has without any search."""
    return {key: config[key] for key in space}


def size(space: Space, first: Mapping[str, Any]) -> float:
    """How many different trials there can be, the defaults ``first`` included."""
    within = all(range_.holds(first[key]) for key, range_ in space.items())
    return math.prod(range_.count for range_ in space.values()) + (not within)


def draw(space: Space, seed: int, trial: int, attempt: int = 0) -> dict[str, Any]:
    """Settings of one trial, each key drawn by a separate generator."""
    return {
        key: range_.draw(Random(f"{seed}/{trial}/{attempt}/{key}"))  # noqa: S311 (no secret)
        for key, range_ in space.items()
    }


def draws(space: Space, seed: int, count: int, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of all trials of a random search, all different.

    Args:
        space: The ranges.
        seed: Decides the draws.
        count: How many; at most :func:`size`.
        first: Those of trial 0.

    Returns:
        Settings by trial; a longer list begins with the shorter one.
    """
    taken, settings = {json.dumps(first, sort_keys=True)}, [dict(first)]
    for trial in range(1, count):
        for attempt in range(1_000_000):
            drawn = draw(space, seed, trial, attempt)
            text = json.dumps(drawn, sort_keys=True)
            if text not in taken:
                break
        taken.add(text)
        settings.append(drawn)
    return settings
