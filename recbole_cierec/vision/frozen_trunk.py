"""A network cut after a named part: what comes before the cut is frozen, the rest learns.

The first layers of a network trained on ImageNet see edges and textures and gain little from
further training. With ``encoder_freeze_until`` they are frozen. As their output for a picture never
changes, it is computed once for all pictures and kept on the disk, so that a training step runs
only the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.terminal import reason
from recbole_cierec.vision.encoder_weights import hashed_tensors, weights_digest
from recbole_cierec.vision.feature_shards import Shard
from recbole_cierec.vision.features import Kind, cached
from recbole_cierec.vision.visual_encoder import MISFIT, VisualEncoder

if TYPE_CHECKING:
    from recbole_cierec.vision.picture_store import PictureStore

TYPES = {"float16": "<f2", "float32": "<f4"}


class _Reached(Exception):
    """No error: it carries the frozen part's output out of the network, whose rest need not run."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class FrozenTrunk:
    """The part of an encoder up to and including a named module; its parameters are frozen.

    Args:
        encoder: The whole network.
        name: The last frozen module, e.g. ``layer3`` of a ResNet, ``features.14`` of a MobileNet.
        size: Width and height of the pictures.

    Attributes:
        rest: From the frozen part's output to the pooled features; it shares the encoder's
            parameters.

    Raises:
        ConfigError: There is no such module, nothing is left to train after it, or the rest needs
            more than its output.
    """

    def __init__(self, encoder: VisualEncoder, name: str, size: int) -> None:
        self.encoder, self.name = encoder, name
        parts = {part for part, _ in encoder.trunk.named_modules() if part}
        if name not in parts:
            near = nearest(name, parts) or f"; the first are {', '.join(sorted(parts)[:3])}"
            raise ConfigError(f"encoder_freeze_until: {encoder.name} has no part {name!r}{near}")
        self.rest = _after(encoder.trunk, name)
        trained = dict(self.rest.named_parameters())
        if not trained:
            raise ConfigError(
                f"encoder_freeze_until: nothing of {encoder.name} is left to train after {name}; "
                "name an earlier part, or set encoder_training to adapter or frozen"
            )
        self._check_cut(size)
        kept = self.rest.state_dict()
        self._frozen = {key for key in hashed_tensors(encoder.trunk) if key not in kept}
        for key, parameter in encoder.trunk.named_parameters():
            parameter.requires_grad_(key in trained)

    def digest(self) -> str:
        """sha256 (hex) of the frozen tensors as they are now."""
        return weights_digest(self.encoder.trunk, self._frozen)

    @torch.no_grad()
    def output(self, pictures: Tensor) -> Tensor:
        """uint8 pictures [B, S, S, 3] -> the frozen part's output [B, ...], features last.

        Feature maps are turned to [B, H, W, C] so that :meth:`inputs` need not copy them.
        """
        handle = self.encoder.trunk.get_submodule(self.name).register_forward_hook(_leave)
        try:
            with _evaluating(self.encoder):  # nothing in the frozen part drops out at random
                self.encoder(pictures)
        except _Reached as reached:
            return _features_last(reached.output)
        finally:
            handle.remove()
        raise RuntimeError(f"{self.encoder.name} does not run its part {self.name}")

    def features(self, outputs: Tensor) -> Tensor:
        """From :meth:`output` [B, ...], in any float type, to the pooled features [B, D]."""
        outputs = outputs.float()
        if outputs.ndim == 4:
            outputs = outputs.permute(0, 3, 1, 2)
        return self.encoder.run(self.rest, outputs)

    def _check_cut(self, size: int) -> None:
        """Refuse a cut that more than the frozen part's output crosses."""
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(
            0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator
        ).to(self.encoder.shift.device)
        why = "what follows it needs more than its output"
        try:
            with torch.no_grad(), _evaluating(self.encoder):
                whole = self.encoder(pictures)
                joined = self.features(self.output(pictures))
            fits = bool((whole - joined).abs().max() <= 1e-4 * whole.abs().max())
        except MISFIT as error:
            fits, why = False, reason(error, 80)
        if not fits:
            raise ConfigError(
                f"encoder_freeze_until: {self.encoder.name} cannot be cut after {self.name} "
                f"({why}); name a whole block of layers, such as layer3 or features.5"
            )


@contextmanager
def _evaluating(encoder: VisualEncoder) -> Iterator[None]:
    training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(training)


def _leave(module: nn.Module, inputs: object, output: Tensor) -> None:
    raise _Reached(output)


def _features_last(output: Tensor) -> Tensor:
    return output.permute(0, 2, 3, 1) if output.ndim == 4 else output


def _after(module: nn.Module, path: str) -> nn.Module:
    """A copy over the same parameters in which everything up to ``path`` passes its input through.

    Most networks list the parts of a module in the order in which they run; for others the check
    of the cut fails.
    """
    first, _, deeper = path.partition(".")
    rest = copy.copy(module)
    rest._modules = dict(module._modules)
    for name in module._modules:
        if name == first:
            break
        rest._modules[name] = nn.Identity()
    rest._modules[first] = _after(module.get_submodule(first), deeper) if deeper else nn.Identity()
    return rest


def extract_frozen(
    frozen: FrozenTrunk,
    store: PictureStore,
    *,
    kind: str,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool = True,
    shard: Shard | None = None,
) -> np.ndarray:
    """The frozen part's output for every picture of a store, from the cache or into it.

    Args:
        frozen: The cut network.
        store: The pictures, uint8 [n_rows, S, S, 3].
        kind: One of :data:`TYPES`.
        cache_dir: Holds one folder ``frozen-KEY`` for each set of pictures, frozen weights, part
            and type.
        batch_size: Pictures computed at a time.
        device: Where to run the network.
        progress: Show a progress bar on a terminal.
        shard: The whole: the processes of a run, which all must call it, compute a part each.
            None: this process computes everything.

    Returns:
        [n_rows, ...] of that type, read-only, mapped from the disk.

    Raises:
        DataError: A number does not fit the type, or the cache cannot be written.
    """
    side = store.pictures.shape[1]
    blank = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)
    encode = partial(_contiguous_output, frozen)
    inputs = {
        "part": frozen.name,
        "type": kind,
        "precision": "bfloat16" if frozen.encoder.in_bfloat16 else "float32",
        # Of the frozen part alone: however the rest was trained, this output is the same.
        "weights_digest": frozen.digest(),
    }
    advice = "look at encoder_weights"
    if kind == "float16":
        advice += ", or set encoder_stage_cache to float32"
    # A trainer that computes in half precision must not affect what is cached.
    with torch.autocast(torch.device(device).type, enabled=False):
        shape = tuple(encode(blank).shape[1:])
        what = Kind("frozen", shape, TYPES[kind], encode, inputs, advice)
        rows = cached(what, store, frozen.encoder, cache_dir, batch_size, device, progress, shard)
    assert rows is not None  # noqa: S101  # only one shard of several can lack the others
    return rows


def _contiguous_output(frozen: FrozenTrunk, pictures: Tensor) -> Tensor:
    return frozen.output(pictures).float().contiguous()
