"""Text that no key can hold: NUL bytes, over-long names, a folder where a file must be.

The system refuses such a path late, and in an exception of its own for each kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_cierec.errors import ConfigError

FOLDERS = frozenset("data_path checkpoint_dir cache_dir image_dir".split())
FILES = frozenset("features_file candidates_file resume pretrained word_vectors".split())
_OTHER_PATHS = frozenset(  # weights that models of RecBole, or a network, start from
    "encoder_weights pre_model_path pretrain_path mf_pretrain_path mlp_pretrain_path"
    " warm_up".split()
)
LONGEST_TEXT, LONGEST_NAME = 4095, 255  # bytes that Linux takes in a path and in one part of it
LONGEST_WORD = 128  # of a model's or data set's name, which names of files are made of


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
    is_path = key in FOLDERS or key in FILES or key in _OTHER_PATHS
    if is_path and any(len(_encoded(part)) > LONGEST_NAME for part in Path(value).parts):
        raise ConfigError(f"{origin}: '{key}' has a part longer than {LONGEST_NAME} bytes")


def check_kind(key: str, value: Any, origin: str) -> None:
    """Refuse a folder where a file must be, and the reverse; what does not exist passes.

    Raises:
        ConfigError: It is of the other kind.
    """
    if not isinstance(value, str) or not value:
        return
    if key in FILES and os.path.isdir(value) and (key, value) != ("resume", "auto"):
        raise ConfigError(f"{origin}: '{key}' must be a file, and {value} is a folder")
    if key in FOLDERS and os.path.isfile(value):
        raise ConfigError(f"{origin}: '{key}' must be a folder, and {value} is a file")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
