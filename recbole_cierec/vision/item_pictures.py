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
from recbole_cierec.files.digest import array_digest, file_digest
from recbole_cierec.files.hashed_choice import chosen, exchanged
from recbole_cierec.vision.feature_files import load_feature_file
from recbole_cierec.vision.feature_norm import FeatureNorm
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.features import extract_features
from recbole_cierec.vision.reduced_features import Reduced, ReducedCache
from recbole_cierec.vision.regions import RegionMaps, extract_regions, load_region_file
from recbole_cierec.vision.visual_encoder import VisualEncoder

if TYPE_CHECKING:
    from recbole_cierec.vision.picture_store import PictureStore

NORM_ROWS = 16384  # rows of features normalised at a time


class Items(Protocol):
    """What a data set says of its items: :class:`recbole_cierec.data.content.ItemContent`.

    Attributes:
        config: RecBole config with the keys of pictures, encoder and features.
        folder: The data set's folder.
        item_ids: External id of each item [n_items]; entry 0 is RecBole's padding.
        lines: int64 [n_items], each item's data line of NAME.item, -1 for none.
        line_ids: The item of each data line.
        pictures: What :func:`pictures_of` has made.
    """

    config: Any
    folder: Path
    item_ids: Any  # a sequence of texts
    pictures: Any

    @property
    def lines(self) -> np.ndarray: ...

    @property
    def line_ids(self) -> list[str]: ...

    def column(self, field: str) -> list[str]:
        """Cells of a column of NAME.item [n_items], "" for none."""
        ...


def pictures_of(items: Items) -> ItemPictures:
    """The pictures of a data set's items, made once for all that ask."""
    if items.pictures is None:
        items.pictures = ItemPictures(items)
    return items.pictures


class ItemPictures:
    """Pictures, features and region maps for every item of a data set.

    Args:
        items: The data set's items.

    Attributes:
        cache_dir: Where stores, features and maps are kept.
    """

    def __init__(self, items: Items) -> None:
        self._items, self._config = items, items.config
        self.cache_dir = Path(self._config["cache_dir"])
        self._weights_digest = ""  # of the encoder's weights, once they are read

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
        if self._ready_made and read.keys() & {"_raw_features", "regions"}:
            parts["features"] = array_digest(file_digest(self._ready_made), self._lines)
        return parts

    @property
    def _ready_made(self) -> Path | None:
        path = self._config["features_file"]
        return Path(path) if path else None

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
    def _lines(self) -> np.ndarray:
        """int64 [n_items], the row of each item in ``features_file``; -1 for none."""
        if self._config["picture_degrade"] != "none":
            raise ConfigError(
                "picture_degrade: features_file has no pictures to degrade; drop one of the two"
            )
        return self._damaged(self._items.lines)

    @cached_property
    def has_picture(self) -> Tensor:
        """bool [n_items]: the item has a usable picture, or a row in ``features_file``."""
        rows = self._lines if self._ready_made else self.store.rows
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
        """(rows [n, D], row of each item or -1) before normalisation."""
        if self._ready_made:
            return load_feature_file(self._ready_made, self._items.line_ids), self._lines
        rows = self.extract()
        assert rows is not None  # noqa: S101  # the whole has no missing shards
        return rows, self.store.rows

    def forget_raw(self) -> None:
        """Drop the features before normalisation; they are read again where they are needed."""
        vars(self).pop("_raw_features", None)

    @cached_property
    def feature_norm(self) -> FeatureNorm:
        """The affine map fitted on the features of all items that have a picture."""
        return self._fitted_norm() if self._reduced is None else self._reduced.norm

    def _fitted_norm(self) -> FeatureNorm:
        raw, rows = self._raw_features
        used = np.unique(rows[rows >= 0])
        return FeatureNorm.fit(
            torch.from_numpy(np.asarray(raw[used], dtype=np.float32)),
            self._config["feature_norm"],
            self._config["feature_dim"],
        )

    @cached_property
    def _reduced(self) -> Reduced | None:
        """The principal components of the features, from the cache or into it; None: all of D."""
        raw, rows = self._raw_features
        kind, dimensions = self._config["feature_norm"], self._config["feature_dim"]
        known = rows[rows >= 0]
        if not dimensions or dimensions >= raw.shape[1] or not len(known):
            return None
        file = self._ready_made or Path(raw.filename)  # type: ignore[attr-defined]  # a map

        def compute() -> Reduced:
            norm = self._fitted_norm()
            # Not in blocks: a product may round by its number of rows.
            values = np.asarray(raw[known], dtype=np.float32)
            return Reduced(norm, norm(torch.from_numpy(values)))

        return ReducedCache(self.cache_dir, file_digest(file), rows, kind, dimensions).get(compute)

    @cached_property
    def features(self) -> Tensor:
        """Normalised features [n_items, D]; zero rows where there is no picture."""
        raw, rows = self._raw_features
        known = np.flatnonzero(rows >= 0)
        norm, reduced = self.feature_norm, vars(self).pop("_reduced", None)
        if reduced is not None:
            out = torch.zeros(len(rows), reduced.features.shape[1])
            out[torch.from_numpy(known)] = reduced.features
            return out
        out = torch.zeros(len(rows), raw.shape[1])
        for start in range(0, len(known), NORM_ROWS):  # in blocks, to save memory
            items = known[start : start + NORM_ROWS]
            values = np.asarray(raw[rows[items]], dtype=np.float32)
            out[torch.from_numpy(items)] = norm(torch.from_numpy(values))
        return out

    @cached_property
    def regions(self) -> RegionMaps:
        """Region vectors of the pictures: called with m items, [m, R, C]."""
        maps: np.ndarray | None
        if self._ready_made:
            maps, rows = load_region_file(self._ready_made, self._items.line_ids), self._lines
        else:
            maps, rows = self.extract(regions=True), self.store.rows
        assert maps is not None  # noqa: S101  # as above
        return RegionMaps(maps, rows, self._config["feature_norm"], self._config["feature_dim"])
