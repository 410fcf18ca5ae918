"""Hashes of picture files, kept between runs, so that only new and changed files are read."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from logging import getLogger
from pathlib import Path

import numpy as np

from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.digest import Stamp
from recbole_cierec.files.npy import read_npz

# A file that changes within the clock tick in which it was hashed keeps its time stamp; FAT ticks
# every 2 s. Files as young as that are hashed again the next time.
_YOUNG_NS = 2_000_000_000


class PictureIndex:
    """Content hashes by relative path, valid as long as a file's stamp stays the same.

    Kept as plain arrays in an .npz; one that cannot be read is ignored and replaced.

    Args:
        cache_dir: Where the index is.
        root: The picture folder; each has an index of its own.
        prefix: Start of the names of temporary files.
    """

    def __init__(self, cache_dir: Path, root: Path, prefix: str) -> None:
        name = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self.file, self._prefix = cache_dir / f"picture-hashes-{name}.npz", prefix
        self.content: dict[str, str] = {}  # path -> sha256 (hex)
        self._stamps: dict[str, Stamp] = {}
        self._young: set[str] = set()
        self._changed = False
        with suppress(FileNotFoundError):
            self._load()

    def _load(self) -> None:
        try:
            arrays = read_npz(self.file)
            names = arrays["names"].tobytes().decode("utf-8", "surrogatepass").split("\0")
            stamps, hashes = arrays["stamps"], arrays["hashes"]
            if stamps.shape != (len(names), 4) or hashes.shape != (len(names), 32):
                raise ValueError("lengths differ")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, LookupError) as error:
            getLogger().warning("%s is damaged (%s): all pictures are hashed", self.file, error)
            return
        self._stamps = dict(zip(names, map(tuple, stamps.tolist()), strict=True))
        self.content = {name: row.tobytes().hex() for name, row in zip(names, hashes, strict=True)}

    def knows(self, path: str, stamp: Stamp) -> bool:
        """Whether the file has not changed since it was hashed."""
        return self._stamps.get(path) == stamp

    def put(self, path: str, stamp: Stamp, content: str, began: int) -> None:
        """Note a hash, of a file whose reading began at that time (ns)."""
        self.content[path], self._stamps[path] = content, stamp
        self._changed = True
        if max(stamp[1:3]) > began - _YOUNG_NS:
            self._young.add(path)

    def save(self) -> None:
        """Write what has changed, except for files too young to be recognised again.

        Raises:
            OutputError: It cannot be written.
        """
        names = [name for name in self.content if name not in self._young]
        if not self._changed or not names:
            return
        encoded = "\0".join(names).encode("utf-8", "surrogatepass")
        hashes = bytes.fromhex("".join(self.content[name] for name in names))
        with replacing(self.file, self._prefix) as stream:
            np.savez(
                stream,
                names=np.frombuffer(encoded, np.uint8),
                stamps=np.array([self._stamps[name] for name in names], np.int64),
                hashes=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            )
