"""Splits somebody's own folder of folders for the demo into manifests, never moving a file."""

from pathlib import Path

import numpy as np

from cli.demo.scenes import DemoSet
from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.request import FACTS, NEAR_BITS
from retrieval.errors import LmrError
from retrieval.files.atomic import write_text
from retrieval.progress import SILENT, Progress
from retrieval.split.folder import NAMES
from retrieval.split.groups import groups_of_images
from retrieval.split.parts import files_of, name_lines, part_manifests
from retrieval.split.quotas import Share
from retrieval.split.split import SplitRule, split
from retrieval.words import agreeing, counted

HELD_OUT = Share(0.2)  # of a landmark's images, in val and in test each
FEWEST = 3  # images of a landmark from which one goes to val and one to test
FEWEST_QUERIES = 2


def split_own(images: Path, folder: Path, seed: int, n_workers: int = 1, progress: Progress = SILENT) -> DemoSet:
    """Writes the manifests of a split of `images` into `folder`.

    Of each landmark with at least 3 images a fifth goes to val and a fifth to test, one at least; near-duplicates
    stay together. Images without a label are shared between background, val and test; without any there is no
    background.csv. Raises LmrError for a folder with fewer than 2 such landmarks.
    """
    manifest = read_manifest(images)
    counts = np.bincount(manifest.landmark[manifest.landmark >= 0])
    _refuse_few(images, int((counts >= FEWEST).sum()), f"{FEWEST} pictures or more")
    folder.mkdir(parents=True, exist_ok=True)
    source = ImageSource(manifest, images)
    cache = folder / FACTS
    group = groups_of_images(manifest, source, cache, NEAR_BITS, n_workers=n_workers, progress=progress).group
    n_others = int((manifest.landmark < 0).sum())
    third = n_others // 3 / max(n_others, 1)  # a whole number of them
    rule = SplitRule(HELD_OUT, HELD_OUT, at_least=1, non_landmark_val=third, non_landmark_test=third, seed=seed)
    parts = part_manifests(split(manifest, group, rule), with_kind=False)
    n_asked = min(_n_landmarks(parts[name]) if name in parts else 0 for name in ("val", "test"))
    _refuse_few(images, n_asked, f"{FEWEST} pictures or more that are not near-duplicates")
    names = {label: manifest.names.get(label, label) for label in manifest.landmarks}
    files = {**files_of(parts), "names.csv": name_lines(names)}
    for name in NAMES:
        if name in files:
            write_text(folder / name, files[name])
        else:
            (folder / name).unlink(missing_ok=True)
    paths = {name.removesuffix(".csv"): folder / name for name in NAMES}
    return DemoSet(folder=folder, images=images, n_pictures=len(manifest), **paths)


def _n_landmarks(manifest: Manifest) -> int:
    return len(set(manifest.landmark[manifest.landmark >= 0].tolist()))


def _refuse_few(images: Path, n: int, what: str) -> None:
    if n < FEWEST_QUERIES:
        raise LmrError(
            f"{images}: {counted(n, 'landmark')} {agreeing(n, 'has', 'have')} {what}; the demo needs at least "
            f"{FEWEST_QUERIES}, "
            "in folders named by landmark: FOLDER/<landmark>/<picture>"
        )
