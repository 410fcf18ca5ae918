"""When a request may start: rates, places, and pauses that servers ask for."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

from .limits import Limits


@dataclass
class _Host:
    limiter: AsyncLimiter | None
    resumes_at: float = 0.0  # of time.monotonic()

    async def wait(self) -> None:
        while (seconds := self.resumes_at - time.monotonic()) > 0:
            await asyncio.sleep(seconds)


class Pace:
    """Hands out turns; belongs to one event loop.

    A request that waits for its host occupies none of the places of the other hosts.

    Args:
        limits: ``workers``, ``rate`` and ``host_rate`` are used.
    """

    def __init__(self, limits: Limits) -> None:
        self._places = asyncio.Semaphore(limits.workers)
        self._limiter = _limiter(limits.rate)
        self._hosts = defaultdict[str, _Host](lambda: _Host(_limiter(limits.host_rate)))

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait until a request may go to a host; the block is the request."""
        entry = self._hosts[host]
        while True:
            await entry.wait()
            if entry.limiter:
                await entry.limiter.acquire()
            async with self._places:
                if entry.resumes_at > time.monotonic():  # paused while this request waited
                    continue
                if self._limiter:
                    await self._limiter.acquire()
                yield
                return

    def pause(self, host: str, seconds: float) -> None:
        """Send nothing to a host for some seconds from now."""
        entry = self._hosts[host]
        entry.resumes_at = max(entry.resumes_at, time.monotonic() + seconds)


def _limiter(rate: float) -> AsyncLimiter | None:
    # One request per 1/rate seconds: a larger bucket would let requests start in bursts.
    return AsyncLimiter(1, 1 / rate) if rate else None
