"""Features of pictures: computed once and cached on disk, or read from a ready-made file.

The cache is one for pooled features and for region maps (:mod:`recbole_cierec.data.regions`).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from datetime import datetime, timezone
from itertools import chain
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_cierec.data.cache_folder import build_folder
from recbole_cierec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recbole_cierec.data.picture_store import PictureStore
    from recbole_cierec.model.encoders import VisualEncoder

# Raise it when the code changes the numbers for the same pictures and weights.
FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_CHUNK = 1 << 24  # numbers looked at in one go
_BYTES = 1 << 22  # bytes hashed in one go


class Kind(NamedTuple):
    """What is computed of each picture, and how it is kept."""

    name: str  # of the cache's folder and file
    shape: tuple[int, ...]  # of one picture
    dtype: str
    encode: Callable[[Tensor], Tensor]  # uint8 [B, S, S, 3] -> [B, *shape]
    inputs: dict[str, Any]  # what the numbers depend on beside pictures and weights
    advice: str = "look at encoder_weights"  # where a number is not finite


def extract_features(
    store: PictureStore,
    encoder: VisualEncoder,
    *,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool = True,
) -> np.ndarray:
    """Return the features of every picture of a store, from the cache where they are there.

    Args:
        store: The pictures, uint8 [n_rows, S, S, 3].
        encoder: The network; it is moved to ``device``, its train or eval mode is kept.
        cache_dir: Holds one folder ``features-KEY`` for each set of pictures and weights.
        batch_size: Pictures encoded at a time.
        device: Where to run the network.
        progress: Show a progress bar, if a person is watching.

    Returns:
        float32 [n_rows, out_dim], read-only, mapped from the disk.

    Raises:
        ConfigError: The batch size is not positive.
        DataError: A feature is not finite, or the cache cannot be written.
    """
    kind = Kind("features", (encoder.out_dim,), "<f4", encoder, {})
    return cached(kind, store, encoder, cache_dir, batch_size, device, progress)


def cached(
    kind: Kind,
    store: PictureStore,
    encoder: VisualEncoder,
    cache_dir: Path,
    batch_size: int,
    device: torch.device | str,
    progress: bool,
) -> np.ndarray:
    """Return what an encoder gives for each picture; see :func:`extract_features`.

    Returns:
        [n_rows, *kind.shape] of ``kind.dtype``, read-only, mapped from the disk.
    """
    if batch_size < 1:
        raise ConfigError(f"encoder_batch_size: {batch_size} pictures at a time; give 1 or more")
    inputs = _inputs(store, encoder) | kind.inputs
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{kind.name}-{key}"
    title = f"{kind.name.capitalize()} of {len(store.pictures)} pictures by {encoder.name}"
    shape = (len(store.pictures), *kind.shape)
    if folder.exists():
        try:
            features = _open(folder, kind, inputs, shape)
        except (OSError, ValueError) as error:
            getLogger().warning(
                f"{kind.name.capitalize()} in {folder} are damaged ({error}); building them again"
            )
        else:
            getLogger().info(f"{title}: {folder}")
            return features
    batches = _encode(store.pictures, encoder, kind.encode, batch_size, device, progress)
    with build_folder(folder) as temporary, closing(batches):
        path = temporary / f"{kind.name}.npy"
        digest = _write(path, batches, shape, kind.dtype)
        features = np.load(path, mmap_mode="r", allow_pickle=False)
        refuse_not_finite(features, f"{kind.name} of {encoder.name}", kind.advice)
        manifest = _manifest(inputs, store, encoder, kind, digest)
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    getLogger().info(f"{title}: built in {folder}")
    return features  # the map stays valid whatever happens to the folder's name


def _inputs(store: PictureStore, encoder: VisualEncoder) -> dict[str, Any]:
    """Return all that the numbers depend on; the cache's key is made of it."""
    return {
        "format_version": FORMAT_VERSION,
        "store_digest": store.digest,
        "encoder": encoder.name,
        # As they are now: a network trained since it was loaded gives other features.
        "weights_digest": encoder.digest(),
        "normalisation": [list(values) for values in encoder.normalisation],
    }


def _manifest(
    inputs: dict[str, Any], store: PictureStore, encoder: VisualEncoder, kind: Kind, digest: str
) -> dict[str, Any]:
    """Return what a reader of the cache may want to know, and what proves it whole."""
    import torchvision  # an encoder is here, so torchvision is

    return {
        **inputs,
        "rows": len(store.pictures),
        "out_dim": kind.shape[-1],
        "shape": list(kind.shape),  # of a row
        "image_size": int(store.pictures.shape[1]),
        "picture_store": store.folder.name,  # its manifest says how pictures were resized
        f"{kind.name}_sha256": digest,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _open(
    folder: Path, kind: Kind, inputs: dict[str, Any], shape: tuple[int, ...]
) -> np.ndarray:
    """Open a cache that is whole; raise OSError or ValueError saying what is wrong with it."""
    manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
    if not isinstance(manifest, dict) or any(manifest.get(k) != v for k, v in inputs.items()):
        raise ValueError(f"{_MANIFEST} describes something else")
    path, digest = folder / f"{kind.name}.npy", hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    if digest.hexdigest() != manifest.get(f"{kind.name}_sha256"):
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
    """Yield what ``encode`` gives for one batch of pictures after the other."""
    training = encoder.training
    encoder.eval().to(device)
    # disable=None: no bar where the output is no terminal, and so no control codes in a file.
    bar = tqdm(
        total=len(pictures),
        desc=f"Encode pictures with {encoder.name}",
        unit="picture",
        disable=None if progress else True,
    )
    try:
        with bar:
            for start in range(0, len(pictures), batch_size):
                # A copy: the map is read-only, which a tensor cannot be.
                batch = torch.from_numpy(np.array(pictures[start : start + batch_size]))
                with torch.inference_mode():
                    features = encode(batch.to(device)).cpu().numpy()
                yield features
                bar.update(len(batch))
    finally:
        encoder.train(training)


def _write(
    path: Path, batches: Iterable[np.ndarray], shape: tuple[int, ...], dtype: str
) -> str:
    """Write batches as one .npy file and return its sha256 (hex).

    Written, not mapped: a full disk is then an error, where a write to a map kills the process.
    """
    header = io.BytesIO()
    form = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
            for block in chain([header.getvalue()], (b.astype(dtype).tobytes() for b in batches)):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def load_feature_file(path: Path, n_rows: int) -> np.ndarray:
    """Read ready-made features.

    Args:
        path: A .npy file, [n_rows, D] of a real number type; row k belongs to the k-th data line
            of NAME.item.
        n_rows: Number of data lines of NAME.item.

    Returns:
        float32 [n_rows, D]; mapped from the disk, read-only, where the file is float32 already.

    Raises:
        DataError: The file is missing or no .npy file, holds Python objects or another shape, or a
            number in it is not finite.
    """
    path = Path(path)
    features = read_rows(path, n_rows)
    if features.ndim != 2 or features.shape[1] == 0:
        raise DataError(
            f"features_file {path}: has shape {features.shape}; give [rows of NAME.item, features]"
        )
    if features.dtype != np.float32:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that below
            features = features.astype(np.float32)
    refuse_not_finite(features, f"features_file {path}", "mend or drop those items")
    return features


def read_rows(path: Path, n_rows: int) -> np.ndarray:
    """Map a .npy file of real numbers with a row for each data line of NAME.item.

    Raises:
        DataError: It is anything else, in one line.
    """
    features = _read_npy(path)
    if features.ndim and len(features) != n_rows:
        raise DataError(
            f"features_file {path}: has {len(features)} rows, but the .item file has {n_rows} "
            "data lines; row k must belong to data line k"
        )
    if features.dtype.kind not in "fiu":
        raise DataError(f"features_file {path}: holds {features.dtype}; save it as float32")
    return features


def _read_npy(path: Path) -> np.ndarray:
    """Map a .npy file; anything else is a DataError in one line."""
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise DataError(f"features_file {path}: cannot be read ({error.strerror})") from error
    if magic != b"\x93NUMPY":
        raise DataError(f"features_file {path}: is no .npy file; write it with numpy.save")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy fails in many ways on a damaged header
        reason = " ".join(str(error).split())
        raise DataError(
            f"features_file {path}: cannot be read ({reason}); write a plain array of float32 "
            "with numpy.save"
        ) from error


def refuse_not_finite(features: np.ndarray, what: str, advice: str) -> None:
    """Raise a DataError that names the first rows with NaN or infinity."""
    rows: list[int] = []
    step = max(1, _CHUNK // max(1, features[:1].size))
    for start in range(0, len(features), step):
        finite = np.isfinite(features[start : start + step]).reshape(-1, features[:1].size)
        finite = finite.all(axis=1)
        rows += (start + np.flatnonzero(~finite)).tolist()
    if rows:
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(
            f"{what}: {len(rows)} of {len(features)} rows hold NaN or infinity "
            f"(counted from 0: {named}); {advice}"
        )
