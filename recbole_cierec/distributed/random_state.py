"""State of all random generators that training draws from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def loader_generators(train_data: Any) -> list[torch.Generator]:
    """The generators of a training loader, or of the two that one over a knowledge graph has."""
    names = ("general_dataloader", "kg_dataloader")
    loaders = [train_data, *(getattr(train_data, name, None) for name in names)]
    found = (getattr(loader, "generator", None) for loader in loaders)
    return [generator for generator in found if generator is not None]


def rng_state(generators: Sequence[torch.Generator] = ()) -> dict:
    """State of every random generator that training draws from, and of the loaders'."""
    of_numpy: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = of_numpy
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    state["loaders"] = [generator.get_state() for generator in generators]
    return state


def set_rng_state(state: dict, generators: Sequence[torch.Generator] = ()) -> None:
    """Continue every generator where :func:`rng_state` found it."""
    torch.set_rng_state(state["torch"].cpu())
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        # One for each GPU that was visible; there may be fewer now.
        visible = state["cuda"][: torch.cuda.device_count()]
        torch.cuda.set_rng_state_all([s.cpu() for s in visible])
    for generator, known in zip(generators, state["loaders"], strict=bool(generators)):
        generator.set_state(known.cpu())
