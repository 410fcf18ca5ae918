"""Fetch one picture: redirects, limits, further attempts, and a complete file at the end.

aiohttp, because one thread serves all downloads, a deadline covers a request as a whole (also for a
server that sends a byte per second), headers and chunk sizes are bounded, and the caller may create
the sockets (:class:`.addresses.AddressPolicy`). requests and urllib3 offer neither the last nor the
deadline; httpx offers only the deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)
from yarl import URL

from recbole_cierec.errors import DataError, OutputError, PictureError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.terminal import reason
from recbole_cierec.vision.pictures import decode_picture

from .addresses import AddressPolicy, RefusedAddress, checked_url
from .limits import Limits
from .pace import Pace

_BLOCK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_BINARY = ("application/octet-stream", "binary/octet-stream")  # what storage services declare
# Formats of resized pictures; only JPEG loses anything.
_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 95, "subsampling": 0})
SAVE: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
}


class Refusal(Exception):
    """The picture cannot be fetched, however often it is requested."""


class Trouble(Exception):
    """Another attempt may help.

    Args:
        reason: In a few words.
        wait: Seconds that the server asks for.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def open_session(limits: Limits, policy: AddressPolicy, agent: str) -> aiohttp.ClientSession:
    """Open an HTTP session without cookies, proxies of the environment or compression.

    Args:
        limits: Timeouts, and the number of connections.
        policy: Creates the sockets.
        agent: The User-Agent header.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limits.workers, socket_factory=policy.make_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=limits.timeout, sock_connect=limits.connect_timeout),
        headers={"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"},
        auto_decompress=False,  # unrequested compression may be a bomb
        trust_env=False,  # a proxy would connect to addresses that are not checked here
    )


@dataclass(frozen=True)
class Fetcher:
    """Fetches pictures one by one.

    Args:
        session: From :func:`open_session`.
        pace: Asked before every request.
        limits: Upper bounds.
        folder: The target folder.
        decoders: Threads that check and store pictures; they bound the memory for pixels.
    """

    session: aiohttp.ClientSession
    pace: Pace
    limits: Limits
    folder: Path
    decoders: Executor

    async def fetch(self, url: str, path: str) -> int:
        """Fetch, check and store one picture, in several attempts if needed.

        Args:
            url: A checked URL.
            path: Where the picture goes, relative to the target folder.

        Returns:
            Number of bytes received.

        Raises:
            Refusal: With the reason.
            DataError: The disk is full or the like: no other picture would fare better.
        """
        limits = self.limits
        backoff = wait_exponential(limits.backoff) + wait_random(0, limits.backoff)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return min(limits.max_wait, max(backoff(state), getattr(error, "wait", 0.0)))

        attempts = AsyncRetrying(
            stop=stop_after_attempt(limits.attempts),
            wait=wait,
            retry=retry_if_exception_type(Trouble),
            reraise=True,
        )
        try:
            return await attempts(self._attempt, url, path)
        except Trouble as trouble:
            raise Refusal(f"{trouble} ({limits.attempts} attempts)") from trouble

    async def _attempt(self, url: str, path: str) -> int:
        try:
            data, complete = await self._follow(url)
        except asyncio.TimeoutError as error:
            raise Trouble(f"no whole answer within {self.limits.timeout:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _judged(error) from error
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self.decoders, store, data, self.folder, path, self.limits)
        except PictureError as error:
            # Without a declared length, an answer that broke off looks complete.
            raise (Refusal if complete else Trouble)(error.reason) from error
        return len(data)

    async def _follow(self, url: str) -> tuple[bytes, bool]:
        """The body behind all redirects, and whether it is certainly complete."""
        target: str | URL = url
        for hop in range(self.limits.max_redirects + 1):
            place = _checked(target, "redirected: " if hop else "")
            async with (
                self.pace.turn(place.host or ""),
                self.session.get(place, allow_redirects=False) as response,
            ):
                if response.status not in _REDIRECTS:
                    self._check_head(response)
                    return await self._body(response)
                target = _next_hop(response)
        raise Refusal(f"more than {self.limits.max_redirects} redirects")

    def _check_head(self, response: aiohttp.ClientResponse) -> None:
        limits = self.limits
        if response.status in _TRANSIENT:
            wait = retry_after(response.headers.get("Retry-After", ""), time.time())
            self.pace.pause(response.url.host or "", min(wait, limits.max_wait))
            raise Trouble(f"HTTP {response.status}", wait)
        if response.status != HTTPStatus.OK:
            raise Refusal(f"HTTP {response.status}")
        kind = response.content_type
        if not limits.any_type and not kind.startswith("image/") and kind not in _BINARY:
            raise Refusal(f"the server declares {kind[:50]}, not a picture")
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise Refusal(f"sent with the unrequested encoding {coding[:20]}")
        if (response.content_length or 0) > limits.max_bytes:
            text = f"{response.content_length:,} bytes declared"
            raise Refusal(f"{text}; the limit is {limits.max_bytes:,}")

    async def _body(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        data = bytearray()
        async for block in response.content.iter_chunked(_BLOCK):
            data += block
            if len(data) > self.limits.max_bytes:
                raise Refusal(f"more than {self.limits.max_bytes:,} bytes, the limit")
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        return bytes(data), chunked or response.content_length is not None


def retry_after(text: str, now: float) -> float:
    """Seconds that a Retry-After header asks for; 0 if it is past or unreadable.

    Args:
        text: A number of seconds or an HTTP date.
        now: Seconds since 1970.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:  # "-0000"
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - now)


def _checked(url: str | URL, prefix: str) -> URL:
    try:
        return checked_url(url)
    except ValueError as error:
        raise Refusal(f"{prefix}{error}") from error


def _next_hop(response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    if not location:
        raise Refusal(f"HTTP {response.status} without a Location")
    try:
        return response.url.join(URL(location))
    except ValueError as error:
        raise Refusal("redirected: not a URL") from error


def _judged(error: Exception) -> Refusal | Trouble:
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, RefusedAddress):
            return Refusal(f"{error.host}: {error.os_error}")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Trouble(f"{error.host}: the host name has no address")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Refusal(f"{error.host}: its certificate is not valid")
    if isinstance(error, aiohttp.InvalidURL):
        return Refusal("not a URL")
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return Trouble("the connection broke off")
    if isinstance(error, aiohttp.ClientResponseError):
        return Trouble("the answer is not HTTP")
    return Trouble(reason(error))


def store(data: bytes, folder: Path, path: str, limits: Limits) -> None:
    """Check the bytes of a picture and write its file, atomically.

    Args:
        data: The file's content.
        folder: The target folder.
        path: Relative to it, already checked by :func:`..pictures.relative_paths.path_fault`.
        limits: Pixels, and whether to resize.

    Raises:
        PictureError: Not a complete picture, above the limits, or its path is taken.
        DataError: The file cannot be written.
    """
    target = folder / path
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(folder)):
        raise PictureError(path, "a link leads out of the target folder")
    try:
        with replacing(target) as stream:
            stream.write(data)
            stream.flush()
            pixels = decode_picture(Path(stream.name), limits.spec)
            if limits.resize:
                name, options = SAVE[target.suffix.lower()]
                stream.seek(0)
                stream.truncate()
                Image.fromarray(pixels).save(stream, name, **options)
    except OutputError as error:
        if error.__cause__ is None:
            raise PictureError(path, error.strerror or str(error)) from error
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
            raise PictureError(path, "a part of its folder is a file") from error
        raise DataError(str(error)) from error
