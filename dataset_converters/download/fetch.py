"""Fetch one picture: hops, limits, what is worth another attempt, and a whole file at the end.

aiohttp is used for HTTP: one thread serves all downloads, a deadline covers a request as a whole
(a server that sends a byte a second meets it), headers and chunk sizes are bounded, and sockets
can be made by :class:`.addresses.AddressPolicy`, which sees each address before it is connected.
Requests and urllib3 offer neither the last nor the deadline; httpx only the deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from http import HTTPStatus
from pathlib import Path

import aiohttp
from PIL import Image
from yarl import URL

from recbole_cierec.errors import DataError, PictureError
from recbole_cierec.vision.pictures import decode_picture

from .addresses import AddressPolicy, RefusedAddress, checked_url
from .fetch_limits import SAVE, FetchLimits, retry_after
from .schedule import Schedule, Task

_BLOCK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_ANOTHER_ATTEMPT = (408, 425, 429, 500, 502, 503, 504)
_BINARY = ("application/octet-stream", "binary/octet-stream")  # storage services say so


class Refusal(Exception):
    """This picture will not come, however often it is asked for."""


class Trouble(Exception):
    """Another attempt may help.

    Args:
        reason: In a few words.
        wait: Seconds that the server asks for.
        host: Which asks for them.
    """

    def __init__(self, reason: str, wait: float = 0.0, host: str = "") -> None:
        super().__init__(reason)
        self.wait, self.host = wait, host


def open_session(
    limits: FetchLimits, policy: AddressPolicy, workers: int, agent: str
) -> aiohttp.ClientSession:
    """Make the HTTP session: no cookies, no proxies from the environment, no compression.

    Args:
        limits: Its times.
        policy: Makes the sockets.
        workers: Most connections.
        agent: The User-Agent header.

    Returns:
        The session, to be closed.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=workers, socket_factory=policy.make_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=limits.timeout, sock_connect=limits.connect_timeout),
        headers={"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"},
        auto_decompress=False,  # what was not asked for may be a bomb
        trust_env=False,  # a proxy would connect to addresses that are not checked here
    )


class Fetcher:
    """Fetches pictures one by one.

    Args:
        session: From :func:`open_session`.
        schedule: Asked before each redirect hop.
        limits: Upper bounds.
        folder: The target folder.
        decoders: Threads that check and store pictures; they bound the memory for pixels.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        schedule: Schedule,
        limits: FetchLimits,
        folder: Path,
        decoders: Executor,
    ) -> None:
        self._session, self._schedule, self._limits = session, schedule, limits
        self._folder, self._decoders = folder, decoders

    async def fetch(self, task: Task, temporary: Path) -> int:
        """Fetch, check and store one picture.

        Args:
            task: Which.
            temporary: Where the answer is written first, on the disk of the target folder.

        Returns:
            Bytes that were sent.

        Raises:
            Refusal, Trouble: With the reason.
            DataError: The disk is full or the like: no other picture would fare better.
        """
        try:
            size, certain = await self._follow(task.url, temporary)
        except asyncio.TimeoutError as error:
            raise Trouble(f"no whole answer within {self._limits.timeout:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _judged(error) from error
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(
                self._decoders, store, temporary, self._folder, task.path, self._limits
            )
        except PictureError as error:
            # Without a length, an answer that broke off looks like a whole one.
            raise (Refusal if certain else Trouble)(error.reason) from error
        return size

    async def _follow(self, url: str, temporary: Path) -> tuple[int, bool]:
        target: str | URL = url
        for hop in range(self._limits.max_redirects + 1):
            place = _checked(target, "redirected: " if hop else "")
            if hop:
                await self._schedule.turn(place.host or "")
            async with self._session.get(place, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    self._check_head(response)
                    return await self._save(response, temporary)
                target = _next_hop(response)
        raise Refusal(f"more than {self._limits.max_redirects} redirects")

    def _check_head(self, response: aiohttp.ClientResponse) -> None:
        if response.status != HTTPStatus.OK:
            reason = f"HTTP {response.status}"
            if response.status not in _WORTH_ANOTHER_ATTEMPT:
                raise Refusal(reason)
            wait = retry_after(response.headers.get("Retry-After", ""), time.time())
            raise Trouble(reason, min(wait, self._limits.max_wait), response.url.host or "")
        kind = response.content_type
        if not self._limits.any_type and not kind.startswith("image/") and kind not in _BINARY:
            raise Refusal(f"the server says it is {kind[:50]}, not a picture")
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise Refusal(f"sent in the coding {coding[:20]}, which was not asked for")
        if (response.content_length or 0) > self._limits.max_bytes:
            raise Refusal(f"{response.content_length:,} bytes declared; {self._limit_text()}")

    def _limit_text(self) -> str:
        return f"the limit is {self._limits.max_bytes:,}"

    async def _save(self, response: aiohttp.ClientResponse, temporary: Path) -> tuple[int, bool]:
        """Write the body; its length, and whether it is certain that it is whole."""
        size = 0
        with _disk(self._folder, lambda: open(temporary, "wb")) as file:
            async for block in response.content.iter_chunked(_BLOCK):
                size += len(block)
                if size > self._limits.max_bytes:
                    raise Refusal(f"more than {size - 1:,} bytes sent; {self._limit_text()}")
                _disk(self._folder, lambda block=block: file.write(block))
            _disk(self._folder, file.flush)
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        return size, chunked or response.content_length is not None


def _disk(folder: Path, action: Callable):
    """Do something on the disk; its failure is not the picture's."""
    try:
        return action()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error


def _checked(url: str | URL, prefix: str) -> URL:
    try:
        return checked_url(url)
    except ValueError as error:
        raise Refusal(f"{prefix}{error}") from error


def _next_hop(response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    if not location:
        raise Refusal(f"HTTP {response.status} without a place to go")
    try:
        return response.url.join(URL(location))
    except ValueError as error:
        raise Refusal("redirected: not a URL") from error


def _judged(error: Exception) -> Refusal | Trouble:
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, RefusedAddress):
            return Refusal(f"{error.host}: {error.os_error}")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Trouble(f"{error.host}: no address for this name")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Refusal(f"{error.host}: its certificate is not valid")
    if isinstance(error, aiohttp.InvalidURL):
        return Refusal("not a URL")
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return Trouble("the connection broke off")
    if isinstance(error, aiohttp.ClientResponseError):
        return Trouble("the answer is not HTTP")
    return Trouble(" ".join(str(error).split())[:150] or type(error).__name__)


def store(temporary: Path, folder: Path, path: str, limits: FetchLimits) -> None:
    """Check a downloaded file and give it its final name.

    Args:
        temporary: The file.
        folder: The target folder.
        path: Its path below, already checked by its letters.
        limits: Pixels, and whether to resize.

    Raises:
        PictureError: Not a whole picture, or above the limits.
        DataError: It cannot be written.
    """
    target = folder / path
    try:
        pixels = decode_picture(temporary, limits.spec)
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise PictureError(path, "a link leads its folder out of the target folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise PictureError(path, "a folder has this name")
        if limits.resize:
            name, options = SAVE[target.suffix.lower()]
            Image.fromarray(pixels).save(temporary, name, **options)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except (FileExistsError, NotADirectoryError) as error:
        raise PictureError(path, "a part of its folder is a file") from error
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from error
