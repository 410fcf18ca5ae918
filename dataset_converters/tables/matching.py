"""Whether two files that are joined by an id write their ids in the same form.

Ids lose their leading zeros in spreadsheets, become ``123.0`` in a column with gaps, or differ by
case or by a file's suffix. Such files join without an error but leave items without description or
picture, so the share of matches is checked, and a likely cause is searched for.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from recbole_cierec.errors import DataError

from .picture_names import SUFFIXES
from .sql import quote
from .workspace import Workspace

FEW = 0.5  # a warning if a smaller share of the ids matches
_NAMED = 40  # characters of an id in a message
_INVISIBLE = r"[\s\x00-\x20\x7f-\xa0\x{200B}-\x{200F}\x{2028}-\x{202F}\x{FEFF}]"
_SUFFIX = "|".join(suffix.lstrip(".") for suffix in SUFFIXES)
# What may differ, and SQL that removes the difference from ID.
_CAUSES = {
    "leading zeros": "ltrim(ID, '0')",
    "upper and lower case": "lower(ID)",
    "a decimal point, as in 123.0": r"regexp_replace(ID, '\.0*$', '')",
    "the suffix of a file": f"regexp_replace(ID, '(?i)\\.({_SUFFIX})$', '')",
    "blanks or invisible characters": f"regexp_replace(ID, {quote(_INVISIBLE)}, '', 'g')",
}


@dataclass(frozen=True)
class Ids:
    """One side of a join.

    Args:
        table: The table.
        column: Its column of ids; nulls are ignored.
        what: What the ids identify and where they come from, for messages.
    """

    table: str
    column: str
    what: str


def check_match(
    space: Workspace, options: argparse.Namespace, asked: Ids, given: Ids, *, dropped: bool
) -> None:
    """Count the ids that both sides have; warn if they are few, raise if there are hardly any.

    A file may legitimately hold more or fewer items than another, so the error depends on the side
    with fewer ids: ``--min-match`` of these must match.

    Args:
        space: The workspace.
        options: The shared options.
        asked: Ids to look up.
        given: Known ids; nothing is checked if there are none.
        dropped: Unmatched ids are dropped anyway, so do not warn if only few match.

    Raises:
        DataError: Too few match.
    """
    for side, table in ((asked, "asked_ids"), (given, "given_ids")):
        space.run(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT DISTINCT {side.column} AS id "
            f"FROM {side.table} WHERE {side.column} IS NOT NULL",
            "compare ids",
        )
    n_asked, n_given = (
        space.value(f"SELECT count(*) FROM {t}") for t in ("asked_ids", "given_ids")
    )
    if not n_given or not n_asked:
        return
    matched = space.value("SELECT count(*) FROM asked_ids SEMI JOIN given_ids USING (id)")
    counts = f"{matched:,} of {n_asked:,} {asked.what} match {given.what}"
    near, cause = _likely_cause(space) if matched < n_asked else (0, "")
    hint = f"{near:,} more would match but for {cause}" if near else ""
    if matched < options.min_match * min(n_asked, n_given):
        raise DataError(
            f"only {counts} with {n_given:,} ids ({_examples(space)})"
            f"{f'; {hint}' if hint else ''}; write the ids in the same form, or lower --min-match"
        )
    if near or (matched < FEW * n_asked and not dropped):
        space.warn(f"only {counts} ({_examples(space)}){f'; {hint}' if hint else ''}")
    else:
        space.notes.append(counts)
    space.run("DROP TABLE asked_ids")
    space.run("DROP TABLE given_ids")


def _likely_cause(space: Workspace) -> tuple[int, str]:
    """How many more ids would match if one difference, or all of them, were ignored; and which."""
    found = {cause: _matches(space, form) for cause, form in _CAUSES.items()}
    every = "ID"
    for form in reversed(_CAUSES.values()):  # blanks first, since they hide other differences
        every = form.replace("ID", every)
    found["several differences, such as leading zeros and case"] = _matches(space, every)
    cause = max(found, key=lambda name: found[name])
    return found[cause], cause


def _matches(space: Workspace, form: str) -> int:
    """Number of unmatched ids that match in another form."""
    form = form.replace("ID", "id")
    known = f"(SELECT DISTINCT {form} AS form FROM given_ids)"
    lost = f"(SELECT {form} AS form FROM asked_ids ANTI JOIN given_ids USING (id))"
    return space.value(f"SELECT count(*) FROM {lost} SEMI JOIN {known} USING (form)")


def _examples(space: Workspace) -> str:
    """An unmatched id of each side."""
    texts = []
    for side, other in (("asked_ids", "given_ids"), ("given_ids", "asked_ids")):
        lost = space.value(f"SELECT min(id) FROM {side} ANTI JOIN {other} USING (id)")
        if lost is not None:
            texts.append(repr(lost if len(lost) <= _NAMED else lost[: _NAMED - 3] + "..."))
    return f"unmatched: {' and '.join(texts)}"
