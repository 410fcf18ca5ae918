"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(table: Sequence[Sequence[str]], texts: int | None = None) -> str:
    """A table whose first row is its head, without a line break at its end.

    Args:
        table: Cells; ``|`` in them is escaped already.
        texts: Columns after so many are numbers, on the right; None: no column is.

    >>> print(markdown_table([["model", "recall"], ["MF", "0.1"]], texts=1))
    | model | recall |
    | --- | ---: |
    | MF | 0.1 |
    """
    head, *body = table
    rules = ["---" if texts is None or place < texts else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rules, *body))
