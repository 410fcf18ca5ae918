"""What the worker processes of tuning and of experiments share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread

TERMINATED = 128 + signal.SIGTERM  # the exit code of a worker after SIGTERM


def begin_worker() -> None:
    """End this process in order on SIGTERM, and together with its parent, however that ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started within the block ignore Ctrl-C, also while they import."""
    if current_thread() is not main_thread():  # where signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def gpu_of(gpu_id: object, rank: int) -> dict[str, str]:
    """The key ``gpu_id`` of a worker; workers take several GPUs in turn, and share one.

    >>> gpu_of("0, 2", rank=3)
    {'gpu_id': '2'}
    >>> gpu_of("0", rank=3)
    {}
    """
    devices = [one.strip() for one in str(gpu_id).split(",") if one.strip()]
    return {"gpu_id": devices[rank % len(devices)]} if len(devices) > 1 else {}
