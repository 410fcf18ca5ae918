"""What is known of each item beside its interactions, by internal item id.

Batches hold ids only; pictures, features and annotations stay here, in arrays whose row i belongs
to the item with internal id i (row 0 is RecBole's padding). NAME.item is read when a model first
asks, so that models without content pay nothing.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_cierec.data.atomic import read_atomic, read_header, validate_interactions
from recbole_cierec.data.columns import check_header, refuse_padding
from recbole_cierec.distributed.world import one_first
from recbole_cierec.errors import DataError
from recbole_cierec.files.npy import digest_of
from recbole_cierec.vision.feature_norm import FeatureNorm
from recbole_cierec.vision.feature_shards import WHOLE, Shard
from recbole_cierec.vision.features import extract_features, load_feature_file
from recbole_cierec.vision.picture_store import PictureStore, open_store
from recbole_cierec.vision.pictures import PictureSpec
from recbole_cierec.vision.regions import RegionMaps, extract_regions, load_region_file

NORM_ROWS = 16384  # rows of features normalised at a time


def _sha256(text: str, numbers: np.ndarray) -> str:
    state = hashlib.sha256(text.encode())
    state.update(np.ascontiguousarray(numbers).data)
    return state.hexdigest()


class ItemContent:
    """Pictures, features, annotation tokens and their masks for every item of a data set.

    Args:
        config: RecBole config with our keys (see properties/overall.yaml).
        item_ids: External token of each internal id; entry 0 is the padding.
    """

    def __init__(self, config, item_ids: np.ndarray) -> None:
        self._config = config
        self.n_items = len(item_ids)
        self._item_ids = item_ids
        self.folder = Path(config["data_path"])
        self.cache_dir = Path(config["cache_dir"])
        self._weights_digest = ""  # of the encoder's weights, once they are read

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each part of the content that has been read so far.

        Pictures count by their files' bytes, not by their features, whose last digits differ from
        machine to machine.
        """
        parts, read = {}, vars(self)
        if "_annotations" in read:
            parts["annotations"] = _sha256("\0".join(self.token_names), self.tokens.numpy())
        if "categories" in read:
            names, ids = self.categories
            parts["categories"] = _sha256("\0".join(names), ids.numpy())
        if "store" in read:
            parts["pictures"] = _sha256(self.store.digest, self.store.rows)
        if self._weights_digest:
            parts["encoder weights"] = self._weights_digest
        if self._config["features_file"] and read.keys() & {"_raw_features", "regions"}:
            digest = digest_of(Path(self._config["features_file"]))
            parts["features"] = _sha256(digest, np.asarray(self._table["line"]))
        return parts

    @cached_property
    def _table(self) -> dict[str, list]:
        """Columns of NAME.item by internal id; an item without a row has empty cells."""
        config = self._config
        path = self.folder / f"{config['dataset']}.item"
        if not path.is_file():
            raise DataError(
                f"{path}: not found; {config['model']} needs item content, so write this file "
                "with the columns item_id:token, image_path:token and annotations:token_seq"
            )
        id_field = config["ITEM_ID_FIELD"]
        wanted = [config["image_path_field"], config["annotations_field"]]
        category = [config["category_field"]] if config["category_field"] else []
        separator, columns = config["field_separator"], {id_field, *wanted, *category}
        header = read_header(path, separator=separator)
        check_header(config, "item", {k: v for k, v in header.items() if k in columns}, path)
        frame, types = read_atomic(path, separator=separator, columns=columns)
        validate_interactions(frame, None, id_field, path=path)
        refuse_padding(frame, types, config["seq_separator"], path)
        line_of_id: dict[str, int] = {}
        for line, token in enumerate(frame[id_field].tolist()):
            line_of_id.setdefault(token, line)
        lines = [line_of_id.get(token, -1) for token in self._item_ids]
        lines[0] = -1  # the padding item
        table: dict[str, list] = {"line": lines}
        if config["features_file"]:
            table["ids"] = frame[id_field].tolist()  # the item of each data line
        for field in (*wanted, *category):
            if field in frame:
                cells = frame[field].fillna("").astype(str).tolist()
                table[field] = [cells[k].strip() if k >= 0 else "" for k in lines]
        self._log_states(path, table, wanted, len(frame) - len(line_of_id))
        return table

    def _log_states(self, path: Path, table: dict, wanted: list[str], repeated: int) -> None:
        items = range(1, self.n_items)
        counts = [f"{sum(table['line'][i] < 0 for i in items)} not in {path.name}"]
        for field, name in zip(wanted, ("picture", "annotation"), strict=True):
            lacking = sum(not table[field][i] for i in items) if field in table else len(items)
            counts.append(f"{lacking} without {name}")
        if repeated:
            counts.append(f"{repeated} repeated rows of {path.name} ignored (the first counts)")
        getLogger().info(f"Item content: {len(items)} items, " + ", ".join(counts))

    def _column(self, field: str) -> list[str]:
        if field not in self._table:
            raise DataError(
                f"{self.folder / self._config['dataset']}.item: no column {field}, which "
                f"{self._config['model']} needs; add it or name another by its *_field key"
            )
        return self._table[field]

    # ---------------------------------------------------------------- annotations

    @cached_property
    def _annotations(self) -> tuple[list[str], Tensor]:
        limit = self._config["max_annotation_tokens"]
        separator = self._config["seq_separator"]
        cells = self._column(self._config["annotations_field"])
        # A token counts once for an item, in the order of its first appearance.
        per_item = [list(dict.fromkeys(t for t in c.split(separator) if t)) for c in cells]
        cut = sum(len(tokens) > limit for tokens in per_item)
        if cut:
            getLogger().warning(
                f"{cut} items have more than max_annotation_tokens={limit} tokens; cut"
            )
        # Sorted, so that ids do not depend on the order of rows.
        vocabulary = ["[PAD]", *sorted({t for tokens in per_item for t in tokens})]
        index = {token: k for k, token in enumerate(vocabulary)}
        width = max(1, min(limit, max(map(len, per_item), default=1)))
        matrix = torch.zeros(self.n_items, width, dtype=torch.long)
        for i, tokens in enumerate(per_item):
            ids = [index[t] for t in tokens[:limit]]
            matrix[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return vocabulary, matrix

    @property
    def token_names(self) -> list[str]:
        """Annotation token of each token id; entry 0 is the padding."""
        return self._annotations[0]

    @property
    def tokens(self) -> Tensor:
        """Annotation token ids [n_items, L], 0 = padding."""
        return self._annotations[1]

    @property
    def has_annotation(self) -> Tensor:
        """bool [n_items]."""
        return self.tokens[:, 0] > 0

    @cached_property
    def categories(self) -> tuple[list[str], Tensor]:
        """Names, entry 0 standing for no category, and the category of each item [n_items].

        It is the cell of the column ``category_field``, or the first annotation token.
        """
        if not self._config["category_field"]:
            return self.token_names, self.tokens[:, 0]
        cells = self._column(self._config["category_field"])
        names = ["", *sorted({cell for cell in cells if cell})]
        index = {name: k for k, name in enumerate(names)}
        return names, torch.tensor([index[cell] for cell in cells])

    # ------------------------------------------------------------------- pictures

    @cached_property
    def store(self) -> PictureStore:
        """The pictures, decoded once; rows are found through ``store.rows[item]``."""
        config = self._config
        paths = self._column(config["image_path_field"])
        self._frozen_encoder.eval()  # wrong weights are an error before pictures are decoded
        spec = PictureSpec(config["image_size"], config["image_resize"], config["max_image_pixels"])
        with one_first():  # it decodes with all cores
            return open_store(
                Path(config["image_dir"] or self.folder),
                paths,
                spec,
                bad_image=config["bad_image"],
                cache_dir=self.cache_dir,
                progress=config["show_progress"],
                ids=self._item_ids,
            )

    def encoder(self):
        """A new :class:`VisualEncoder` with the weights that the config names."""
        from recbole_cierec.vision.encoders import VisualEncoder

        made = VisualEncoder(self._config["visual_encoder"], self._config["encoder_weights"])
        self._weights_digest = made.weights_digest
        return made

    @cached_property
    def _frozen_encoder(self):
        return self.encoder()

    @cached_property
    def _raw_features(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows [n, D], row of each item or -1) before normalisation."""
        config = self._config
        if config["features_file"]:
            lines = np.asarray(self._table["line"])
            return load_feature_file(Path(config["features_file"]), self._table["ids"]), lines
        return self.extract(), self.store.rows

    def extract(self, regions: bool = False, shard: Shard = WHOLE) -> np.ndarray | None:
        """Features of the stored pictures, or their region maps, from the cache or into it.

        Returns:
            A row for each row of the store; None while other shards are missing.
        """
        config, encoder = self._config, self._frozen_encoder
        how = {
            "cache_dir": self.cache_dir,
            "batch_size": config["encoder_batch_size"],
            "device": config["device"],
            "progress": config["show_progress"],
            "shard": shard,
        }
        if regions:
            return extract_regions(self.store, encoder, grid=config["region_grid"], **how)
        return extract_features(self.store, encoder.to(config["device"]), **how)

    @cached_property
    def feature_norm(self) -> FeatureNorm:
        """The affine map fitted on the features of all items that have a picture."""
        raw, rows = self._raw_features
        used = np.unique(rows[rows >= 0])
        return FeatureNorm.fit(
            torch.from_numpy(np.asarray(raw[used], dtype=np.float32)),
            self._config["feature_norm"],
            self._config["feature_dim"],
        )

    @cached_property
    def features(self) -> Tensor:
        """Normalised features [n_items, D]; zero rows where there is no picture."""
        raw, rows = self._raw_features
        known = np.flatnonzero(rows >= 0)
        norm = self.feature_norm
        kept = norm.components
        out = torch.zeros(self.n_items, raw.shape[1] if kept is None else kept.shape[1])
        # In blocks, for the memory; but a product may round by the number of rows it has.
        step = NORM_ROWS if kept is None else max(1, len(known))
        for start in range(0, len(known), step):
            items = known[start : start + step]
            values = np.asarray(raw[rows[items]], dtype=np.float32)
            out[torch.from_numpy(items)] = norm(torch.from_numpy(values))
        return out

    @cached_property
    def regions(self) -> RegionMaps:
        """Region vectors of the pictures, [m, R, C] for m items when called."""
        config = self._config
        if config["features_file"]:
            lines = np.asarray(self._table["line"])
            maps = load_region_file(Path(config["features_file"]), self._table["ids"])
            return RegionMaps(maps, lines, config["feature_norm"], config["feature_dim"])
        maps = self.extract(regions=True)
        return RegionMaps(maps, self.store.rows, config["feature_norm"], config["feature_dim"])

    @cached_property
    def has_picture(self) -> Tensor:
        """bool [n_items]: the item has a usable picture (or a ready-made feature row)."""
        rows = np.asarray(self._table["line"]) if self._config["features_file"] else self.store.rows
        return torch.from_numpy(rows >= 0)
