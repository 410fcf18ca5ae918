"""Download many pictures: existing files, the lock, hosts side by side, and the failures."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from recbole_cierec.errors import DataError, OutputError, PictureError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers
from recbole_cierec.terminal import one_line
from recbole_cierec.vision.picture_files import Pool
from recbole_cierec.vision.pictures import decode_picture

from .addresses import AddressPolicy
from .fetch import Fetcher, Refusal, open_session
from .limits import Limits
from .pace import Pace
from .picture_list import FAILURES, LOCK, Failure, Task
from .stopping import run_stoppable

# Threads that decode; each may hold the pixels of one picture of the largest size allowed.
_DECODERS = min(4, os.cpu_count() or 1)
_HOSTS = 256  # hosts at a time; one that pauses keeps its place


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created, for one download.

    Raises:
        DataError: Another download is writing into it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{folder}: is a file, or below one; give a folder as --into") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{folder}: another download is writing here; wait for it or choose another folder"
        ) from error
    except (OSError, NotImplementedError):  # a file system without locks
        pass
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()


@dataclass
class Download:
    """One download; the counts are right at any moment, also after an interruption.

    Args:
        folder: The target folder, :func:`locked` while pictures are fetched.
        limits: For each picture and for the pace.
        policy: Allowed addresses.
        agent: The User-Agent header.
        failures: Rows without a picture.
        fetched: Number of pictures stored.
        bytes: Received for them.
    """

    folder: Path
    limits: Limits
    policy: AddressPolicy
    agent: str
    failures: list[Failure] = field(default_factory=list)
    fetched: int = 0
    bytes: int = 0

    def missing(self, tasks: Sequence[Task], *, trust: bool) -> list[Task]:
        """Tasks whose file does not exist or does not decode, in order.

        Args:
            tasks: All rows.
            trust: Accept every file that is not empty, without decoding it.
        """

        def absent(task: Task) -> bool:
            path = self.folder / task.path
            try:
                if trust:
                    return not (path.is_file() and path.stat().st_size)
                decode_picture(path, self.limits.spec)
            except (PictureError, OSError):
                return True
            return False

        results = Pool(_DECODERS, True).map(absent, tasks, "Checking files")
        return [task for task, gone in zip(tasks, results, strict=True) if gone]

    def fetch(self, tasks: Sequence[Task]) -> None:
        """Fetch pictures, from many hosts at a time.

        Raises:
            DataError: The disk is full or the like.
        """
        for parent in {os.path.dirname(task.path) for task in tasks}:
            clear_leftovers(self.folder / parent, TEMPORARY)
        if tasks:
            run_stoppable(self._fetch(tasks))

    async def _fetch(self, tasks: Sequence[Task]) -> None:
        by_host: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            by_host[task.host].append(task)
        hosts = iter(by_host.values())  # shared: each runner takes the next host
        bar = tqdm(total=len(tasks), desc="Downloading", unit="file", disable=None)
        with bar, ThreadPoolExecutor(_DECODERS) as decoders:
            async with open_session(self.limits, self.policy, self.agent) as session:
                fetcher = Fetcher(session, Pace(self.limits), self.limits, self.folder, decoders)

                async def run_hosts() -> None:
                    for own in hosts:
                        queue, places = iter(own), min(self.limits.per_host, len(own))
                        await _together(self._work(fetcher, queue, bar) for _ in range(places))

                await _together(run_hosts() for _ in range(min(_HOSTS, len(by_host))))

    async def _work(self, fetcher: Fetcher, queue: Iterator[Task], bar: tqdm) -> None:
        for task in queue:
            try:
                self.bytes += await fetcher.fetch(task.url, task.path)
                self.fetched += 1
            except Refusal as refusal:
                self.failures.append(Failure(task.line, task.path, task.url, str(refusal)))
            bar.update()
            bar.set_postfix(failed=len(self.failures), refresh=False)

    def write_failures(self) -> None:
        """Write failures.tsv in the order of the list; without failures it holds only a header.

        Raises:
            DataError: It cannot be written.
        """
        lines = ["path\turl\treason\tline"]
        for failure in sorted(self.failures, key=lambda failure: failure.line):
            cells = (failure.path, failure.url, failure.reason, str(failure.line))
            lines.append("\t".join(map(one_line, cells)))
        try:
            with replacing(self.folder / FAILURES) as stream:
                stream.write(("\n".join(lines) + "\n").encode())
        except OutputError as error:
            raise DataError(str(error)) from error


async def _together(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """Run coroutines; an error or a cancellation ends all of them."""
    running = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*running)
    finally:
        for job in running:
            job.cancel()
        await asyncio.gather(*running, return_exceptions=True)
