"""`lmr serve` over loopback: latency and requests/s with 1, 8 and 32 clients, beside a plain server. Prints JSON.

    python scripts/bench/serve.py --folder DIR [--data ../shared/photos] [--weights ../shared/weights] [--seconds 6]

Makes an index of the training photographs with MobileNetV2 in --folder, unless it is there, and asks it test images as
raw bytes, each client one after the other over a connection that it keeps. In turns are measured: decode, forward and
search in a process without a server; `lmr serve`; the same with batches of one image; and a FastAPI + torch + FAISS
server written in the usual way, of the same weights and the same images: a function that the framework calls in its
threads, torchvision's transforms, the network as it is loaded, an exact FAISS index, the labels of twenty neighbours.
That server computes in float32 as torch does; --precision fp32 has lmr do the same. Every server is a process of its
own with all cores; so are the clients, one process for all of them. Of all turns the one with most requests/s, as other
programs only ever take time away; `cpu_ms` is processor time of the server for a request, the median of all turns,
which tells more where a machine is shared. Every answer of lmr is compared with that of the index without a server:
`n_wrong`.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

N_IMAGES = 64  # that are asked, in turns
CLIENTS = (1, 8, 32)
BACKBONE = ["--backbone", "timm:mobilenetv2_100", "--backbone-option", "pad_type=same"]
BACKBONE += ["--backbone-option", "bn_eps=0.001", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--size", "224"]
LMR = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cli.main import program; program()"]
GOALS = {"one_client_to_process": 1.3, "to_unbatched": 1.3, "to_plain": 1.5}
BOUNDARY = b"lmr-bench-boundary"
PLAIN = """
import io, sys
import faiss, numpy as np, timm, torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms
weights, rows, port = sys.argv[1:]
model = timm.create_model("mobilenetv2_100", pad_type="same", bn_eps=1e-3)
model.load_state_dict(torch.load(weights, map_location="cpu"))
model.reset_classifier(0)
model.eval()
transform = transforms.Compose([
    transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)
])
known = np.load(rows)
index = faiss.IndexFlatIP(known["vectors"].shape[1])
index.add(known["vectors"])
app = FastAPI()

@app.post("/query")
def query(file: UploadFile):
    image = transform(Image.open(io.BytesIO(file.file.read())).convert("RGB"))
    with torch.inference_mode():
        vector = torch.nn.functional.normalize(model(image[None])).numpy()
    scores, found = index.search(vector, 20)
    near = [{"label": str(known_labels[i]), "score": float(s)} for i, s in zip(found[0], scores[0])]
    return {"label": near[0]["label"], "neighbours": near}

known_labels = known["labels"]
uvicorn.run(app, port=int(port), log_level="error")
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What clients saw in one turn: seconds of each request, of all together, and the bodies with their images."""

    seconds: list[float]
    wall_s: float
    answers: list[tuple[int, bytes]]
    n_failed: int


@dataclass(frozen=True, slots=True)
class Server:
    """A server process. heads: the bytes of a request for each image."""

    process: "subprocess.Popen[str]"
    port: int
    requests: list[bytes]

    def cpu_s(self) -> float:
        """Processor seconds so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Makes what is missing, measures in turns, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path, help="where the index is, or is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of lmr (default: what it takes here)")
    args = parser.parse_args()
    data, weights = args.data.resolve(), args.weights.resolve() / "mobilenetv2_100.pt"
    if not (data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    if args.precision:
        os.environ["LMR_PRECISION"] = args.precision
    os.environ["LMR_ENGINE"] = "torch"  # as the plain server
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as lmr serve has it: of all processes, or other work spoils the others
    args.folder.mkdir(parents=True, exist_ok=True)
    make_index(args.folder, data, weights)
    names = [line.split(",")[0] for line in (data / "test.csv").read_text().splitlines()[1:]][:N_IMAGES]
    images = [(data / "images" / f"{name}.jpg").read_bytes() for name in names]
    print(json.dumps(measure(args, images, weights), indent=1))


def make_index(folder: Path, data: Path, weights: Path) -> None:
    """An index of the training images, with a background, calibrated; and the rows of the plain server."""
    where = ["--images", str(data / "images")]
    if not (folder / "landmarks").exists():
        for name in ("train", "background"):
            words = [*BACKBONE, "--weights", str(weights), "--output", f"{name}.h5"]
            lmr(folder, "embed", data / f"{name}.csv", *where, *words)
        lmr(folder, "build-index", "train.h5", "--background", "background.h5")
        lmr(folder, "calibrate", data / "val.csv", *where)
    if not (folder / "rows.npz").exists():
        from retrieval.store.store import read_store

        store = read_store(folder / "train.h5")
        vectors = np.asarray(store.vectors[np.flatnonzero(store.done)], dtype=np.float32)
        labels = np.array(store.landmarks)[store.landmark[store.done]]
        np.savez(folder / "rows.npz", vectors=vectors, labels=labels)


def lmr(folder: Path, *words: object) -> None:
    """A command of lmr."""
    subprocess.run([*LMR, *map(str, words)], cwd=folder, check=True, stdout=sys.stderr)


def measure(args: argparse.Namespace, images: list[bytes], weights: Path) -> dict[str, Any]:
    """The figures of all turns."""
    index = args.folder.resolve() / "landmarks"
    with (
        _apart(_here, index, images) as here,
        _apart(_clients) as clients,
        _lmr_server(index, images) as batched,
        _lmr_server(index, images, "--batch", "1") as unbatched,
        _plain_server(args.folder, weights, images) as plain,
    ):
        servers = {"lmr": batched, "lmr, batches of one": unbatched, "plain": plain}
        expected, *_ = _asked(here, ("answers", 0.0))
        seen: dict[tuple[str, int], list[dict[str, Any]]] = {}
        process: list[tuple[float, float]] = []
        for turn in range(args.turns + 1):  # the first is not counted
            for name, server in servers.items():
                process += [_asked(here, ("time", args.seconds / 3))[1:]] if turn else []
                for n in CLIENTS if name != "lmr, batches of one" else (1, 32):
                    given = expected if name.startswith("lmr") else None
                    found = _turn(clients, server, n, args.seconds if turn else 2.0, given)
                    seen.setdefault((name, n), []).extend([found] if turn else [])
    figures: dict[str, Any] = {name: {} for name in servers}
    for (name, n), turns in seen.items():
        keys = ("p50_ms", "p95_ms", "p99_ms", "requests_s", "cpu_ms")
        best = max(turns, key=lambda turn: turn["requests_s"])
        best["cpu_ms"] = statistics.median(turn["cpu_ms"] for turn in turns)
        figures[name][f"{n} clients"] = {key: round(best[key], 2) for key in keys}
        figures[name][f"{n} clients"] |= {key: sum(t[key] for t in turns) for key in ("n_failed", "n_wrong")}
    here_ms, here_cpu_ms = min(process)[0], statistics.median(cpu_ms for _, cpu_ms in process)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "images": len(images),
        "in process": {"p50_ms": round(here_ms, 2), "cpu_ms": round(here_cpu_ms, 2)},
        "servers": figures,
        "ratios": _ratios(figures, here_ms, here_cpu_ms),
        "goals": GOALS,
    }


def _ratios(figures: dict[str, Any], here_ms: float, here_cpu_ms: float) -> dict[str, float]:
    one = figures["lmr"]["1 clients"]
    own, other, plain = (figures[name]["32 clients"] for name in ("lmr", "lmr, batches of one", "plain"))
    return {
        "one_client_to_process": round(one["p50_ms"] / here_ms, 2),
        "one_client_to_process_by_cpu": round(one["cpu_ms"] / here_cpu_ms, 2),
        "to_unbatched": round(own["requests_s"] / other["requests_s"], 2),
        "to_unbatched_by_cpu": round(other["cpu_ms"] / own["cpu_ms"], 2),
        "to_plain": round(own["requests_s"] / plain["requests_s"], 2),
        "to_plain_by_cpu": round(plain["cpu_ms"] / own["cpu_ms"], 2),
    }


def _turn(clients: Connection, server: Server, n: int, seconds: float, expected: list[Any] | None) -> dict[str, Any]:
    """Figures of one turn of n clients. expected: the landmarks and confidences of the images, None = not compared."""
    began = server.cpu_s()
    turn: Turn = _asked(clients, (server.port, server.requests, n, seconds))
    cpu_s = server.cpu_s() - began
    ms = np.array(turn.seconds) * 1e3
    wrong = 0
    for i, body in turn.answers if expected is not None else ():
        (answer,) = json.loads(body)
        assert expected is not None
        wrong += [answer["landmark_id"], round(answer["confidence"], 5)] != expected[i]
    return {
        **{f"p{q}_ms": float(np.percentile(ms, q)) for q in (50, 95, 99)},
        "requests_s": len(ms) / turn.wall_s,
        "cpu_ms": 1e3 * cpu_s / len(ms),
        "n_failed": turn.n_failed,
        "n_wrong": wrong,
    }


def _asked(connection: Connection, task: Any) -> Any:
    connection.send(task)
    return connection.recv()


@contextmanager
def _apart(target: Any, *given: Any) -> Iterator[Connection]:
    """A process that does tasks one after the other."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=target, args=(theirs, *given), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _here(tasks: Connection, index: Path, images: list[bytes]) -> None:
    """Decode, forward and search without a server: answers, and of an image the median and the processor's ms."""
    import threadpoolctl

    import lmr as api

    landmarks = api.open_index(index)
    threadpoolctl.threadpool_limits(1, user_api="blas")  # as lmr serve has it
    embedder = landmarks.embedder
    while True:
        what, seconds = tasks.recv()
        spent, answers = [], []
        end, cpu = time.perf_counter() + seconds, time.process_time()
        for i in range(10**9):
            if i >= len(images) if what == "answers" else time.perf_counter() >= end:
                break
            began = time.perf_counter()
            vectors = embedder.describe(*(of_spec[None] for of_spec in embedder.prepare(images[i % len(images)])))
            (answer,) = landmarks.answer_descriptors(vectors, ["image"])
            spent.append(time.perf_counter() - began)
            answers.append([answer.landmark_id, round(answer.confidence or 0.0, 5)])
        cpu_ms = 1e3 * (time.process_time() - cpu) / len(spent)
        tasks.send((answers, 1e3 * statistics.median(spent), cpu_ms))


def _clients(tasks: Connection) -> None:
    """Clients of a server."""
    while True:
        tasks.send(asyncio.run(_ask(*tasks.recv())))


async def _ask(port: int, requests: list[bytes], n: int, seconds: float) -> Turn:
    spent: list[float] = []
    answers: list[tuple[int, bytes]] = []
    failed = [0]
    began = time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        i = number * 7
        while (sent := time.perf_counter()) < began + seconds:
            i = (i + 1) % len(requests)
            writer.write(requests[i])
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length is not None, head
            body = await reader.readexactly(int(length[1]))
            spent.append(time.perf_counter() - sent)
            if head.startswith(b"HTTP/1.1 200"):
                answers.append((i, body))
            else:
                failed[0] += 1
        writer.close()

    await asyncio.gather(*map(client, range(n)))
    return Turn(spent, time.perf_counter() - began, answers, failed[0])


@contextmanager
def _lmr_server(index: Path, images: list[bytes], *words: str) -> Iterator[Server]:
    how = ["serve", "--index", str(index), "--port", "0", "--per-minute", "0", *words]
    process = subprocess.Popen([*LMR, *how], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
            break
        sys.stderr.write(line)
    else:
        raise RuntimeError("lmr serve did not begin")
    port = int(found[1])
    requests = [_post("/v1/query", port, "application/octet-stream", image) for image in images]
    yield from _ended(Server(process, port, requests))


@contextmanager
def _plain_server(folder: Path, weights: Path, images: list[bytes]) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-c", PLAIN, str(weights), str(folder / "rows.npz"), str(port)]
    process = subprocess.Popen(words, text=True)
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError("the plain server did not begin")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="image.jpg"\r\n\r\n' % BOUNDARY
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    bodies = (head + image + b"\r\n--" + BOUNDARY + b"--\r\n" for image in images)
    yield from _ended(Server(process, port, [_post("/query", port, kind, body) for body in bodies]))


def _ended(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


def _post(path: str, port: int, kind: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


if __name__ == "__main__":
    main()
