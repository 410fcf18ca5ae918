"""Reading of yaml files and of the command line: data only, nothing is ever evaluated.

RecBole hands command-line values to Python's ``eval``. Here they are YAML, by the rules of YAML 1.2
(``yes`` and ``off`` are words, ``010`` and ``12:30`` are not numbers), with two habits of RecBole's
users kept: ``1e-3`` is a number and a bare ``None`` is null.

A few lines of aliases (``*name``) can expand to billions of values, so values are counted before
any is constructed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from recbole_cierec.errors import ConfigError

_NULL = ("~", "null", "Null", "NULL", "None")
_MOST_BYTES = 2**20  # of a file; PyYAML reads 100 kB a second
_MOST_VALUES = 10_000  # of a text, after expansion
# The empty string means "no GPU" to RecBole; for any other key it is a typing error.
_MAY_BE_EMPTY = frozenset({"gpu_id"})


class TooManyValuesError(yaml.MarkedYAMLError):
    """A text expands to too many values."""


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values below a node after expansion, cut off just above the limit.

    A long text counts as several, because it may be printed.

    Args:
        node: Any node.
        known: Counts by the id of nodes; a node within itself counts as above the limit.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value) // 100
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        total = 1 + sum(_count_values(part, known) for part in parts)
        known[id(node)] = min(total, _MOST_VALUES + 1)
    return known[id(node)]


class SafeYamlLoader(yaml.SafeLoader):
    """A safe loader with its own rules for plain scalars; a repeated key is an error.

    It starts from an empty table of rules, so neither PyYAML's loaders nor RecBole's change.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # PyYAML's stubs err

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > _MOST_VALUES:
            raise TooManyValuesError(
                None,
                None,
                f"expands to more than {_MOST_VALUES:,} values, with aliases (*name) expanded; "
                "shorten it",
                node.start_mark,
            )
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 2**64:  # Python cannot print those of some thousand digits
            raise yaml.constructor.ConstructorError(
                None, None, "a whole number of more than 64 bits", node.start_mark
            )
        return value

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return node


SafeYamlLoader.add_constructor("tag:yaml.org,2002:int", SafeYamlLoader.construct_yaml_int)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|None|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    SafeYamlLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first
    )


def _load(text: str) -> Any:
    loader = SafeYamlLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


@lru_cache(maxsize=32)
def _load_once(text: str) -> Any:
    """The value of a file's text, shared: half the time of a Config is PyYAML's."""
    return _load(text)


def parse_value(text: str) -> Any:
    """Read one command-line value as YAML.

    Text that is no valid YAML, such as RecBole's interval ``[5,inf)``, stays a string, and so does
    text that YAML would only shorten (``a # b``, ``...``).

    Args:
        text: What follows ``--key=``.

    Returns:
        A number, truth value, None, list, dict or string.

    Raises:
        ConfigError: It expands to too many values.
    """
    try:
        value = _load(text)
    except TooManyValuesError as error:
        raise ConfigError(f"'{text[:60]}...': {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if value is None and text.strip() not in _NULL:
        return text
    if isinstance(value, str) and text.strip()[:1] not in ("'", '"'):
        return text
    return value


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a yaml file that holds one mapping; an empty file is an empty mapping.

    Returns:
        Key to value.

    Raises:
        ConfigError: If the file is missing, unreadable, no YAML or no mapping of names.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{path}: more than {_MOST_BYTES:,} bytes, too long for a yaml file")
        values = deepcopy(_load_once(content.decode("utf-8-sig")))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such configuration file") from error
    except ConfigError:
        raise
    except TooManyValuesError as error:
        raise ConfigError(f"{path}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as a yaml file ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold lines 'key: value', not a {type(values).__name__}")
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is not a name")
    return values


def parse_command_line(argv: Sequence[str]) -> dict[str, str]:
    """Split ``--key=value`` and ``--key value`` into keys and texts.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        Key to text, in order; :func:`parse_value` reads the texts.

    Raises:
        ConfigError: For an argument that is no flag, a flag without value, or a flag with two
            different values.
    """
    flags: dict[str, str] = {}
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or argument in ("--",) or argument.startswith("--="):
            raise ConfigError(
                f"command line: '{argument}' is not of the form --key=value"
                " (quote values that contain blanks)"
            )
        key, equals, value = argument[2:].partition("=")
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        if not value.strip() and not (equals and key in _MAY_BE_EMPTY):
            raise ConfigError(f"command line: --{key} has no value; write --{key}=VALUE")
        if flags.setdefault(key, value) != value:
            raise ConfigError(
                f"command line: --{key} is given twice, as '{flags[key]}' and as '{value}'"
            )
    return flags
