"""Downloads 5,000 images from a server on loopback with `lmr download` and with img2dataset, and compares them.

The server runs in a process of its own, waits 50 ms before each answer and sends images that this script draws. Both
programs resize to the same size, mode and quality in the same number of processes; img2dataset gets the number of
threads with which it is fastest. It is installed into an environment of its own. Prints one JSON document with images
a second, processor seconds, the peak of the proportional memory of all processes of each, and the ratios.

With --bad a tenth of the rows are dead links, refused connections, slow-loris servers and truncated bodies.

python scripts/bench/download.py [--images 5000] [--bad]
"""

import argparse
import asyncio
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from demo import memory_kb
from PIL import Image

SIZE, QUALITY = 256, 85
N_PROCESSES = 2
N_DRAWN = 16
WIDTH, HEIGHT = 1024, 768
TIMEOUT_S = 10
LIMIT_S = 300  # after which a program is stopped
KINDS = ("missing", "refused", "loris", "truncated")  # of the bad rows, in turn


def main() -> None:
    """Starts the server, runs both in turn, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="rows (default %(default)s)")
    parser.add_argument("--latency-ms", type=float, default=50, help="before each answer (default %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="of lmr, at once (default %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[16, 32, 64], help="to try for img2dataset")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each; medians are printed (default %(default)s)"
    )
    parser.add_argument(
        "--environment", type=Path, help="where img2dataset is or will be installed (default: temporary)"
    )
    parser.add_argument("--bad", action="store_true", help="a tenth of the rows do not work")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        img2dataset = install(given.environment or folder / "environment")
        context = get_context("spawn")
        port = context.Queue()
        server = context.Process(target=serve, args=(given.latency_ms / 1000, port), daemon=True)
        server.start()
        base = f"http://127.0.0.1:{port.get(timeout=600)}"
        try:
            print(json.dumps(compare(given, folder, base, img2dataset), indent=2))
        finally:
            server.kill()


def compare(given: argparse.Namespace, folder: Path, base: str, img2dataset: Path) -> dict[str, Any]:
    """Medians of both and their ratios."""
    few, all_rows = folder / "few.csv", folder / "all.csv"
    write_rows(few, base, min(1000, given.images), bad=False)
    write_rows(all_rows, base, given.images, bad=given.bad)
    lmr = Path(sys.executable).with_name("lmr")

    def ours(path: Path) -> list[str]:
        limits = ["--connections", str(given.connections), "--per-host", str(given.connections), "--retries", "0"]
        times = ["--timeout-s", str(TIMEOUT_S), "--idle-s", str(TIMEOUT_S), "--workers", str(N_PROCESSES)]
        form = ["--resize", "longer", "--size", str(SIZE), "--quality", str(QUALITY)]
        return [
            str(lmr),
            "download",
            str(path),
            str(folder / "out"),
            "--allow-private",
            *form,
            *limits,
            *times,
            "--json",
        ]

    def theirs(path: Path, n_threads: int) -> list[str]:
        options = {
            "url_list": path,
            "input_format": "csv",
            "url_col": "url",
            "output_format": "files",
            "output_folder": folder / "out",
            "processes_count": N_PROCESSES,
            "thread_count": n_threads,
            "image_size": SIZE,
            "resize_mode": "keep_ratio_largest",
            "resize_only_if_bigger": True,
            "encode_quality": QUALITY,
            "timeout": TIMEOUT_S,
            "retries": 0,
            "number_sample_per_shard": max(1, given.images // (2 * N_PROCESSES)),
        }
        return [str(img2dataset), *(f"--{name}={value}" for name, value in options.items())]

    n_threads = given.threads[0]
    if len(given.threads) > 1:
        n_threads = max(given.threads, key=lambda n: measure(theirs(few, n), folder)["pictures_per_s"] or 0)
    runs: dict[str, list[dict[str, Any]]] = {"lmr": [], "img2dataset": []}
    for _ in range(given.repeats):
        runs["lmr"].append(measure(ours(all_rows), folder))
        runs["img2dataset"].append(measure(theirs(all_rows, n_threads), folder))
    found = {name: {key: median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}
    return {
        "pictures": given.images,
        "latency_ms": given.latency_ms,
        "bad_rows": given.bad,
        "img2dataset_threads": n_threads,
        "load_average": os.getloadavg()[0],
        **found,
        **{f"ratio_{key}": ratio(found, key) for key in ("pictures_per_s", "cpu_s", "peak_mb")},
    }


def measure(command: list[str], folder: Path) -> dict[str, Any]:
    """One run into an empty folder; pictures_per_s counts the files that it stored. None: it had to be stopped."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        peak_kb, is_over = 0, False
        while process.poll() is None and not is_over:
            peak_kb = max(peak_kb, memory_kb(process.pid))
            time.sleep(0.1)
            is_over = time.perf_counter() - began_s > LIMIT_S
        seconds = time.perf_counter() - began_s
        if is_over:
            os.killpg(process.pid, 9)
            process.wait()
        elif process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    n = sum(1 for _ in out.rglob("*.jpg"))
    return {
        "stored": n,
        "seconds": None if is_over else round(seconds, 2),
        "pictures_per_s": None if is_over else round(n / seconds, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mb": round(peak_kb / 1024),
    }


def median(values: Any) -> Any:
    """None when any value is None."""
    found = list(values)
    return None if None in found else statistics.median(found)


def ratio(found: dict[str, dict[str, Any]], key: str) -> float | None:
    """lmr by img2dataset."""
    ours, theirs = found["lmr"][key], found["img2dataset"][key]
    return round(ours / theirs, 2) if ours and theirs else None


def install(environment: Path) -> Path:
    """The program img2dataset of an environment, which is made when it is not there."""
    program = environment / "bin" / "img2dataset"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(environment / "bin" / "pip"), "install", "-q", "img2dataset", "setuptools<81"]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    return program


def write_rows(path: Path, base: str, n: int, *, bad: bool) -> None:
    """id and url; with bad every tenth does not work."""
    with path.open("w") as file:
        file.write("id,url\n")
        for row in range(n):
            kind = KINDS[row // 10 % len(KINDS)] if bad and row % 10 == 0 else "picture"
            at = "http://127.0.0.1:9" if kind == "refused" else base
            file.write(f"{row:016x},{at}/{kind}/{row}.jpg\n")


def serve(latency_s: float, port: Any) -> None:
    """Serves until it is killed; tells its port."""
    images = [draw(seed) for seed in range(N_DRAWN)]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Answering(loop, images, latency_s), "127.0.0.1", 0, backlog=1024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Answering(asyncio.Protocol):
    """One connection: a request, a wait, an answer; and again, as long as the client stays."""

    def __init__(self, loop: asyncio.AbstractEventLoop, images: list[bytes], latency_s: float) -> None:
        self._loop, self._images, self._latency_s = loop, images, latency_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """A request is whole at its empty line."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            _, kind, name = request.split(b" ")[1].split(b"/")
            self._loop.call_later(self._latency_s, self._answer, kind, int(name.split(b".")[0]), request.lower())

    def _answer(self, kind: bytes, row: int, request: bytes) -> None:
        if self._transport.is_closing():
            return
        if kind == b"missing":
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        else:
            body = self._images[row % len(self._images)]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            if kind == b"loris":
                self._drip(body)
                return
            self._transport.write(body if kind == b"picture" else body[: len(body) // 2])
        if kind == b"truncated" or b"connection: close" in request:
            self._transport.close()

    def _drip(self, body: bytes) -> None:
        """A byte a second."""
        if body and not self._transport.is_closing():
            self._transport.write(body[:1])
            self._loop.call_later(1.0, self._drip, body[1:])


def draw(seed: int) -> bytes:
    """A JPEG with structure at several scales and a little noise, about 200 kB."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for cells in (4, 16, 64):
        coarse = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        pixels += np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 3
    pixels += rng.normal(0, 6, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
