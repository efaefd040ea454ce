"""What kills.py and pairs.py share: a tiny set, commands of `lmr` in warm children of this process, what they made."""

import contextlib
import csv
import hashlib
import http.server
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("LMR_ENGINE", "torch")  # an export takes as long as all the rest of a trial
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; children are forked after that

LABELS = ("arch", "bridge", "castle")
N_TRAIN, N_HELD, N_OTHERS = 8, 5, 6  # of a landmark; of a landmark in val or test; non-landmarks in each
SIDE = 40  # pixels
NETWORK = ("--backbone", "plain-cnn", "--size", "32")
HERE = ("--workers", "1", "--threads", "1", "--device", "cpu")
TRAINING = ("--epochs", "2", "--batch-size", "8", "--epoch-size", "16", "--workers", "0", "--threads", "1")
INVERTED = ("--kind", "ivf-sq8", "--lists", "2", "--recall", "0.5", "--device", "cpu")
LOCAL = ("--local", "rootsift", "--keypoints", "40")
PREPARED = (  # what the commands under trial read
    ("embed", "train.csv", *LOCAL, *NETWORK, *HERE),
    ("embed", "val.csv", *LOCAL, *HERE),
    ("embed", "test.csv", *HERE),
    ("build-index", "train.h5", "--output", "landmarks", "--device", "cpu"),
    ("embed", "train.csv", "--model", "other", "--output", "other.h5", *NETWORK, "--dimensions", "16", *HERE),
    ("embed", "photos", *LOCAL, *HERE),
    ("embed", "others.csv", *HERE),
    ("build-index", "photos.h5", "--background", "others.h5", "--output", "growing", "--local", *INVERTED),
    ("build-index", "train.h5", "--output", "plain", "--whitening-power", "0", "--local", *INVERTED),
    ("build-index", "val.h5", "--output", "second", "--whitening-power", "0", "--local", *INVERTED),
    ("calibrate", "val.csv", "--index", "growing", *HERE),
    ("index", "remove", "train-arch-5", "train-castle-1", "--index", "growing"),
    *(("embed", "val.csv", "--output", "part.h5", "--shard", f"{i}/2", *HERE) for i in (1, 2)),
    *(("submit", "val.csv", "--output", "part.csv", "--store", "asked.h5", "--shard", f"{i}/2", *HERE) for i in (1, 2)),
    *(("evaluate", "val.csv", "--store", "asked.h5", "--shard", f"{i}/2", *HERE) for i in (1, 2)),
    *(("stats", "val.csv", "--images", "images", "--facts", "facts.sqlite", "--shard", f"{i}/2", "--workers", "1")
      for i in (1, 2)),
)  # fmt: skip
RECIPE = """
[answer]
by = "nearest"
[train]
backbone = "plain-cnn"
size = 32
epochs = 1
epoch-size = 8
batch-size = 4
loss = "linear"
dimensions = 0
"""
LIMIT_S = 300  # after which a command is said to hang
SAME_DESCRIPTOR = 2e-3  # batches of other sizes are summed in another order, and rounded to float16
_MOMENT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal) and all that it printed."""

    code: int
    text: str
    seconds: float


def import_all() -> None:
    """What the commands import, once for all children."""
    import faiss
    import matplotlib.pyplot  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    from cli.main import COMMANDS, LmrGroup

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    for name in COMMANDS:
        LmrGroup().get_command(None, name)  # type: ignore[arg-type]


def begin(folder: Path, words: Sequence[str], output: Path, before: Callable[[], None] | None = None) -> int:
    """Starts `lmr` in a child that leads a process group of its own; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.chdir(folder)
        sys.argv = ["lmr", *words]
        from cli.main import main

        if before is not None:
            before()
        main(list(words), prog_name="lmr")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(pid: int, output: Path, began: float) -> Ended:
    """Waits for a child; one that hangs is killed with its group."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() - began > LIMIT_S:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    text = output.read_text(errors="replace") if output.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, time.monotonic() - began)


def run(folder: Path, words: Sequence[str], before: Callable[[], None] | None = None) -> Ended:
    """`lmr` to its end."""
    output, began = folder.with_name(f"{folder.name}.txt"), time.monotonic()
    return end(begin(folder, words, output, before), output, began)


def must(folder: Path, words: Sequence[str]) -> Ended:
    """`lmr` that has to succeed."""
    ended = run(folder, words)
    if ended.code:
        raise SystemExit(f"lmr {' '.join(words)} ended with {ended.code}:\n{ended.text}")
    return ended


def watch_files(on_operation: Callable[[int], object]) -> None:
    """Calls with 1, 2, ... before each opening for writing, write to a store, renaming, making and removing in the
    working folder.
    """
    from retrieval.store.store import StoreWriter

    count, root, put = 0, os.getcwd(), StoreWriter._put

    def step() -> None:
        nonlocal count
        count += 1
        on_operation(count)

    def counted_put(self: Any, *given: Any) -> None:
        step()
        put(self, *given)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"):
            return
        if event == "open" and (not isinstance(given[2], int) or not given[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if isinstance(given[0], str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(given[0])).startswith(root):
            step()

    StoreWriter._put = counted_put  # type: ignore[method-assign,assignment]
    sys.addaudithook(hook)


def make_set(folder: Path, port: int) -> Path:
    """Images, manifests and what is made of them before the trials, by `PREPARED`."""
    (folder / "images").mkdir(parents=True)
    for first, part in enumerate(("train", "val", "test")):
        rows = []
        for label in (*LABELS, ""):
            for i in range(N_OTHERS if not label else N_TRAIN if part == "train" else N_HELD):
                image_id = f"{part}-{label or 'other'}-{i}"
                draw(label, 100 * first + i).save(folder / "images" / f"{image_id}.jpg", quality=92)
                rows.append((image_id, label, f"http://127.0.0.1:{port}/{image_id}.jpg"))
        write_rows(folder / f"{part}.csv", ("id", "landmark_id"), [row[:2] for row in rows])
        write_rows(folder / f"{part}-urls.csv", ("id", "url"), [(row[0], row[2]) for row in rows])
    write_rows(folder / "test.csv", ("id",), [(path.stem,) for path in sorted((folder / "images").glob("test-*"))])
    for label in LABELS:
        (folder / "own" / label).mkdir(parents=True)
        for path in sorted((folder / "images").glob(f"*-{label}-*.jpg")):
            shutil.copy(path, folder / "own" / label / path.name)
    shutil.copytree(folder / "own", folder / "photos", ignore=shutil.ignore_patterns("val-*", "test-*"))
    write_rows(folder / "others.csv", ("id", "landmark_id"), [(f"train-other-{i}", "") for i in range(N_OTHERS)])
    write_rows(folder / "labels.csv", ("landmark_id", "new_landmark_id"), [("arch", "gate"), ("bridge", "gate")])
    (folder / "small.toml").write_text(RECIPE)
    (folder / "parts").mkdir()
    for name in ("train.csv", "val.csv"):
        shutil.copy(folder / name, folder / "parts" / name)
    for words in PREPARED:
        must(folder, words)
    change_photos(folder / "photos")
    return folder


def change_photos(folder: Path) -> None:
    """A folder of images after its index was built: some new, gone, renamed, replaced, and in another landmark's."""
    draw("arch", 300).save(folder / "arch" / "new-arch.jpg", quality=92)
    (folder / "gate").mkdir()
    draw("castle", 301).save(folder / "gate" / "new-gate.jpg", quality=92)
    (folder / "arch" / "train-arch-1.jpg").rename(folder / "bridge" / "train-arch-1.jpg")
    (folder / "arch" / "train-arch-2.jpg").rename(folder / "arch" / "renamed.jpg")
    draw("arch", 302).save(folder / "arch" / "train-arch-3.jpg", quality=92)
    (folder / "castle" / "train-castle-0.jpg").unlink()


def draw(label: str, seed: int) -> Image.Image:
    """Stripes of the label's slant and colour, with noise; noise alone without a label."""
    number = LABELS.index(label) if label else -1
    rng = np.random.default_rng([number + 1, seed])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    pixels = rng.normal(128, 50, (SIDE, SIDE, 3))
    if label:
        slant = number * np.pi / len(LABELS)
        wave = np.sin(20 * (x * np.cos(slant) + y * np.sin(slant)) + rng.uniform(0, 1))
        colour = np.eye(3)[number] * 160 + 40
        pixels = (0.6 + 0.4 * wave)[..., None] * colour + rng.normal(0, 12, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def serve(folder: Path) -> tuple[int, int]:
    """Serves the images of a set on loopback, in a child; its id and the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Images)
    Images.folder = folder / "images"
    pid = os.fork()
    if not pid:
        server.serve_forever()
        os._exit(0)
    port = server.server_address[1]
    server.socket.close()
    return pid, port


class Images(http.server.BaseHTTPRequestHandler):
    """Answers with the image of that name."""

    folder: Path

    def do_GET(self) -> None:
        path = self.folder / os.path.basename(self.path)
        data = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def fresh(prepared: Path, outputs: Iterable[str]) -> Path:
    """A copy of the set beside it, without what is to be made."""
    folder = prepared.with_name("here")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    for name in outputs:
        (folder / name).unlink()
    return folder


def names(folder: Path) -> list[str]:
    """Every file and folder below a folder, by its path from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """sha256 of the files that the patterns find, without the moments that they were made at."""
    found = {}
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # moved since it was listed
            content = _MOMENT.sub(b"", path.read_bytes())
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def store(path: Path) -> dict[str, Any]:
    """What a store holds; the file must be whole."""
    from retrieval.store.store import read_store

    read = read_store(path)
    return {
        "ids": read.image_id.tolist(),
        "labels": read.landmark.tolist(),
        "state": read.state.tolist(),
        "vectors": np.asarray(read.vectors, np.float32),
    }


def local_store(path: Path) -> dict[str, Any]:
    """What a local store holds; the file must be whole."""
    from retrieval.local.store import open_local

    opened = open_local(path)
    opened.require_whole()
    columns = opened.columns
    return {"ids": columns.image_id.tolist(), "state": columns.state.tolist(), "n": columns.n_features.tolist()} | {
        "features": [packed_digest(opened.packed(row)) for row in range(len(opened))]
    }


def packed_digest(packed: Any) -> str:
    """sha256 of the local features of an image, '' without any."""
    if packed is None:
        return ""
    return hashlib.sha256(packed.points.tobytes() + packed.descriptors.tobytes()).hexdigest()


def index(path: Path) -> dict[str, Any]:
    """What an index folder is, after all its files were checked."""
    from index.folder.folder import open_folder

    return _outline(open_folder(path, device="cpu"))


def rows(path: Path) -> dict[str, Any]:
    """What an index folder is, its rows, and what is found for each of them."""
    from index.folder.folder import open_folder

    opened = open_folder(path, device="cpu", with_local=True, verify="full")
    vectors = opened.index.vectors(np.arange(len(opened.rows)))
    return _outline(opened) | {
        "ids": opened.rows.image_id.tolist(),
        "labels": [opened.rows.landmarks[code] for code in opened.rows.landmark.tolist()],
        "vectors": vectors,
        "background": None if opened.background is None else opened.background.image_id.tolist(),
        "found": opened.searched.search(vectors, 3).scores,
        "changes": opened.info.changes and asdict(opened.info.changes),
        "local": None if opened.local is None else [_local(opened, row) for row in range(len(opened.rows))],
    }


def _local(opened: Any, row: int) -> str:
    """Digest of the local features of a row, '' where it has none."""
    features = opened.local.features(row)
    return "" if features is None else hashlib.sha256(features.descriptors.tobytes()).hexdigest()


def _outline(opened: Any) -> dict[str, Any]:
    rule = opened.calibration and opened.calibration.to_json()["rule"]
    return {"digest": opened.info.inputs_digest, "rows": len(opened.rows), "rule": rule}


def model(path: Path) -> dict[str, Any]:
    """A model folder, after its weights were checked."""
    from retrieval.models.folder import read_any_card, require_weights

    card = read_any_card(path)
    for member in card.members:
        require_weights(path, member.card)
    return {"fingerprint": card.fingerprint}


def submission(path: Path) -> dict[str, Any]:
    """Label and score by id."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [row["landmarks"].split() for row in rows]
    scores = [float(cell[1]) if cell else -1.0 for cell in cells]
    return {
        "ids": [row["id"] for row in rows],
        "labels": [cell[0] if cell else "" for cell in cells],
        "scores": np.array(scores),
    }


def ledger(folder: Path) -> dict[str, Any]:
    """The rows of a download's ledger without times and numbers of tries, and the images.

    One without a version is only begun: SQLite makes the file before its tables, in one step that a kill may precede.
    """
    columns = "image_id, url, status, http_code, cause, bytes, sha256, width, height, perceptual_hash, original_bytes"
    with contextlib.closing(sqlite3.connect(folder / "download.sqlite")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        rows = connection.execute(f"SELECT {columns} FROM pictures ORDER BY image_id").fetchall() if version else []
    return {"rows": [list(row) for row in rows], "pictures": digests(folder, "*.jpg")}


def figures(path: Path) -> dict[str, Any]:
    """What a comparison found, without what a clock says."""
    found = json.loads(path.read_text())
    clocked = ("training_s", "pictures_per_s")
    return {
        system["system"]: [{key: run[key] for key in run if key not in clocked} for run in system["runs"]]
        for system in found["systems"]
    }


def same(one: Any, other: Any) -> bool:
    """Whether two of these are equal, numbers of arrays within what the order of sums may change."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool(np.allclose(one, other, atol=SAME_DESCRIPTOR))
    return bool(one == other)
