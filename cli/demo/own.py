"""Splits somebody's own folder of folders for the demo into manifests, never moving a file."""

import csv
from pathlib import Path

import numpy as np

from cli.demo.scenes import DemoSet
from retrieval.arrays import LongArray
from retrieval.errors import LmrError
from retrieval.manifest import Manifest, read_manifest

HELD_OUT = 0.2  # of a landmark's pictures, in val and in test each
FEWEST = 3  # pictures of a landmark from which one goes to val and one to test
FEWEST_QUERIES = 2


def split_own(images: Path, folder: Path, seed: int) -> DemoSet:
    """Writes the manifests of a split of `images` into `folder`.

    Of each landmark with at least 3 pictures a fifth goes to val and a fifth to test; pictures without a label are
    shared between background, val and test; without any there is no background.csv. Raises LmrError for a folder with
    fewer than 2 such landmarks.
    """
    manifest = read_manifest(images)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "background": [], "val": [], "test": []}
    for code in range(len(manifest.landmarks)):
        rows = rng.permutation(np.flatnonzero(manifest.landmark == code))
        n_held = max(1, round(HELD_OUT * len(rows))) if len(rows) >= FEWEST else 0
        _deal(parts, rows, {"val": n_held, "test": n_held}, "train")
    others = rng.permutation(np.flatnonzero(manifest.landmark < 0))
    _deal(parts, others, {"val": len(others) // 3, "test": len(others) // 3}, "background")
    n_asked = len({int(code) for code in manifest.landmark[np.array(parts["val"], dtype=np.int64)] if code >= 0})
    if n_asked < FEWEST_QUERIES:
        raise LmrError(
            f"{images}: {n_asked} landmarks have {FEWEST} pictures or more; the demo needs at least {FEWEST_QUERIES}, "
            "in folders named by landmark: FOLDER/<landmark>/<picture>"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "background.csv").unlink(missing_ok=True)
    for name, part in parts.items():
        if not part:
            continue
        _write(folder / f"{name}.csv", manifest, sorted(part), images, labelled=name != "test")
    _write_solution(folder / "test_solution.csv", manifest, sorted(parts["test"]), images)
    _write_names(folder / "names.csv", manifest)
    names = ("train", "val", "test", "test_solution", "background", "names")
    return DemoSet(
        folder=folder, images=images, n_pictures=len(manifest), **{name: folder / f"{name}.csv" for name in names}
    )


def _deal(parts: dict[str, list[int]], rows: LongArray, counts: dict[str, int], rest: str) -> None:
    start = 0
    for name, n in counts.items():
        parts[name] += rows[start : start + n].tolist()
        start += n
    parts[rest] += rows[start:].tolist()


def _write(path: Path, manifest: Manifest, rows: list[int], images: Path, *, labelled: bool) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "path", *(["landmark_id"] if labelled else [])])
        for row in rows:
            place = _place(manifest, row, images)
            writer.writerow([manifest.image_id[row], place, *([_label(manifest, row)] if labelled else [])])


def _write_solution(path: Path, manifest: Manifest, rows: list[int], images: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "landmarks", "Usage"])
        for row in rows:
            writer.writerow([manifest.image_id[row], _place(manifest, row, images), _label(manifest, row), "Public"])


def _write_names(path: Path, manifest: Manifest) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["landmark_id", "name"])
        writer.writerows([label, manifest.names.get(label, label)] for label in manifest.landmarks)


def _place(manifest: Manifest, row: int, images: Path) -> str:
    return "" if manifest.path is None else str(images.resolve() / manifest.path[row])


def _label(manifest: Manifest, row: int) -> str:
    code = int(manifest.landmark[row])
    return manifest.landmarks[code] if code >= 0 else ""
