"""Feeds damaged and hostile files to lmr: nothing may end in a traceback, hang, fill the memory or pass in silence.

Usage: fuzz.py [--kind KIND]... [--number N] [--seed SEED] [--json out.json] [--keep FOLDER]

Each input is read in a process forked after the imports, with a limit of 60 s; its peak memory is measured. An input of
which the outcome is known (a changed byte in a file that carries digests) must be refused.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from cli.main import main as lmr
from index.folder import open_folder
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.decode import decode
from retrieval.images.source import PictureSource
from retrieval.manifest import read_manifest
from retrieval.model_card import read_any_card, require_weights
from retrieval.store import read_store
from retrieval.store_blocks import open_blocks

TIMEOUT_S = 60
PEAK_BYTES = 3 << 29  # 1.5 GB
N_KEPT = 20  # failures whose words are in the report
N_PICTURES = 24
KINDS = ("store", "store of before", "index", "index values", "model", "picture", "manifest")

Reader = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of input. files: whole examples. read: what is done with one. sealed: every changed byte is noticed."""

    name: str
    files: list[Path]
    read: Reader
    sealed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an input did. what: fine, refused, or a failure. words: the last line that was said."""

    what: str
    words: str
    peak_bytes: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", help=f"one of {', '.join(KINDS)}; all of them")
    parser.add_argument("--number", type=int, default=2000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        kinds = [kind for kind in make_kinds() if not args.kind or kind.name in args.kind]
        if not kinds:
            parser.error(f"--kind is one of {', '.join(KINDS)}")
        report = run(kinds, args.number, args.seed, args.keep)
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if report["failures"] else 0)


def run(kinds: list[Kind], number: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Tries `number` inputs, of each kind in turn; the figures."""
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    peak, slowest, failures, began = 0, 0.0, [], time.monotonic()
    for i in range(number):
        kind = kinds[i % len(kinds)]
        path = rng.choice(kind.files)
        whole = path.read_bytes()
        name, data = mutate(whole, kind, rng)
        is_damaged = data != whole and data not in {other.read_bytes() for other in kind.files if other != path}
        path.write_bytes(data)
        outcome = judge(try_apart(kind, path), kind, is_damaged)
        counts[kind.name][outcome.what] += 1
        peak, slowest = max(peak, outcome.peak_bytes), max(slowest, outcome.seconds)
        if outcome.what not in ("fine", "refused"):
            failures.append(f"{i}: {kind.name} {path.name}, {name}: {outcome.what}: {outcome.words}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, keep / f"{i}-{path.name}")
        path.write_bytes(whole)
    return {
        "inputs": number,
        "seed": seed,
        "outcomes": {name: dict(count) for name, count in counts.items()},
        "peak_mb": peak >> 20,
        "slowest_s": round(slowest, 2),
        "seconds": round(time.monotonic() - began, 1),
        "n_failures": len(failures),
        "failures": failures[:N_KEPT],
    }


def judge(outcome: Outcome, kind: Kind, is_damaged: bool) -> Outcome:
    """The outcome, with what was accepted in silence and too much memory as failures."""
    if outcome.what == "fine" and kind.sealed and is_damaged:
        return Outcome("accepted", "a changed file was read as if it were whole", outcome.peak_bytes, outcome.seconds)
    if outcome.what in ("fine", "refused") and outcome.peak_bytes > PEAK_BYTES:
        return Outcome("memory", f"{outcome.peak_bytes >> 20} MB", outcome.peak_bytes, outcome.seconds)
    return outcome


def try_apart(kind: Kind, path: Path) -> Outcome:
    """Reads the file in a process of its own."""
    receiver, sender = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        signal.alarm(TIMEOUT_S)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.write(sender, "\n".join(read(kind, path)).encode(errors="replace")[:2000])
        os._exit(0)
    os.close(sender)
    with open(receiver, errors="replace") as said:
        what, _, words = said.read().partition("\n")
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        what, words = ("hang", "") if by == signal.SIGALRM else ("killed", signal.Signals(by).name)
    return Outcome(what, words[:300], used.ru_maxrss << 10, time.monotonic() - began)


def read(kind: Kind, path: Path) -> tuple[str, str]:
    """What reading does, and its words."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        kind.read(path)
    except (LmrError, UnreadableError) as error:
        lines = str(error).split("\n")
        is_list = kind.name == "manifest" and all(line.startswith(str(path)) for line in lines[:-1])  # of bad rows
        return ("refused" if len(lines) == 1 or is_list else "many lines"), str(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return "fine", ""


def mutate(whole: bytes, kind: Kind, rng: random.Random) -> tuple[str, bytes]:
    """A name of what was done to the file, and the result."""
    swapped = rng.choice(kind.files).read_bytes()
    mutations: dict[str, Callable[[], bytes]] = {
        "random bytes": lambda: rng.randbytes(rng.choice((0, 1, 16, 500, len(whole)))),
        "cut": lambda: whole[: rng.randrange(len(whole) + 1)],
        "bit": lambda: _flipped(whole, rng, 1),
        "bits": lambda: _flipped(whole, rng, rng.randrange(2, 60)),
        "header": lambda: _flipped(whole[:2048], rng, rng.randrange(1, 8)) + whole[2048:],
        "number": lambda: _number(whole, rng),
        "hole": lambda: _hole(whole, rng),
        "longer": lambda: whole + rng.randbytes(rng.randrange(1, 5000)),
        "swapped": lambda: swapped,
    }
    name = rng.choice(list(mutations))
    return name, mutations[name]()


def _flipped(data: bytes, rng: random.Random, n: int) -> bytes:
    changed = bytearray(data)
    for _ in range(n if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _number(data: bytes, rng: random.Random) -> bytes:
    """A length, count or digit that is far too large."""
    digits = [i for i, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
    if digits and rng.random() < 0.5:
        at = rng.choice(digits)
        return data[:at] + rng.choice((b"-1", b"1e999", b"999999999999", b"NaN", b'"7"', b"[]")) + data[at + 1 :]
    huge = rng.choice((b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0\0\0\1\0\0\0\0"))
    at = rng.randrange(max(1, min(len(data), 4000)))
    return data[:at] + huge + data[at + len(huge) :]


def _hole(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.randrange(1, 4096))
    return data[:begin] + bytes(end - begin) + data[end:]


# Whole examples


def make_kinds() -> list[Kind]:
    """Examples of every kind in the current folder."""
    make_set()
    Path("old").mkdir()
    stores, old = [Path("train.h5"), Path("val.h5")], [Path("old/train.h5")]
    make_old_store(stores[0], old[0])
    index = [path for path in sorted(Path("landmarks").rglob("*")) if path.is_file()]
    model = [Path("model/model.json"), next(Path("model").glob("weights-*.safetensors"))]
    return [
        Kind("store", stores, read_any_store, sealed=True),
        Kind("store of before", old, read_any_store, sealed=False),
        Kind("index", index, lambda _: open_folder("landmarks", device="cpu"), sealed=True),
        Kind("index values", [Path("landmarks/index.json"), Path("landmarks/model/model.json")], sign_and_open, False),
        Kind("model", model, read_model, sealed=False),
        Kind("picture", list(make_pictures()), lambda path: decode(path.read_bytes(), 64), sealed=False),
        Kind("manifest", list(make_manifests()), read_rows, sealed=False),
    ]


def read_any_store(path: Path) -> None:
    """Both ways in which stores are read."""
    read_store(path)
    blocks = open_blocks(path)
    blocks.vectors(blocks.done)


def sign_and_open(path: Path) -> None:
    """Opens the folder with its own digest put right, as whoever forges one would."""
    from index.folder import list_files
    from retrieval.files.json_file import read_json, write_signed_json

    if path.name == "index.json":
        content = read_json(path, "")
    else:
        content = read_json(Path("landmarks/index.json"), "")
        content["files"] = {name: one for name, one in list_files(Path("landmarks")).items() if name != "index.json"}
    content.pop("sha256", None)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree("landmarks", Path(folder) / "l")
        write_signed_json(copy / "index.json", content)
        open_folder(copy, device="cpu")


def read_rows(path: Path) -> None:
    """A manifest and the pictures that are in it."""
    manifest = read_manifest(path)
    for row in range(0 if manifest.content is None else len(manifest)):
        with contextlib.suppress(UnreadableError):
            PictureSource(manifest, None).read(row)


def read_model(path: Path) -> None:
    """The card and the digests of its weights."""
    card = read_any_card(path.parent)
    for member in card.members:
        require_weights(path.parent, member.card)


def make_set() -> None:
    """Small coloured pictures of three landmarks, embedded, indexed and calibrated by lmr."""
    rng = np.random.default_rng(0)
    Path("images").mkdir()
    for part, n in (("train", N_PICTURES), ("val", N_PICTURES)):
        lines = ["id,landmark_id"]
        for i in range(n):
            label = i % 4
            pixels = np.clip(rng.normal(0, 30, (40, 40, 3)) + np.eye(4)[label][:3] * 200, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"images/{part}{i}.jpg")
            lines.append(f"{part}{i},{('a', 'b', 'c', '')[label]}")
        Path(f"{part}.csv").write_text("\n".join(lines) + "\n")
    for words in (
        ["embed", "train.csv", "--backbone", "plain-cnn", "--size", "32", "--device", "cpu"],
        ["build-index", "--device", "cpu"],
        ["calibrate", "val.csv", "--device", "cpu"],
    ):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lmr(words, standalone_mode=False)


def make_old_store(store: Path, path: Path) -> None:
    """The same store without digests."""
    import h5py

    shutil.copyfile(store, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["digests"]
        room = file.userblock_size
    path.write_bytes(bytes(room) + path.read_bytes()[room:])


def make_pictures() -> Iterator[Path]:
    """The same picture in every format that Pillow writes here."""
    Path("pictures").mkdir()
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    formats = ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "PCX", "ICO"]
    formats += [name for name, feature in (("WEBP", "webp"), ("AVIF", "avif"), ("JPEG2000", "jpg_2000"))
                if features.check(feature)]  # fmt: skip
    for name in formats:
        path = Path("pictures") / f"p.{name.lower()}"
        whole.save(path, name)
        yield path


def make_manifests() -> Iterator[Path]:
    """A table in every form in which manifests are read."""
    import gzip
    import zipfile

    text = "id,landmark_id\n" + "".join(f"p{i},l{i % 7}\n" for i in range(200))
    folder = Path("manifests")
    folder.mkdir()
    for name, data in {
        "plain.csv": text.encode(),
        "packed.csv.gz": gzip.compress(text.encode()),
        "utf16.csv": text.encode("utf-16"),
    }.items():
        (folder / name).write_bytes(data)
        yield folder / name
    with zipfile.ZipFile(folder / "packed.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("plain.csv", text)
    yield folder / "packed.zip"
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        ids = [f"p{i}" for i in range(200)]
        table = pyarrow.table({"id": ids, "landmark_id": [f"l{i % 7}" for i in range(200)]})
        pyarrow.parquet.write_table(table, folder / "table.parquet")
        yield folder / "table.parquet"
        table = pyarrow.table({"id": ids, "image": [bytes([255, i]) * 20 for i in range(200)]})
        pyarrow.parquet.write_table(table, folder / "pictures.parquet", row_group_size=50)
        yield folder / "pictures.parquet"


if __name__ == "__main__":
    main()
