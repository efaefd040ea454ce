"""Start of commands, against another checkout in turns. Prints one JSON document: seconds and ratios.

    python scripts/bench/start.py --against OTHER
    python scripts/bench/start.py --against OTHER --python OTHER/.venv/bin/python

`lmr --help`, `lmr query --help`, `lmr query IMAGE` and `lmr embed` of a finished store, each in a process of its own,
here and there in turns. Both have a small set of random images of their own and a network with random weights. Medians
of the processor and the wall time of --runs runs, after one that does not count; a ratio below 1: this checkout is
faster.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
N_IMAGES, SIDE = 24, 64  # pixels
LABELS = ("arch", "bridge", "castle")
HERE = ("--device", "cpu", "--threads", "1", "--workers", "1")
PREPARE = (
    ("embed", "train.csv", "--backbone", "plain-cnn", "--size", "32", *HERE),
    ("build-index", "train.h5", "--device", "cpu"),
)
MEASURED = {
    "--help": ("--help",),
    "query --help": ("query", "--help"),
    "query": ("query", "images/0.jpg", *HERE),
    "finished embed": ("embed", "train.csv", *HERE),
}


class Lmr:
    """The `lmr` of a checkout by a Python, with a set of its own in a folder."""

    def __init__(self, checkout: Path, python: str, folder: Path) -> None:
        self.folder = folder
        with (checkout / "pyproject.toml").open("rb") as file:
            module, _, name = tomllib.load(file)["project"]["scripts"]["lmr"].partition(":")
        self.command = (python, "-c", f"from {module} import {name}; {name}()")
        # Compiled modules are kept, as after an installation, but not beside the sources.
        own = {"PYTHONPATH": str(checkout.resolve()), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        self.environment = {**os.environ, **own, "OMP_NUM_THREADS": "1", "LMR_ENGINE": "torch"}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        make_set(folder)

    def run(self, words: Sequence[str]) -> tuple[float, float]:
        """Processor and wall seconds of a command. Raises CalledProcessError for one that fails."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*self.command, *words], check=True, capture_output=True, env=self.environment, cwd=self.folder)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    """Makes both sets, measures in turns, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, type=Path, help="checkout of the other lmr")
    parser.add_argument("--python", default=sys.executable, help="that runs the other lmr (default: this one)")
    parser.add_argument("--runs", type=int, default=15, help="of each command (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        both = {
            "here": Lmr(ROOT, sys.executable, Path(folder) / "here"),
            "against": Lmr(given.against, given.python, Path(folder) / "against"),
        }
        for words in PREPARE:
            for one in both.values():
                one.run(words)
        report: dict[str, object] = {"load_average": round(os.getloadavg()[0], 1), "runs": given.runs}
        for what, words in MEASURED.items():
            report[what] = measure(both, words, given.runs)
    print(json.dumps(report, indent=1))


def measure(both: dict[str, Lmr], words: Sequence[str], n: int) -> dict[str, float]:
    """Median seconds of a command by both, and the ratios of here to the other."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in both}
    for turn in range(n + 1):
        for name, one in both.items():
            spent = one.run(words)
            if turn:  # the first one compiles
                seconds[name].append(spent)
    found = {}
    for i, kind in enumerate(("cpu_s", "wall_s")):
        here, other = (statistics.median(run[i] for run in seconds[name]) for name in ("here", "against"))
        found |= {kind: round(here, 3), f"{kind}_against": round(other, 3), f"ratio_of_{kind}": round(here / other, 2)}
    return found


def make_set(folder: Path) -> None:
    """train.csv and images/ of random colours."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "landmark_id"))
        for i in range(N_IMAGES):
            pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{i}.jpg")
            table.writerow((i, LABELS[i % len(LABELS)]))


if __name__ == "__main__":
    main()
