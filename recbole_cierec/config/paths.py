"""Text that no key can hold: NUL bytes, over-long names, a folder where a file must be.

The system refuses such a path late, and with a different exception for each kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_cierec.config.schema.key import Key
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import shown

LONGEST_TEXT, LONGEST_NAME = 4095, 255  # bytes that Linux takes in a path and in one part of it
CHECKPOINT = "checkpoint"  # the origin of stored keys, whose files may be needless
LONGEST_WORD = 128  # of a model's or data set's name, which becomes part of file names


def given_path(name: str, value: Any) -> Path:
    """An argument that is a path.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} must be a path, not {shown(value)}")
    return Path(value)


def given_files(name: str, value: Any) -> list[Path]:
    """An argument that is a path, several, or None.

    Raises:
        ConfigError: It is something else.
    """
    if value is None or isinstance(value, str | os.PathLike):
        value = [] if value is None else [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ConfigError(f"{name} must be paths, not {shown(value)}")
    return [given_path(name, one) for one in value]


def check_text(key: str, value: Any, origin: str) -> None:
    """Refuse text, at any depth of a value, that can be neither a name nor a path.

    Raises:
        ConfigError: It holds a NUL byte or is too long.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        for part in value:
            check_text(key, part, origin)
    if not isinstance(value, str):
        return
    if "\0" in value:
        raise ConfigError(f"{origin}: '{key}' holds a NUL byte")
    most = LONGEST_WORD if key in ("model", "dataset") else LONGEST_TEXT
    if len(_encoded(value)) > most:
        raise ConfigError(f"{origin}: '{key}' holds {len(value)} characters, '{value[:20]}...'")


def check_path(key: Key, value: Any, origin: str) -> None:
    """Refuse a path with an over-long part, a folder where a file must be, and the reverse.

    A path that does not exist passes unless the run reads it, and so does a key that holds no path.

    Raises:
        ConfigError: In one line.
    """
    if key.path is None or not isinstance(value, str) or not value or value in key.words:
        return
    if any(len(_encoded(part)) > LONGEST_NAME for part in Path(value).parts):
        raise ConfigError(f"{origin}: '{key.name}' has a part longer than {LONGEST_NAME} bytes")
    value = os.path.expanduser(value)
    if key.path == "file" and os.path.isdir(value):
        raise ConfigError(f"{origin}: '{key.name}' must be a file, and {value} is a folder")
    if key.path == "folder" and os.path.isfile(value):
        raise ConfigError(f"{origin}: '{key.name}' must be a folder, and {value} is a file")
    if key.exists and origin != CHECKPOINT and not os.path.exists(value):
        either = (
            f"neither {', nor '.join(key.words)}, nor a file"
            if key.words
            else f"no such {key.path}"
        )
        raise ConfigError(f"{origin}: '{key.name}': {value} is {either}")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
