"""A configuration from its flags, and the message of a refused one."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError


def config(model="BPR", dataset="tiny", files=None, values=None, **flags):
    """A Config whose command line is ``flags``."""
    return Config(model, dataset, files, values, flags)


def message(*args, **kwargs) -> str:
    """The one line of the error for a refused configuration."""
    with pytest.raises(ConfigError) as caught:
        config(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)
