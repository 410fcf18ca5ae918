"""Which download may start next: rates, pauses that servers ask for, and later attempts.

Each host has its own queue. A host that is slow or asks for a pause holds back only its own tasks,
never the threads or places of the others.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pace:
    """How fast servers are asked.

    Args:
        rate: Requests a second over all hosts; 0: no limit.
        host_rate: The same for one host.
        per_host: Downloads from one host at a time.
    """

    rate: float = 20.0
    host_rate: float = 10.0
    per_host: int = 4


@dataclass
class Task:
    """One picture to fetch.

    Args:
        line: Of the list, for messages.
        path: Relative path of the result.
        url: Where it is.
        host: Name of the URL's host.
        attempts: How often it was tried.
    """

    line: int
    path: str
    url: str
    host: str
    attempts: int = 0


@dataclass
class _Host:
    waiting: list[tuple[float, int, Task]] = field(default_factory=list)  # heap: not before, line
    ready_at: float = 0.0
    active: int = 0
    queued_at: float | None = None  # its key in the heap of hosts; entries of other keys are stale


class Schedule:
    """Hands tasks to workers; belongs to one event loop.

    Args:
        tasks: All of them.
        pace: Limits.
    """

    def __init__(self, tasks: Iterable[Task], pace: Pace) -> None:
        self._gap = 1 / pace.rate if pace.rate > 0 else 0.0
        self._host_gap = 1 / pace.host_rate if pace.host_rate > 0 else 0.0
        self._per_host = pace.per_host
        self._hosts: dict[str, _Host] = {}
        self._queue: list[tuple[float, str]] = []  # heap: earliest start known so far, host
        self._next = 0.0
        self._unfinished = 0
        self._changed = asyncio.Event()
        for task in tasks:
            self._unfinished += 1
            self._put(task, 0.0)

    async def take(self) -> Task | None:
        """Wait for the next task that may start.

        Returns:
            The task, to be given to :meth:`finish` or :meth:`again`; None when all are finished.
        """
        while self._unfinished:
            delay = self._delay()
            if delay is not None and delay <= 0:
                return self._pop()
            self._changed.clear()
            await self._wait(delay)
        return None

    def finish(self, task: Task) -> None:
        """Say that a task is done, well or badly.

        Args:
            task: From :meth:`take`.
        """
        self._unfinished -= 1
        self._release(task.host)
        self._changed.set()

    def again(self, task: Task, delay: float) -> None:
        """Give a task back for another attempt.

        Args:
            task: From :meth:`take`.
            delay: Seconds until it may start.
        """
        self._put(task, time.monotonic() + delay)
        self._release(task.host)
        self._changed.set()

    def pause(self, host: str, seconds: float) -> None:
        """Ask nothing of a host for some time.

        Args:
            host: Its name.
            seconds: From now.
        """
        entry = self._hosts.setdefault(host, _Host())
        entry.ready_at = max(entry.ready_at, time.monotonic() + seconds)

    async def turn(self, host: str) -> None:
        """Wait until one more request, the next hop of a redirect, may go to a host.

        Args:
            host: Its name.
        """
        entry = self._hosts.setdefault(host, _Host())
        start = max(time.monotonic(), entry.ready_at, self._next)
        self._book(entry, start)
        await asyncio.sleep(start - time.monotonic())

    async def _wait(self, delay: float | None) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), delay)
        except asyncio.TimeoutError:
            return

    def _put(self, task: Task, not_before: float) -> None:
        host = self._hosts.setdefault(task.host, _Host())
        heapq.heappush(host.waiting, (not_before, task.line, task))
        self._enqueue(task.host, host)

    def _enqueue(self, name: str, host: _Host) -> None:
        if not host.waiting or host.active >= self._per_host:
            return
        start = max(host.ready_at, host.waiting[0][0])
        if host.queued_at is None or start < host.queued_at:
            host.queued_at = start
            heapq.heappush(self._queue, (start, name))

    def _release(self, name: str) -> None:
        host = self._hosts[name]
        host.active -= 1
        self._enqueue(name, host)

    def _book(self, host: _Host, start: float) -> None:
        host.ready_at = start + self._host_gap
        self._next = start + self._gap

    def _delay(self) -> float | None:
        """Seconds until the first task of the queue may start; None: none can, for now."""
        while self._queue:
            known, name = self._queue[0]
            host = self._hosts[name]
            if host.queued_at == known:
                start = max(host.ready_at, host.waiting[0][0])
                if start <= known:
                    return max(start, self._next) - time.monotonic()
                host.queued_at = start  # paused since it was queued
                heapq.heappush(self._queue, (start, name))
            heapq.heappop(self._queue)
        return None

    def _pop(self) -> Task:
        _, name = heapq.heappop(self._queue)
        host = self._hosts[name]
        _, _, task = heapq.heappop(host.waiting)
        host.active += 1
        host.queued_at = None
        self._book(host, time.monotonic())
        self._enqueue(name, host)
        return task
