"""Read JSON lines and lines of Python literals, compressed or not.

DuckDB reads whole files; Python only looks at the first lines, to recognise a file, and finds the
line numbers of bad records. That works because each line that is not blank gives DuckDB one row, in
the order of the file, and a malformed line a row of nulls.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard
from tqdm import tqdm

from recbole_cierec.errors import DataError

from .loading import append
from .sql import name, quote, ref, selected
from .workspace import Workspace

MAX_LITERAL = 1 << 20  # bytes of a Python literal; its syntax tree takes some 100 times as many
MAX_LINE = 1 << 24  # bytes of a line of JSON
SAMPLE = 200  # records that are read to recognise a file
BOM = b"\xef\xbb\xbf"
BROKEN_FILE = (OSError, EOFError, zlib.error, zstandard.ZstdError)
_BROKEN_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def open_bytes(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """Open a file for reading, decompressed when its name ends in .gz or .zst."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rb")
        if path.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(
                path.open("rb"), read_across_frames=True, closefd=True
            )
            return io.BufferedReader(reader, 1 << 16)
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of every line that is not blank.

    Raises:
        DataError: The file cannot be read or decompressed to its end, or a line is too long.
    """
    with open_bytes(path) as file:
        number = 0
        try:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{path}, line {number}: is longer than {MAX_LINE >> 20} MiB; are the line "
                        "breaks missing?"
                    )
                if number == 1:
                    line = line.removeprefix(BOM)
                if line.strip():
                    yield number, line
        except BROKEN_FILE as error:
            raise DataError(
                f"{path}: cannot be read beyond line {number} ({error}); download it again"
            ) from None


def parse_literal(line: bytes) -> dict[str, Any]:
    """Read a record that is a Python literal; no code in it is executed.

    Raises:
        ValueError: It is no dictionary of plain values; the message is the reason.
    """
    if len(line) > MAX_LITERAL:
        raise ValueError(f"is longer than {MAX_LITERAL >> 20} MiB")
    try:
        record = ast.literal_eval(line.decode("utf-8").strip())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except _BROKEN_LITERAL:
        raise ValueError("is not a Python literal") from None
    if not isinstance(record, dict):
        raise ValueError("is not a record")
    return record


def parse_json(line: bytes) -> dict[str, Any]:
    """Read a record in JSON.

    Raises:
        ValueError: It is not JSON; the message is the reason.
    """
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("is not a record")
    return record


def sample_records(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The first records of a file that can be read, and whether they are Python literals."""
    lines = list(islice(numbered_lines(path), SAMPLE))
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for literal, parse in ((False, parse_json), (True, parse_literal)):
        for _, line in lines:
            try:
                found[literal].append(parse(line))
            except ValueError:
                continue
    literal = len(found[True]) > len(found[False])
    return found[literal], literal


def read_json_lines(
    space: Workspace,
    table: str,
    path: Path,
    columns: Mapping[str, str],
    select: Mapping[str, str],
    check: Callable[[dict[str, Any]], str],
    *,
    required: Sequence[str],
    literal: bool = False,
) -> None:
    """Append the records of a file to a table.

    Args:
        space: The workspace.
        table: Created if needed; rows stay in the order of the file.
        path: The file.
        columns: Fields to read, with their DuckDB types (VARCHAR or JSON).
        select: Columns of the table, as name -> expression over the fields (see :func:`.sql.ref`).
        check: Returns what a parsed record lacks, for the report.
        required: Columns of the table that are null in a bad record.
        literal: The file holds Python literals.

    Raises:
        DataError: The file cannot be read, or two of the fields differ by case only.
    """
    _refuse_equal_but_for_case(path, columns)
    space.inputs.append(path)
    source = _plain_json(space, path, list(columns), literal)
    typed = ", ".join(f"{name(key)}: '{kind}'" for key, kind in columns.items())
    renamed = ", ".join(f"{name(key)} AS {ref(key)}" for key in columns)
    query = (
        f"SELECT {selected(select)} FROM (SELECT {renamed} FROM read_json({quote(source)}, "
        f"columns={{{typed}}}, records=true, format='newline_delimited', ignore_errors=true, "
        f"maximum_object_size={MAX_LINE}))"
    )
    try:
        loaded = append(space, table, query, path, required)
    except DataError:
        for _ in numbered_lines(path):  # names the line if one is the cause
            continue
        raise
    if source.parent == space.temp:
        source.unlink()
    parse = parse_literal if literal else parse_json
    examples = _reasons(path, loaded.examples, parse, check) if loaded.examples else []
    space.bad.add(path, loaded.rows, loaded.incomplete, examples)


def _refuse_equal_but_for_case(path: Path, fields: Iterable[str]) -> None:
    """DuckDB's JSON reader ignores the case of field names."""
    known: dict[str, str] = {}
    for key in fields:
        other = known.setdefault(key.lower(), key)
        if other != key:
            raise DataError(
                f"{path}: the fields {other!r} and {key!r} differ by case only and cannot both be "
                "read; rename one in the file"
            )


def _plain_json(space: Workspace, path: Path, fields: list[str], literal: bool) -> Path:
    """The file itself, or a copy as plain JSON lines if DuckDB cannot read it directly."""
    with open_bytes(path) as file:
        try:
            has_bom = file.read(len(BOM)) == BOM
        except BROKEN_FILE as error:
            raise DataError(f"{path}: cannot be read ({error}); download it again") from None
    if not literal and not has_bom:
        return space.readable(path)
    target = space.new_file(".jsonl")
    with target.open("wb") as out:
        lines = tqdm(numbered_lines(path), desc=f"decode {path.name}", disable=None, leave=False)
        for _, line in lines:
            out.write(_literal_as_json(line, fields) if literal else line.rstrip(b"\r\n") + b"\n")
    return target


def _literal_as_json(line: bytes, fields: list[str]) -> bytes:
    try:
        record = parse_literal(line)
        kept = {key: record[key] for key in fields if key in record}
        return json.dumps(kept, allow_nan=False).encode("ascii") + b"\n"
    except (ValueError, TypeError):  # TypeError: a set or bytes, which JSON lacks
        return b"null\n"


def _reasons(
    path: Path,
    ordinals: list[int],
    parse: Callable[[bytes], dict[str, Any]],
    check: Callable[[dict[str, Any]], str],
) -> list[tuple[int, str]]:
    """Line number and fault of each record with one of these ordinals."""
    wanted, found = set(ordinals), []
    for ordinal, (number, line) in enumerate(numbered_lines(path)):
        if ordinal in wanted:
            try:
                reason = check(parse(line)) or "cannot be used"
            except ValueError as error:
                reason = str(error)
            found.append((number, reason))
            if len(found) == len(wanted):
                break
    return found
