"""The data of a comparison: a folder with manifests of fixed names and the images."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.formats import read_layout
from retrieval.data.header.mapping import BY_HEADER, ColumnMap
from retrieval.data.image_source import images_folder
from retrieval.data.labels import require_meeting
from retrieval.data.overview import load_manifest
from retrieval.data.tables.opening import open_table
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.digest import sha256_file
from retrieval.progress import Progress

if TYPE_CHECKING:
    from index.compare.measure import Asked
    from index.queries import Queries
    from retrieval.data.manifest import Manifest

TRAIN, VAL, TEST = "train.csv", "val.csv", "test.csv"
N_NEEDED = {"val": 2, "test": 1}  # queries that show a landmark of train; on val some fit and others judge
N_SAMPLED = 256  # images of a manifest that tell whether its images are the same
SOLUTIONS = ("test_solution.csv", "test_solution_public.csv", TEST)  # where the answers to test may be


@dataclass(frozen=True, slots=True)
class ComparisonData:
    """Data on which systems are trained and scored.

    parts: manifest of the queries of each part that is asked, `val` and perhaps `test`. landmarks, counts: of train.
    names: which column holds what, in the manifests that have such columns.
    """

    folder: Path
    images: Path
    parts: dict[str, Path]
    landmarks: tuple[str, ...]
    counts: LongArray
    names: ColumnMap = BY_HEADER
    _known: dict[Path, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def train(self) -> Path:
        """Manifest to train on and to search in."""
        return self.folder / TRAIN

    def find(self, name: str) -> Path | None:
        """A manifest of the folder by the name that recipes give it, None where the folder has none."""
        return self.folder / name if (self.folder / name).exists() else None

    def digest(self, manifest: Path) -> str:
        """sha256 (hex) of a manifest and of images evenly spread over it. LmrError when it cannot be read."""
        if manifest not in self._known:
            self._known[manifest] = _digest(manifest, self.images, self.names)
        return self._known[manifest]

    def mapped(self, manifest: Path) -> tuple[str, ...]:
        """`role=column` of each column that was named for a manifest; () where that has none of them."""
        table = open_table(manifest) if self.names.told else None
        return () if table is None else read_layout(table, self.names).mapped


def read_data(
    folder: Path,
    images: Path | None,
    progress: Progress,
    *,
    test: bool,
    solution: Path | None = None,
    names: ColumnMap = BY_HEADER,
) -> ComparisonData:
    """The data of a folder. test: the answers to test are wanted. solution: the file that holds them.

    names: which column of train holds what, and of the other manifests that have such columns.

    LmrError: a manifest is missing, train or val has no labels, there are no answers to test.
    """
    for name in (TRAIN, VAL):
        if not (folder / name).is_file():
            raise LmrError(
                f"{folder}: there is no {name}; give `data` a folder with {TRAIN} and {VAL}, as of lmr split"
            )
    train = load_manifest(folder / TRAIN, progress, names)
    if not train.has_labels or not (train.landmark >= 0).any():
        raise LmrError(f"{folder / TRAIN} has no landmark_id; training needs labels")
    parts = {"val": folder / VAL}
    if test:
        parts["test"] = solution or _find_solution(folder, names.of_others())
    used, counts = np.unique(train.landmark[train.landmark >= 0], return_counts=True)
    landmarks = tuple(train.landmarks[code] for code in used)
    place = images_folder(images, folder / TRAIN, progress)
    return ComparisonData(folder, place, parts, landmarks, counts, names.of_others())


def read_queries(data: ComparisonData, part: str, progress: Progress) -> "tuple[Manifest, Queries, Asked]":
    """The labelled queries of a part, without those whose Usage is Ignored.

    LmrError: no labels, or too few queries that show a landmark of train.
    """
    from index.compare.measure import ask
    from index.queries import Queries
    from retrieval.shown import Labels
    from retrieval.texts import Texts

    path = data.parts[part]
    manifest = load_manifest(path, progress, data.names)
    if not manifest.has_labels:
        raise LmrError(f"{path} has no landmark_id column, so there is nothing to compare answers with")
    if manifest.usage is not None:
        manifest = manifest.select((manifest.usage != "Ignored").nonzero()[0])
    require_meeting(manifest.landmarks, data.landmarks, (str(path), str(data.train)), remedy="rename them")
    taught = frozenset(data.landmarks)
    truths = [tuple(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    n_taught = sum(not taught.isdisjoint(labels) for labels in truths)
    if n_taught < N_NEEDED[part]:
        raise LmrError(
            f"{path}: pictures that show a landmark of {data.train}: {n_taught:,} of {len(manifest):,}; "
            f"comparing needs {N_NEEDED[part]} or more"
        )
    paths = [""] * len(manifest)
    queries = Queries(Texts.of(manifest.image_id), Labels.of(truths), Texts.of(paths), manifest.kind)
    return manifest, queries, ask(queries, data.landmarks)


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file. LmrError when it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error


def _digest(path: Path, images: Path, names: ColumnMap) -> str:
    """sha256 (hex) of a manifest and some of its images; one that cannot be read counts as empty."""
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import read_manifest

    digest, manifest = hashlib.sha256(file_digest(path).encode()), read_manifest(path, names=names)
    digest.update("".join(manifest.mapped).encode())
    source = ImageSource(manifest, images)
    for row in np.unique(np.linspace(0, len(manifest) - 1, N_SAMPLED).round().astype(np.int64)).tolist():
        try:
            image = source.read(row)
        except UnreadableError:
            image = b""
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()


def _find_solution(folder: Path, names: ColumnMap) -> Path:
    from retrieval.data.manifest import read_manifest

    for name in SOLUTIONS:
        if (folder / name).is_file() and read_manifest(folder / name, names=names).has_labels:
            return folder / name
    raise LmrError(f"{folder}: no answers to test, such as {SOLUTIONS[0]}; give `solution` FILE or compare on val")
