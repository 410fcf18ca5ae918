"""What a network gives for each picture, computed once and cached on the disk.

One cache serves pooled features, region maps (:mod:`recbole_cierec.vision.regions`) and the output
of frozen layers (:mod:`recbole_cierec.vision.frozen_trunk`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from logging import INFO, WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_cierec.distributed.world import of_first, wait_for_all, world
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.cache_folder import build_folder
from recbole_cierec.files.digest import file_digest, stamp_of
from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers
from recbole_cierec.files.locks import one_builder
from recbole_cierec.files.npy import write_npy
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.feature_files import refuse_not_finite
from recbole_cierec.vision.feature_shards import WHOLE, Parts, Shard, drop_parts

if TYPE_CHECKING:
    from recbole_cierec.vision.picture_store import PictureStore
    from recbole_cierec.vision.visual_encoder import VisualEncoder

# Raise it when the code changes the numbers for the same pictures and weights.
FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_MALFORMED = (OSError, ValueError, RecursionError)  # the last: JSON nested too deep
_LIBRARIES = ("torch", "torchvision", "timm")


class Kind(NamedTuple):
    """What is computed for each picture, and how it is kept."""

    name: str  # of the cache's folder and file
    shape: tuple[int, ...]  # of one picture
    dtype: str
    encode: Callable[[Tensor], Tensor]  # uint8 [B, S, S, 3] -> [B, *shape]
    inputs: dict[str, Any]  # what the numbers depend on besides pictures and weights
    advice: str = "look at encoder_weights"  # where a number is not finite


def extract_features(
    store: PictureStore,
    encoder: VisualEncoder,
    *,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool = True,
    shard: Shard = WHOLE,
) -> np.ndarray | None:
    """Return the features of every picture of a store, from the cache or into it.

    All processes of a run must call it; each computes a part.

    Args:
        store: The pictures, uint8 [n_rows, S, S, 3].
        encoder: The network; it is moved to ``device`` and keeps its train or eval mode.
        cache_dir: Holds one folder ``features-KEY`` for each set of pictures and weights.
        batch_size: Pictures encoded at a time.
        device: Where to run the network.
        progress: Show a progress bar on a terminal.
        shard: The part that this run computes; other runs compute the others.

    Returns:
        float32 [n_rows, out_dim], read-only, mapped from the disk; None while other shards are
        missing.

    Raises:
        ConfigError: The batch size is not positive.
        DataError: A feature is not finite, another shard cannot be used, or the cache cannot be
            written.
    """
    kind = Kind("features", (encoder.out_dim,), "<f4", encoder, {})
    return cached(kind, store, encoder, cache_dir, batch_size, device, progress, shard)


@dataclass(frozen=True)
class _Cache:
    """One cache: its place, what it must hold, and what builds it."""

    kind: Kind
    store: PictureStore
    encoder: VisualEncoder
    batch_size: int
    device: torch.device | str
    progress: bool
    inputs: dict[str, Any]
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.store.pictures), *self.kind.shape)

    @property
    def _title(self) -> str:
        name = self.kind.name.capitalize()
        return f"{name} of {len(self.store.pictures)} pictures by {self.encoder.name}"

    @property
    def file(self) -> Path:
        """The file of numbers."""
        return self.folder / f"{self.kind.name}.npy"

    def find(self, trusted: tuple[int, ...] | None = None) -> np.ndarray | None:
        """The existing numbers, if they are whole.

        Args:
            trusted: The stamp of a file whose checksum has been compared already.
        """
        if not self.folder.exists():
            return None
        try:
            features = _open(self.folder, self.kind, self.inputs, self.shape, trusted)
        except _MALFORMED as error:
            getLogger().warning(
                f"{self.kind.name.capitalize()} in {self.folder} are damaged ({error}); "
                "building them again"
            )
            return None
        CONSOLE.info(f"{self._title}: {self.folder}")
        return features

    def is_whole(self) -> bool:
        """Whether the cache exists and is undamaged."""
        try:
            _open(self.folder, self.kind, self.inputs, self.shape)
        except _MALFORMED:
            return False
        return True

    def encode(self, rows: range) -> Generator[np.ndarray, None, None]:
        """The numbers of some rows, batch by batch."""
        pictures = self.store.pictures[rows.start : rows.stop]
        return _encode(
            pictures, self.encoder, self.kind.encode, self.batch_size, self.device, self.progress
        )

    def check(self, features: np.ndarray, first: int = 0) -> None:
        """Raise a DataError where a number is not finite."""
        of = f", from row {first}" if first else ""
        name = f"{self.kind.name} of {self.encoder.name}{of}"
        refuse_not_finite(
            features, name, self.kind.advice, lambda row: self.store.item_of(first + row)
        )

    def build(self, parts: Parts | None = None) -> np.ndarray:
        """Write the cache, from parts or by computing every row."""
        kind = self.kind
        batches: Generator[np.ndarray, None, None]
        batches = self.encode(range(self.shape[0])) if parts is None else parts.blocks()
        # Of two builders the first wins: another machine may have mapped its file, which would
        # vanish from a shared disk if it were replaced.
        with build_folder(self.folder, is_valid=self.is_whole) as temporary, closing(batches):
            path = temporary / self.file.name
            digest = write_npy(path, batches, self.shape, kind.dtype)
            if parts is None:
                self.check(np.load(path, mmap_mode="r", allow_pickle=False))
            manifest = _manifest(self.inputs, self.store, kind, digest)
            if parts is not None:
                manifest["parts"] = parts.listed()
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        CONSOLE.info(f"{self._title}: built in {self.folder}")
        return np.load(self.file, mmap_mode="r", allow_pickle=False)


def cached(
    kind: Kind,
    store: PictureStore,
    encoder: VisualEncoder,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool,
    shard: Shard | None = None,
) -> np.ndarray | None:
    """Return what an encoder gives for each picture; see :func:`extract_features`.

    Args:
        shard: As there. None: this process computes everything, whatever other processes do.

    Returns:
        [n_rows, *kind.shape] of ``kind.dtype``, read-only, mapped from the disk; None while other
        shards are missing.
    """
    if batch_size < 1:
        raise ConfigError(f"encoder_batch_size: {batch_size} pictures at a time; give 1 or more")
    inputs = _inputs(store, encoder) | kind.inputs
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{kind.name}-{key}"
    for place in (folder.parent, *folder.parent.glob("*.parts")):
        clear_leftovers(place, TEMPORARY)
    cache = _Cache(kind, store, encoder, batch_size, device, progress, inputs, folder)
    alone = shard is None or shard.within(*world()).count == 1
    found = cache.find() if alone else _find_together(cache)
    if found is not None:
        drop_parts(folder)  # a run killed between joining and removing them has left some
    if shard is not None and not alone:
        return _in_parts(cache, found, shard)
    if found is not None:
        return found
    with one_builder(folder) as waited:
        found = cache.find() if waited else None
        return cache.build() if found is None else found


def _find_together(cache: _Cache) -> np.ndarray | None:
    """The existing numbers, in all processes.

    The first compares the checksum of the file, which may be large; the others do so only if they
    see another file, on a separate disk.
    """
    first = world()[0] == 0
    stamp = stamp_of(cache.file) if first else None  # before the check
    found = cache.find() if first else None
    checked = of_first(None if found is None else stamp)
    return found if first else cache.find(checked)


def _in_parts(cache: _Cache, found: np.ndarray | None, shard: Shard) -> np.ndarray | None:
    """Compute this process's part of a run's shard; the last of all joins them."""
    if wait_for_all(found is not None):
        return found
    rank, size = world()
    own = shard.within(rank, size)
    parts = Parts(cache.folder, cache.inputs, cache.shape, cache.kind.dtype, cache.batch_size, own)
    if found is None:
        _add_part(cache, parts)
    wait_for_all()
    if rank == 0 and not parts.missing():
        _join(cache, parts)
    wait_for_all()
    found = _find_together(cache)
    if found is not None:
        return found
    if shard.count == 1:  # machines without a shared disk: each computes everything
        return cache.build()
    if rank == 0:
        _log_missing(parts)
    return None


def _add_part(cache: _Cache, parts: Parts) -> None:
    if not parts.fault(parts.own):
        return
    rows = parts.rows(parts.own)
    try:
        with closing(cache.encode(rows)) as batches:
            parts.add(batches, partial(cache.check, first=rows.start))
    except DataError:
        if not cache.is_whole():  # else other machines were faster, and have removed all parts
            raise
    if cache.is_whole():  # they were faster while this part was written
        drop_parts(cache.folder)


def _join(cache: _Cache, parts: Parts) -> None:
    try:
        parts.refuse_faults()
        cache.build(parts)
    except (DataError, OSError):
        if not cache.is_whole():  # else another machine has joined and removed the parts
            raise
    drop_parts(cache.folder)


def _log_missing(parts: Parts) -> None:
    missing = parts.missing()
    names = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    text = f"{parts.folder}: {len(missing)} of {parts.count} shards are still missing ({names})"
    others = ", ".join(map(str, parts.others()))
    if others:
        text += f"; {others} holds shards of the same pictures by another network or other weights"
    getLogger().log(WARNING if others else INFO, text)


def _inputs(store: PictureStore, encoder: VisualEncoder) -> dict[str, Any]:
    """All that the numbers depend on; the cache's key is their hash."""
    own_code = {"encoder_source": encoder.source_digest} if encoder.source_digest else {}
    return {
        **own_code,
        "format_version": FORMAT_VERSION,
        "store_digest": store.digest,
        "encoder": encoder.name,
        # The current ones: a network trained since it was loaded gives other features.
        "weights_digest": encoder.digest(),
        "normalisation": [list(values) for values in encoder.normalisation],
    }


def _manifest(
    inputs: dict[str, Any], store: PictureStore, kind: Kind, digest: str
) -> dict[str, Any]:
    """What a reader of the cache may want to know, and the checksum that proves it whole."""
    return {
        **inputs,
        "rows": len(store.pictures),
        "out_dim": kind.shape[-1],
        "shape": list(kind.shape),  # of a row
        "image_size": int(store.pictures.shape[1]),
        "picture_store": store.folder.name,  # its manifest says how pictures were resized
        f"{kind.name}_sha256": digest,
        **{name: sys.modules[name].__version__ for name in _LIBRARIES if name in sys.modules},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _open(
    folder: Path,
    kind: Kind,
    inputs: dict[str, Any],
    shape: tuple[int, ...],
    trusted: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Map a whole cache; OSError or ValueError says what is wrong with a damaged one."""
    manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
    if not isinstance(manifest, dict) or any(manifest.get(k) != v for k, v in inputs.items()):
        raise ValueError(f"{_MANIFEST} describes something else")
    path = folder / f"{kind.name}.npy"
    known = trusted is not None and stamp_of(path) == trusted
    if not known and file_digest(path) != manifest.get(f"{kind.name}_sha256"):
        raise ValueError(f"{path.name} is not the file that was written")
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.shape != shape or features.dtype != np.dtype(kind.dtype):
        raise ValueError(f"{path.name} is {features.dtype} {features.shape}, not {shape}")
    return features


def _encode(
    pictures: np.ndarray,
    encoder: VisualEncoder,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    device: torch.device | str,
    progress: bool,
) -> Generator[np.ndarray, None, None]:
    """Yield what ``encode`` gives for each batch of pictures."""
    training = encoder.training
    encoder.eval().to(device)
    # disable=None: no bar unless on a terminal, so that no control codes get into a file.
    bar = tqdm(
        total=len(pictures),
        desc=f"Encode pictures with {encoder.name}",
        unit="picture",
        disable=None if progress else True,
        leave=False,
    )
    try:
        with bar:
            for start in range(0, len(pictures), batch_size):
                # A copy: a tensor cannot be read-only, as the map is.
                batch = torch.from_numpy(np.array(pictures[start : start + batch_size]))
                with torch.inference_mode():
                    features = encode(batch.to(device)).cpu().numpy()
                yield features
                bar.update(len(batch))
    finally:
        encoder.train(training)
