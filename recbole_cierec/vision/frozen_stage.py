"""A network cut at a named part: what comes before it stays as it is, the rest learns.

The first layers of a network trained on ImageNet see edges and textures and gain little from
further training. With ``encoder_freeze_until`` they are frozen, and as their output for a picture
never changes, it is computed once for all pictures and kept on the disk, so that a training step
runs the rest alone.
"""

from __future__ import annotations

import copy
import difflib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recbole_cierec.errors import ConfigError
from recbole_cierec.vision.encoder_weights import hashed_tensors, one_line, weights_digest
from recbole_cierec.vision.encoders import VisualEncoder
from recbole_cierec.vision.feature_shards import Shard
from recbole_cierec.vision.features import Kind, cached

TYPES = {"float16": "<f2", "float32": "<f4"}
# What layers raise on an input that is not theirs.
_MISFIT = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError)


class _Reached(Exception):
    """No error: it carries the stage's output out of the network, whose rest need not run."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class FrozenStage:
    """The part of an encoder up to and including a module of torchvision's name.

    Args:
        encoder: Its parameters up to there take no gradient from now on.
        name: E.g. ``layer3`` of a ResNet, ``features.14`` of a MobileNet.
        size: Width and height of the pictures.

    Attributes:
        rest: From the stage's output to the pooled features; it shares the encoder's parameters.

    Raises:
        ConfigError: There is no such part, nothing remains to be trained after it, or what
            follows needs more than its output.
    """

    def __init__(self, encoder: VisualEncoder, name: str, size: int) -> None:
        self.encoder, self.name = encoder, name
        parts = {part for part, _ in encoder.trunk.named_modules() if part}
        if name not in parts:
            near = difflib.get_close_matches(name, sorted(parts), n=3, cutoff=0.0)
            raise ConfigError(
                f"encoder_freeze_until: {encoder.name} has no part {name!r}; nearest: "
                f"{', '.join(near)}"
            )
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
        """uint8 pictures [B, S, S, 3] -> the stage's output [B, ...], features last.

        Feature maps are turned to [B, H, W, C] so that :meth:`inputs` need not copy them.
        """
        handle = self.encoder.trunk.get_submodule(self.name).register_forward_hook(_leave)
        training = self.encoder.training
        try:
            self.encoder.eval()(pictures)  # frozen is frozen: nothing in it drops out at random
        except _Reached as reached:
            return _features_last(reached.output)
        finally:
            handle.remove()
            self.encoder.train(training)
        raise RuntimeError(f"{self.encoder.name} does not run its part {self.name}")

    def features(self, outputs: Tensor) -> Tensor:
        """From :meth:`output` [B, ...], in any float type, to the pooled features [B, D]."""
        outputs = outputs.float()
        if outputs.ndim == 4:
            outputs = outputs.permute(0, 3, 1, 2)
        return self.encoder.run(self.rest, outputs)

    def _check_cut(self, size: int) -> None:
        """Refuse a place where something else than the stage's output goes on as well."""
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(
            0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator
        ).to(self.encoder.shift.device)
        reason = "what follows it needs more than its output"
        training = self.encoder.training
        try:
            with torch.no_grad():
                whole = self.encoder.eval()(pictures)
                joined = self.features(self.output(pictures))
            fits = bool((whole - joined).abs().max() <= 1e-4 * whole.abs().max())
        except _MISFIT as error:
            fits, reason = False, one_line(error, 80)
        finally:
            self.encoder.train(training)
        if not fits:
            raise ConfigError(
                f"encoder_freeze_until: {self.encoder.name} cannot be cut after {self.name} "
                f"({reason}); name a whole stage, such as layer3 or features.5"
            )


def _leave(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    raise _Reached(output)


def _features_last(output: Tensor) -> Tensor:
    return output.permute(0, 2, 3, 1) if output.ndim == 4 else output


def _after(module: nn.Module, path: str) -> nn.Module:
    """A copy over the same parameters in which all up to ``path`` hands its input on.

    torchvision lists the parts of a module in the order in which they run; where one does not,
    the cut is found wrong when it is tried.
    """
    first, _, deeper = path.partition(".")
    rest = copy.copy(module)
    rest._modules = dict(module._modules)
    for name in module._modules:
        if name == first:
            break
        rest._modules[name] = nn.Identity()
    rest._modules[first] = _after(module._modules[first], deeper) if deeper else nn.Identity()
    return rest


def extract_stage(
    stage: FrozenStage,
    store,
    *,
    kind: str,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool = True,
    shard: Shard | None = None,
) -> np.ndarray:
    """The stage's output for every picture of a store, from the cache where it is there.

    Args:
        stage: The cut network.
        store: :class:`recbole_cierec.vision.picture_store.PictureStore`.
        kind: One of :data:`TYPES`.
        cache_dir: Holds one folder ``stage-KEY`` for each set of pictures, frozen weights, stage
            and type.
        batch_size: Pictures computed at a time.
        device: Where to run the network.
        progress: Show a progress bar, if a person is watching.
        shard: The whole: the processes of a run, which all must call it, compute a part each.
            None: this one computes everything.

    Returns:
        [n_rows, ...] of that type, read-only, mapped from the disk.

    Raises:
        DataError: A number does not fit the type, or the cache cannot be written.
    """
    side = store.pictures.shape[1]
    blank = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)
    encode = partial(_contiguous_output, stage)
    inputs = {
        "stage": stage.name,
        "type": kind,
        "precision": "bfloat16" if stage.encoder.bfloat16 else "float32",
        # Of the frozen part alone: however the rest was trained, this output is the same.
        "weights_digest": stage.digest(),
    }
    advice = "look at encoder_weights"
    if kind == "float16":
        advice += ", or set encoder_stage_cache to float32"
    # A trainer that computes in half precision may be what asks; the key says nothing of that.
    with torch.autocast(torch.device(device).type, enabled=False):
        shape = tuple(encode(blank).shape[1:])
        what = Kind("stage", shape, TYPES[kind], encode, inputs, advice)
        return cached(what, store, stage.encoder, cache_dir, batch_size, device, progress, shard)


def _contiguous_output(stage: FrozenStage, pictures: Tensor) -> Tensor:
    return stage.output(pictures).float().contiguous()
