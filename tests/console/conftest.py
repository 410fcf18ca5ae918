"""A program without logging, in which a run sets up its console."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import pytest

from recbole_cierec.logs import stop_log


@pytest.fixture
def bare(in_tmp):
    """``with bare():`` without handlers, not even those of pytest, which it adds to each call."""

    @contextmanager
    def without_handlers():
        root = logging.getLogger()
        kept, root.handlers = root.handlers, []
        try:
            yield
        finally:
            stop_log()
            root.handlers = kept

    return without_handlers
