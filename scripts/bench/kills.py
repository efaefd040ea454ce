"""Kills every command that writes with `kill -9`, runs it again to its end, and compares with a run that nobody killed.

    python scripts/bench/kills.py [--kills 312] [--commands embed train] [--seed 0]

A tiny rendered set is made in a temporary folder. Each command runs in a warm child of this process that leads a group
of its own, and the whole group is killed: half of the times at a moment spread over the run, half of the times before
a write, rename or removal, spread over them. What is there then is read (`unreadable`: a file or folder under its final
name that is not whole), and the same command is run again (`stuck`: it did not end with exit code 0), after which all
that it made must be as without a kill (`wrong`), and no other file may be left (`left`). Prints one JSON document.
Linux and macOS. The default takes about a quarter of an hour on two cores.
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
from trials import HERE, NETWORK, TRAINING


@dataclass(frozen=True)
class Trial:
    """A command, and what it made. outputs: which of the prepared set are taken away before. share: of the kills.

    look: what the outputs are; raises where one is there and not whole.
    """

    words: tuple[str, ...]
    look: Callable[[Path], dict[str, Any]]
    outputs: tuple[str, ...] = ()
    share: float = 1.0


def there(folder: Path, **readers: tuple[str, Callable[[Path], dict[str, Any]]]) -> dict[str, Any]:
    """What each reader finds under its path, as far as that is there."""
    return {name: read(folder / path) for name, (path, read) in readers.items() if (folder / path).exists()}


TRIALS = {
    "embed": Trial(("embed", "train.csv", *HERE), lambda f: there(f, store=("train.h5", trials.store)), ("train.h5",)),
    "train": Trial(
        ("train", "train.csv", "--output", "trained", *NETWORK, *TRAINING, "--device", "cpu"),
        lambda f: there(f, model=("trained/model.json", lambda path: trials.model(path.parent))),
    ),
    "build-index": Trial(
        ("build-index", "train.h5", "--overwrite", "--storage", "float16", "--device", "cpu"),
        lambda f: there(f, index=("landmarks", trials.index)),
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
    ),
    "clean": Trial(
        ("clean", "train.csv", "--store", "train.h5", *HERE),
        lambda f: trials.digests(f, "cleaned/kept.csv", "cleaned/decisions.csv", "cleaned/clean.json"),
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
    ),
    "demo": Trial(
        ("demo", "tried", "--images", "own", *NETWORK, "--epochs", "1", *HERE),
        lambda f: there(f, cells=("tried/submission.csv", trials.submission), index=("tried/landmarks", trials.index)),
        share=0.35,
    ),
    "stats": Trial(
        ("stats", "train.csv", "--images", "images", "--pictures-csv", "pictures.csv", "--workers", "1"),
        lambda f: trials.digests(f, "stats.html", "pictures.csv"),
    ),
}
UNLIKE = ("picture-facts.sqlite", "picture-facts.sqlite-journal", "download.sqlite-journal")  # names left by SQLite


def exported(path: Path) -> dict[str, Any]:
    """The card of an exported model that can be loaded."""
    from retrieval.onnx_describing import OnnxDescriber
    from retrieval.opening import open_card

    card = open_card(path)
    return {"fingerprint": card.fingerprint, "d": OnnxDescriber(path, card, ["CPUExecutionProvider"], None, 1).d}


def main() -> None:
    """Makes the set, tries every command, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=312, help="in all (default %(default)s)")
    parser.add_argument("--commands", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="COMMAND")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    given = parser.parse_args()
    trials.import_all()
    began = time.monotonic()
    shares = {name: TRIALS[name].share for name in given.commands}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        server, port = trials.serve(root / "set")
        try:
            prepared = trials.make_set(root / "set", port)
            found = {}
            for command in given.commands:
                n = max(2, round(given.kills * shares[command] / sum(shares.values())))
                found[command] = try_command(TRIALS[command], n, prepared, random.Random(f"{given.seed} {command}"))
                print(command, json.dumps(found[command]), file=sys.stderr, flush=True)
        finally:
            os.kill(server, signal.SIGKILL)
    counts = ("kills", "wrong", "unreadable", "stuck", "left")
    total = {count: sum(one[count] for one in found.values()) for count in counts}
    seconds = round(time.monotonic() - began)
    print(json.dumps({"seed": given.seed, "seconds": seconds, "total": total, "commands": found}, indent=1))


def try_command(trial: Trial, n: int, prepared: Path, rng: random.Random) -> dict[str, Any]:
    """Kills one command n times."""
    whole = trials.fresh(prepared, trial.outputs)
    counted = whole.with_name("count")
    ended = trials.run(whole, trial.words, lambda: trials.watch_files(lambda i: counted.write_text(str(i))))
    if ended.code:
        raise SystemExit(f"lmr {' '.join(trial.words)} ended with {ended.code}:\n{ended.text}")
    expected, kept = trial.look(whole), names_of(whole)
    n_writes = int(counted.read_text())
    seconds = trials.must(trials.fresh(prepared, trial.outputs), trial.words).seconds
    found: dict[str, Any] = {"kills": 0, "finished_first": 0, "wrong": 0, "unreadable": 0, "stuck": 0, "left": 0}
    found |= {"n_writes": n_writes, "seconds_a_run": round(seconds, 2), "told": []}
    for i in range(n):
        spread = (i // 2 + rng.random()) / ((n + 1) // 2)
        folder = trials.fresh(prepared, trial.outputs)
        at_write = i % 2 == 1
        at = max(1, round(spread * n_writes)) if at_write else spread * seconds
        was_killed = kill(folder, trial.words, int(at), None) if at_write else kill(folder, trial.words, None, at)
        found["kills"] += was_killed
        found["finished_first"] += not was_killed
        for problem, told in judge(folder, trial, expected, kept):
            found[problem] += 1
            moment = f"write {at}" if at_write else f"{at:.3f} s"
            found["told"].append(f"{moment}: {problem}: {told}"[:300])
    return found


def kill(folder: Path, words: tuple[str, ...], at: int | None, after_s: float | None) -> bool:
    """Runs a command and kills its group before file operation number `at`, or so much later; whether it ran still."""
    output, began = folder.with_name("killed.txt"), time.monotonic()

    def die(number: int) -> None:
        if number == at:
            os.killpg(os.getpgid(0), signal.SIGKILL)

    pid = trials.begin(folder, words, output, lambda: trials.watch_files(die))
    if after_s is not None:
        time.sleep(after_s)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # not yet a group of its own, or ended
        else:
            trials.end(pid, output, began)
            return True
    ended = trials.end(pid, output, began)
    if ended.code not in (0, -signal.SIGKILL):
        raise SystemExit(f"lmr {' '.join(words)} ended with {ended.code} before it was killed:\n{ended.text}")
    return ended.code != 0


def judge(folder: Path, trial: Trial, expected: dict[str, Any], kept: list[str]) -> list[tuple[str, str]]:
    """What is wrong after a kill and after the command was run again."""
    problems = []
    try:
        trial.look(folder)
    except Exception as error:  # whatever a reader raises, the file is not whole
        problems.append(("unreadable", f"{type(error).__name__}: {error}"))
    ended = trials.run(folder, trial.words)
    if ended.code:
        return [*problems, ("stuck", ended.text[-250:])]
    try:
        found = trial.look(folder)
    except Exception as error:
        return [*problems, ("wrong", f"{type(error).__name__}: {error}")]
    if not trials.same(found, expected):
        problems.append(("wrong", "other than without a kill"))
    left = sorted(set(names_of(folder)).symmetric_difference(kept))
    if left:
        problems.append(("left", ", ".join(left)))
    return problems


def names_of(folder: Path) -> list[str]:
    """Every file and folder below a folder, but for those of SQLite."""
    return [name for name in trials.names(folder) if os.path.basename(name) not in UNLIKE]


if __name__ == "__main__":
    main()
