"""Answers, errors and memory of `lmr serve` while a part of its clients is hostile.

    python scripts/bench/hostile.py --index landmarks --images images [--minutes 30] [--clients 8] [--hostile 0.05]

Starts a server of its own on a free port of loopback. Each client asks for one image after the other, as bytes, in a
form or in JSON, over a connection that it keeps; every answer must be that of the opened index in this process: the
same landmark and neighbours, scores within 1e-3 (networks compute batches in another order). In between it sends what
KINDS lists; each kind has the outcomes that it may have. Memory is that of the server and the processes that it
started (PSS), told every 5 s; its slope is that of a line through all after the first fifth of the time. Prints JSON;
exit code 1 where an answer was wrong, a status was 5xx other than 503, an outcome was none that may be, or the server
ended.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lmr

TOLERANCE = 1e-3  # of scores and confidences
MAX_UPLOAD_MB = 8
SAMPLED_S = 5.0
STARTED_S = 120.0  # within which the server must be ready
CLOSED = "closed"  # an outcome: the server ended the connection without a word
MB = 1e6

Ask = Callable[["Client"], str]


class Client:
    """One client: its chance, its images, and one connection that it keeps."""

    def __init__(self, port: int, seed: int, images: Sequence[bytes]) -> None:
        self.port, self.random, self.images = port, random.Random(seed), images
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of a response; the connection is kept."""
        fresh = self._connection is None
        connection = self._connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        self._connection = connection
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.leave()
            if fresh:
                raise
            return self.ask(method, path, body, headers)  # the server had closed one that was idle

    def leave(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def image(self) -> bytes:
        """An image by chance."""
        return self.random.choice(self.images)

    def raw(self, *parts: bytes, pause_s: float = 0.0, patience_s: float = 60.0) -> str:
        """The status that bytes bring on a connection of their own, or CLOSED."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience_s) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause_s)
            except OSError:  # the server has answered and gone
                pass
            return status_of(connection)


def status_of(connection: socket.socket) -> str:
    """The first status that comes on a connection, but 100."""
    said = b""
    try:
        while not (found := re.findall(rb"HTTP/1\.1 (?!100)(\d+)", said)):
            chunk = connection.recv(65536)
            if not chunk:
                return CLOSED
            said += chunk
    except TimeoutError:
        return "hangs"
    except OSError:
        return CLOSED
    return found[0].decode()


def head(method: str, path: str, *lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def post(client: Client, body: bytes, kind: str = "image/jpeg", path: str = "/v1/query") -> str:
    """The status of a whole request, and of an image the outcome `unreadable`."""
    status, answer = client.ask("POST", path, body, {"Content-Type": kind})
    is_read = status != 200 or path != "/v1/query" or json.loads(answer)[0]["unreadable"] is None
    return str(status) if is_read else "unreadable"


def oversized(client: Client) -> str:
    """More bytes than may be, said at once."""
    size = int(MAX_UPLOAD_MB * 2 * MB)
    return client.raw(head("POST", "/v1/query", f"Content-Length: {size}"), bytes(size))


def oversized_in_chunks(client: Client) -> str:
    """More bytes than may be, never said."""
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    n_chunks = int(MAX_UPLOAD_MB * 2 * MB / 65536)
    return client.raw(head("POST", "/v1/query", "Transfer-Encoding: chunked"), *[chunk] * n_chunks)


def truncated(client: Client) -> str:
    """The beginning of an image."""
    image = client.image()
    return post(client, image[: client.random.randrange(1, len(image))])


def damaged(client: Client) -> str:
    """An image with other bytes in a few places."""
    image = bytearray(client.image())
    for _ in range(20):
        image[client.random.randrange(len(image))] = client.random.randrange(256)
    return post(client, bytes(image))


def bomb(client: Client) -> str:
    """A PNG of a few bytes that would be gigabytes of pixels."""
    side = client.random.choice((20_000, 60_000, 2**31 - 1))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(10_000_000)))]
    chunks = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
              for kind, body in (*parts, (b"IEND", b""))]  # fmt: skip
    return post(client, b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "image/png")


def no_image(client: Client) -> str:
    """Something else, said to be an image."""
    text = client.random.choice((b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"GIF89a", os.urandom(5000)))
    return post(client, text)


def slow_body(client: Client) -> str:
    """A body of which a byte comes every second."""
    return client.raw(head("POST", "/v1/query", "Content-Length: 100000"), *[b"x"] * 15, pause_s=1)


def slow_head(client: Client) -> str:
    """Headers that never end."""
    return client.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n", *[b"X-A: b\r\n"] * 15, pause_s=1)


def silent(client: Client) -> str:
    """A connection on which nothing is said."""
    return client.raw(b"")


def aborted(client: Client) -> str:
    """Half a body, or a whole one, and nobody who waits for the answer."""
    image = client.image()
    cut = client.random.choice((len(image), len(image) // 2))
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        if client.random.random() < 0.5:  # with a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(head("POST", "/v1/query", f"Content-Length: {len(image)}") + image[:cut])
    return CLOSED


def garbage(client: Client) -> str:
    """Bytes that are no HTTP."""
    return client.raw(client.random.choice((os.urandom(2000), b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 9000)))


def long_headers(client: Client) -> str:
    """More headers than may be."""
    return client.raw(head("GET", "/", *(f"X-{i}: {'a' * 200}" for i in range(400))))


def two_lengths(client: Client) -> str:
    """A request that could be read as two (smuggling)."""
    lines = ("Content-Length: 4", "Transfer-Encoding: chunked")
    return client.raw(head("POST", "/v1/query", *lines) + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n")


def wrong_type(client: Client) -> str:
    """A body of a type that is not taken."""
    return post(client, client.image(), client.random.choice(("text/html", "application/pdf", "application/xml")))


def bad_json(client: Client) -> str:
    """JSON that is none, or says what means nothing."""
    texts = (b"{", b"[" * 50_000, b'{"images": [{"data": "@@"}]}', b'{"images": 1e999}', b'{"images": [{}]}', b"null",
             b'{"images": [{"url": "http://127.0.0.1/"}]}', b'{"images": []}', b"\xff\xfe")  # fmt: skip
    return post(client, client.random.choice(texts), "application/json")


def bad_form(client: Client) -> str:
    """A form that never ends, or has no boundary."""
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="../../x"\r\n\r\n'
    kind = client.random.choice(("multipart/form-data; boundary=b", "multipart/form-data"))
    return post(client, start + client.image(), kind)


def traversal(client: Client) -> str:
    """The path of a file where an id belongs."""
    paths = ("/v1/images/../../../../etc/passwd", "/static/../../../etc/passwd", "/v1/images/..%2f..%2fetc%2fpasswd",
             "/static/%2e%2e/%2e%2e/settings.py", "//etc/passwd", "/v1/landmarks/%00", "/v1/images/%ff%fe")  # fmt: skip
    status, answer = client.ask("GET", client.random.choice(paths), None, {})
    return "leak" if b"root:" in answer or b"WebSettings" in answer else str(status)


def elsewhere(client: Client) -> str:
    """What a page of another site sends, by its name or by ours."""
    said = client.random.choice(
        ({"Host": "rebound.example"}, {"Origin": "http://x.example"}, {"Sec-Fetch-Site": "cross-site"})
    )
    status, _ = client.ask("POST", "/v1/query", client.image(), {"Content-Type": "image/jpeg", **said})
    return str(status)


def pipelined(client: Client) -> str:
    """Many requests before the first answer is read."""
    return client.raw(head("GET", "/healthz") * 50)


READ = ("200", "unreadable", "503")
KINDS: dict[Ask, Sequence[str]] = {
    oversized: ("413", CLOSED),
    oversized_in_chunks: ("413", CLOSED),
    truncated: READ,
    damaged: READ,
    bomb: ("unreadable", "422", "503"),
    no_image: ("unreadable", "422", "503"),
    slow_body: ("408",),
    slow_head: (CLOSED, "408"),
    silent: (CLOSED,),
    aborted: (CLOSED,),
    garbage: ("400", CLOSED),
    long_headers: ("400", "431", CLOSED),
    two_lengths: ("400",),
    wrong_type: ("415",),
    bad_json: ("400", "403", "422"),
    bad_form: ("400", "422"),
    traversal: ("400", "404", "422"),
    elsewhere: ("403", "421"),
    pipelined: ("200",),
}
"""What hostile clients do, each with the outcomes that it may have."""


class Tally:
    """What came of all requests."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.good: Counter[str] = Counter()
        self.hostile: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self.seconds: list[float] = []

    def fault(self, text: str) -> None:
        """Notes what must not be."""
        with self.lock:
            self.faults.append(text)
        print(text, file=sys.stderr)


def main() -> None:
    """Asks the server for the time, and tells what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, default=Path("landmarks"), help="index folder (default %(default)s)")
    parser.add_argument("--images", type=Path, default=Path("images"), help="folder of JPEGs (default %(default)s)")
    parser.add_argument("--number", type=int, default=100, help="images that are asked for (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="(default %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="(default %(default)s)")
    parser.add_argument("--hostile", type=float, default=0.05, help="share of requests (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    args = parser.parse_args()
    paths = sorted(args.images.rglob("*.jpg"))
    if not paths:
        sys.exit(f"{args.images}: there is no JPEG; give --images")
    images = [path.read_bytes() for path in random.Random(args.seed).sample(paths, min(args.number, len(paths)))]
    landmarks = lmr.open_index(args.index)
    expected = {image: expected_of(landmarks.query([image])[0].to_json()) for image in images}
    tally, samples = Tally(), list[dict[str, float]]()
    with tempfile.TemporaryFile("w+") as log:
        with serving(args.index, log) as (server, port):
            end = time.monotonic() + 60 * args.minutes
            clients = [Client(port, args.seed * 1000 + i, images) for i in range(args.clients)]
            todo = [(client, expected, tally, args.hostile, end) for client in clients]
            threads = [threading.Thread(target=work, args=each, daemon=True) for each in todo]
            begun = time.monotonic()
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and server.poll() is None:
                samples.append({"s": time.monotonic() - begun, **measured(server.pid)})
                time.sleep(SAMPLED_S)
            if server.poll() is not None:
                tally.fault(f"the server ended with exit code {server.returncode}")
            seconds = time.monotonic() - begun
        log.seek(0)
        text = log.read()
    if "Traceback" in text:
        tally.fault(text[text.index("Traceback") :][-4000:])
    report = told(tally, samples, seconds) | {"log_lines": text.count("\n")}
    print(json.dumps({"clients": args.clients, "hostile_share": args.hostile, **report}, indent=1))
    sys.exit(bool(tally.faults))


@contextlib.contextmanager
def serving(index: Path, log: Any) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A server that is ready, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("--index", str(index), "--port", str(port), "--max-upload-mb", str(MAX_UPLOAD_MB))
    server = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import program; program()", "serve", *words], stdout=log, stderr=log
    )
    try:
        end = time.monotonic() + STARTED_S
        while not is_ready(port):
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server is not ready; exit code {server.poll()}")
            time.sleep(0.2)
        yield server, port
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(60)
        server.kill()
        server.wait()


def is_ready(port: int) -> bool:
    """True where the server answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def work(client: Client, expected: dict[bytes, Any], tally: Tally, hostile: float, end: float) -> None:
    """One client, until the time is over."""
    kinds = list(KINDS)
    while time.monotonic() < end:
        if client.random.random() >= hostile:
            ask_well(client, expected, tally)
            continue
        kind = client.random.choice(kinds)
        try:
            outcome = kind(client)
        except (OSError, http.client.HTTPException) as error:
            client.leave()
            outcome = CLOSED if isinstance(error, ConnectionError | http.client.HTTPException) else repr(error)
        with tally.lock:
            tally.hostile[kind.__name__][outcome] += 1
        if outcome not in KINDS[kind] and outcome != "503":
            tally.fault(f"{kind.__name__} had the outcome {outcome}")


def ask_well(client: Client, expected: dict[bytes, Any], tally: Tally) -> None:
    """Asks for an image as it should be, and compares the answer."""
    image = client.image()
    begun = time.monotonic()
    try:
        status, answer = client.ask("POST", "/v1/query", *form_of(client, image))
    except (OSError, http.client.HTTPException) as error:
        tally.fault(f"a good request ended in {error!r}")
        return
    with tally.lock:
        tally.good[str(status)] += 1
        tally.seconds.append(time.monotonic() - begun)
    if status == 503:
        time.sleep(0.2)
    elif status != 200:
        tally.fault(f"a good request had the status {status}: {answer[:300]!r}")
    elif not is_same(expected[image], expected_of(json.loads(answer)[0])):
        tally.fault(f"wrong answer: {answer!r}, not {expected[image]}")


def form_of(client: Client, image: bytes) -> tuple[bytes, dict[str, str]]:
    """A body with an image, in one of the forms that the server takes, and its headers."""
    how = client.random.random()
    if how < 0.5:
        return image, {"Content-Type": "image/jpeg"}
    if how < 0.8:
        edge = "x" * 20 + str(client.random.random())
        name = b'Content-Disposition: form-data; name="image"; filename="a.jpg"'
        body = b"\r\n".join(
            (f"--{edge}".encode(), name, b"Content-Type: image/jpeg", b"", image, f"--{edge}--".encode())
        )
        return body + b"\r\n", {"Content-Type": f"multipart/form-data; boundary={edge}"}
    document = {"images": [{"data": base64.b64encode(image).decode()}]}
    return json.dumps(document).encode(), {"Content-Type": "application/json"}


def expected_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of an answer."""
    kept = {name: answer[name] for name in ("landmark_id", "name", "confidence", "unreadable", "in_index")}
    return kept | {"neighbours": [(near["image_id"], near["score"]) for near in answer["neighbours"]]}


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """True for the same answer: neighbours of the same score may change their places."""
    if any(one[name] != other[name] for name in ("landmark_id", "name", "unreadable", "in_index")):
        return False
    if abs((one["confidence"] or 0) - (other["confidence"] or 0)) > TOLERANCE:
        return False
    scores, others = dict(one["neighbours"]), dict(other["neighbours"])
    if len(scores) != len(others):
        return False
    last = min(scores.values(), default=0.0)
    return all(abs(scores.get(i, last) - others.get(i, last)) <= TOLERANCE for i in scores.keys() | others.keys())


def measured(pid: int) -> dict[str, float]:
    """Memory (PSS), open files and threads of a process and all that it started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family, found = {pid}, True
    while found:
        found = {child for child, parent in parents.items() if parent in family} - family
        family |= found
    total: Counter[str] = Counter(processes=len(family))
    for member in family:
        with contextlib.suppress(OSError, AttributeError):
            pss = re.search(r"^Pss: +(\d+)", Path(f"/proc/{member}/smaps_rollup").read_text(), re.MULTILINE)
            total["mb"] += int(pss[1]) * 1024 / MB
            total["files"] += len(os.listdir(f"/proc/{member}/fd"))
            total["threads"] += len(os.listdir(f"/proc/{member}/task"))
    return dict(total)


def told(tally: Tally, samples: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    """What came of it."""
    late = [sample for sample in samples if sample["s"] > seconds / 5 and sample.get("mb")]
    slope = np.polyfit([sample["s"] / 3600 for sample in late], [sample["mb"] for sample in late], 1)[0]
    outcomes = Counter[str]()
    for found in (tally.good, *tally.hostile.values()):
        outcomes.update(found)
    p50, p95, p99 = np.percentile(tally.seconds, (50, 95, 99))
    return {
        "seconds": round(seconds),
        "good": sum(tally.good.values()),
        "good_by_status": dict(tally.good),
        "good_ms": {"p50": round(p50 * 1000), "p95": round(p95 * 1000), "p99": round(p99 * 1000)},
        "hostile": sum(found.total() for found in tally.hostile.values()),
        "hostile_by_kind": {kind: dict(found) for kind, found in sorted(tally.hostile.items())},
        "wrong": sum(fault.startswith("wrong") for fault in tally.faults),
        "5xx_other_than_503": sum(
            n for status, n in outcomes.items() if re.fullmatch("5\\d\\d", status) and status != "503"
        ),
        "503": outcomes["503"],
        "faults": len(tally.faults),
        "first_faults": tally.faults[:10],
        "memory_mb": {
            "first": round(late[0]["mb"]),
            "last": round(late[-1]["mb"]),
            "most": round(max(s["mb"] for s in late)),
        },
        "memory_slope_mb_an_hour": round(slope, 1),
        "memory_by_minute": [round(sample["mb"]) for sample in samples[:: round(60 / SAMPLED_S)] if sample.get("mb")],
        "files_first_last": [late[0]["files"], late[-1]["files"]],
        "threads_first_last": [late[0]["threads"], late[-1]["threads"]],
        "processes_first_last": [late[0]["processes"], late[-1]["processes"]],
    }


if __name__ == "__main__":
    main()
