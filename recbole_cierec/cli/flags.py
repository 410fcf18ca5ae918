"""What the flags of several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def value_of(equals: str, value: str, rest: list[str]) -> str:
    """The value of a flag: what follows its ``equals``, or the next word, which is taken off
    ``rest``, unless that is a flag."""
    return rest.pop(0) if not equals and rest and not rest[0].startswith("--") else value


def require(
    names: Sequence[str], arguments: Mapping[str, Any], flags: Mapping[str, str], own: Iterable[str]
) -> None:
    """Refuse a command line that says less than a long command needs.

    Args:
        names: ``model`` or ``dataset``, or both.
        arguments: Their values, None where no flag gives them, and ``config_file_list``, whose
            files may give them.
        flags: Other flags, for :func:`refuse_unknown_flags`.
        own: Likewise.

    Raises:
        ConfigError: Neither a flag nor a file gives one of them; the line names it.
    """
    missing = [name for name in names if arguments[name] is None]
    if not missing:
        return
    from recbole_cierec.config.yaml import read_yaml

    given = {key for file in arguments["config_file_list"] for key in read_yaml(file)}
    if missing := [name for name in missing if name not in given]:
        refuse_unknown_flags(flags, own)  # the name may be misspelt
        what = " and ".join(f"--{name}=NAME" for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"command line: {what} {verb} missing; --help says more")
