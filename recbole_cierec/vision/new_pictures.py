"""Pictures of items that came after training, after those of the known items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.errors import ConfigError, DataError, PictureError
from recbole_cierec.vision.feature_files import load_feature_file
from recbole_cierec.vision.given_features import GivenFeatures
from recbole_cierec.vision.item_pictures import ItemPictures
from recbole_cierec.vision.regions import RegionMaps, load_region_file


class NewPictures:
    """Like :class:`recbole_cierec.vision.item_pictures.ItemPictures`, with rows for new items.

    Normalisation is that of the known pictures.

    Args:
        known: The pictures of the known items.
        paths: Picture of each new item [m]; "" for none.
        folders: Where relative paths are looked for, in this order.
        features: A .npy file with a row for each new item, in place of their pictures.
        ids: External id of each new item [m].
        places: Where each was given [m], for messages; "" where its path says it.
    """

    def __init__(
        self,
        known: ItemPictures,
        paths: Sequence[str],
        folders: Sequence[Path],
        features: Path | None,
        ids: Sequence[str],
        places: Sequence[str],
    ) -> None:
        self._known, self._paths, self._folders = known, paths, folders
        self._file, self._ids, self._places = features, ids, places

    def __getattr__(self, name: str) -> Any:
        """The encoder, the store and so on are those of the known pictures."""
        return getattr(self._known, name)

    @property
    def were_read(self) -> bool:
        """Whether the model has read pooled features."""
        return "features" in vars(self)

    @cached_property
    def has_picture(self) -> Tensor:
        """bool [n_items]."""
        return torch.cat([self._known.has_picture, torch.from_numpy(self.have)])

    @cached_property
    def have(self) -> np.ndarray:
        """bool [m]: the new item has features or a picture; with ``bad_image: skip``, a usable
        one."""
        if self._file:
            return np.ones(len(self._ids), dtype=bool)
        skip = self._known._config["bad_image"] == "skip"
        return np.array(
            [
                bool(path) and not (skip and self._decoded(k) is None)
                for k, path in enumerate(self._paths)
            ]
        )

    @cached_property
    def features(self) -> Tensor:
        """Normalised features [n_items, D]; zero rows where there is no picture."""
        known, norm = self._known.features, self._known.feature_norm
        self._refuse_no_source()
        more = torch.zeros(len(self._ids), known.shape[1])
        if self._file:
            raw = torch.from_numpy(np.array(load_feature_file(self._file, self._ids)))
            self._refuse_width(raw.shape[1], len(norm.mean))
            more[:] = norm(raw)
        else:
            encoder = self._known._frozen_encoder.eval()
            for rows, pictures in self._blocks():
                more[rows] = norm(encoder(pictures).cpu())
        return torch.cat([known, more])

    @cached_property
    def added(self) -> Tensor:
        """uint8 [m, S, S, 3], for a network that was trained on the pictures; zero for none."""
        size = self._known._config["image_size"]
        pictures = torch.zeros(len(self._ids), size, size, 3, dtype=torch.uint8)
        for rows, block in self._blocks():
            pictures[rows] = block.cpu()
        return pictures

    @cached_property
    def regions(self) -> _Regions:
        """Region vectors: called with m items, [m, R, C]."""
        known = self._known.regions
        self._refuse_no_source()
        more = torch.zeros(len(self._ids), known.count, known.size)
        if self._file:
            raw = torch.from_numpy(np.array(load_region_file(self._file, self._ids))).float()
            self._refuse_width(raw.shape[2], len(known.norm.mean))
            more[:] = known.norm(raw.flatten(0, 1)).view(len(raw), known.count, known.size)
        else:
            grid = self._known._config["region_grid"]
            encoder = self._known._frozen_encoder.eval()
            for rows, pictures in self._blocks():
                raw = encoder.region_map(pictures, grid).cpu().half().float()  # as they are cached
                more[rows] = known.norm(raw.flatten(0, 1)).view(len(raw), known.count, known.size)
        return _Regions(known, more)

    @cached_property
    def modalities(self) -> dict[str, NewModality]:
        """The modalities other than pictures; new items have none."""
        known, count = self._known.modalities, len(self._ids)
        if known:
            getLogger().warning(
                f"New items have no features of {' and '.join(known)}; they count as missing"
            )
        return {name: NewModality.after(given, count) for name, given in known.items()}

    def _refuse_no_source(self) -> None:
        given = self._known.given
        if given is not None and not self._file:
            raise ConfigError(
                f"new items: the model was trained on {given.key}, so that nothing tells which "
                "network makes features of new pictures; give --new_features=FILE.npy, a row for "
                "each new item"
            )

    def _refuse_width(self, here: int, known: int) -> None:
        if here != known:
            raise DataError(f"{self._file}: has {here} features, the model was trained on {known}")

    @torch.no_grad()
    def _blocks(self) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of new items, and their pictures uint8 [b, S, S, 3] on the device."""
        config = self._known._config
        device, size = config["device"], config["encoder_batch_size"]
        self._known._frozen_encoder.to(device)
        wanted = np.flatnonzero(self.have).tolist()
        for start in range(0, len(wanted), size):
            rows = wanted[start : start + size]
            pictures = np.stack([cast(np.ndarray, self._decoded(k)) for k in rows])
            yield rows, torch.from_numpy(pictures).to(device)

    def _decoded(self, number: int) -> np.ndarray | None:
        """The picture of a new item, uint8 [S, S, 3]; None for one that ``bad_image`` skips.

        Raises:
            PictureError: It cannot be used, and ``bad_image`` is ``error``.
        """
        # Here: models without pictures must not wait for Pillow.
        from recbole_cierec.vision.picture_report import COUNTS_AS
        from recbole_cierec.vision.picture_store import BLANK_GREY
        from recbole_cierec.vision.pictures import PictureSpec, decode_picture

        config = self._known._config
        spec, policy = PictureSpec.of(config), config["bad_image"]
        try:
            return decode_picture(self._place(number), spec)
        except PictureError as error:
            where = ": ".join(filter(None, (self._places[number], error.path)))
            if policy == "error":
                raise PictureError(where, error.reason) from error
            said = f"{where}: {error.reason}; bad_image = {policy} ({COUNTS_AS[policy]})"
            getLogger().warning(said)
        return (
            None if policy == "skip" else np.full((spec.size, spec.size, 3), BLANK_GREY, np.uint8)
        )

    def _place(self, number: int) -> Path:
        places = [folder / self._paths[number] for folder in self._folders]
        return next((place for place in places if place.exists()), places[0])


@dataclass(frozen=True)
class NewModality:
    """Given features of the known items, followed by new items without any.

    Attributes:
        features: Normalised, [n_items, D].
        has: bool [n_items].
    """

    features: Tensor
    has: Tensor

    @classmethod
    def after(cls, known: GivenFeatures, count: int) -> NewModality:
        """With ``count`` new items."""
        none = known.features.new_zeros(count, known.features.shape[1])
        return cls(
            torch.cat([known.features, none]),
            torch.cat([known.has, torch.zeros(count, dtype=torch.bool)]),
        )


class _Regions:
    """Known region maps, then new ones, which are in memory."""

    def __init__(self, known: RegionMaps, more: Tensor) -> None:
        self.known, self.more = known, more
        self.count, self.size = known.count, known.size
        self.first = len(known.rows)

    def __call__(self, items: Tensor) -> Tensor:
        """items [m] -> float32 [m, R, C] on their device."""
        new = items >= self.first
        out = self.known(items.masked_fill(new, 0))
        if bool(new.any()):
            out = out.clone()
            out[new] = self.more[(items[new] - self.first).cpu()].to(out.device)
        return out
