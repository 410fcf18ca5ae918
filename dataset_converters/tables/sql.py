"""Pieces of SQL that are safe with whatever text files hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .tokens import BLANKS

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def quote(text: object) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def name(text: str) -> str:
    """A name as an SQL identifier."""
    return '"' + text.replace('"', '""') + '"'


def ref(field: str) -> str:
    """The SQL identifier of a file's column or field, of whatever name.

    SQL ignores the case of identifiers and has no empty ones; a file may name its columns ``item``,
    ``Item`` and the empty text. Different names give different identifiers.
    """
    return name("$" + re.sub("[A-Z^]", lambda found: f"^{found[0]}", field))


def column(key: str) -> str:
    """A column without blanks around its text; null if nothing is left."""
    return trimmed(ref(key))


def trimmed(text: str) -> str:
    """An SQL text without blanks around it; null if nothing is left."""
    # Trimming all kinds of blanks is slow; almost every text begins and ends in plain ASCII.
    plain = f"unicode({text}) BETWEEN 33 AND 126 AND unicode({text}[-1]) BETWEEN 33 AND 126"
    return f"CASE WHEN {plain} THEN {text} ELSE nullif(trim({text}, {quote(BLANKS)}), '') END"


def number(key: str) -> str:
    """A column as a finite number; null if it is none."""
    cast = f"TRY_CAST({column(key)} AS DOUBLE)"
    return f"CASE WHEN isfinite({cast}) THEN {cast} END"


def number_text(value: str) -> str:
    """A number as text; whole numbers without a decimal point, which is shorter and exact."""
    whole = f"CAST(CAST({value} AS BIGINT) AS VARCHAR)"
    is_whole = f"{value} = trunc({value}) AND abs({value}) < 1e15"
    return f"CASE WHEN {is_whole} THEN {whole} ELSE CAST({value} AS VARCHAR) END"


def moment(key: str, unit: str = "s") -> str:
    """A column of times, numbers in ``unit`` or ISO dates, as seconds; null if it is none."""
    seconds = f"{number(key)} / {PER_SECOND[unit]}"
    return f"coalesce({seconds}, epoch(TRY_CAST({column(key)} AS TIMESTAMPTZ)))"


def selected(columns: Mapping[str, str]) -> str:
    """The list of a SELECT, from names and their expressions."""
    return ", ".join(f"{expression} AS {key}" for key, expression in columns.items())


def any_null(keys: Iterable[str]) -> str:
    """A condition: at least one of the columns is null."""
    return " OR ".join(f"{key} IS NULL" for key in keys)
