"""Milliseconds to find and to read local features, and bytes an image, ours against a group of float arrays for each.

    python scripts/bench/local.py [PHOTOS] [--number 100] [--keypoints 1000] [--long-side 640]

Each kind of local features whose packages are installed is found in the same photographs by one thread, stored, and
read in a random order. `per_image` is the usual store of keypoints in float32 and descriptors in float16 (RootSIFT:
float32), with one HDF5 group for each image, written of the same features. Times are of the processor. Prints one JSON
document.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest
from retrieval.data.overview import load_manifest
from retrieval.errors import LmrError
from retrieval.jobs import ComputingJob
from retrieval.local.config import LocalOptions
from retrieval.local.extractor import open_extractor
from retrieval.local.features import LocalFeatures
from retrieval.local.job import LocalRun, fill_local
from retrieval.local.store import LocalStore, open_local
from retrieval.progress import SILENT

KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("rootsift", {"kind": "rootsift"}),
    ("rootsift, 64 dimensions", {"kind": "rootsift", "n_dimensions": 64}),
    ("aliked", {"kind": "aliked"}),
    ("xfeat", {"kind": "xfeat"}),
)
JOB = ComputingJob(workers=1, threads=1, device="cpu", progress=SILENT)


def main() -> None:
    """Measures each kind, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos/originals"))
    parser.add_argument("--number", type=int, default=100, help="photographs (default %(default)s)")
    parser.add_argument("--keypoints", type=int, default=1000, help="of an image at most (default %(default)s)")
    parser.add_argument("--long-side", type=int, default=640, help="pixels (default %(default)s)")
    given = parser.parse_args()
    manifest = load_manifest(given.folder, SILENT)
    manifest = manifest.select(np.linspace(0, len(manifest) - 1, min(given.number, len(manifest))).astype(np.int64))
    found: dict[str, Any] = {"images": len(manifest), "keypoints": given.keypoints, "long_side": given.long_side}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in KINDS:
            asked = LocalOptions(n_keypoints=given.keypoints, long_side=given.long_side, **options)
            try:
                found[name] = measure(manifest, given.folder, asked, Path(folder))
            except LmrError as error:
                found[name] = str(error)
    print(json.dumps(found, indent=2))


def measure(manifest: Manifest, images: Path, asked: LocalOptions, folder: Path) -> dict[str, Any]:
    """The figures of one kind."""
    source, path = ImageSource(manifest, images), folder / f"{asked.kind}-{asked.n_dimensions}.local.h5"
    fill_local(path, manifest, source, asked, job=JOB, run=LocalRun())
    store = open_local(path)
    extractor = open_extractor(store.card, "cpu", 1)
    decoded, decode_ms = timed(lambda row: extractor.decode(source.read(row)), len(manifest))
    _, find_ms = timed(lambda row: extractor.pack(decoded[row]), len(manifest))
    features, read_ms = timed(store.features, len(manifest), shuffled=True)
    other = folder / "groups.h5"
    write_groups(other, features, is_rootsift=asked.kind == "rootsift")
    _, other_ms = timed(lambda row: read_group(other, row), len(manifest), shuffled=True)
    sizes = {"ours": bytes_of(store, path), "per_image": other.stat().st_size / len(manifest)}
    return {
        "features_an_image": round(float(store.columns.n_features.mean()), 1),
        "decode_ms": decode_ms,
        "find_ms": find_ms,
        "read_ms": {"ours": read_ms, "per_image": other_ms, "ratio": round(other_ms / read_ms, 2)},
        "kb_an_image": {name: round(size / 1000, 1) for name, size in sizes.items()},
        "kb_of_most_keypoints": round(sizes["ours"] / store.columns.n_features.mean() * asked.n_keypoints / 1000, 1),
        "ratio_of_bytes": round(sizes["per_image"] / sizes["ours"], 2),
    }


def bytes_of(store: LocalStore, path: Path) -> float:
    """Bytes an image, without what a store has once, such as a projection and room for digests."""
    with h5py.File(path) as file:
        once = file.userblock_size + file["card"].size
    return (path.stat().st_size - once) / len(store)


def timed(call: Callable[[int], Any], n: int, *, shuffled: bool = False) -> tuple[list[Any], float]:
    """What it gives for each row, and the milliseconds of one, the first apart."""
    rows = np.random.default_rng(0).permutation(n) if shuffled else np.arange(n)
    found: list[Any] = [None] * n
    call(int(rows[0]))
    began = time.process_time()
    for row in rows.tolist():
        found[row] = call(row)
    return found, round(1000 * (time.process_time() - began) / n, 2)


def write_groups(path: Path, features: list[LocalFeatures], *, is_rootsift: bool) -> None:
    """A group for each image, as others keep them."""
    with h5py.File(path, "w") as file:
        for row, one in enumerate(features):
            group = file.create_group(f"image-{row}")
            group["keypoints"] = one.points
            group["descriptors"] = one.descriptors.astype(np.float32 if is_rootsift else np.float16)
            group["image_size"] = one.size


def read_group(path: Path, row: int) -> tuple[Any, Any]:
    """Points and descriptors of one image."""
    with h5py.File(path) as file:
        group = file[f"image-{row}"]
        return group["keypoints"][:], group["descriptors"][:].astype(np.float32)


if __name__ == "__main__":
    main()
