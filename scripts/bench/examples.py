"""Whole files of every kind that lmr reads, and how each is read, for fuzz.py."""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mutations import Change, as_bytes, forge_json, forge_store
from PIL import Image, features

from cli.main import main as lmr
from index.folder.changes import read_journal
from index.folder.folder import open_folder
from index.folder.info import SAMPLE
from index.search.kept_sample import read_sample
from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import read_manifest
from retrieval.errors import UnreadableError
from retrieval.images.decode import decode
from retrieval.models.folder import read_any_card, require_weights
from retrieval.store.blocks import open_blocks
from retrieval.store.store import read_store

N_IMAGES = 24
HERE = "--workers 1 --threads 1 --device cpu"
ASK = f"query images/val0.jpg {HERE}"

Reader = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of input. files: whole examples. read: what is done with one. sealed: every changed byte is noticed.

    commands: that read it, PATH is its place; beside them `info` for some. change: what is done to it.
    """

    name: str
    files: list[Path]
    read: Reader
    commands: tuple[str, ...]
    sealed: bool = False
    change: Change = as_bytes


def make_kinds() -> list[Kind]:
    """Examples of every kind in the current folder."""
    make_set()
    Path("old").mkdir()
    stores, old = [Path("train.h5"), Path("val.h5")], [Path("old/train.h5")]
    make_old_store(stores[0], old[0])
    index = files_of("landmarks")
    texts = [path for path in index if path.suffix == ".json"]
    model = [Path("model/model.json"), next(Path("model").glob("weights-*.safetensors"))]
    records = [Path("cleaned/clean.json"), Path("split/split.json"), Path(".submission.csv.made-of.json")]
    make_grown()
    grown = files_of("grown")
    shares = [path for pattern in ("part-*", "val-*-of-2.outcomes", "facts-*") for path in sorted(Path().glob(pattern))]
    changes = [Path("labels.csv"), Path("ids.csv"), Path("ids.txt")]
    images, manifests = list(make_images()), list(make_manifests())
    of_store = ("info PATH --verify", "build-index PATH --output built --device cpu")
    of_index = ("info landmarks --verify", ASK, f"{ASK} --save sheet.html", f"evaluate val.csv {HERE}")
    on_grown = "--index grown --workers 1 --threads 1"
    of_grown = (
        "index verify grown",
        "index info grown",
        f"index add val.h5 {on_grown}",
        "index export rows.csv --index grown",
        f"index remove train4 {on_grown}",
        f"index relabel labels.csv {on_grown}",
        f"index compact {on_grown}",
        f"query images/val0.jpg --index grown {HERE}",
    )
    of_shares = (
        "join part-1-of-2.h5 part-2-of-2.h5 --output j.h5",
        "join part-1-of-2.json part-2-of-2.json --output j.csv",
        "join val-1-of-2.outcomes val-2-of-2.outcomes --output j.outcomes",
        "join facts-1-of-2.sqlite facts-2-of-2.sqlite --output j.sqlite",
        "join PATH --output j.h5",
    )
    of_changes = (f"index relabel PATH {on_grown}", f"index remove --ids-file PATH {on_grown}")
    of_model = ("info MODEL", f"embed train.csv --model MODEL --output new.h5 {HERE}")
    of_record = (f"clean train.csv --store train.h5 {HERE}", "split train.csv --ignore-duplicates",
                 f"submit val.csv {HERE}")  # fmt: skip
    of_table = ("info PATH", "stats PATH --json", "score PATH val.csv", "split PATH --output parts",
                f"submit PATH --output new.csv --store new.h5 --images images {HERE}")  # fmt: skip
    return [
        Kind("store", stores, read_any_store, of_store, sealed=True),
        Kind("store of before", old, read_any_store, of_store),
        Kind("forged store", [*stores, *old], read_any_store, (*of_store, "stats train.csv --store PATH --workers 1"),
             change=forge_store),
        Kind("index", index, open_index, of_index, sealed=True),
        Kind("forged index", [*texts, *texts, Path("landmarks/thumbnails.h5")], open_index, of_index,
             change=forge_json),
        Kind("grown index", grown, open_grown, of_grown, sealed=True),
        Kind("forged grown index", [path for path in grown if path.suffix in (".json", ".jsonl", ".h5")], open_grown,
             of_grown, change=forge_json),
        Kind("share", shares, read_nothing, of_shares),
        Kind("table of changes", changes, read_nothing, of_changes),
        Kind("model", model, read_model, of_model),
        Kind("forged model", [Path("model/model.json"), Path("both/model.json")], read_model, of_model,
             change=forge_json),
        Kind("record", records, read_nothing, of_record),
        Kind("forged record", records, read_nothing, of_record, change=forge_json),
        Kind("picture", images, lambda path: decode(path.read_bytes(), 64), (f"query PATH {HERE}",
             f"query PATH --save sheet.html {HERE}", "stats pictures --json --workers 1")),
        Kind("manifest", manifests, read_rows, of_table),
    ]  # fmt: skip


def files_of(folder: str) -> list[Path]:
    """Files of an index folder that are compared when it is opened; a network is, when it is loaded."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return [path for path in paths if path.parent.name != "model" or path.suffix == ".json"]


def read_any_store(path: Path) -> None:
    """Both ways in which stores are read."""
    read_store(path)
    blocks = open_blocks(path)
    blocks.vectors(blocks.done)


def open_index(path: Path) -> None:
    """Opens the index, reads its small images."""
    opened = open_folder("landmarks", device="cpu")
    for row in range(len(opened.rows) if opened.thumbnails else 0):
        opened.thumbnails.read(row)  # type: ignore[union-attr]


def open_grown(path: Path) -> None:
    """Opens the index that was changed, its journal and its sample."""
    opened = open_folder("grown", device="cpu", verify="full")
    read_journal(opened.path)
    read_sample(opened.path / SAMPLE, opened.index)


def read_nothing(path: Path) -> None:
    """For what is read by commands alone."""


def read_rows(path: Path) -> None:
    """A manifest and the images that are in it."""
    manifest = read_manifest(path)
    for row in range(0 if manifest.content is None else len(manifest)):
        with contextlib.suppress(UnreadableError):
            ImageSource(manifest, None).read(row)


def read_model(path: Path) -> None:
    """The card and the digests of its weights."""
    card = read_any_card(path.parent)
    for member in card.members:
        require_weights(path.parent, member.card)


def make_set() -> None:
    """Small coloured images of three landmarks, embedded, indexed and calibrated by lmr."""
    rng = np.random.default_rng(0)
    Path("images").mkdir()
    for part, n in (("train", N_IMAGES), ("val", N_IMAGES)):
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
        ["ensemble", "model", "model", "--output", "both"],
        ["clean", "train.csv", "--store", "train.h5", "--device", "cpu"],
        ["split", "train.csv", "--ignore-duplicates"],
        ["submit", "val.csv", "--device", "cpu"],
    ):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lmr(words, standalone_mode=False)


def make_grown() -> None:
    """An index with an inverted file, a background and a journal of its changes; shares; tables of changes."""
    Path("labels.csv").write_text("landmark_id,new_landmark_id\na,d\nb,d\n")
    Path("ids.csv").write_text("image_id\ntrain5\ntrain6\n")
    Path("ids.txt").write_text("train5\ntrain6\n")
    shares = [["--shard", f"{i}/2", "--device", "cpu"] for i in (1, 2)]
    kind = ["--kind", "ivf-sq8", "--lists", "2", "--recall", "0.5", "--device", "cpu"]
    for words in (
        ["build-index", "train.h5", "--output", "grown", *kind],
        ["index", "remove", "train1", "train2", "--index", "grown"],
        ["index", "add", "train.h5", "--index", "grown"],
        *(["embed", "train.csv", "--output", "part.h5", *share] for share in shares),
        *(["submit", "train.csv", "--output", "part.csv", "--store", "part.h5", *share] for share in shares),
        *(["evaluate", "val.csv", *share] for share in shares),
        *(["stats", "val.csv", "--images", "images", "--facts", "facts.sqlite", *share[:2]] for share in shares),
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


def make_images() -> Iterator[Path]:
    """The same image in every format that Pillow writes here."""
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
