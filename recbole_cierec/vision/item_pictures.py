"""The pictures of a data set's items and what networks make of them, by internal item id.

Everything is computed when it is first asked for: pictures are decoded once into a store, features
and region maps once into a cache, so that models without pictures pay nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.distributed.world import one_first
from recbole_cierec.errors import ConfigError
from recbole_cierec.files.digest import array_digest
from recbole_cierec.files.hashed_choice import chosen, exchanged
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.feature_files import ids_file
from recbole_cierec.vision.feature_rows import FeatureRows
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.features import extract_features
from recbole_cierec.vision.given_features import (
    IMAGE,
    GivenFeatures,
    GivenFile,
    ListedItems,
    coverage,
    given_files,
)
from recbole_cierec.vision.regions import RegionMaps, extract_regions, load_region_file
from recbole_cierec.vision.visual_encoder import VisualEncoder

if TYPE_CHECKING:
    from recbole_cierec.vision.picture_store import PictureStore


class Items(ListedItems, Protocol):
    """What a data set says of its items: :class:`recbole_cierec.data.content.ItemContent`.

    Attributes:
        pictures: What :func:`pictures_of` has made.
    """

    pictures: Any

    def column(self, field: str) -> list[str]:
        """Cells of a column of NAME.item [n_items], "" for none."""
        ...


def pictures_of(items: Items) -> ItemPictures:
    """The pictures of a data set's items, made once for all that ask."""
    if items.pictures is None:
        items.pictures = ItemPictures(items)
    return items.pictures


class ItemPictures(FeatureRows):
    """Pictures, features and region maps for every item of a data set, and the features of other
    modalities that the user gives.

    Args:
        items: The data set's items.

    Attributes:
        cache_dir: Where stores, features and maps are kept.
    """

    def __init__(self, items: Items) -> None:
        super().__init__(items.config)
        self._items = items
        self._weights_digest = ""  # of the encoder's weights, once they are read
        self._coverage_logged = False

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each part that has been read so far.

        Pictures count by their files' bytes, not by their features, whose last digits differ from
        machine to machine.
        """
        parts, read = {}, vars(self)
        if "store" in read:
            parts["pictures"] = array_digest(self.store.digest, self.store.rows)
        if self._weights_digest:
            parts["encoder weights"] = self._weights_digest
        if self.given is not None and read.keys() & {"_raw_features", "regions"}:
            parts["features"] = self.given.digest(self._given_rows)
        for name, modality in read.get("modalities", {}).items():
            if modality.were_read:
                parts[f"features of {name}"] = modality.file.digest()
        return parts

    # ------------------------------------------------------------------- given features

    @cached_property
    def _files(self) -> dict[str, GivenFile]:
        return given_files(self._items)

    @property
    def given(self) -> GivenFile | None:
        """The user's file of features of pictures; None: a network computes them."""
        return self._files.get(IMAGE)

    def given_paths(self) -> list[Path]:
        """The user's files of features of all modalities, and their files of ids."""
        paths = [file.path for file in self._files.values()]
        return [*paths, *map(ids_file, paths)]

    @property
    def _given_path(self) -> Path | None:
        return None if self.given is None else self.given.path

    @cached_property
    def modalities(self) -> dict[str, GivenFeatures]:
        """The modalities other than pictures, by name; the coverage of all is logged."""
        self._log_coverage()
        return {name: GivenFeatures(file) for name, file in self._files.items() if name != IMAGE}

    def _log_coverage(self) -> None:
        """Once, however many modalities are read."""
        names = list(self._config["features"] or ())
        if names and not self._coverage_logged:
            self._coverage_logged = True
            CONSOLE.info(coverage(self._files, names))

    def forget_raw(self) -> None:
        super().forget_raw()
        for modality in vars(self).get("modalities", {}).values():
            modality.forget_raw()

    # ------------------------------------------------------------ pictures and networks

    def encoder(self) -> VisualEncoder:
        """A new network with the weights that the configuration names.

        Raises:
            ConfigError: Unknown, without its weights, or not for pictures of ``image_size``.
        """
        made = VisualEncoder(self._config["visual_encoder"], str(self._config["encoder_weights"]))
        made.check_size(self._config["image_size"])
        self._weights_digest = made.weights_digest
        return made

    @cached_property
    def _frozen_encoder(self) -> VisualEncoder:
        return self.encoder()

    @cached_property
    def store(self) -> PictureStore:
        """The pictures, decoded; the row of item i is ``store.rows[i]``, -1 for none."""
        # Here: models without pictures must not wait for Pillow.
        from recbole_cierec.vision.picture_store import open_store
        from recbole_cierec.vision.pictures import PictureSpec

        config, items = self._config, self._items
        paths = items.column(config["image_path_field"])
        self._frozen_encoder.eval()  # wrong weights are an error before pictures are decoded
        spec = PictureSpec.of(config)
        with one_first():  # it decodes with all cores
            store = open_store(
                Path(config["image_dir"] or items.folder),
                paths,
                spec,
                bad_image=config["bad_image"],
                cache_dir=self.cache_dir,
                progress=config["show_progress"],
                ids=items.item_ids,
            )
        return replace(store, rows=self._damaged(store.rows))

    def _damaged(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the items' pictures after ``pictures_wrong`` and ``pictures_missing``."""
        config, ids = self._config, self._items.item_ids
        if share := config["pictures_wrong"]:
            rows = rows[exchanged(ids, rows >= 0, share, config["seed"], "pictures_wrong")]
        if share := config["pictures_missing"]:
            rows = np.where(chosen(ids, share, config["seed"], "pictures_missing"), -1, rows)
        return rows

    @cached_property
    def _given_rows(self) -> np.ndarray:
        """int64 [n_items], the row of each item in the file of features; -1 for none."""
        assert self.given is not None  # noqa: S101  # asked by callers
        if self._config["picture_degrade"] != "none":
            raise ConfigError(
                f"picture_degrade: {self.given.key} has no pictures to degrade; drop one of the two"
            )
        return self._damaged(self.given.rows)

    @cached_property
    def has_picture(self) -> Tensor:
        """bool [n_items]: the item has a usable picture, or a row of given features."""
        rows = self.store.rows if self.given is None else self._given_rows
        return torch.from_numpy(rows >= 0)

    # ---------------------------------------------------------------- features and maps

    def extract(self, regions: bool = False, shard: Shard = WHOLE) -> np.ndarray | None:
        """Features [n_rows, D] of the stored pictures, or region maps [n_rows, R, C], from the
        cache or into it; None while other shards are missing."""
        config, encoder = self._config, self._frozen_encoder
        how: dict[str, Any] = {
            "cache_dir": self.cache_dir,
            "batch_size": config["encoder_batch_size"],
            "device": config["device"],
            "progress": config["show_progress"],
            "shard": shard,
        }
        if not regions:
            return extract_features(self.store, encoder.to(config["device"]), **how)
        grid = config["region_grid"]
        encoder.region_shape(config["image_size"], grid)  # no map is an error before decoding
        return extract_regions(self.store, encoder, grid=grid, **how)

    @cached_property
    def _raw_features(self) -> tuple[np.ndarray, np.ndarray]:
        if self.given is not None:
            self._log_coverage()
            return self.given.load(), self._given_rows
        rows = self.extract()
        assert rows is not None  # noqa: S101  # the whole has no missing shards
        return rows, self.store.rows

    def raw(self, regions: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Features [n_rows, D] before normalisation, or region maps [n_rows, R, C], and the row of
        each item, -1 for none."""
        if regions:
            return self.regions.maps, self.regions.rows.numpy()
        return self._raw_features

    @cached_property
    def regions(self) -> RegionMaps:
        """Region vectors of the pictures: called with m items, [m, R, C]."""
        maps: np.ndarray | None
        if self.given is not None:
            maps, rows = self.given.load(load_region_file), self._given_rows
        else:
            maps, rows = self.extract(regions=True), self.store.rows
        assert maps is not None  # noqa: S101  # as above
        return RegionMaps(maps, rows, self._config["feature_norm"], self._config["feature_dim"])
