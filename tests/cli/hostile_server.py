"""A web server on loopback, in a thread, that serves images and misbehaves in every way asked for."""

import gzip
import io
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

THUMBNAIL_WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)  # of which Wikimedia's servers make any
PAGE = b"<!doctype html><html><body>Not found, but with a smile and enough text to be a page</body></html>"


def photo(seed: int, width: int = 320, height: int = 240) -> bytes:
    """A JPEG that is different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def bomb() -> bytes:
    """50 MB of zeros, packed."""
    return gzip.compress(bytes(50_000_000), 1)


@cache
def vast() -> bytes:
    """An image of 4,000 x 4,000 pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (4000, 4000)).save(file, "PNG")
    return file.getvalue()


class Server:
    """What a running server knows. n_asked: requests by path. at_once: the most requests that waited at a time."""

    def __init__(self, port: int, scheme: str) -> None:
        self.base = f"{scheme}://127.0.0.1:{port}"
        self.n_asked: Counter[str] = Counter()
        self.asked_at_s: dict[str, list[float]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.files: dict[str, bytes] = {}
        self.latency_s = 0.0
        self.at_once = 0
        self.n_now = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        """Of a path of this server."""
        return f"{self.base}/{path}"


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """A server until the context is left. certificate: files of the certificate and its key, for https."""
    server = _ThreadingServer(("127.0.0.1", 0), _Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.world = Server(server.server_address[1], "https" if certificate else "http")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.world
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()


class _ThreadingServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    world: Server

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _ThreadingServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """/<what>/<detail>: the method of that name."""
        world = self.server.world
        path = self.path.lstrip("/")
        with world.lock:
            world.n_asked[path] += 1
            world.asked_at_s.setdefault(path, []).append(time.monotonic())
            world.headers[path] = dict(self.headers.items())
            world.n_now += 1
            world.at_once = max(world.at_once, world.n_now)
        time.sleep(world.latency_s)
        with world.lock:
            world.n_now -= 1
        what, _, detail = path.partition("/")
        if path in world.files:
            self.file(path)
        else:
            getattr(self, what, self.nothing)(detail)

    def answer(self, body: bytes, code: int = 200, **headers: str) -> None:
        """headers: with _ for -."""
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def file(self, path: str) -> None:
        """One of the server's files, from where the client asks."""
        body, asked = self.server.world.files[path], self.headers.get("Range", "")
        if not asked:
            self.answer(body)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            self.answer(b"", 416)
        else:
            self.answer(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")

    def photo(self, seed: str) -> None:
        """An image."""
        self.answer(photo(int(seed)), Content_Type="image/jpeg")

    def tagged(self, detail: str) -> None:
        """`value/seed`: an image with this X-Robots-Tag."""
        value, seed = detail.split("/")
        self.answer(photo(int(seed)), X_Robots_Tag=unquote(value))

    def nothing(self, _: str) -> None:
        """No such path."""
        self.answer(b"no", 404)

    def status(self, code: str) -> None:
        """This HTTP code."""
        self.answer(b"" if code in ("204", "304") else b"no", int(code))

    def flaky(self, detail: str) -> None:
        """`code/n/seed`: the code n times, then the image."""
        code, n, seed = detail.split("/")
        if self.server.world.n_asked[f"flaky/{detail}"] <= int(n):
            self.answer(b"later", int(code))
        else:
            self.photo(seed)

    def wait(self, detail: str) -> None:
        """`seconds/seed`: 429 with Retry-After once, then the image."""
        seconds, seed = detail.split("/")
        if self.server.world.n_asked[f"wait/{detail}"] <= 1:
            self.answer(b"later", 429, Retry_After=seconds)
        else:
            self.photo(seed)

    def busy(self, detail: str) -> None:
        """`seconds`, whatever follows: 429 with Retry-After, every time."""
        self.answer(b"later", 429, Retry_After=detail.partition("/")[0])

    def endless(self, _: str) -> None:
        """Bytes that look like an image's, as long as anybody takes them."""
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(photo(0))
        while not self.server.is_over.is_set():
            self.wfile.write(bytes(1 << 16))

    def drip(self, _: str) -> None:
        """A byte every 50 ms: never idle, never done."""
        body = photo(0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for byte in body:
            if self.server.is_over.is_set():
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def silence(self, _: str) -> None:
        """Half an image, then nothing."""
        body = photo(0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.server.is_over.wait(30)

    def truncated(self, _: str) -> None:
        """Half of what the header says."""
        body = photo(0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def half(self, _: str) -> None:
        """Half an image as if it were all."""
        body = photo(0)
        self.answer(body[: len(body) // 2], Content_Type="image/jpeg")

    def reset(self, _: str) -> None:
        """The connection is reset in the middle."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(1000))
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def nonsense(self, _: str) -> None:
        """No HTTP."""
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.close_connection = True

    def page(self, _: str) -> None:
        """An error page that says it is an image."""
        self.answer(PAGE, Content_Type="image/jpeg")

    def mislabelled(self, seed: str) -> None:
        """An image that says it is a page."""
        self.answer(photo(int(seed)), Content_Type="text/html")

    def text(self, _: str) -> None:
        """Something else."""
        self.answer(b"just some words " * 20, Content_Type="image/jpeg")

    def empty(self, _: str) -> None:
        """Nothing at all."""
        self.answer(b"")

    def packed(self, seed: str) -> None:
        """An image in gzip, which nobody asked for."""
        self.answer(gzip.compress(photo(int(seed))), Content_Encoding="gzip")

    def bomb(self, _: str) -> None:
        """Far more than it seems."""
        self.answer(bomb(), Content_Encoding="gzip")

    def padded(self, _: str) -> None:
        """A packed image, and after its end bytes as long as anybody takes them."""
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(gzip.compress(photo(0)))
        while not self.server.is_over.is_set():
            self.wfile.write(bytes(1 << 16))

    def latin(self, _: str) -> None:
        """An error in words that are no UTF-8."""
        self.wfile.write("HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))

    def brotli(self, _: str) -> None:
        """An encoding that is not undone."""
        self.answer(b"\x0b\x02\x80abc\x03", Content_Encoding="br")

    def vast(self, _: str) -> None:
        """A small file of many pixels."""
        self.answer(vast())

    def to(self, target: str) -> None:
        """A redirect."""
        self.answer(b"", 302, Location=target)

    def loop(self, number: str) -> None:
        """A redirect to the next of them."""
        self.answer(b"", 301, Location=f"/loop/{int(number or 0) + 1}")

    def png(self, seed: str) -> None:
        """Another format, with transparency."""
        file = io.BytesIO()
        Image.open(io.BytesIO(photo(int(seed)))).convert("RGBA").save(file, "PNG")
        self.answer(file.getvalue(), Content_Type="image/png")

    def wikipedia(self, detail: str) -> None:
        """`commons/a/ab/400x300.jpg`: an original of this size; `commons/thumb/…/330px-400x300.jpg`: a thumbnail of it.

        As Wikimedia's servers: no thumbnail of another width than theirs, none as wide as the original or wider,
        `broken` cannot be made smaller, and nobody who does not say whom to turn to gets anything.
        """
        asked, size = re.search(r"/thumb/.*/(\d+)px-", detail), re.search(r"(\d+)x(\d+)", detail)
        if "@" not in self.headers["User-Agent"]:
            self.answer(b"Please respect our robot policy", 403)
        elif size is None:
            self.nothing(detail)
        elif asked is None:
            self.answer(photo(1, int(size[1]), int(size[2])), Content_Type="image/jpeg")
        elif int(asked[1]) not in THUMBNAIL_WIDTHS or int(asked[1]) >= int(size[1]):
            self.answer(b"Use thumbnail steps listed on https://w.wiki/GHai", 400)
        elif "broken" in detail:
            self.answer(b"Error generating thumbnail", 500)
        else:
            height = round(int(size[2]) * int(asked[1]) / int(size[1]))
            self.answer(photo(1, int(asked[1]), height), Content_Type="image/jpeg")
