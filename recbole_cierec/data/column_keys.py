"""Checks of keys that name columns: each must be in its file, loaded, and of a suitable type.

RecBole trains without columns that it does not find, or raises an exception without a file name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_cierec.config.schema import KEYS
from recbole_cierec.data.atomic import TYPES, format_of, read_header
from recbole_cierec.data.columns import ROLES, lacks_column, refuse_missing
from recbole_cierec.data.parquet import atomic_file
from recbole_cierec.errors import DataError, nearest

_FLOATS = ("float", "float_seq")
NAMING = {name: key.columns for name, key in KEYS.items() if key.columns is not None}


@dataclass(frozen=True)
class Files:
    """The atomic files of a data set and their headers."""

    config: Any
    folder: Path
    name: str

    def paths(self, file: str) -> list[Path]:
        """The paths of NAME.inter (or NAME.inter.parquet) and so on; several if the data are split
        already."""
        parts = self.config["benchmark_filename"] if file == "inter" else None
        names = [f"{self.name}.{part}" for part in parts] if parts else [self.name]
        return [atomic_file(self.folder / f"{name}.{file}") for name in names]

    def header(self, path: Path) -> dict[str, str]:
        """The type of each column."""
        return read_header(path, **format_of(self.config))

    def columns(self, file: str | None) -> dict[str, str]:
        """The file of each column, over one file or all."""
        files = [*ROLES, *(self.config["additional_feat_suffix"] or ())] if file is None else [file]
        existing = [(name, path) for name in files for path in self.paths(name) if path.is_file()]
        return {column: name for name, path in existing for column in self.header(path)}

    def check(self, origins: Mapping[str, str]) -> None:
        """Check that the files exist, and all keys that name columns against the headers.

        Args:
            origins: Where the user set each key; a default of ``load_col`` may name missing
                columns.

        Raises:
            DataError: A file or a column is missing, not loaded or of a wrong type.
        """
        self._check_exist()
        for key in ("load_col", "unload_col"):
            if key in origins:
                self._check_chosen(key)
        self._check_parts()
        self._check_knowledge()
        self._check_content()
        loaded = self._loaded()
        self._check_histories(loaded)
        for key, wanted in NAMING.items():
            for column in _names(self.config[key]):
                self._check_named(key, column, wanted.file, wanted.types, loaded)
        for file, columns in (self.config["unused_col"] or {}).items():
            for column in columns:
                self._check_named("unused_col", column, file, TYPES, loaded)
        for column, weights in (self.config["preload_weight"] or {}).items():
            self._check_named("preload_weight", column, None, ("token",), loaded)
            self._check_named("preload_weight", weights, None, _FLOATS, loaded)
        for column, values in (self.config["val_interval"] or {}).items():
            kind = loaded[column][0]
            if isinstance(values, list) != (kind == "token"):
                form = "a list of those to keep" if kind == "token" else 'an interval, as "[3,5]"'
                raise DataError(f"val_interval: {column} is {kind}, its value must be {form}")

    def _check_exist(self) -> None:
        if not self.folder.is_dir():
            others = [path.name for path in self.folder.parent.glob("*") if path.is_dir()]
            raise DataError(
                f"{self.folder}: no such data set folder; put {self.name}.inter there, or set "
                f"data_path{nearest(self.name, others)}"
            )
        refuse_missing(self.paths("inter"))

    def _check_chosen(self, key: str) -> None:
        for file, columns in (self.config[key] or {}).items():
            for path in self.paths(file) if columns != "*" else ():
                if not path.is_file():
                    raise DataError(f"{path}: no such file, and {key} names columns of it")
                known = self.header(path)
                for column in columns:
                    if column not in known:
                        hint = nearest(column, known) or f"; it has {', '.join(known)}"
                        raise DataError(f"{path}: no column {column}, which {key} names{hint}")

    def _check_content(self) -> None:
        """Refuse missing files and columns of the content that the model ranks unseen items by."""
        config = self.config
        for modality, path in (config["features"] or {}).items():
            inside = self.folder / path
            if not inside.exists() and not Path(path).exists():
                raise DataError(
                    f"features.{modality} {inside}: no such file; correct it, or set data_path"
                )
        kind = getattr(getattr(config, "model_class", None), "unseen_items", "")
        reads_annotations = kind in ("annotations", "content") and not (
            config["use_annotations"] is False
            or not getattr(config.model_class, "use_annotations", True)
        )
        wanted = {
            "image_path_field": reads_pictures(config),
            "annotations_field": reads_annotations,
        }
        (path,) = self.paths("item")
        for key in (key for key, needed in wanted.items() if needed and path.is_file()):
            if config[key] not in self.header(path):
                raise lacks_column(path, config, key)

    def _check_knowledge(self) -> None:
        """Refuse a knowledge model without its graph; its defaults load both files."""
        loaded = self.config["load_col"] or {}
        for file in ("kg", "link"):
            (path,) = self.paths(file)
            if file in loaded and not path.is_file():
                raise DataError(
                    f"{path}: no such file; {self.config['model']} needs {self.name}.kg, a graph, "
                    f"and {self.name}.link, its entity of each item"
                )

    def _check_parts(self) -> None:
        """Refuse parts with different columns: after joining, some would be half empty."""
        existing = [path for path in self.paths("inter") if path.is_file()]
        for path in existing[1:]:
            columns, first = (self._chosen("inter", self.header(p)) for p in (path, existing[0]))
            if columns != first:
                raise DataError(
                    f"{path}: has the columns {_written(columns)}, and {existing[0].name} has "
                    f"{_written(first)}; the parts must have the same"
                )

    def _check_histories(self, loaded: Mapping[str, object]) -> None:
        """Refuse history columns from which RecBole would make sequences a second time."""
        lists = self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]
        sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if sequential and lists in loaded and not self.config["benchmark_filename"]:
            raise DataError(
                f"{self.paths('inter')[0]}: the column {lists} holds histories, which are only "
                "read from split files (benchmark_filename: [train, valid, test]); do not load it, "
                "and sequences are made from the rows"
            )

    def _chosen(self, file: str, header: Mapping[str, str]) -> dict[str, str]:
        """The columns of a file that are loaded."""
        load, unload = self.config["load_col"], self.config["unload_col"] or {}
        wanted = header if load is None else load.get(file, ())
        wanted = header if wanted == "*" else wanted
        kept = set(wanted) - set(unload.get(file, ()))
        return {column: kind for column, kind in header.items() if column in kept}

    def _loaded(self) -> dict[str, tuple[str, str]]:
        """The type and the file of each loaded column.

        Raises:
            DataError: Two files have the same column; RecBole would keep one of them.
        """
        ids = {self.config["USER_ID_FIELD"], self.config["ITEM_ID_FIELD"]}
        loaded: dict[str, tuple[str, str]] = {}
        for file in (*ROLES, *(self.config["additional_feat_suffix"] or ())):
            for path in (path for path in self.paths(file)[:1] if path.is_file()):
                for column, kind in self._chosen(file, self.header(path)).items():
                    known = loaded.setdefault(column, (kind, file))[1]
                    if known != file and column not in ids and file != "link":
                        raise DataError(
                            f"{path}: the column {column} is also loaded from {self.name}.{known}; "
                            "load one of them by load_col, or rename one"
                        )
        return loaded

    def _check_named(
        self,
        key: str,
        column: str,
        file: str | None,
        types: tuple[str, ...],
        loaded: Mapping[str, tuple[str, str]],
    ) -> None:
        kind, source = loaded.get(column, ("", ""))
        if not kind or file not in (None, source):
            raise DataError(self._absent(key, column, file))
        if kind not in types:
            raise DataError(f"{key}: {column} is {kind}, it must be {' or '.join(types)}")

    def _absent(self, key: str, column: str, file: str | None) -> str:
        known = self.columns(file)
        if column not in known:
            where = f" of {self.name}.{file}" if file else ""
            hint = nearest(column, known) or f"; columns are {', '.join(known)}"
            return (
                f"{self.folder}: {key} names {column}, which is not a column{where}{hint}; use "
                f"another column in {key}, and add it to load_col"
            )
        place = known[column]
        loaded = (self.config["load_col"] or {}).get(place) or [self.config["ITEM_ID_FIELD"]]
        return (
            f"{self.folder}: {key} names {column} of {self.name}.{place}, which is not loaded; "
            f"set load_col: {{{place}: [{', '.join([*loaded, column])}]}}, with the other "
            "files' columns"
        )


def reads_pictures(config: Any) -> bool:
    """Whether the model ranks unseen items by pictures that a network has to read."""
    kind = getattr(getattr(config, "model_class", None), "unseen_items", "")
    given = config["features_file"] or config["features"]
    by_pictures = kind.startswith("picture") or kind == "content"
    return by_pictures and config["use_image"] is not False and not given


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _written(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{column}:{kind}" for column, kind in columns.items())
