"""What the cells of an annotation column hold: numbers for the log, and signs of another separator.

A separator that is not the one of the run is no error: whole cells, or ``red,``, are then tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

MARKS = "|;,"  # that files often have between tokens
_MOST = 0.5  # of the tokens
_SEEN = 10_000  # cells that are enough to tell


def described(cells: Sequence[str], separator: str) -> str:
    """Distinct tokens, and tokens of the average item with any: ``12 tokens, 3.1 an item``."""
    distinct: set[str] = set()
    items = count = 0
    for cell in filter(None, cells):  # without lists of all: there may be millions
        tokens = cell.split(separator)
        distinct.update(tokens)
        items, count = items + 1, count + len(tokens) - tokens.count("")
    distinct.discard("")
    number = f"{len(distinct):,} token{'s' * (len(distinct) != 1)}"
    return f"{number}, {count / max(1, items):.1f} an item"


def separator_doubt(cells: Sequence[str], separator: str) -> str:
    """What says that ``separator`` is not that of the cells, and what to do; "" for nothing."""
    each = _split(list(islice(filter(None, cells), _SEEN)), separator)
    if separator.strip():
        later = [token for tokens in each for token in tokens[1:]]
        if later and sum(token[0] == " " for token in later) >= _MOST * len(later):
            return f"begin with a blank; remove these blanks, or set seq_separator: '{separator} '"
    # Nothing follows the last of several tokens: "red, bag" has one comma.
    count = sum(max(1, len(tokens) - 1) for tokens in each)
    tokens = [token for tokens in each for token in tokens]
    for mark in MARKS:
        # "_" is a blank within a label: Rock,_Pop is one.
        having = [token for token in tokens if mark in token.replace(f"{mark}_", "")]
        if having and len(having) >= _MOST * count:
            return _advice(mark, having, separator)
    return ""


def _advice(mark: str, tokens: Sequence[str], separator: str) -> str:
    """``tokens`` hold another separator, ``mark``."""
    ends = all(mark not in token[:-1] for token in tokens)
    other = f"{mark} " if ends and separator == " " else mark
    own = "blanks" if separator == " " else f"'{separator}'"
    return (
        f"hold '{mark}', as '{tokens[0][:60]}' does; if it separates tokens, write {own} in its "
        f"place, or set seq_separator: '{other}'"
    )


def _split(cells: Sequence[str], separator: str) -> list[list[str]]:
    """The tokens of each cell that has any."""
    each = ([token for token in cell.split(separator) if token] for cell in cells)
    return [tokens for tokens in each if tokens]
