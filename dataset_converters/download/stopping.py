"""SIGTERM and Ctrl-C while an event loop runs.

An exception that a signal handler raises surfaces in whatever the loop is doing at that moment,
often in a task that nobody awaits any more; asyncio would report it with a traceback. So the signal
is only recorded and cancels one task, and it is raised again for the previous handler when the loop
is closed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_stoppable(job: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a new event loop; a signal cancels it and takes effect afterwards.

    Args:
        job: Cleans up when it is cancelled.

    Raises:
        SystemExit, KeyboardInterrupt: From the handlers that were installed before.
    """
    received: list[int] = []
    asyncio.run(_cancelled_by_signals(job, received))
    if received:
        signal.raise_signal(received[0])


async def _cancelled_by_signals(job: Coroutine[Any, Any, None], received: list[int]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)  # type: ignore[union-attr]  # wakes the loop up too

    # Only the main thread gets signals. An ignored one (Ctrl-C behind nohup or &) stays ignored.
    main = threading.current_thread() is threading.main_thread()
    watched = [number for number in SIGNALS if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in watched}
    try:
        await job
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
