"""Computation off the event loop: one thread for torch, one for pictures, and lists in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from recbole_cierec.serving.web.refusal import Refusal

_In = TypeVar("_In")
_Out = TypeVar("_Out")
MOST_WAITING = 512  # requests of one kind; further ones are refused
BUSY = Refusal(503, "the server is busy", "send the request again in a second")


class Worker:
    """A thread that runs one call after the other; the number of waiting calls is bounded.

    A call that has begun runs to its end, whether its client waits or has left.
    """

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting = 0

    async def run(self, call: Callable[..., _Out], *arguments: Any) -> _Out:
        """The result of ``call(*arguments)`` in the thread.

        Raises:
            Refusal: Too many calls wait.
        """
        if self._waiting >= MOST_WAITING:
            raise BUSY
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, call, *arguments)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Drop the calls that wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Batches(Generic[_In, _Out]):
    """Requests that come while others are computed, computed together in the next call.

    Args:
        worker: Where ``answer`` runs.
        answer: The results of several requests, in their order.
        size: The weight of a request.
        most: The weight of a call; a heavier request makes one alone.
    """

    def __init__(
        self,
        worker: Worker,
        answer: Callable[[Sequence[_In]], Sequence[_Out]],
        size: Callable[[_In], int],
        most: int,
    ) -> None:
        self._worker, self._answer, self._size, self._most = worker, answer, size, most
        self._waiting: list[tuple[_In, asyncio.Future[_Out]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, request: _In) -> _Out:
        """The result of one request.

        Raises:
            Refusal: Too many requests wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise BUSY
        future: asyncio.Future[_Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next()
            try:
                results = await self._worker.run(self._answer, [request for request, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():  # its client has left
                    future.set_result(result)

    def _next(self) -> list[tuple[_In, asyncio.Future[_Out]]]:
        count, weight = 0, 0
        for request, _ in self._waiting:
            weight += self._size(request)
            if count and weight > self._most:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
