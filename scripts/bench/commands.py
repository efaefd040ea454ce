"""The commands that write, what each makes in the tiny set of trials.py, and how that is read."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trials
from trials import HERE, LOCAL, NETWORK, TRAINING


@dataclass(frozen=True)
class Trial:
    """A command, and what it made. outputs: which of the prepared set are taken away before. share: of the kills.

    look: what the outputs are; raises where one is there and not whole. grows: outputs that are whole in between, too.
    most_steps: of those before which it is killed.
    """

    words: tuple[str, ...]
    look: Callable[[Path], dict[str, Any]]
    outputs: tuple[str, ...] = ()
    share: float = 1.0
    grows: tuple[str, ...] = ()
    most_steps: int = 1000


def there(folder: Path, **readers: tuple[str, Callable[[Path], dict[str, Any]]]) -> dict[str, Any]:
    """What each reader finds under its path, as far as that is there."""
    return {name: read(folder / path) for name, (path, read) in readers.items() if (folder / path).exists()}


def exported(path: Path) -> dict[str, Any]:
    """The card of an exported model that can be loaded."""
    from retrieval.embed.load import open_card
    from retrieval.embed.onnx_embedder import OnnxEmbedder

    card = open_card(path)
    return {"fingerprint": card.fingerprint, "d": OnnxEmbedder(path, card, ["CPUExecutionProvider"], None, 1).d}


def content(path: Path) -> dict[str, Any]:
    """A file whose every byte is settled."""
    return {"sha256": trials.digests(path.parent, path.name)[path.name]}


def facts(path: Path) -> dict[str, Any]:
    """What an SQLite file says; its bytes tell how often it was opened to write, too."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {"sql": list(connection.iterdump())}


def grown(folder: Path) -> dict[str, Any]:
    """The index that changes, and the store of the folder that it follows."""
    return there(folder, index=("growing", trials.rows), store=("photos.h5", trials.store))


ON_GROWING = ("--index", "growing", "--workers", "1", "--threads", "1")
ASKED = ("images/test-arch-0.jpg", "images/test-castle-1.jpg")
TRIALS = {
    "embed": Trial(("embed", "train.csv", *HERE), lambda f: there(f, store=("train.h5", trials.store)), ("train.h5",)),
    "embed --local": Trial(
        ("embed", "train.csv", *LOCAL, *HERE),
        lambda f: there(f, store=("train.h5", trials.store), local=("train.local.h5", trials.local_store)),
        ("train.local.h5",),
    ),
    "train": Trial(
        ("train", "train.csv", "--output", "trained", *NETWORK, *TRAINING, "--device", "cpu"),
        lambda f: there(f, model=("trained/model.json", lambda path: trials.model(path.parent))),
    ),
    "build-index": Trial(
        ("build-index", "train.h5", "--overwrite", "--storage", "float16", "--local", "--device", "cpu"),
        lambda f: there(f, index=("landmarks", trials.rows)),
    ),
    "calibrate": Trial(
        ("calibrate", "val.csv", *HERE),
        lambda f: there(f, index=("landmarks", trials.index), store=("val.h5", trials.store)),
    ),
    "submit": Trial(
        ("submit", "test.csv", *HERE),
        lambda f: there(f, cells=("submission.csv", trials.submission), store=("test.h5", trials.store)),
        ("test.h5",),
    ),
    "download": Trial(
        ("download", "train-urls.csv", "fetched", "--allow-private", "--workers", "1", "--per-host", "4"),
        lambda f: there(f, ledger=("fetched/download.sqlite", lambda path: trials.ledger(path.parent))),
        grows=("ledger",),
    ),
    "clean": Trial(
        ("clean", "train.csv", "--store", "train.h5", *HERE),
        lambda f: trials.digests(f, "cleaned/*.csv", "cleaned/clean.json"),
    ),
    "split": Trial(
        ("split", "train.csv", "--class-folders", "tree", "--links", "copy", "--workers", "1"),
        lambda f: trials.digests(f, "split/*.csv", "tree/*/*/*.jpg"),
    ),
    "export": Trial(("export", "model", "model.onnx"), lambda f: there(f, model=("model.onnx", exported)), share=0.4),
    "ensemble": Trial(
        ("ensemble", "model", "other", "--output", "both"),
        lambda f: there(f, model=("both/model.json", lambda path: trials.model(path.parent))),
    ),
    "compare": Trial(
        ("compare", "small.toml", "--data", "parts", "--images", "images", *HERE),
        lambda f: there(f, found=("compare/comparison-val.json", trials.figures)),
        share=0.35,
        most_steps=24,
    ),
    "demo": Trial(
        ("demo", "tried", "--images", "own", *NETWORK, "--epochs", "1", *HERE),
        lambda f: there(f, cells=("tried/submission.csv", trials.submission), index=("tried/landmarks", trials.index)),
        share=0.35,
        grows=("index",),
        most_steps=12,
    ),
    "stats": Trial(
        ("stats", "train.csv", "--images", "images", "--pictures-csv", "pictures.csv", "--workers", "1"),
        lambda f: trials.digests(f, "stats.html", "pictures.csv"),
    ),
    "query": Trial(
        ("query", *ASKED, "--save", "sheet.png", "--sort-into", "sorted", "--overwrite", *HERE),
        lambda f: trials.digests(f, "sheet.png", "sorted/*/*.jpg"),
    ),
    "query --mode move": Trial(
        ("query", "own", "--sort-into", "sorted", "--mode", "move", *HERE),
        lambda f: trials.digests(f, "own/*/*.jpg", "sorted/*/*.jpg"),
    ),
    "evaluate": Trial(
        ("evaluate", "val.csv", "--report", "report.html", *HERE),
        lambda f: trials.digests(f, "report*.html", "report*.csv"),
    ),
    "index add": Trial(("index", "add", "val.h5", "--background", *ON_GROWING), grown),
    "index remove": Trial(("index", "remove", "train-arch-0", "train-other-2", *ON_GROWING), grown),
    "index merge": Trial(
        ("index", "merge", "second", "--background", "--index", "plain", *ON_GROWING[2:]),
        lambda f: there(f, index=("plain", trials.rows)),
    ),
    "index relabel": Trial(("index", "relabel", "labels.csv", *ON_GROWING), grown),
    "index compact": Trial(("index", "compact", *ON_GROWING), grown),
    "index export": Trial(
        ("index", "export", "rows.csv", "--index", "growing"), lambda f: trials.digests(f, "rows.csv"), share=0.4
    ),
    "sync": Trial(("sync", "photos", "--index", "growing", *HERE), grown),
} | {
    f"join {output}": Trial(
        ("join", *(parts.format(i) for i in (1, 2)), "--output", output),
        lambda f, output=output, read=read: there(f, joined=(output, read)),  # type: ignore[misc]
        share=0.4,
    )
    for parts, output, read in (
        ("part-{}-of-2.h5", "joined.h5", trials.store),
        ("part-{}-of-2.json", "joined.csv", trials.submission),
        ("asked-{}-of-2.outcomes", "joined.outcomes", content),
        ("facts-{}-of-2.sqlite", "joined.sqlite", facts),
    )
}
UNLIKE = ("picture-facts.sqlite", "picture-facts.sqlite-journal", "download.sqlite-journal")  # names left by SQLite


def names_of(folder: Path) -> list[str]:
    """Every file and folder below a folder, but for those of SQLite."""
    return [name for name in trials.names(folder) if os.path.basename(name) not in UNLIKE]
