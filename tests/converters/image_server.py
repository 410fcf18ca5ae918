"""A web server on the loopback with faults chosen by the path."""

from __future__ import annotations

import gzip
import io
import struct
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def picture(seed: int = 0, kind: str = "PNG", side: int = 24) -> bytes:
    """A picture file of noise; each seed another one."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def bomb_png(side: int = 30_000) -> bytes:
    """A PNG of side x side black pixels whose file is small."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side // 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path; ``self.server.asked`` counts requests by path."""

    def do_GET(self) -> None:
        self.server.log.append((self.path, time.monotonic(), dict(self.headers)))
        with self.server.guard:
            self.server.asked[self.path] += 1
            count = self.server.asked[self.path]
        word = self.path.split("/")[1]
        try:
            getattr(self, f"answer_{word}")(count)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args) -> None:
        pass

    def send(self, body: bytes, status: int = 200, **headers) -> None:
        self.send_response(status)
        headers = {"Content_Type": "image/png", "Content_Length": len(body), **headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def answer_good(self, count: int) -> None:
        self.send(picture(int(self.path.rsplit("/", 1)[1].split(".")[0])))

    def answer_wait(self, count: int) -> None:
        """Counts how many of these requests are answered at the same time."""
        with self.server.guard:
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
        time.sleep(0.02)
        with self.server.guard:
            self.server.active -= 1
        self.answer_good(count)

    def answer_again(self, count: int) -> None:
        """/again/N/x: 503 N times, then a picture."""
        if count <= int(self.path.split("/")[2]):
            self.send(b"", 503)
        else:
            self.answer_good(count)

    def answer_drip(self, count: int) -> None:
        self.send(b"", Content_Length=1000)
        for byte in picture():
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def answer_cut(self, count: int) -> None:
        """Breaks off in the middle at the first request."""
        body = picture(1)
        self.send(body[: len(body) // 2] if count == 1 else body, Content_Length=len(body))
        self.close_connection = True

    def answer_cutalways(self, count: int) -> None:
        self.send(picture(1)[:200], Content_Length=5000)
        self.close_connection = True

    def answer_cutsilently(self, count: int) -> None:
        """The same without a declared length: the end of the connection ends the body."""
        body = picture(1)
        self.send(body[: len(body) // 2] if count == 1 else body, Content_Length=None)
        self.close_connection = True

    def answer_shortlength(self, count: int) -> None:
        self.send(picture(1), Content_Length=100)
        self.close_connection = True

    def answer_loop(self, count: int) -> None:
        self.send(b"", 302, Location=self.path)

    def answer_hop(self, count: int) -> None:
        """/hop/N/x redirects N times, then to /good/x."""
        _, _, left, rest = self.path.split("/")
        place = f"/hop/{int(left) - 1}/{rest}" if int(left) > 1 else f"/good/{rest}"
        self.send(b"", 301, Location=place)

    def answer_to(self, count: int) -> None:
        self.send(b"", 302, Location=self.server.places[self.path])

    def answer_lost(self, count: int) -> None:
        self.send(b"", 302)

    def answer_html(self, count: int) -> None:
        self.send(b"<html>not found</html>", Content_Type="text/html")

    def answer_htmlaspicture(self, count: int) -> None:
        self.send(b"<html>not found</html>", Content_Type="image/jpeg")

    def answer_pictureashtml(self, count: int) -> None:
        self.send(picture(2), Content_Type="text/html; charset=utf-8")

    def answer_untyped(self, count: int) -> None:
        self.send(picture(3), Content_Type=None)

    def answer_storage(self, count: int) -> None:
        self.send(picture(4), Content_Type="binary/octet-stream")

    def answer_gzip(self, count: int) -> None:
        self.send(gzip.compress(picture()), Content_Encoding="gzip")

    def answer_declaredhuge(self, count: int) -> None:
        self.send(b"", Content_Length=10**12)

    def answer_huge(self, count: int) -> None:
        """Never ends; declares nothing."""
        self.send(b"", Content_Length=None)
        self.close_connection = True
        while True:
            self.wfile.write(bytes(1 << 16))
            self.server.sent += 1 << 16

    def answer_endlesschunk(self, count: int) -> None:
        """The line with the length of the first chunk never ends."""
        self.protocol_version = "HTTP/1.1"
        self.send(b"", Content_Length=None, Transfer_Encoding="chunked")
        self.close_connection = True
        while True:
            self.wfile.write(b"0" * (1 << 16))
            self.server.sent += 1 << 16

    def answer_endlesshead(self, count: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            self.wfile.write(b"x" * (1 << 16))
            self.server.sent += 1 << 16

    def answer_bomb(self, count: int) -> None:
        self.send(bomb_png())

    def answer_empty(self, count: int) -> None:
        self.send(b"")

    def answer_noise(self, count: int) -> None:
        self.wfile.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
        self.close_connection = True

    def answer_status(self, count: int) -> None:
        """/status/404/x"""
        self.send(b"", int(self.path.split("/")[2]))

    def answer_flaky(self, count: int) -> None:
        """500 twice, then a picture."""
        self.send(b"", 500) if count < 3 else self.send(picture(5))

    def answer_busy(self, count: int) -> None:
        """/busy/SECONDS/x: 429 with Retry-After, then a picture."""
        wait = self.path.split("/")[2]
        self.send(b"", 429, Retry_After=wait) if count == 1 else self.send(picture(6))

    def answer_busydate(self, count: int) -> None:
        date = formatdate(time.time() + 2, usegmt=True)
        self.send(b"", 503, Retry_After=date) if count == 1 else self.send(picture(7))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Handler)
        self.asked, self.log, self.guard = Counter(), [], threading.Lock()
        self.places: dict[str, str] = {}
        self.sent = self.active = self.most_active = 0
        self.url = f"http://{host}:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass


@contextmanager
def serving(host: str = "127.0.0.1"):
    """A running server."""
    server = Server(host)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
