"""Requests that cannot be answered: what is wrong, and what to do."""

from __future__ import annotations


class Refusal(Exception):
    """An answer of HTTP 4xx, as JSON with ``error`` and ``hint``.

    Args:
        status: The HTTP status.
        error: What is wrong.
        hint: What to do.
    """

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint
