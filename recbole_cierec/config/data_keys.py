"""Checks of the keys of the data that contradict each other or would be ignored."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from recbole_cierec.errors import ConfigError

FILTERS = (
    "rm_dup_inter val_interval filter_inter_by_user_or_item user_inter_num_interval"
    " item_inter_num_interval entity_kg_num_interval relation_kg_num_interval"
).split()
_ALL = "[0,inf)"  # what RecBole has as default
_IDS = {  # of each atomic file
    "inter": ("USER_ID_FIELD", "ITEM_ID_FIELD"),
    "user": ("USER_ID_FIELD",),
    "item": ("ITEM_ID_FIELD",),
    "kg": ("HEAD_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "TAIL_ENTITY_ID_FIELD"),
    "link": ("ITEM_ID_FIELD", "ENTITY_ID_FIELD"),
}
_PICKLES = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")


def check_data_keys(
    final: Mapping[str, Any], origins: Mapping[str, str], eval_keys: Container[str]
) -> list[str]:
    """Check keys of the data against each other.

    Args:
        final: All keys with their values.
        origins: Key to the place of its value, for keys that the user gave.
        eval_keys: The keys of ``eval_args`` that the user gave.

    Returns:
        Lines for the log.

    Raises:
        ConfigError: Two keys contradict each other, or one would be ignored.
    """
    _refuse_pickles(final, origins)
    _check_columns(final, origins)
    _check_numbers(final, origins)
    if final.get("features_file") and "image" in (final.get("features") or {}):
        raise ConfigError(
            f"{origins.get('features_file', 'defaults')}: 'features_file' and image in 'features' "
            f"({origins.get('features', 'defaults')}) both give the features of pictures; keep one"
        )
    return _check_split_files(final, origins, eval_keys)


def _refuse_pickles(final: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    for key in _PICKLES:
        if final.get(key):
            raise ConfigError(
                f"{origins.get(key, 'defaults')}: '{key}' is not supported: pickled data run code "
                "when they are read; remove the key, since a run reads its data from their files"
            )


def _check_columns(final: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    names = [final[key] for key in (*_IDS["inter"], "TIME_FIELD")]
    if len(set(names)) < len(names):
        raise ConfigError(f"USER_ID_FIELD, ITEM_ID_FIELD and TIME_FIELD name one column: {names}")
    files = {*_IDS, *(final.get("additional_feat_suffix") or ())}
    for key in ("load_col", "unload_col", "unused_col"):
        for file in (final.get(key) or {}) if key in origins else ():
            if file not in files:
                raise ConfigError(
                    f"{origins[key]}: '{key}' names the file '{file}'; known are "
                    f"{', '.join(sorted(files))}, and others by additional_feat_suffix"
                )
    load, unload = final.get("load_col"), final.get("unload_col") or {}
    if load is not None and "load_col" in origins:
        for file, columns in {"inter": [], **load}.items():
            for name in (final[field] for field in _IDS.get(file, ())):
                if columns != "*" and name not in columns:
                    raise ConfigError(
                        f"{origins['load_col']}: 'load_col' must name {name} in {file}"
                    )
    for key in ("unload_col", "unused_col"):
        for file, columns in (final.get(key) or {}).items():
            for name in (final[field] for field in _IDS.get(file, ())):
                if name in columns:
                    raise ConfigError(f"{origins.get(key, 'defaults')}: '{key}' cannot name {name}")
    for file in unload:
        if load is not None and load.get(file, "*") != "*":
            origin = origins.get("unload_col", "defaults")
            raise ConfigError(
                f"{origin}: 'unload_col' and load_col both choose columns of {file}; keep one: "
                "load_col says which are loaded, unload_col which are not"
            )


def _check_numbers(final: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    if final.get("normalize_field") and final.get("normalize_all"):
        origin = origins.get("normalize_field", "defaults")
        raise ConfigError(f"{origin}: 'normalize_field' and normalize_all are both set; keep one")
    for name in final.get("discretization") or ():
        if name not in final["numerical_features"]:
            raise ConfigError(
                f"{origins.get('discretization', 'defaults')}: 'discretization' names {name}, "
                "which numerical_features must name too"
            )


def _check_split_files(
    final: Mapping[str, Any], origins: Mapping[str, str], eval_keys: Container[str]
) -> list[str]:
    """RecBole neither filters nor splits files that are split already."""
    if not final.get("benchmark_filename"):
        return []
    for key in FILTERS:
        if key in origins and final.get(key) and final[key] != _ALL:
            raise ConfigError(
                f"{origins[key]}: '{key}' filters nothing in files that are split already "
                "(benchmark_filename); filter the files, or split anew by benchmark_filename: ~"
            )
    return [
        f"eval_args.{key} is not read: the files are split already (benchmark_filename)"
        for key in ("split", "order")
        if key in eval_keys
    ]
