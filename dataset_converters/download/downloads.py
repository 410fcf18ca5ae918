"""Download many pictures: what is there already, the workers, the lock and the failures."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from recbole_cierec.errors import DataError, PictureError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.vision.picture_files import Pool
from recbole_cierec.vision.pictures import decode_picture

from ..tables.tokens import printable
from .addresses import AddressPolicy
from .fetch import Fetcher, Refusal, Trouble, open_session
from .fetch_limits import FetchLimits
from .picture_list import FAILURES, PARTIAL, Failure
from .schedule import Pace, Schedule, Task
from .stopping import run_stoppable

try:
    import fcntl
except ImportError:  # Windows: two downloads into one folder are not told apart
    fcntl = None  # type: ignore[assignment]

# Threads that decode; each may hold the pixels of one picture of the largest size allowed.
_DECODERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Manner:
    """How to download.

    Args:
        limits: For one picture.
        pace: For servers.
        policy: Which addresses.
        workers: Downloads at a time.
        agent: The User-Agent header.
    """

    limits: FetchLimits
    pace: Pace
    policy: AddressPolicy
    workers: int
    agent: str


@dataclass
class Outcome:
    """What became of the rows.

    Args:
        failures: Rows without a picture.
        fetched: Pictures stored.
        bytes: That were sent for them.
    """

    failures: list[Failure] = field(default_factory=list)
    fetched: int = 0
    bytes: int = 0


def missing_tasks(
    tasks: Sequence[Task], folder: Path, limits: FetchLimits, *, trust: bool
) -> list[Task]:
    """Find out what is not there yet.

    Args:
        tasks: All.
        folder: The target folder.
        limits: Pixels: a file above the limit is fetched anew (and refused then).
        trust: Take every file that is not empty for good, without decoding it.

    Returns:
        Tasks without a usable file, in order.
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

    with closing(Pool(_DECODERS, True).map(absent, tasks, "Looking for files")) as results:
        return [task for task, gone in zip(tasks, results, strict=True) if gone]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one download, and sweep up what a killed one left.

    Args:
        folder: Made if it is not there.

    Raises:
        DataError: Another download is at work in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if fcntl else None
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{folder}: is a file, or below one; give a folder as --into") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    partial = folder / PARTIAL
    try:
        if fcntl:
            _lock(handle, folder)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
        except OSError as error:
            raise DataError(f"{partial}: cannot be made ({error.strerror})") from error
        try:
            yield
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        if handle is not None:
            os.close(handle)  # which unlocks it


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"{folder}: another download is writing here; wait for it or take another folder"
        ) from error
    except OSError:  # a file system without locks
        return


def download(tasks: Sequence[Task], folder: Path, manner: Manner, outcome: Outcome) -> None:
    """Fetch pictures into a folder that is :func:`locked`.

    Args:
        tasks: What to fetch.
        folder: The target folder.
        manner: How.
        outcome: Filled while it runs, so that it is right even after an interruption.

    Raises:
        DataError: The disk is full or the like.
    """
    if tasks:
        run_stoppable(_download(tasks, folder, manner, outcome))


async def _download(tasks: Sequence[Task], folder: Path, manner: Manner, outcome: Outcome) -> None:
    schedule = Schedule(tasks, manner.pace)
    bar = tqdm(total=len(tasks), desc="Downloading", unit="file", disable=None, dynamic_ncols=True)
    session = open_session(manner.limits, manner.policy, manner.workers, manner.agent)
    with bar, ThreadPoolExecutor(_DECODERS) as decoders:
        async with session:
            fetcher = Fetcher(session, schedule, manner.limits, folder, decoders)
            crew = [
                asyncio.create_task(_work(fetcher, schedule, folder, manner, outcome, bar))
                for _ in range(min(manner.workers, len(tasks)))
            ]
            try:
                await asyncio.gather(*crew)
            finally:
                for worker in crew:
                    worker.cancel()
                await asyncio.gather(*crew, return_exceptions=True)


async def _work(
    fetcher: Fetcher,
    schedule: Schedule,
    folder: Path,
    manner: Manner,
    outcome: Outcome,
    bar: tqdm,
) -> None:
    limits = manner.limits
    while (task := await schedule.take()) is not None:
        temporary = folder / PARTIAL / str(task.line)
        task.attempts += 1
        try:
            outcome.bytes += await fetcher.fetch(task, temporary)
            outcome.fetched += 1
        except Trouble as trouble:
            if trouble.wait:
                schedule.pause(trouble.host, trouble.wait)
            if task.attempts < limits.attempts:
                schedule.again(task, limits.pause(task.attempts, trouble.wait))
                continue
            reason = f"{trouble} ({task.attempts} attempts)"
            outcome.failures.append(Failure(task.line, task.path, task.url, reason))
        except Refusal as refusal:
            outcome.failures.append(Failure(task.line, task.path, task.url, str(refusal)))
        finally:
            temporary.unlink(missing_ok=True)
        schedule.finish(task)
        bar.update()
        bar.set_postfix(failed=len(outcome.failures), refresh=False)


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """Write failures.tsv, in the order of the list; without failures it has its header only.

    Args:
        folder: The target folder.
        failures: The rows.

    Raises:
        DataError: It cannot be written.
    """
    lines = ["path\turl\treason\tline"]
    for failure in sorted(failures, key=lambda failure: failure.line):
        cells = (failure.path, failure.url, failure.reason, str(failure.line))
        lines.append("\t".join(map(printable, cells)))
    try:
        with replacing(folder / FAILURES) as stream:
            stream.write(("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise DataError(f"{folder / FAILURES}: cannot be written ({error.strerror})") from error
