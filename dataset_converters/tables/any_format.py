"""Read a table of any of the usual formats: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_cierec.errors import DataError

from .csv import read_csv
from .csv_header import header_of, require_columns
from .loading import append
from .records import read_json_lines, sample_records
from .sql import name, quote, ref, selected
from .workspace import Workspace

_FORMS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}

_SEPARATORS = ",;\t|"


@dataclass
class Target:
    """Where the rows of a file go.

    Args:
        table: Name of the table.
        select: Its columns, as name -> expression over the file's columns.
        wanted: The file's columns that are needed.
        required: Columns of the table without which a row is bad.
        what: What the file should be, for messages.
        options: The option that names each of the file's columns, for messages.
    """

    table: str
    select: dict[str, str]
    wanted: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    what: str = "such a table"
    options: dict[str, str] = field(default_factory=dict)


def table_file(folder: Path, name: str) -> Path:
    """NAME.csv of a folder, or the same table as .csv.gz, .csv.zst or .parquet.

    Raises:
        DataError: The folder holds none of them.
    """
    paths = [folder / f"{name}{end}" for end in (".csv", ".csv.gz", ".csv.zst", ".parquet")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise DataError(f"{paths[0]}: no such file, and no {name}.csv.gz, .csv.zst or .parquet")
    return found


def read_table(
    space: Workspace,
    path: Path,
    to: Target,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> None:
    """Append one file, in the format of its name; all its columns are read as text.

    Args:
        space: The workspace.
        path: The file; all formats but Parquet may end in .gz or .zst.
        to: Where its rows go.
        separator: Of CSV and TSV; None: by the file's name and first line.
        encoding: Of CSV and TSV.

    Raises:
        DataError: It cannot be read, lacks a column, or has too many bad rows.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    form = _FORMS.get(suffixes[-1].lower() if suffixes else "")
    if form is None and separator is None:
        raise DataError(
            f"{path}: is not named {', '.join(_FORMS)}; rename it or set --separator"
            " (of the converter table)"
        )
    if form == "parquet":
        _read_parquet(space, path, to)
    elif form == "json":
        _read_records(space, path, to)
    else:
        usual = "," if form == "csv" else "\t"
        read_csv(
            space,
            to.table,
            path,
            to.select,
            required=to.required,
            wanted=to.wanted,
            what=to.what,
            options=to.options,
            separator=separator or _separator(space, path, usual, to.wanted, encoding),
            encoding=encoding,
        )


def _separator(
    space: Workspace, path: Path, usual: str, wanted: Sequence[str], encoding: str
) -> str:
    """What separates the columns of a file: gives most of the wanted names, the usual one first.

    The names decide, not a guess from the rows, which fails for few rows or texts with commas.
    """
    found = {usual: _known(path, usual, wanted, encoding)}
    for mark in _SEPARATORS if found[usual] < len({*wanted}) else "":
        with suppress(DataError):  # misplaced quotes: the message is about the usual one
            found.setdefault(mark, _known(path, mark, wanted, encoding))
    best = max(found, key=lambda mark: found[mark])
    if best != usual:
        space.notes.append(f"{path.name}: columns are separated by {best!r}")
    return best


def _known(path: Path, separator: str, wanted: Sequence[str], encoding: str) -> int:
    """How many of the wanted names the first line has."""
    return len({*wanted}.intersection(header_of(path, separator, encoding)))


def _described(space: Workspace, path: Path) -> dict[str, str]:
    """The columns of a Parquet file and their types."""
    source = f"read_parquet({quote(space.readable(path))})"
    columns = space.run(f"DESCRIBE FROM {source}", f"read {path.name}", path).fetchall()
    return {row[0]: row[1] for row in columns}


def _read_parquet(space: Workspace, path: Path, to: Target) -> None:
    described = _described(space, path)
    source = f"read_parquet({quote(space.readable(path))})"
    space.inputs.append(path)
    require_columns(path, list(described), to.wanted, to.what, to.options)
    texts = {ref(key): _as_text(key, described[key]) for key in to.wanted}
    query = f"SELECT {selected(to.select)} FROM (SELECT {selected(texts)} FROM {source})"
    loaded = append(space, to.table, query, path, to.required)
    examples = [(row + 1, "(row) lacks a required value") for row in loaded.examples]
    space.bad.add(path, loaded.rows, loaded.incomplete, examples)


def _as_text(key: str, kind: str) -> str:
    """A column as the text that the other formats would have."""
    if kind.endswith("[]"):
        return f"CAST(to_json({name(key)}) AS VARCHAR)"
    text = f"CAST({name(key)} AS VARCHAR)"
    if kind in ("DOUBLE", "FLOAT"):  # whole numbers of a column with gaps: 123, not 123.0
        return f"regexp_replace({text}, '\\.0$', '')"
    return text


def _read_records(space: Workspace, path: Path, to: Target) -> None:
    records, literal = sample_records(path)
    known = list(dict.fromkeys(key for record in records for key in record))
    require_columns(path, known, to.wanted, to.what, to.options)

    def lacks(record: dict[str, Any]) -> str:
        return f"lacks one of {', '.join(to.wanted)}, or it is malformed"

    read_json_lines(
        space,
        to.table,
        path,
        dict.fromkeys(to.wanted, "VARCHAR"),
        to.select,
        lacks,
        required=to.required,
        literal=literal,
    )
