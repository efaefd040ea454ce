"""Splits at the size of Google Landmarks v2 and smaller, beside scikit-learn's splitters. Prints one JSON document.

    python scripts/bench/split.py

Made-up rows whose landmarks are as unequal in size as in Google Landmarks; a tenth of the rows are in near-duplicate
groups of two to six, and one row in two thousand is grouped with any other row. `command` is `lmr split` on the file,
in a process of its own. `large` compares the arithmetic with GroupShuffleSplit, `small` also with StratifiedGroupKFold
(a table of groups by landmarks, too large for all rows) and with train_test_split, which knows no groups. Quality of
each: groups that straddle, the share that val and test have of the rows, landmarks in val or test without an image in
train, and how far a landmark of 20 images or more is from its tenth on average, in images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from retrieval.data.manifest import Manifest  # noqa: E402
from retrieval.split.split import SplitRule, split  # noqa: E402
from retrieval.split.stratify import TEST, TRAIN, VAL  # noqa: E402

N_ROWS, N_LANDMARKS = 4_132_914, 203_094  # of Google Landmarks v2's train.csv
SHARE = 0.1
LIMIT_S, LIMIT_MB = 60, 3000

MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
from cli.main import main
try: main(["split", sys.argv[1], "--output", sys.argv[2], "--ignore-duplicates", "--json"], prog_name="lmr")
except SystemExit as end: assert not end.code
used = resource.getrusage(resource.RUSAGE_SELF)
seconds = {"wall_s": time.perf_counter() - started, "cpu_s": used.ru_utime + used.ru_stime}
print(json.dumps({**seconds, "peak_mb": used.ru_maxrss / 1024}), file=sys.stderr)
"""


def main() -> None:
    """Makes the rows, splits them every way, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows of the large set (default %(default)s)")
    parser.add_argument("--small-rows", type=int, default=5_000, help="rows of the small set (default %(default)s)")
    given = parser.parse_args()
    small = made_up(given.small_rows, given.small_rows // 50)
    large = made_up(given.rows, max(2, round(given.rows * N_LANDMARKS / N_ROWS)))
    report = {
        "load_average": os.getloadavg()[0],
        "command": measure_command(*large),
        "large": compare(*large, {"lmr": ours, "GroupShuffleSplit": group_shuffle}),
        "small": compare(
            *small,
            {
                "lmr": ours,
                "GroupShuffleSplit": group_shuffle,
                "StratifiedGroupKFold": stratified_groups,
                "train_test_split": stratified_rows,
            },
        ),
    }
    print(json.dumps(report, indent=1))


def made_up(n: int, n_landmarks: int) -> tuple[Any, Any]:
    """(landmark, group) of each row."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, n_landmarks + 1) ** 0.8
    landmark = np.sort(rng.choice(n_landmarks, n, p=weight / weight.sum())).astype(np.int32)
    group = np.arange(n)
    for start in np.flatnonzero(rng.random(n - 6) < 0.1 / 4):
        group[start : start + rng.integers(2, 7)] = group[start]  # neighbours have one landmark, but at its end
    one, other = rng.choice(n, (2, n // 2000), replace=False)
    group[one] = group[other]
    return landmark, np.unique(group, return_inverse=True)[1]


def ours(landmark: Any, group: Any) -> Any:
    n = len(landmark)
    manifest = Manifest(
        source="made-up.csv",
        image_id=np.array([f"{i:016x}" for i in range(n)], dtype=object),
        landmark=landmark,
        landmarks=tuple(f"{i:07d}" for i in range(int(landmark.max()) + 1)),
    )
    return lambda: split(manifest, group, SplitRule()).part


def group_shuffle(landmark: Any, group: Any) -> Any:
    from sklearn.model_selection import GroupShuffleSplit

    def run() -> Any:
        part = np.full(len(landmark), TRAIN)
        rest, held = next(GroupShuffleSplit(1, test_size=SHARE, random_state=0).split(landmark, groups=group))
        part[held] = TEST
        second = GroupShuffleSplit(1, test_size=SHARE / (1 - SHARE), random_state=0)
        part[rest[next(second.split(rest, groups=group[rest]))[1]]] = VAL
        return part

    return run


def stratified_groups(landmark: Any, group: Any) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold

    def run() -> Any:
        part = np.full(len(landmark), TRAIN)
        folds = StratifiedGroupKFold(round(1 / SHARE), shuffle=True, random_state=0)
        for which, (_, held) in zip((VAL, TEST), folds.split(landmark, landmark, group), strict=False):
            part[held] = which
        return part

    return run


def stratified_rows(landmark: Any, _: Any) -> Any:
    from sklearn.model_selection import train_test_split

    def run() -> Any:
        part = np.full(len(landmark), TRAIN)
        rows = np.flatnonzero(np.bincount(landmark)[landmark] >= 20)  # it refuses landmarks of one image
        rest, held = train_test_split(rows, test_size=SHARE, stratify=landmark[rows], random_state=0)
        part[held] = TEST
        part[train_test_split(rest, test_size=SHARE / (1 - SHARE), stratify=landmark[rest], random_state=0)[1]] = VAL
        return part

    return run


def compare(landmark: Any, group: Any, ways: dict[str, Callable[[Any, Any], Any]]) -> dict[str, Any]:
    """Seconds and quality of each way, and how many times as long as ours the others take."""
    found = {}
    for name, prepare in ways.items():
        run = prepare(landmark, group)
        started = time.perf_counter(), time.process_time()
        part = run()
        seconds = {"wall_s": time.perf_counter() - started[0], "cpu_s": time.process_time() - started[1]}
        found[name] = {key: round(value, 3) for key, value in seconds.items()} | quality(landmark, group, part)
    ratios = {name: round(way["cpu_s"] / found["lmr"]["cpu_s"], 2) for name, way in found.items()}
    return {"n_rows": len(landmark), "n_landmarks": len(np.unique(landmark)), **found, "ratio_cpu_to_lmr": ratios}


def quality(landmark: Any, group: Any, part: Any) -> dict[str, Any]:
    """Straddling groups, shares, unlearnable landmarks, distance from the wanted share."""
    lowest, highest = np.full(int(group.max()) + 1, 9), np.zeros(int(group.max()) + 1, dtype=int)
    np.minimum.at(lowest, group, part)
    np.maximum.at(highest, group, part)
    size = np.bincount(group)
    counts = np.stack([np.bincount(landmark[part == which], minlength=landmark.max() + 1) for which in range(3)])
    total = counts.sum(axis=0)
    off = np.abs(counts[[VAL, TEST]] - SHARE * total)[:, total >= 20]
    return {
        "groups_that_straddle": round(float((lowest < highest)[size > 1].mean()), 4),
        "share_val": round(float((part == VAL).mean()), 4),
        "share_test": round(float((part == TEST).mean()), 4),
        "landmarks_without_train": int(((counts[[VAL, TEST]].sum(axis=0) > 0) & (counts[TRAIN] == 0)).sum()),
        "off_by_pictures": round(float(off.mean()), 3),
    }


def measure_command(landmark: Any, _: Any) -> dict[str, Any]:
    """`lmr split` on a file of such rows, with addresses as long as those of Google Landmarks."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        with path.open("w") as file:
            file.write("id,url,landmark_id\n")
            for row, number in enumerate(rng.permutation(landmark).tolist()):
                url = f"https://upload.wikimedia.org/wikipedia/commons/{row & 15:x}/Some_building_of_interest_{row}.jpg"
                file.write(f"{row * 2654435761 % 2**64:016x},{url},{number}\n")
        command = [sys.executable, "-c", MEASURE, str(path), str(Path(folder) / "split")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    figures = {name: round(value, 2) for name, value in json.loads(done.stderr.splitlines()[-1]).items()}
    within = figures["wall_s"] < LIMIT_S and figures["peak_mb"] < LIMIT_MB
    return {"n_rows": len(landmark), **figures, "limits": {"wall_s": LIMIT_S, "peak_mb": LIMIT_MB}, "within": within}


if __name__ == "__main__":
    main()
