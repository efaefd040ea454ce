"""Runs two commands that write one output at once, and compares what is there then with what one after the other makes.

    python scripts/bench/pairs.py [--pairs 20] [--only "submit + submit"] [--seed 0]

A tiny rendered set is made in a temporary folder. Both commands of a pair are started in one copy of it, the second
while the first runs, every other time with --wait. Each may end with exit code 0, or with 1 and one line; with --wait
neither may be refused since the other writes. All that is there at the end must be what one of them alone makes, or
one after the other in some order (`wrong`; `unreadable`: not whole), no file of either may be left (`left`), and no run
may end in another way (`broken`). `held_up`: pairs in which one waited for the other or was refused. Prints one JSON
document. Linux and macOS. The default takes about half an hour on two cores.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trials
from kills import TRIALS, exported, names_of, there
from trials import HERE, NETWORK, TRAINING, Ended

Words = tuple[str, ...]

BUSY = "is being written by"
WITHIN = 0.6  # of the time that the first takes alone, the second is started


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
    "export + export of others": Pair(
        ("export", "model", "m.onnx"),
        ("export", "other", "m.onnx"),
        lambda folder: there(folder, model=("m.onnx", exported)),
    ),
}
PAIRS = TWICE | MORE


def main() -> None:
    """Makes the set, tries every pair, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="of each two commands (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="PAIR", help="names of pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the delays (default %(default)s)")
    given = parser.parse_args()
    trials.import_all()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        server, port = trials.serve(root / "set")
        try:
            prepared = trials.make_set(root / "set", port)
            found = {}
            for pair in given.only:
                found[pair] = try_pair(PAIRS[pair], given.pairs, prepared, random.Random(f"{given.seed} {pair}"))
                print(pair, json.dumps(found[pair]), file=sys.stderr, flush=True)
        finally:
            os.kill(server, signal.SIGKILL)
    counts = ("pairs", "held_up", "wrong", "unreadable", "left", "broken")
    total = {count: sum(one[count] for one in found.values()) for count in counts}
    seconds = round(time.monotonic() - began)
    print(json.dumps({"seed": given.seed, "seconds": seconds, "total": total, "commands": found}, indent=1))


def try_pair(pair: Pair, n: int, prepared: Path, rng: random.Random) -> dict[str, Any]:
    """Runs two commands at once, n times."""
    allowed, kept, runs = [], set(), []
    for words in ([pair.one], [pair.other], [pair.one, pair.other], [pair.other, pair.one]):
        folder = trials.fresh(prepared, pair.outputs)
        runs += [trials.run(folder, each).seconds for each in words]
        allowed.append(pair.look(folder))
        kept |= set(names_of(folder))
    latest_s = WITHIN * min(runs[0], runs[2])
    found: dict[str, Any] = {"pairs": n, "held_up": 0, "wrong": 0, "unreadable": 0, "left": 0, "broken": 0, "told": []}
    for i in range(n):
        folder = trials.fresh(prepared, pair.outputs)
        waits = i % 2 == 1
        ended = both(folder, pair, rng.random() * latest_s, ("--wait",) if waits else ())
        found["held_up"] += any(BUSY in one.text for one in ended)
        for problem, told in judge(folder, pair, ended, (allowed, kept, waits)):
            found[problem] += 1
            found["told"].append(f"{problem}: {told}"[:400])
    return found


def both(folder: Path, pair: Pair, delay_s: float, more: Words) -> list[Ended]:
    """How both commands ended, the second of which began that much later."""
    begun = []
    for number, words in enumerate((pair.one, pair.other)):
        output = folder.with_name(f"{number}.txt")
        begun.append((trials.begin(folder, (*words, *more), output), output, time.monotonic()))
        if number == 0:
            time.sleep(delay_s)
    return [trials.end(*one) for one in begun]


def judge(
    folder: Path, pair: Pair, ended: list[Ended], known: tuple[list[dict[str, Any]], set[str], bool]
) -> list[tuple[str, str]]:
    """What is wrong after both have ended. known: what may be there, names that may be, whether both waited."""
    allowed, kept, waits = known
    problems = []
    for one in ended:
        lines = [line for line in one.text.splitlines() if line.startswith("Error: ")]
        refused = one.code == 1 and len(lines) == 1 and "Traceback" not in one.text
        if (one.code and not refused) or (waits and refused and BUSY in lines[0]):
            problems.append(("broken", f"exit code {one.code}: {one.text[-300:]}"))
    try:
        found = pair.look(folder)
    except Exception as error:  # whatever a reader raises, the file is not whole
        return [*problems, ("unreadable", f"{type(error).__name__}: {error}")]
    if not any(trials.same(found, one) for one in allowed):
        problems.append(("wrong", "other than one after the other"))
    left = sorted(set(names_of(folder)) - kept)
    if left:
        problems.append(("left", ", ".join(left)))
    return problems


if __name__ == "__main__":
    main()
