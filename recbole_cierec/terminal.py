"""Text for terminals and logs, with control characters of the input escaped.

The name of a file, a data set or a key may contain an escape sequence, which a terminal would obey,
or a line break, which would forge a line of the log.
"""

from __future__ import annotations

import logging
import re
from typing import TextIO

# What users read during a run is logged here, and its result there. All other INFO records go
# to the run's log file, and to the console with verbose: True (recbole_cierec.logs).
CONSOLE = logging.getLogger("recbole_cierec.console")
RESULT = logging.getLogger("recbole_cierec.result")

# Control characters (C0 and C1), characters that reorder or break lines, and lone surrogates.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINE = re.compile(f"[{_UNSAFE}]")
_IN_TEXT = re.compile(f"(?![\n\t])[{_UNSAFE}]")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def printable(text: str) -> str:
    r"""Text of one or more lines with every other control character escaped.

    >>> print(printable("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _IN_TEXT.sub(_escaped, text)


def one_line(text: object) -> str:
    r"""Like :func:`printable`, with line breaks and tabs escaped too.

    >>> print(one_line("a\nb"))
    a\nb
    """
    return _IN_LINE.sub(_escaped, str(text))


def shown(value: object, most: int = 60) -> str:
    """The ``repr`` of a value for a message, shortened to ``most`` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason(error: BaseException, most: int = 160) -> str:
    """An error's text on one line of at most ``most`` characters, for the message of another."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def say(text: str, stream: TextIO | None = None) -> None:
    """Print text that may contain input, and flush; ``stream`` is stdout by default."""
    print(printable(text), file=stream, flush=True)
