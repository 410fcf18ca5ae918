"""The table at the end of a run: a row for each group of users or items, next to chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from recbole_cierec.evaluation.names import LABELS, split_name

WIDTH = 100  # characters of a line; more metrics are continued in a second block


def _cell(value: float | None) -> str:
    known = value is not None and not math.isnan(value)  # nan: the group is empty
    return f"{value:.5f}" if known else "-"


def _by_group(result: Mapping[str, float]) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for name, value in result.items():
        metric, group = split_name(name)
        groups.setdefault(group, {})[metric] = value
    return groups


def result_table(
    result: Mapping[str, float],
    users: Mapping[str, int] | None = None,
    chance: Mapping[str, float] | None = None,
) -> str:
    """Lay out a result.

    Args:
        result: Metrics, named ``recall@10`` for all users, ``recall@10_cold`` for a group, and with
            the suffix ``_std`` for standard deviations over repeats, which get a separate row.
        users: Number of users of each group, ``all`` for all users.
        chance: The expected result of a random ranking, with the same names.

    Returns:
        Lines of text; a group without a value shows ``-``.

    Example:
        >>> print(result_table({"recall@10": 0.5, "recall@10_cold": 0.25}, {"all": 7, "cold": 3},
        ...                    {"recall@10": 0.1, "recall@10_cold": 0.1}))
                    users  recall@10
        all users       7    0.50000
          chance             0.10000
        cold users      3    0.25000
          chance             0.10000
    """
    means = _by_group({name: v for name, v in result.items() if not name.endswith("_std")})
    spreads = _by_group(
        {name.removesuffix("_std"): v for name, v in result.items() if name.endswith("_std")}
    )
    levels = _by_group(chance or {})
    rows: list[tuple[str, str, Mapping[str, float]]] = []
    for group, values in means.items():
        count = f"{(users or {}).get(group, '')}"
        rows.append((LABELS.get(group, group), count, values))
        if group in spreads:
            rows.append(("  std over candidates", "", spreads[group]))
        if group in levels:
            rows.append(("  chance", "", levels[group]))
    metrics = list(dict.fromkeys(metric for values in means.values() for metric in values))
    return "\n\n".join(_block(rows, part, bool(users)) for part in _blocks(rows, metrics))


def _blocks(rows: Iterable[tuple], metrics: Sequence[str]) -> list[list[str]]:
    """The metrics, cut where a line would exceed :data:`WIDTH`."""
    room = WIDTH - max((len(row[0]) for row in rows), default=0) - 8
    blocks: list[list[str]] = [[]]
    used = 0
    for metric in metrics:
        used += 2 + max(7, len(metric))
        if blocks[-1] and used > room:
            blocks.append([])
            used = 2 + max(7, len(metric))
        blocks[-1].append(metric)
    return blocks


def _block(
    rows: Sequence[tuple[str, str, Mapping[str, float]]], metrics: Sequence[str], counted: bool
) -> str:
    table = [["", *(["users"] if counted else []), *metrics]]
    for label, count, values in rows:
        table.append(
            [
                label,
                *([count] if counted else []),
                *(_cell(values.get(metric)) for metric in metrics),
            ]
        )
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Cells as text in columns, the first aligned to the left, the others to the right.

    >>> print(aligned([["", "a"], ["row", "12"]]))
          a
    row  12
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
