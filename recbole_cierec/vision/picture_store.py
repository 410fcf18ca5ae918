"""All pictures of a data set, decoded once into one file that is then mapped into memory.

A store is a folder ``pictures-KEY`` of the cache directory with ``pictures.npy`` and
``manifest.json``. The key is a hash of the contents of the picture files and of every parameter, so
that a changed file, size or policy leads to another folder and nothing stale can be read. A store
is built under a temporary name and renamed when it is complete, so that no incomplete store has a
final name; of two processes that need the same one, the second waits for what the first makes.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from logging import getLogger
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from recbole_cierec.errors import ConfigError, DataError, PictureError
from recbole_cierec.files.cache_folder import build_folder, no_cache
from recbole_cierec.files.digest import stamp_of
from recbole_cierec.files.leftovers import clear_leftovers
from recbole_cierec.files.locks import one_builder
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.picture_files import (
    TEMPORARY_PICTURES,
    PictureFile,
    Pool,
    Scan,
    scan_files,
)
from recbole_cierec.vision.picture_report import complaint, list_bad, warn_of_bad
from recbole_cierec.vision.pictures import DECODER_VERSION, PictureSpec, decode_picture

STORE_VERSION = 1
POLICIES = ("error", "skip", "blank")
PIXELS, MANIFEST = "pictures.npy", "manifest.json"
# Mid-grey is about zero after the usual normalisation, so that a blank carries little information
# (white would look like the background of a product picture).
BLANK_GREY = 128
BLANK = "blank"  # in the manifest, in place of a row's content hash

# What json, np.load and a manifest of another form raise.
_MALFORMED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    ArithmeticError,
    RecursionError,
)
_MOST_WORKERS = 32  # each holds one file open
# Every row has a CRC in the manifest. On opening, all rows are checked up to this many bytes (0.05
# to 0.3 s when the file is in the page cache); of a larger store, evenly spread rows of as many
# bytes, which finds truncation, zeroed stretches and a wrong file, though not every flipped bit.
_CHECKED_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class PictureStore:
    """Decoded pictures, and the row of each item.

    Args:
        pictures: uint8 [n_rows, S, S, 3], read-only, mapped from the file.
        rows: int64 [n_items], the row of each item's picture, -1 where it has none.
        blank: bool [n_items], true where a grey blank replaces a bad picture.
        digest: Hex hash of all contents and parameters.
        bad: (path, reason) of every picture that cannot be used.
        folder: Folder of the store.
        ids: External id of each item [n_items], if known.
    """

    pictures: np.memmap
    rows: np.ndarray
    blank: np.ndarray
    digest: str
    bad: list[tuple[str, str]]
    folder: Path
    ids: Sequence[str] | None = None

    def item_of(self, row: int) -> str:
        """The first item with the picture of a row, for messages: its id, else its number."""
        items = np.flatnonzero(self.rows == row)
        if not len(items):
            return "unknown"
        return str(items[0] if self.ids is None else self.ids[items[0]])


def open_store(
    root: Path,
    paths: Sequence[str],
    spec: PictureSpec,
    *,
    bad_image: str,
    cache_dir: Path,
    workers: int | None = None,
    progress: bool = True,
    ids: Sequence[str] | None = None,
) -> PictureStore:
    """Open the store of these pictures; build it if there is none.

    Args:
        root: The picture folder; no file outside it is ever read.
        paths: Per item, its picture relative to ``root``; "" for an item without picture.
        spec: How pictures are decoded.
        bad_image: ``error`` (list all bad pictures and stop), ``skip`` (such items have no
            picture) or ``blank`` (they share a grey one).
        cache_dir: Where stores are kept; made if missing.
        workers: Threads that decode; by default one a core.
        progress: Show progress bars (on a terminal only).
        ids: External id of each item, the first of which is RecBole's padding item. None: unknown,
            and no item is padding.

    Returns:
        The store. Files of equal content share a row.

    Raises:
        ConfigError: ``bad_image`` is unknown.
        DataError: A picture is bad and the policy is ``error``, the picture folder is missing, or
            the cache directory cannot be written.
    """
    if bad_image not in POLICIES:
        raise ConfigError(f"bad_image is {bad_image!r}; use one of {', '.join(POLICIES)}")
    root, cache_dir = Path(root), Path(cache_dir)
    if any(paths) and not os.path.isdir(root):
        raise DataError(f"picture folder {root} does not exist; set data_path or image_dir")
    pool = Pool(max(1, min(workers or _cores(), _MOST_WORKERS)), progress)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        clear_leftovers(cache_dir, TEMPORARY_PICTURES)
        scan = scan_files(root, paths, spec, cache_dir, pool)
        job = _Job(scan, list(paths), spec, bad_image, cache_dir, ids)
        store = _read(job)
        if store is None:
            store = _build_once(job, pool)
    except OSError as error:
        raise no_cache(cache_dir, error.strerror or str(error)) from error
    if store is None:
        raise DataError(f"{job.folder} cannot be read back after it was written; check the disk")
    _log(store, job)
    return store


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a container or batch job has
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class _Job:
    """What the store must hold."""

    scan: Scan
    paths: list[str]
    spec: PictureSpec
    policy: str
    cache_dir: Path
    ids: Sequence[str] | None = None

    @property
    def padding(self) -> int:
        """How many of the first items are padding."""
        return 0 if self.ids is None else 1

    @cached_property
    def key(self) -> str:
        described = {
            "store": STORE_VERSION,
            "decoder": DECODER_VERSION,
            "bad_image": self.policy,
            **self.spec.recipe(),
        }
        digest = sha256(json.dumps(described, sort_keys=True).encode())
        for path in self.paths:
            digest.update(f"\n{self.scan.content[path] if path else ''}".encode())
        return digest.hexdigest()

    @property
    def folder(self) -> Path:
        return self.cache_dir / f"pictures-{self.key[:16]}"

    @property
    def bad_list(self) -> Path:
        """The text file that lists bad pictures."""
        return self.cache_dir / f"bad-pictures-{self.key[:16]}.txt"

    def row_contents(self, damaged: dict[str, str]) -> list[str]:
        """Content of every row, given the contents (-> reason) that could not be decoded."""
        contents = [content for content in self.scan.sources if content not in damaged]
        blank = self.policy == "blank" and (damaged or self.scan.reasons)
        return [*contents, BLANK] if blank else contents

    def bad(self, damaged: dict[str, str]) -> list[tuple[str, str]]:
        """(path, reason) of all pictures that cannot be used, in the order of the items."""
        reasons = {
            path: self.scan.reasons.get(path) or damaged.get(content)
            for path, content in self.scan.content.items()
        }
        return [(path, reason) for path, reason in reasons.items() if reason]


# ---- building ------------------------------------------------------------------------------------


def _build_once(job: _Job, pool: Pool) -> PictureStore | None:
    with one_builder(job.folder) as waited:
        store = _read(job) if waited else None
        if store is None:
            _build(job, pool)
            store = _read(job)
    return store


def _build(job: _Job, pool: Pool) -> None:
    """Decode everything into a new store, or keep one that another process has made meanwhile."""
    needed = len(job.scan.sources) * job.spec.size**2 * 3
    free = shutil.disk_usage(job.cache_dir).free
    if needed > free:
        raise DataError(
            f"the pictures take {needed:,} bytes and cache_dir {job.cache_dir} has {free:,} free; "
            "set another cache_dir or a smaller image_size"
        )
    with build_folder(
        job.folder, prefix=TEMPORARY_PICTURES, is_valid=lambda: _read(job) is not None
    ) as temporary:
        damaged, crcs = _write_pixels(temporary / PIXELS, job, pool)
        bad = job.bad(damaged)
        if bad and job.policy == "error":
            raise DataError(complaint(bad, len(job.scan.content), list_bad(bad, job.bad_list)))
        _write_manifest(temporary / MANIFEST, job, damaged, crcs)


def _write_pixels(file: Path, job: _Job, pool: Pool) -> tuple[dict[str, str], list[int]]:
    """Write the .npy row by row, so that memory is bounded and a full disk raises OSError (a write
    to a memory map would kill the process).

    Returns:
        Contents that cannot be decoded (-> reason), and the CRC of every row.
    """
    sources = list(job.scan.sources.items())
    damaged: dict[str, str] = {}
    crcs: list[int] = []

    def decode(source: tuple[str, PictureFile]) -> tuple[np.ndarray, int] | PictureError:
        result = _decode(source[1], job.spec)
        # Here, in the threads: only writing is left to the one that reads the results.
        return result if isinstance(result, PictureError) else (result, zlib.crc32(result.data))

    def append(pixels: np.ndarray, crc: int, stream: BinaryIO) -> None:
        stream.write(pixels.data)
        crcs.append(crc)

    with (
        warnings.catch_warnings(),
        open(file, "wb") as stream,
        closing(pool.map(decode, sources, "Decoding pictures")) as results,
    ):
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about EXIF, palettes and sizes
        stream.write(_npy_header(len(sources), job.spec.size))
        for (content, _), result in zip(sources, results, strict=True):
            if isinstance(result, PictureError):
                damaged[content] = result.reason
            else:
                append(*result, stream)
        if BLANK in job.row_contents(damaged):
            grey = np.full((job.spec.size, job.spec.size, 3), BLANK_GREY, np.uint8)
            append(grey, zlib.crc32(grey.data), stream)
        stream.seek(0)
        stream.write(_npy_header(len(crcs), job.spec.size))  # now that the number is known
    return damaged, crcs


def _decode(file: PictureFile, spec: PictureSpec) -> np.ndarray | PictureError:
    """Decode a file that has not changed since it was hashed; returns a PictureError."""
    result: np.ndarray | PictureError
    try:
        result = decode_picture(Path(file.path), spec)
    except PictureError as error:
        result = error
    if stamp_of(file.path) != file.stamp:
        raise DataError(
            f"{file.relative} changed while it was read; run again when the picture folder is quiet"
        )
    return result


def _npy_header(rows: int, size: int) -> bytes:
    """Header of a .npy file; its length does not depend on the number of rows."""
    stream = BytesIO()
    shape = (rows, size, size, 3)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def _write_manifest(file: Path, job: _Job, damaged: dict[str, str], crcs: list[int]) -> None:
    bad = [
        {"path": path, "content": job.scan.content[path], "reason": reason}
        for path, reason in job.bad(damaged)
    ]
    manifest = {
        "store": STORE_VERSION,
        "key": job.key,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **job.spec.recipe(),
        "bad_image": job.policy,
        "counts": {"items": len(job.paths) - job.padding, "rows": len(crcs), "bad": len(bad)},
        "bad": bad,
        "rows": job.row_contents(damaged),
        "crc32": crcs,
    }
    file.write_bytes(json.dumps(manifest, indent=0).encode())


# ---- opening -------------------------------------------------------------------------------------


def _read(job: _Job) -> PictureStore | None:
    """Map a store into memory; None if it is missing or damaged."""
    try:
        manifest = json.loads((job.folder / MANIFEST).read_bytes())
        damaged = _check_manifest(manifest, job)
        pictures = _map_pixels(job, manifest["rows"])
        _check_rows(pictures, job.folder / PIXELS, manifest["crc32"])
    except FileNotFoundError:
        return None
    except _MALFORMED as error:
        getLogger().warning("%s is damaged (%s) and will be built again", job.folder, error)
        return None
    row_of = {content: row for row, content in enumerate(manifest["rows"])}
    contents = [job.scan.content[path] if path else None for path in job.paths]
    bad = [content is not None and content not in row_of for content in contents]
    blank = np.array(bad, dtype=bool) & (job.policy == "blank")
    rows = np.array([row_of.get(content, -1) for content in contents], dtype=np.int64)
    rows[blank] = row_of.get(BLANK, -1)
    return PictureStore(pictures, rows, blank, job.key, job.bad(damaged), job.folder, job.ids)


def _check_manifest(manifest: dict[str, Any], job: _Job) -> dict[str, str]:
    """Compare with what is needed; returns the contents that could not be decoded."""
    if manifest["key"] != job.key:
        raise ValueError("the manifest is that of another store")
    damaged = {
        entry["content"]: entry["reason"]
        for entry in manifest["bad"]
        if entry["content"] in job.scan.sources
    }
    if manifest["rows"] != job.row_contents(damaged) or (damaged and job.policy == "error"):
        raise ValueError("the manifest lists other pictures")
    if len(manifest["crc32"]) != len(manifest["rows"]):
        raise ValueError("the manifest lacks checksums")
    return damaged


def _map_pixels(job: _Job, rows: list[str]) -> np.memmap:
    file = job.folder / PIXELS
    pictures = np.load(file, mmap_mode="r", allow_pickle=False)
    shape = (len(rows), job.spec.size, job.spec.size, 3)
    if pictures.shape != shape or pictures.dtype != np.uint8 or not pictures.flags.c_contiguous:
        raise ValueError(f"{PIXELS} holds {pictures.dtype} {pictures.shape}, not uint8 {shape}")
    if file.stat().st_size != pictures.offset + pictures.nbytes:
        raise ValueError(f"{PIXELS} has {file.stat().st_size:,} bytes, not the length it states")
    return pictures


def _check_rows(pictures: np.memmap, file: Path, crcs: list[int]) -> None:
    """Compare checksums, by read(): touched pages of a map count as memory of the process."""
    row_bytes = int(np.prod(pictures.shape[1:]))
    step = max(1, -(-pictures.nbytes // _CHECKED_BYTES))
    with open(file, "rb") as stream:
        for row in range(0, len(crcs), step):
            stream.seek(pictures.offset + row * row_bytes)
            if zlib.crc32(stream.read(row_bytes)) != crcs[row]:
                raise ValueError(f"the checksum of row {row} is wrong")


def _log(store: PictureStore, job: _Job) -> None:
    CONSOLE.info(
        "Pictures: %d items, %d without picture, %d different of %d x %d pixels (%.1f MiB) in %s",
        len(job.paths) - job.padding,
        int((store.rows[job.padding :] < 0).sum()),
        *store.pictures.shape[:3],
        store.pictures.nbytes / 2**20,
        store.folder,
    )
    if store.bad:
        listed = list_bad(store.bad, job.bad_list)
        warn_of_bad(store.bad, len(job.scan.content), job.policy, listed)
