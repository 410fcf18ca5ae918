"""What the flags of several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recbole_cierec.errors import ConfigError, nearest


def whole_number(name: str, text: str, low: int) -> int:
    """The value of a flag that counts.

    Args:
        name: Of the flag.
        text: As given.
        low: The smallest that is allowed.

    Raises:
        ConfigError: It is no whole number, or too small.
    """
    try:
        number = int(text)
    except ValueError as error:
        message = f"command line: --{name} must be a whole number, not '{text}'"
        raise ConfigError(message) from error
    if number < low:
        raise ConfigError(f"command line: --{name} must be {low} or more, not {number}")
    return number


def refuse_unknown_flags(flags: Mapping[str, str], own: Iterable[str]) -> None:
    """Refuse misspelt flags before the command says which one it misses.

    A name that is like no other may be a key of a model outside the package, which only its
    checkpoint knows.

    Args:
        flags: Those that are not the command's own.
        own: The names of the command's own flags.

    Raises:
        ConfigError: For the first that is like a flag or key but none; the line names that.
    """
    if not flags:
        return
    from recbole_cierec.config.keys import all_names  # takes seconds

    keys = all_names()
    for name in flags:
        if name not in keys and (hint := nearest(name, own) or nearest(name, keys)):
            raise ConfigError(f"command line: unknown flag --{name}{hint}")
