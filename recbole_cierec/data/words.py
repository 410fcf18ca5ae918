"""Annotations and titles in words: what converters escape for atomic files is undone for people.

Commands, conditions and requests take annotations as NAME.item has them.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_ESCAPED = re.compile("(?:%[0-9A-F]{2})+")


def label_words(token: str) -> str:
    """An annotation token in words: ``12%22_singles`` gives ``12" singles``."""
    return _ESCAPED.sub(_character, token.replace("_", " "))


def title_words(cell: str) -> str:
    """A title with its double quotes, which converters write as two single ones."""
    return cell.replace("''", '"')


def _character(match: re.Match[str]) -> str:
    """What an escape stands for; the escape itself where that cannot be seen, or is no text."""
    try:
        text = unquote_to_bytes(match[0]).decode()
    except UnicodeDecodeError:
        return match[0]
    return text if text.isprintable() else match[0]
