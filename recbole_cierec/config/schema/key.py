"""What one configuration key is: :class:`Key`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from types import NoneType
from typing import Any, Literal

IN_YAML: Any = type("InYaml", (), {"__repr__": lambda self: "IN_YAML"})()

Check = Callable[[str, Any], Any]
"""(description of the value, value) -> value in its final form; raises :class:`WrongPart`."""


class WrongPart(Exception):
    """What a value, or a part of it, must be; :func:`check_value` adds where it was given."""


class Role(Enum):
    """What a key is for, which decides where it counts."""

    PROTOCOL = "protocol"  # data, split and evaluation: equal for all models that are compared
    CONTENT = "content"  # pictures, annotations and their encoder
    TRAINING = "training"
    MODEL = "model"  # read by some models only
    DATA = "data"  # names of columns and files
    PLACE = "place"  # may differ between two runs of the same experiment
    RUN = "run"  # the model and the data set
    LAUNCH = "launch"  # set for each process when a run starts
    DERIVED = "derived"  # computed from other keys


@dataclass(frozen=True)
class Columns:
    """Columns that the value of a key names.

    Attributes:
        file: The atomic file that has them (``item`` for NAME.item); None: any.
        types: The types that they may have.
    """

    file: str | None
    types: tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """The declaration of a key.

    A model outside the package declares its own keys in a class attribute::

        class MyModel(VisualRecommender):
            keys = (Key("depth", int, "Layers of the network.", default=2, low=1),)

    ``dataclasses.replace(KEYS["learning_rate"], default=0.05)`` is an existing key with another
    default.

    Attributes:
        name: As in yaml files and on the command line.
        types: The type or types that a value may have; None among them allows null. Empty: the
            type of the default in RecBole's yaml.
        about: One sentence.
        default: The value where none is given. IN_YAML: that of properties/ or of RecBole.
        role: What the key is for.
        low: The smallest value of a number.
        high: The largest.
        choices: All allowed words; case is ignored when they are read.
        check: Checks, and completes, values with parts.
        not_empty: Whether the empty text is refused.
        path: For a path, what it may lead to.
        exists: Whether it must exist, unless it is one of ``words``.
        words: Values that are no path.
        columns: For names of columns, what these must be.
        changes: Whether a run may be resumed with another value.
        compared: Whether ``compare`` demands it to be equal.
        in_use: Whether a trained model may be used (``recommend``, ``export``, ``report``,
            ``serve``) with another value: it says where files are or how fast the work is.
        place: Whether a derived key differs between machines.
        searched: Whether ``tune`` may search a key of its role.
        refused: Why a user cannot set it, continuing ``'KEY' ...``.
    """

    name: str
    types: Any = ()
    about: str = ""
    _: KW_ONLY
    default: Any = IN_YAML
    role: Role = Role.MODEL
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    check: Check | None = None
    not_empty: bool = False
    path: Literal["file", "folder", "any"] | None = None
    exists: bool = False
    words: tuple[str, ...] = ()
    columns: Columns | None = None
    changes: bool = False
    compared: bool = False
    in_use: bool = False
    place: bool = False
    searched: bool = True
    refused: str = ""

    def __post_init__(self) -> None:
        types = self.types if isinstance(self.types, tuple) else (self.types,)
        object.__setattr__(self, "types", tuple(NoneType if t is None else t for t in types))

    @property
    def of_place(self) -> bool:
        """Whether the key does not decide a run's result."""
        return self.place or self.role in (Role.PLACE, Role.LAUNCH)

    @property
    def may_be_searched(self) -> bool:
        """Whether trials with different values can be compared."""
        fixed = self.of_place or self.role in (Role.PROTOCOL, Role.RUN)
        return self.searched and not fixed
