"""Errors that a user can correct.

Each carries one line: what is wrong, where, and what to do. The command line prints that line
and exits with code 2; Python callers can catch :class:`UserError` for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from recbole_cierec.terminal import one_line

_LONGEST_LINE = 1900


class UserError(Exception):
    """Base of all errors whose cause is the input, not the code.

    Its text is one line of bounded length, and control characters in quoted input are escaped.
    """

    def __str__(self) -> str:
        line = one_line(super().__str__())
        half = _LONGEST_LINE // 2
        return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


class ConfigError(UserError, ValueError):
    """A key or value of the configuration is unknown, misspelt or of the wrong type."""


class UnknownKeyError(ConfigError):
    """A key is unknown.

    Attributes:
        key: Its name, where the error was raised in this process.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class DataError(UserError, ValueError):
    """A data file is missing, empty or malformed."""


def other_ids(source: str, ids: Sequence[str], known: str, what: str = "an item") -> DataError:
    """The error for a file of ids none of which is an item (or user) of the data.

    Args:
        source: The file, as the message begins.
        ids: Its ids.
        known: An item of the data.
        what: What the ids should name, with its article.
    """
    return DataError(
        f"{source}: none of its {len(ids)} ids is {what} of the data; the first is '{ids[0]}', "
        f"{what} is '{known}'"
    )


class OutputError(UserError, OSError):
    """A file or folder cannot be written.

    Args:
        path: The file, as the user wrote it.
        reason: The cause, in a few words.
        advice: What to do.
    """

    def __init__(
        self,
        path: str | Path,
        reason: str,
        advice: str = "make room there, or choose another place",
    ) -> None:
        super().__init__(f"{path}: cannot be written ({reason}); {advice}")
        self.strerror = reason


class PictureError(UserError, ValueError):
    """One picture cannot be used.

    Args:
        path: The file, as the user wrote it.
        reason: Why it is refused, in a few words.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, damaged or belongs to another model or data set."""


class NonFiniteLossError(UserError, ArithmeticError):
    """The training loss became NaN or infinite; no parameter was updated with it."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.65) -> str:
    """``; did you mean 'x'?`` for the nearest known word, or nothing if none is near.

    Args:
        word: What was given; case is ignored.
        known: The words that exist.
        cutoff: Least similarity, from 0 to 1, as of :func:`difflib.get_close_matches`.
    """
    lower = {str(name).lower(): str(name) for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    return f"; did you mean '{lower[close[0]]}'?" if close else ""
