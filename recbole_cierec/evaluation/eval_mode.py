"""The modes of ``eval_args``: the items that positives are ranked against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MODE = re.compile(r"(full|labeled)|(uni|pop|user)([1-9][0-9]*)")


@dataclass(frozen=True)
class EvalMode:
    """An evaluation mode.

    Attributes:
        kind: ``full`` (all items), ``labeled`` (no ranking), ``uni`` or ``pop`` (RecBole's
            negatives for each positive) or ``user`` (negatives for each user).
        n: Negatives; 0 in the modes full and labeled.
    """

    kind: str
    n: int = 0

    @classmethod
    def parse(cls, text: Any) -> EvalMode:
        """The mode with the name ``text``, such as ``full`` or ``user500``.

        Raises:
            ValueError: There is no such mode.
        """
        match = _MODE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"not a mode of eval_args: {text!r}")
        return cls(match[1]) if match[1] else cls(match[2], int(match[3]))

    @classmethod
    def of(cls, config: Any, phase: str) -> EvalMode:
        """The mode of a phase, ``valid`` or ``test``."""
        return cls.parse(config["eval_args"]["mode"][phase])

    @classmethod
    def all_of(cls, eval_args: Mapping[str, Any]) -> list[EvalMode]:
        """The modes in ``eval_args``: one for both phases, or one for each phase."""
        modes = eval_args.get("mode")
        return [cls.parse(m) for m in (modes.values() if isinstance(modes, Mapping) else [modes])]

    @property
    def by_user(self) -> bool:
        """Whether each user's positives are ranked against one list of negatives."""
        return self.kind == "user"
