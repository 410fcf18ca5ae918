"""Annotations from the columns of a table; the whole column decides how its cells are read.

* A **flag** column holds 0 and 1, true and false or yes and no: where it is true, the item gets the
  column's name as an annotation (``Comedy``).
* A **number** column holds numbers: the annotation is name and number (``year=1995``), since the
  number alone would be the same annotation for a year, a size and a code.
* All other columns hold **labels**: a text, several between separators, or a list as JSON or as
  Python writes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tables.sql import quote
from ..tables.workspace import Workspace

_TRUE, _FALSE = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i)nan$"
_SEPARATORS = ";,"  # that tables often have between labels
_MANY = 20  # distinct numbers above which a column may be a measurement


def annotations_sql(space: Workspace, table: str, names: Sequence[str], separator: str) -> str:
    """Detect the kind of each column and return the annotations as SQL of type VARCHAR[].

    Args:
        space: The workspace; its notes will name the columns of flags and of numbers.
        table: With the cells as text in the columns ``cell0``, ``cell1`` ...
        names: The columns' names in the file.
        separator: Between two labels in a cell.
    """
    parts, flags, numbers = [], [], []
    for place, key in enumerate(names):
        label = key.replace("_", " ")  # a token has "_" for the blank
        text = f"lower(trim(cell{place}))"
        labels = f"list_filter({_labels(f'cell{place}', separator)}, lambda x: x <> '')"
        if space.value(f"SELECT bool_and({text} IN {_TRUE + _FALSE}) FROM {table}"):
            flags.append(key)
            parts.append(f"CASE WHEN {text} IN {_TRUE} THEN [{quote(label)}] ELSE [] END")
        elif _are_numbers(space, table, key, labels):
            numbers.append(key)
            said = f"lambda x: {quote(label + '=')} || regexp_replace(x, '\\.0*$', '')"
            some = f"list_filter({labels}, lambda x: lower(x) <> 'nan')"
            parts.append(f"list_transform({some}, {said})")
        else:
            parts.append(labels)
            _note_other_separator(space, table, key, f"cell{place}", separator)
    if flags:
        keys = ", ".join(flags)
        space.notes.append(f"flags, annotated by the column's name where they are true: {keys}")
    if numbers:
        keys = ", ".join(numbers)
        space.notes.append(f"numbers, annotated as column=number: {keys}")
    return f"flatten([{', '.join(parts)}])" if parts else "[]::VARCHAR[]"


def make_items(space: Workspace, names: Sequence[str], separator: str) -> None:
    """Make the table items, without pictures, of raw_items, and drop that.

    Args:
        space: Its raw_items has the columns item_id, title, ``cell0``, ``cell1`` ...
        names: As for :func:`annotations_sql`, as separator.
        separator: Between two labels in a cell.
    """
    annotations = annotations_sql(space, "raw_items", names, separator)
    space.run(
        f"CREATE TABLE items AS SELECT item_id, title, {annotations} AS annotations, "
        "NULL::VARCHAR AS image, NULL::VARCHAR AS image_url FROM raw_items ORDER BY rowid"
    )
    space.run("DROP TABLE raw_items")


def _are_numbers(space: Workspace, table: str, key: str, labels: str) -> bool:
    """Whether a column holds only numbers; warns if hardly any two items share one."""
    numbers, distinct, items = space.run(
        f"SELECT bool_and(regexp_matches(x, {quote(_NUMBER)})), count(DISTINCT x), "
        f"count(DISTINCT row) FROM (SELECT rowid AS row, unnest({labels}) AS x FROM {table})"
    ).fetchone()
    if numbers and distinct > _MANY and distinct > items / 2:
        space.warn(
            f"{key} holds {distinct:,} numbers for {items:,} items, which tell a model almost "
            "nothing; group them into classes, or leave the column out"
        )
    return bool(numbers)


def _note_other_separator(
    space: Workspace, table: str, key: str, cell: str, separator: str
) -> None:
    """Warn if no text of a column holds the separator and most hold another one."""
    shares = [f"avg(contains({cell}, {quote(mark)})::INT)" for mark in (separator, *_SEPARATORS)]
    texts = f"{cell} <> '' AND NOT starts_with({cell}, '[')"
    used, *others = space.run(f"SELECT {', '.join(shares)} FROM {table} WHERE {texts}").fetchone()
    for mark, share in zip(_SEPARATORS, others, strict=True):
        if used == 0 and share > 0.5:
            space.warn(
                f"{key}: no cell holds {separator!r}, and {share:.0%} hold {mark!r}; if it is "
                f"between labels, set --annotation-separator '{mark}'"
            )
            return


def _labels(cell: str, separator: str) -> str:
    """Labels in a cell: the elements of a list, or the parts of a text."""
    parts = f"list_transform(string_split({cell}, {quote(separator)}), lambda x: trim(x))"
    # DuckDB's notation of lists is close enough to Python's: ['Rock', 'Pop'].
    listed = (
        f"coalesce(TRY_CAST(TRY_CAST({cell} AS JSON) AS VARCHAR[]), TRY_CAST({cell} AS VARCHAR[]))"
    )
    return (
        f"CASE WHEN {cell} IS NULL THEN [] WHEN starts_with({cell}, '[') AND {listed} IS NOT NULL "
        f"THEN {listed} ELSE {parts} END"
    )
