"""Which data a row of an experiment is of: digests of the files that its run has read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_cierec.data.column_keys import Files
from recbole_cierec.data.columns import ROLES
from recbole_cierec.experiment.rows import Row
from recbole_cierec.files.digest import known_digest
from recbole_cierec.vision.given_features import place_of


def data_files(config: Any) -> dict[str, str]:
    """Digests of NAME.inter, NAME.item and so on, and of files of features; not of pictures, which
    the caches follow.

    Returns:
        The first 16 hexadecimal digits by file name, or by the key that names features; only of
        files that exist.
    """
    folder = Path(config["data_path"])
    files = Files(config, folder, config["dataset"])
    kinds = [*ROLES, *(config["additional_feat_suffix"] or ())]
    paths = {path.name: path for kind in kinds for path in files.paths(kind)}
    for modality, path in (config["features"] or {}).items():
        paths[f"features.{modality}"] = place_of(folder, path)
    if config["features_file"]:
        paths["features_file"] = Path(config["features_file"])
    return {name: known_digest(path)[:16] for name, path in paths.items() if path.is_file()}


def has_result(row: Row, files: Mapping[str, str]) -> bool:
    """Whether a row has a result, of these files; rows of earlier versions do not name theirs."""
    then = row.get("data")
    return row.get("error") is None and (not then or not files or then == files)


def of_several(rows: Iterable[Row]) -> list[str]:
    """The names of files of which the rows of one data set have seen different contents."""
    seen: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name, digest in (row.get("data") or {}).items():
            seen.setdefault((row["dataset"], name), set()).add(digest)
    return sorted({name for (_, name), digests in seen.items() if len(digests) > 1})
