"""The nearest items of some items: by their pictures, their annotations, and the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.nn import functional as F

from recbole_cierec.report.blocks import Card, Note, Section
from recbole_cierec.report.embeddings import UnitVectors
from recbole_cierec.report.source import Source
from recbole_cierec.report.tiles import Tiles

ITEMS = 6
NEAR = 8


def picture_features(source: Source) -> np.ndarray | None:
    """Unit vectors [n_items, k] of the features that the model has read; None if it has none.

    They are never computed here, which could take long.
    """
    pictures: Any = source.trained.dataset.content.pictures
    if pictures is None or not vars(pictures).keys() & {"features", "_raw_features"}:
        return None
    return F.normalize(pictures.features.float()).numpy()


def _annotations(source: Source, tiles: Tiles) -> list[frozenset[str]] | None:
    """The distinct tokens of each item; None without annotations."""
    items = range(len(source.trained.item_ids))
    return None if tiles.texts is None else [frozenset(tiles.tokens(item)) for item in items]


def nearest(row: np.ndarray, item: int) -> tuple[list[int], list[float]]:
    """The items with the highest similarity [n_items] to ``item``, and these; of equal ones the
    first."""
    row = row.copy()
    row[[0, item]] = -np.inf
    order = np.argsort(-row, kind="stable")[:NEAR]
    order = order[row[order] > 0]
    return order.tolist(), row[order].tolist()


def overlap(sets: list[frozenset[str]], item: int) -> np.ndarray:
    """Jaccard's similarity [n_items] of annotations: common tokens by all tokens of both."""
    own = sets[item]
    return np.array([len(own & s) / len(own | s) if own and s else 0.0 for s in sets])


def draw_items(source: Source, tiles: Tiles) -> list[int]:
    """Items drawn by the seed; those with training interactions, pictures and annotations first."""
    n = len(source.trained.item_ids)
    complete = source.trained.popularity > 0
    for cells in (tiles.paths, tiles.texts):
        if cells is not None:
            complete = complete & np.array([bool(cell) for cell in cells])
    order = np.random.default_rng([source.seed, 4]).permutation(np.arange(1, n))
    return sorted(order.tolist(), key=lambda item: not complete[item])[:ITEMS]


def neighbours_section(source: Source, tiles: Tiles, vectors: UnitVectors) -> Section:
    """A card an item."""
    lead = (
        f"{ITEMS} items drawn by the seed {source.seed} among those with training interactions "
        "(and a picture and annotations, where the data have them). Numbers are cosines, for "
        "annotations the share of common tokens (Jaccard)."
    )
    section = Section("neighbours", "Neighbours", "Nearest items", lead)
    features, sets = picture_features(source), _annotations(source, tiles)
    if features is None:
        section.parts.append(
            Note(f"{source.name} reads no features of pictures, so that row is left out.")
        )
    if sets is None:
        section.parts.append(Note("The data have no annotations, so that row is left out."))
    for item in draw_items(source, tiles):
        found: dict[str, np.ndarray] = {}
        if features is not None:
            found["By picture features"] = features @ features[item]
        if sets is not None:
            found["By annotations"] = overlap(sets, item)
        found["By the model's item vector"] = vectors.items @ vectors.items[item]
        strips = []
        for title, row in found.items():
            near, values = nearest(row, item)
            strip = tiles.strip(title, near, NEAR)
            for tile, value in zip(strip.tiles, values, strict=True):
                tile.badge = f"{value:.2f}"
            strip.more = "" if near else "No item is near."
            strips.append(strip)
        tags = [f"{source.trained.popularity[item]:,} training interactions"]
        name = str(source.trained.item_ids[item])
        section.parts.append(Card(f"Item {name}", tags, strips, tiles.tile(item)))
    return section
