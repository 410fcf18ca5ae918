"""Encoders of the user's own: ``visual_encoder: package.module:Class``.

The class is a ``torch.nn.Module`` from normalised pictures [B, 3, S, S] to features [B, D]:

- ``Class(pretrained: bool)`` makes it, with weights of its own or random ones.
- ``image_size``, optional: the side S it was made for; 224 by default.
- ``normalisation``, optional: mean and standard deviation of each channel; ImageNet's by default.
- ``last_map(pictures)``, optional: [B, C, H, W] before pooling, for models over regions (VECF).
"""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.files.digest import file_digest
from recbole_cierec.terminal import reason
from recbole_cierec.vision.encoder import IMAGENET, Normalisation


class UserEncoder:
    """An encoder around a user's module; see :class:`recbole_cierec.vision.encoder.Encoder`.

    Args:
        name: ``package.module:Class``.
        pretrained: Passed to the class.

    Raises:
        ConfigError: The class cannot be imported or made, or is not what the package needs.
    """

    head: tuple[str, ...] = ()

    def __init__(self, name: str, pretrained: bool) -> None:
        self.name = name
        module_class = load_class(name)
        try:
            self.trunk: Any = module_class(pretrained=pretrained)
        except Exception as error:  # the user's code
            raise ConfigError(
                f"visual_encoder {name}: {module_class.__name__}(pretrained={pretrained}) fails "
                f"with {type(error).__name__} ({reason(error, 80)})"
            ) from error
        self.image_size = _side(name, getattr(self.trunk, "image_size", 224))
        self.normalisation = _checked(name, getattr(self.trunk, "normalisation", IMAGENET))
        self.source_digest = _source_digest(module_class)

    def last_map(self, pictures: Tensor) -> Tensor:
        """float32 [B, 3, S, S] -> [B, C, H, W]."""
        if not hasattr(self.trunk, "last_map"):
            raise ConfigError(
                f"visual_encoder {self.name}: it has no method last_map, which models over regions "
                "need; add it, or choose another encoder"
            )
        return self.trunk.last_map(pictures)


def load_class(name: str) -> type[nn.Module]:
    """The class of this name.

    Raises:
        ConfigError: It cannot be imported, or is no ``torch.nn.Module``.
    """
    path, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:  # as with python -m
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(path), attribute)
    except Exception as error:  # the user's code runs here
        raise ConfigError(
            f"visual_encoder {name}: cannot be imported ({reason(error, 80)}): give "
            "package.module:Class, and run where Python finds that module (or set PYTHONPATH)"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"visual_encoder {name}: is no class of torch.nn.Module")
    return found


def _source_digest(module_class: type) -> str:
    try:
        return file_digest(inspect.getfile(module_class))
    except (TypeError, OSError):  # defined in an interpreter or notebook
        return ""


def _side(name: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"visual_encoder {name}: image_size is {value!r}; give pixels, as 224")
    return value


def _checked(name: str, value: Any) -> Normalisation:
    try:
        mean, std = (tuple(map(float, numbers)) for numbers in value)
        if len(mean) == len(std) == 3 and min(std) > 0:
            return mean, std
    except (TypeError, ValueError):
        pass
    raise ConfigError(
        f"visual_encoder {name}: normalisation is {value!r}; give ((mean of R, G, B), "
        "(standard deviation of R, G, B)) of pixels in [0, 1]"
    )
