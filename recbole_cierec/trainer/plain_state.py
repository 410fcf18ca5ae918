"""State of a model outside its parameters and buffers.

RecBole's models keep counters for annealing (MultiVAE), losses by diffusion step (DiffRec) and
cluster centres (NCL) as plain attributes, which ``state_dict`` leaves out. Attributes that training
changed go into the checkpoint, so that a resumed run continues exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_cierec.files.checkpoint import from_plain, to_plain

_SCALARS = (bool, int, float, str, type(None))
_LEFT_OUT = {"training", "device"}  # set by the caller


class PlainState:
    """Public attributes of a model's modules that are data: numbers, texts, tensors, arrays, and
    lists and dictionaries of these.

    Left out is what ``other_parameter_name`` lists, which RecBole's checkpoints hold separately,
    and what starts with an underscore, such as a cache.

    Args:
        model: The model as built, before any training.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        # The values are kept, so that no new object can get the id of one of them.
        self._built = {key: (_stamp(value), value) for key, value in _attributes(model)}

    def changed(self) -> dict[str, Any]:
        """Attributes that changed since the start, as ``module.name`` -> value."""
        return {
            key: to_plain(value)
            for key, value in _attributes(self._model)
            if key not in self._built or self._built[key][0] != _stamp(value)
        }

    def restore(self, state: dict[str, Any], device: torch.device | str) -> None:
        """Set the attributes that :meth:`changed` returned; tensors go to ``device``.

        Raises:
            AttributeError: The model has no such module.
            ValueError: A value is of another kind or shape than the one that it replaces.
        """
        for key, plain in state.items():
            path, _, name = key.rpartition(".")
            module, value = self._model.get_submodule(path), from_plain(plain, device)
            old = getattr(module, name, None)
            # A zero can be the placeholder of a tensor that training makes, as in RaCT.
            placeholder = _form(old) == "a number" and old == 0 and isinstance(value, Tensor)
            if old is not None and not placeholder and _form(old) != _form(value):
                raise ValueError(f"{key} is {_form(value)}, not {_form(old)}")
            setattr(module, name, value)


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        apart = _LEFT_OUT | set(getattr(module, "other_parameter_name", None) or ())
        for name, value in vars(module).items():
            if not name.startswith("_") and name not in apart and _is_data(value):
                yield f"{path}.{name}" if path else name, value


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_is_data, value.values()))
    if isinstance(value, list):
        return all(map(_is_data, value))
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return isinstance(value, (*_SCALARS, Tensor, np.generic))


def _form(value: Any) -> str:
    """The kind of a value, and the shape of a tensor or array."""
    if isinstance(value, (bool, int, float)):
        return "a number"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {list(shape)}"


def _stamp(value: Any) -> Any:
    """Equal for two values if the second is the first, unchanged."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).data)
    if isinstance(value, dict):
        return {key: _stamp(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_stamp(part) for part in value]
    return type(value), repr(value)  # nan equals nan
