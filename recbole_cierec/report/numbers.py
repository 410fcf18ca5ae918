"""Settings and data of a run in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.evaluation.names import ITEM_GROUPS, LABELS
from recbole_cierec.files.checkpoint import from_plain
from recbole_cierec.report.blocks import Section, Table
from recbole_cierec.report.source import Source
from recbole_cierec.report.tiles import Tiles

PARTS = ("training", "validation", "test")


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else f"{count:,}"


def data_rows(source: Source, tiles: Tiles) -> list[list[str]]:
    """What the run was trained on."""
    trained = source.trained
    users, items = len(trained.user_ids) - 1, len(trained.item_ids) - 1
    counts = [len(part.inter_feat) for part in trained.parts]
    split = ", ".join(f"{name} {count:,}" for name, count in zip(PARTS, counts, strict=True))
    rows = [
        ["data set", str(source.state["dataset"])],
        ["users", f"{users:,}"],
        ["items", f"{items:,}"],
        ["interactions", f"{sum(counts):,}: {split}"],
    ]
    tested = np.flatnonzero(source.positives.lengths > 0)
    for name, mask in source.user_groups.masks(tested).items():
        label = f"{LABELS[name]} of the test part"
        rows.append([label, _share(int(mask.sum()), len(tested))])
    for k, name in enumerate(ITEM_GROUPS):
        count = int((source.item_groups.of[1:] == k).sum())
        rows.append([f"{LABELS[name]} (by training)", _share(count, items)])
    return rows + _content_rows(tiles, items)


def _content_rows(tiles: Tiles, items: int) -> list[list[str]]:
    named = "none in the data" if tiles.paths is None else None
    with_path = sum(map(bool, tiles.paths or ()))
    rows = [["items with a picture file", named or _share(with_path, items)]]
    if tiles.texts is None:
        return [*rows, ["items with annotations", "none in the data"]]
    texts = [tiles.tokens(item) for item in range(items + 1)]
    distinct = len({token for text in texts for token in text})
    known = _share(sum(map(bool, texts)), items)
    return [*rows, ["items with annotations", f"{known}; {distinct:,} distinct tokens"]]


def given_keys(source: Source) -> dict[str, Any]:
    """Keys whose value in the run differs from the defaults, except those of places."""
    given, defaults = from_plain(source.state["given"]), source.trained.config.internal_config_dict
    settings = source.settings
    values = {key: settings.get(key, value) for key, value in given.items()}
    return {
        key: value
        for key, value in sorted(values.items())
        if key not in PLACE_KEYS and value != defaults.get(key)
    }


def seconds(source: Source) -> float:
    """Seconds of training and validation, by the history."""
    return sum(sum(row.get("seconds", {}).values()) for row in source.rows)


def run_rows(source: Source) -> list[list[str]]:
    """The run itself."""
    state = source.state
    versions = state["provenance"].get("versions", {})
    ended = state["ended"]
    epochs = ended["epochs"] if ended else source.best_epoch
    stopped = " (stopped early)" if ended and ended["stopped_early"] else ""
    if ended is None:
        stopped = " so far; the run has not ended"
    parameters = sum(p.numel() for p in source.trained.model.parameters() if p.requires_grad)
    took = seconds(source)
    return [
        ["model", source.name],
        ["trained parameters", f"{parameters:,}"],
        ["checkpoint", source.path.name],
        ["trained epochs", f"{epochs}{stopped}; kept is epoch {source.best_epoch}"],
        ["seconds of training and validation", f"{took:,.1f}" if took else "unknown"],
        ["seed", str(source.seed)],
        *([f"{key}", str(value)] for key, value in given_keys(source).items()),
        ["versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)],
    ]


def numbers_section(source: Source, tiles: Tiles) -> Section:
    """Two tables."""
    lead = "Keys that differ from the defaults are listed with their value."
    parts = [
        Table("Run", ["key", "value"], run_rows(source)),
        Table("Data", ["count", "value"], data_rows(source, tiles)),
    ]
    return Section("settings", "Settings", "Settings and data", lead, [*parts])
