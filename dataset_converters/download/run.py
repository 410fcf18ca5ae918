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


@dataclass
class Outcome:
    """What became of the rows.

    Args:
        failures: Rows without a picture.
        fetched: Number of pictures stored.
        bytes: Received for them.
    """

    failures: list[Failure] = field(default_factory=list)
    fetched: int = 0
    bytes: int = 0


def missing_tasks(
    tasks: Sequence[Task], folder: Path, limits: Limits, *, trust: bool
) -> list[Task]:
    """Tasks whose file does not exist or does not decode, in order.

    Args:
        tasks: All rows.
        folder: The target folder.
        limits: A file with too many pixels is fetched again (and then refused).
        trust: Accept every file that is not empty, without decoding it.
    """

    def absent(task: Task) -> bool:
        path = folder / task.path
        try:
            if trust:
                return not (path.is_file() and path.stat().st_size)
            decode_picture(path, limits.spec)
        except (PictureError, OSError):
            return True
        return False

    results = Pool(_DECODERS, True).map(absent, tasks, "Checking files")
    return [task for task, gone in zip(tasks, results, strict=True) if gone]


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


def download(
    tasks: Sequence[Task],
    folder: Path,
    limits: Limits,
    policy: AddressPolicy,
    agent: str,
    outcome: Outcome,
) -> None:
    """Fetch pictures into a folder that is :func:`locked`.

    Args:
        tasks: What to fetch.
        folder: The target folder.
        limits: For each picture and for the pace.
        policy: Allowed addresses.
        agent: The User-Agent header.
        outcome: Updated continuously, so that it is right even after an interruption.

    Raises:
        DataError: The disk is full or the like.
    """
    for parent in {os.path.dirname(task.path) for task in tasks}:
        clear_leftovers(folder / parent, TEMPORARY)
    if tasks:
        run_stoppable(_download(tasks, folder, limits, policy, agent, outcome))


async def _download(
    tasks: Sequence[Task],
    folder: Path,
    limits: Limits,
    policy: AddressPolicy,
    agent: str,
    outcome: Outcome,
) -> None:
    by_host: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_host[task.host].append(task)
    hosts = iter(by_host.values())  # shared: each runner takes the next host
    bar = tqdm(total=len(tasks), desc="Downloading", unit="file", disable=None, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(_DECODERS) as decoders:
        async with open_session(limits, policy, agent) as session:
            fetcher = Fetcher(session, Pace(limits), limits, folder, decoders)

            async def work(queue: Iterator[Task]) -> None:
                for task in queue:
                    try:
                        outcome.bytes += await fetcher.fetch(task.url, task.path)
                        outcome.fetched += 1
                    except Refusal as refusal:
                        failure = Failure(task.line, task.path, task.url, str(refusal))
                        outcome.failures.append(failure)
                    bar.update()
                    bar.set_postfix(failed=len(outcome.failures), refresh=False)

            async def run_hosts() -> None:
                for own in hosts:
                    queue = iter(own)
                    await _together(work(queue) for _ in range(min(limits.per_host, len(own))))

            await _together(run_hosts() for _ in range(min(_HOSTS, len(by_host))))


async def _together(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """Run coroutines; an error or a cancellation ends all of them."""
    running = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*running)
    finally:
        for job in running:
            job.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """Write failures.tsv in the order of the list; without failures it holds only a header.

    Raises:
        DataError: It cannot be written.
    """
    lines = ["path\turl\treason\tline"]
    for failure in sorted(failures, key=lambda failure: failure.line):
        cells = (failure.path, failure.url, failure.reason, str(failure.line))
        lines.append("\t".join(map(one_line, cells)))
    try:
        with replacing(folder / FAILURES) as stream:
            stream.write(("\n".join(lines) + "\n").encode())
    except OutputError as error:
        raise DataError(str(error)) from error
