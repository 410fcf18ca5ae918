"""SIGTERM and Ctrl-C while an event loop runs.

The exception of a signal's handler comes up in whatever the loop is doing at that moment, often in
a task that nobody waits for any more: asyncio then reports it with a traceback, after the program
has said that it ends. So the signal is only noted, one task is cancelled, and when the loop is
closed the signal is raised again for the handler that was there before.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_stoppable(job: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a new event loop; a signal cancels it and takes effect afterwards.

    Args:
        job: Cleans up when it is cancelled.

    Raises:
        SystemExit, KeyboardInterrupt: Of the handlers that were there before.
    """
    seen: list[int] = []
    asyncio.run(_cancellable(job, seen))
    for number in seen[:1]:
        signal.raise_signal(number)


async def _cancellable(job: Coroutine[Any, Any, None], seen: list[int]) -> None:
    with _noted(seen):
        await job


@contextmanager
def _noted(seen: list[int]) -> Iterator[None]:
    """Signals are added to ``seen`` and cancel this task, whose cancellation is then no error."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        loop.call_soon_threadsafe(task.cancel)  # type: ignore[union-attr]  # wakes the loop up too

    # Only the main thread gets signals. What is ignored (Ctrl-C, behind nohup or &) stays so.
    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in SIGNALS if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    except asyncio.CancelledError:
        if not seen:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
