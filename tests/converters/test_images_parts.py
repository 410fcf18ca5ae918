"""The parts of the download that can be tested without a server."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from email.utils import formatdate

import pytest

pytest.importorskip("aiohttp")

from recbole_cierec.dataset_converters.download.addresses import (
    AddressPolicy,
    RefusedAddress,
    checked_url,
)
from recbole_cierec.dataset_converters.download.fetch import retry_after
from recbole_cierec.dataset_converters.download.limits import Limits
from recbole_cierec.dataset_converters.download.stopping import run_stoppable
from recbole_cierec.dataset_converters.pictures.relative_paths import path_fault

from recbole_cierec.errors import ConfigError

PRIVATE = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
PRIVATE += ["0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "::", "::1", "fe80::1"]  # noqa: S104
PRIVATE += ["fc00::1", "fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"]
PRIVATE += ["64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1", "::127.0.0.1"]
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address):
    assert not AddressPolicy().allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert AddressPolicy().allows(address)


@pytest.mark.parametrize("odd", ["127.1", "2130706433", "0x7f.0.0.1", "localhost", ""])
def test_what_is_no_plain_address_is_refused_even_if_all_are_allowed(odd):
    assert not AddressPolicy.parse([]).allows(odd)


def test_networks_can_be_allowed_one_by_one():
    policy = AddressPolicy.parse(["10.0.0.0/8", "::1"])
    assert policy.allows("10.9.9.9")
    assert policy.allows("::1")
    assert not policy.allows("192.168.0.1")
    assert policy.allows("1.1.1.1")
    assert all(map(AddressPolicy.parse([]).allows, ["127.0.0.1", "fe80::1"]))
    with pytest.raises(ConfigError, match="--allow-private"):
        AddressPolicy.parse(["home"])


def test_the_socket_is_refused_before_it_exists(monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *args: pytest.fail("a socket was made"))
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    with pytest.raises(RefusedAddress):
        AddressPolicy().make_socket(info)


BAD_URLS = ["", "x.png", "//host/x", "ftp://e.org/x", "file:///x", "javascript:1", "http:///x"]
BAD_URLS += ["http://", "http://me@e.org/", "http://me:word@e.org/", "http://e.org:99999/"]
BAD_URLS += ["http://[::1/", "data:,x", "http://e.org/" + "x" * 9000]


@pytest.mark.parametrize("url", BAD_URLS)
def test_urls_that_name_no_public_picture_are_refused(url):
    with pytest.raises(ValueError, match=r"\w"):
        checked_url(url)


@pytest.mark.parametrize(
    "url", ["http://e.org", "HTTPS://E.org:8443/a%20b?c=d", "http://e.org/ä b.jpg"]
)
def test_ordinary_urls_pass(url):
    assert checked_url(url).host == "e.org"


@pytest.mark.parametrize("name", ["a", "a/b.jpg", ".hidden", "ä/日本.png", "a..b", "console.jpg"])
def test_harmless_paths_pass(name):
    assert path_fault(name) == ""


@pytest.mark.parametrize("name", ["\ud800", "a\x7f", "a/" * 600, "LPT1", "aux.tar.gz", "a /b"])
def test_harmful_paths_are_named(name):
    assert path_fault(name) != ""


def test_retry_after_is_read_in_both_forms():
    now = 1_700_000_000.0
    assert retry_after("120", now) == 120
    assert retry_after(formatdate(now + 30, usegmt=True), now) == 30
    assert retry_after(formatdate(now - 30, usegmt=True), now) == 0
    assert retry_after("9" * 5000, now) >= 10**11
    for nonsense in ("", "soon", "-5", "1e3", "Wed, 99 Foo 2024 00:00:00 GMT", "²"):
        assert retry_after(nonsense, now) == 0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process is Unix's")
def test_a_retry_date_without_a_zone_is_in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after("Tue, 14 Nov 2023 22:13:50 -0000", 1_700_000_000.0) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


def test_limits_are_checked_where_they_are_made():
    with pytest.raises(ConfigError, match="--max-wait is -1"):
        Limits(max_wait=-1)


SIGNALS = [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]


def leave(number, frame):
    raise SystemExit(128 + number)


async def sent_and_cleaned(number: int, log: list[str]) -> None:
    """Gets the signal while one of three tasks is at work."""

    async def worker(k: int) -> None:
        await asyncio.sleep(0.01)
        if k == 1:
            os.kill(os.getpid(), number)
        await asyncio.sleep(20)

    crew = [asyncio.create_task(worker(k)) for k in range(3)]
    try:
        await asyncio.gather(*crew)
        log.append("went on")
    finally:
        for task in crew:
            task.cancel()
        await asyncio.gather(*crew, return_exceptions=True)
        log.append("cleaned")


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_ends_a_job_cleanly_and_then_does_what_it_did_before(number, error, caplog):
    before = signal.getsignal(number)
    first = leave if number == signal.SIGTERM else signal.default_int_handler
    signal.signal(number, first)
    log: list[str] = []
    try:
        with pytest.raises(error):
            run_stoppable(sent_and_cleaned(number, log))
        assert signal.getsignal(number) is first
    finally:
        signal.signal(number, before)
    assert log == ["cleaned"]
    gc.collect()
    assert caplog.text == ""  # "Task exception was never retrieved"


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = []

    async def job():
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        log.append("went on")

    try:
        run_stoppable(job())
    finally:
        signal.signal(signal.SIGINT, before)
    assert log == ["went on"]


def test_other_ends_of_a_job_are_its_own():
    async def fail():
        raise ZeroDivisionError

    async def cancelled():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        run_stoppable(fail())
    with pytest.raises(asyncio.CancelledError):
        run_stoppable(cancelled())
