"""Every two commands that can write one output, with what is there then, in the tiny set of trials.py."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trials
from commands import ON_GROWING, TRIALS, exported, grown, there
from trials import HERE, INVERTED, NETWORK, TRAINING

Words = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two commands on one output. outputs: taken away from the set before."""

    one: Words
    other: Words
    look: Callable[[Path], dict[str, Any]]
    outputs: tuple[str, ...] = ()


def stores(*names: str) -> Callable[[Path], dict[str, Any]]:
    """The stores of these names, as far as they are there."""
    return lambda folder: there(folder, **{name: (name, trials.store) for name in names})


def made(folder: Path) -> dict[str, Any]:
    """The model folder `made`, and the store that may be made with it."""
    return there(
        folder, model=("made/model.json", lambda path: trials.model(path.parent)), store=("x.h5", trials.store)
    )


def files(*patterns: str) -> Callable[[Path], dict[str, Any]]:
    """The content of files."""
    return lambda folder: trials.digests(folder, *patterns)


def answers(folder: Path) -> dict[str, Any]:
    """A submission, an index and the stores of its queries."""
    return there(
        folder,
        cells=("submission.csv", trials.submission),
        index=("landmarks", trials.index),
        val=("val.h5", trials.store),
        test=("test.h5", trials.store),
    )


BUILD: Words = ("build-index", "train.h5", "--overwrite", "--device", "cpu")
HALF: Words = (*BUILD, "--storage", "float16")
CALIBRATE: Words = ("calibrate", "val.csv", *HERE)
EMBED_VAL: Words = ("embed", "val.csv", *HERE)
EMBED_TEST: Words = ("embed", "test.csv", *HERE)
SUBMIT: Words = ("submit", "test.csv", *HERE)
EVALUATE: Words = ("evaluate", "val.csv", "--report", "report.html", *HERE)
TRAIN: Words = ("train", "train.csv", "--output", "made", *NETWORK, *TRAINING, "--device", "cpu")
EMBED_MADE: Words = ("embed", "train.csv", "--model", "made", "--output", "x.h5", *NETWORK, *HERE)
ENSEMBLE: Words = ("ensemble", "model", "other", "--output", "made")
STATS: Words = ("stats", "train.csv", "--report", "report.html")
SPLIT: Words = ("split", "train.csv", "--ignore-duplicates", "--output", "out")
CLEAN: Words = ("clean", "train.csv", "--store", "train.h5", "--output", "out", *HERE)
OUT = files("out/*.csv", "out/clean.json", "out/split.json")
SHEET: Words = ("query", "images/test-arch-0.jpg", "--save", "sheet.png", "--overwrite", *HERE)

ADD: Words = ("index", "add", "val.h5", *ON_GROWING)
REMOVE: Words = ("index", "remove", "train-arch-0", "train-bridge-0", *ON_GROWING)
RELABEL: Words = ("index", "relabel", "labels.csv", *ON_GROWING)
COMPACT: Words = ("index", "compact", *ON_GROWING)
SYNC: Words = ("sync", "photos", "--index", "growing", *HERE)
REMOVE_ASKED: Words = ("index", "remove", "train-arch-0", "--workers", "1")
REBUILD: Words = (
    *("build-index", "photos.h5", "--background", "others.h5", "--output", "growing", "--overwrite"),
    *INVERTED,
)

TWICE = {
    f"{name} + {name}": Pair(trial.words, trial.words, trial.look, trial.outputs) for name, trial in TRIALS.items()
}
MORE = {
    "embed + embed --overwrite": Pair(EMBED_VAL, (*EMBED_VAL, "--overwrite"), stores("val.h5")),
    "embed + embed --flip": Pair(EMBED_VAL, (*EMBED_VAL, "--flip", "--overwrite"), stores("val.h5"), ("val.h5",)),
    "embed + calibrate": Pair(EMBED_VAL, CALIBRATE, answers, ("val.h5",)),
    "embed + submit": Pair(EMBED_TEST, SUBMIT, answers, ("test.h5",)),
    "embed + evaluate": Pair(EMBED_VAL, EVALUATE, stores("val.h5"), ("val.h5",)),
    "calibrate + evaluate": Pair(CALIBRATE, EVALUATE, answers, ("val.h5",)),
    "build-index + build-index of others": Pair(BUILD, HALF, answers),
    "build-index + calibrate": Pair(HALF, CALIBRATE, answers),
    "build-index + submit": Pair(HALF, SUBMIT, answers),
    "calibrate + calibrate of others": Pair(CALIBRATE, (*CALIBRATE, "--precision", "0.5", "--overwrite"), answers),
    "submit + submit --overwrite": Pair(SUBMIT, (*SUBMIT, "--threshold", "0.9", "--overwrite"), answers, ("test.h5",)),
    "submit + calibrate": Pair(SUBMIT, CALIBRATE, answers),
    "train + ensemble": Pair(TRAIN, ENSEMBLE, made),
    "train + embed --backbone": Pair(TRAIN, EMBED_MADE, made),
    "ensemble + embed --backbone": Pair(ENSEMBLE, EMBED_MADE, made),
    "train + train of others": Pair(TRAIN, (*TRAIN, "--seed", "1"), made),
    "stats + evaluate": Pair(STATS, EVALUATE, files("report.html")),
    "evaluate + evaluate": Pair(EVALUATE, EVALUATE, files("report.html"), ("val.h5",)),
    "split + clean": Pair(SPLIT, CLEAN, OUT),
    "split + split of others": Pair(SPLIT, (*SPLIT, "--seed", "1"), OUT),
    "query + query": Pair(SHEET, SHEET, files("sheet.png")),
    "index add + index remove": Pair(ADD, REMOVE, grown),
    "index add + index relabel": Pair(ADD, RELABEL, grown),
    "index add + index compact": Pair(ADD, COMPACT, grown),
    "index remove + index relabel": Pair(REMOVE, RELABEL, grown),
    "index remove + index compact": Pair(REMOVE, COMPACT, grown),
    "index add + build-index": Pair(ADD, REBUILD, grown),
    "index remove + calibrate": Pair(REMOVE_ASKED, CALIBRATE, answers),
    "index remove + submit": Pair(REMOVE_ASKED, SUBMIT, answers),
    "sync + index add": Pair(SYNC, ADD, grown),
    "sync + index remove": Pair(SYNC, REMOVE, grown),
    "sync + index compact": Pair(SYNC, COMPACT, grown),
    "sync + embed": Pair(SYNC, ("embed", "photos", "--overwrite", *HERE), grown),
    "join + join of others": Pair(
        ("join", "part-1-of-2.h5", "part-2-of-2.h5", "--output", "joined.h5"),
        ("join", "asked-1-of-2.h5", "asked-2-of-2.h5", "--output", "joined.h5", "--overwrite"),
        stores("joined.h5"),
    ),
    "export + export of others": Pair(
        ("export", "model", "m.onnx"),
        ("export", "other", "m.onnx"),
        lambda folder: there(folder, model=("m.onnx", exported)),
    ),
}


def folder_out(folder: Path) -> dict[str, Any]:
    """The folder `out`, whatever commands have made of it."""
    return trials.digests(folder, "out/kept.csv", "out/decisions.csv", "out/split.json", "out/*/*.jpg") | there(
        folder,
        model=("out/model.json", lambda path: trials.model(path.parent)),
        index=("out/index.json", lambda path: trials.index(path.parent)),
        ledger=("out/download.sqlite", lambda path: trials.ledger(path.parent)),
        figures=("out/comparison-val.json", trials.figures),
        demo=("out/landmarks", trials.index),
        cells=("out/submission.csv", trials.submission),
    )


def file_out(folder: Path) -> dict[str, Any]:
    """The file `out.csv`, `out.html`, `out.png` or `out.h5`."""
    return trials.digests(folder, "out.html", "out.png", "out.csv") | there(folder, store=("out.h5", trials.store))


FOLDERS: dict[str, Words] = {  # all that write a folder, into one
    "train": ("train", "train.csv", "--output", "out", *NETWORK, *TRAINING, "--device", "cpu"),
    "ensemble": ("ensemble", "model", "other", "--output", "out"),
    "build-index": ("build-index", "train.h5", "--output", "out", "--device", "cpu"),
    "clean": CLEAN,
    "split": SPLIT,
    "split --class-folders": ("split", "train.csv", "--ignore-duplicates", "--class-folders", "out"),
    "download": ("download", "train-urls.csv", "out", "--allow-private", "--workers", "1", "--per-host", "4"),
    "query --sort-into": ("query", "images/test-arch-0.jpg", "--sort-into", "out", *HERE),
    "compare": ("compare", "small.toml", "--data", "parts", "--images", "images", "--output", "out", *HERE),
    "demo": ("demo", "out", "--images", "own", *NETWORK, "--epochs", "1", *HERE),
}
FILES: dict[str, Words] = {  # all that write a file, by the ending that they share
    "stats --report out.html": ("stats", "train.csv", "--report", "out.html"),
    "evaluate --report out.html": ("evaluate", "val.csv", "--report", "out.html", *HERE),
    "query --save out.html": ("query", "images/test-arch-0.jpg", "--save", "out.html", *HERE),
    "query --save out.png": ("query", "images/test-arch-0.jpg", "--save", "out.png", *HERE),
    "train --show-batch out.png": (*TRAIN, "--show-batch", "out.png"),
    "train --find-rate out.png": (*TRAIN, "--find-rate", "out.png"),
    "submit --output out.csv": ("submit", "test.csv", "--output", "out.csv", *HERE),
    "stats --pictures-csv out.csv": ("stats", "train.csv", "--images", "images", "--pictures-csv", "out.csv"),
    "embed --output out.h5": ("embed", "train.csv", "--output", "out.h5", *HERE),
    "submit --store out.h5": ("submit", "test.csv", "--store", "out.h5", *HERE),
    "evaluate --store out.h5": ("evaluate", "val.csv", "--store", "out.h5", *HERE),
    "calibrate --store out.h5": ("calibrate", "val.csv", "--store", "out.h5", *HERE),
}


def crossed(commands: dict[str, Words], look: Callable[[Path], dict[str, Any]]) -> dict[str, Pair]:
    """Every two different commands of these that write the same."""
    return {
        f"{one} + {other}": Pair(commands[one], commands[other], look)
        for one, other in itertools.combinations(commands, 2)
        if one[-9:].partition("out.")[2] == other[-9:].partition("out.")[2]
    }


IN_DEMO = {  # what it writes into its folder, by the commands that make that elsewhere
    f"demo + {' '.join(words)}": Pair(FOLDERS["demo"], (*words, *more), folder_out)
    for words, more in (
        (("build-index", "train.h5", "--output", "out/landmarks"), ("--device", "cpu")),
        (("train", "train.csv", "--output", "out/model"), (*NETWORK, *TRAINING, "--device", "cpu")),
        (("submit", "test.csv", "--output", "out/submission.csv"), HERE),
    )
}
PAIRS = TWICE | MORE | crossed(FOLDERS, folder_out) | crossed(FILES, file_out) | IN_DEMO
