"""`lmr stats` from what was asked to its document, with progress on stderr."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.options import images_folder
from cli.progress import TerminalProgress
from cli.reading import load_manifest
from cli.stats.data import Beside, Data, read_data
from cli.stats.document import describe_data
from cli.stats.measured import Measured, describe_duplicates, describe_leakage, describe_pictures
from index.stats import images as statistics
from index.stats.duplicates import same_bytes, same_look
from retrieval.data.csv_cells import csv_line
from retrieval.data.manifest import Manifest
from retrieval.data.quality_cache import measure_manifest
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.source import PictureSource, read_picture
from retrieval.words import none_can

if TYPE_CHECKING:
    from cli.stats.described import Described
    from index.stats.clusters import Clusters


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be found out, as the options of the command say."""

    manifest: Path
    beside: Beside
    images: Path | None
    store: Path | None
    test: Path | None
    test_images: Path | None
    facts: Path
    diagonal_in: float
    clusters: int | None
    map_pictures: int
    near_similarity: float
    seed: int
    n_workers: int
    wants_csv: bool


@dataclass(frozen=True, slots=True)
class PictureFinder:
    """Pictures by their image_id. own, test: a source, and the row of each id. stored: paths that a store knows."""

    own: tuple[PictureSource | None, Mapping[str, int]]
    test: tuple[PictureSource | None, Mapping[str, int]]
    stored: Mapping[str, str]

    def read(self, image_id: str, of_test: bool = False) -> bytes:
        """The encoded picture. UnreadableError with the reason."""
        source, rows = self.test if of_test else self.own
        if source is not None:
            return source.read(rows[image_id])
        if not of_test and self.stored.get(image_id):
            return read_picture(self.stored[image_id])
        raise UnreadableError("not found")

    def where(self, image_id: str, of_test: bool = False) -> str:
        """The path of the picture, '' where it has none."""
        source, rows = self.test if of_test else self.own
        if source is not None:
            return source.where(rows[image_id]) or ""
        return "" if of_test else self.stored.get(image_id, "")


@dataclass(frozen=True, slots=True)
class Found:
    """document: for JSON. pictures: to show in a report."""

    document: dict[str, Any]
    pictures: PictureFinder
    pictures_csv: list[str]
    clusters_csv: list[str]


def collect(asked: Asked) -> Found:
    """Everything that was asked for. Raises LmrError for what is not usable."""
    data = read_data(asked.manifest, asked.beside)
    document = describe_data(data, str(asked.manifest))
    source = _source(data.pictures, asked.images, asked.manifest)
    test = None if asked.test is None else load_manifest(asked.test)
    test_images = asked.test_images or asked.images
    test_source = None if test is None or asked.test is None else _source(test, test_images, asked.test)
    if asked.wants_csv and source is None:
        raise LmrError("--pictures-csv is a table of measured pictures; give --images too")
    measured = None if source is None else _measure(data.pictures, _first_labels(data), source, asked)
    document["measured"] = None if measured is None else describe_pictures(measured)
    document["duplicates"] = None if measured is None else describe_duplicates(measured)
    document["leakage"] = None
    if test is not None:
        both = None
        if measured is not None and test_source is not None:
            labels = np.array((*test.landmarks, ""), dtype=object)[test.landmark]
            both = (measured, _measure(test, labels, test_source, asked))
        document["leakage"] = describe_leakage(data.pictures, test, both)
    described, clusters = _describe(data, asked, document)
    return Found(
        document,
        _finder(data.pictures, source, described, (test, test_source)),
        [] if measured is None or not asked.wants_csv else list(_picture_lines(measured)),
        [] if described is None or clusters is None else list(_cluster_lines(described, clusters)),
    )


def _source(manifest: Manifest, images: Path | None, path: Path) -> PictureSource | None:
    """Where pictures are: in the folder that was given, in the manifest itself, or nowhere."""
    if images is None and not path.is_dir() and manifest.content is None:
        return None
    return PictureSource(manifest, images_folder(images, path))


def _first_labels(data: Data) -> Any:
    return np.array((*data.labelling.names, ""), dtype=object)[data.labelling.first_landmark()]


def _measure(manifest: Manifest, landmark: Any, source: PictureSource, asked: Asked) -> Measured:
    """LmrError when none of the pictures can be read: the folder is most likely another one."""
    with TerminalProgress() as progress:
        table = measure_manifest(source, asked.facts, n_workers=asked.n_workers, progress=progress)
    if not len(table.readable):
        row, reason = next(iter(table.unreadable.items()))
        name = f"{manifest.image_id[row]}: {reason}"
        raise LmrError(
            f"{manifest.source}: {none_can(len(table), 'picture', whose='its')} be read ({name}); check --images"
        )
    return Measured(manifest.image_id, landmark, table, statistics.measures_of(table, asked.diagonal_in))


def _describe(data: Data, asked: Asked, document: dict[str, Any]) -> "tuple[Described | None, Clusters | None]":
    """Adds what the store tells to the document."""
    document.update(store=None, alike=None, map=None, clusters=None)
    if asked.store is None:
        return None, None
    from cli.stats.described import describe_alike, describe_clusters, describe_map, open_described
    from index.stats.clusters import find_clusters

    labelling = data.labelling
    described = open_described(asked.store, data.pictures.image_id, labelling.first_landmark(), labelling.names)
    document["store"] = {"source": str(asked.store), "pictures": len(described.row), "of": len(data.pictures)}
    document["alike"] = describe_alike(described, asked.near_similarity, asked.seed)
    if asked.map_pictures:
        document["map"] = describe_map(described, asked.map_pictures, asked.seed)
    if asked.clusters is None:
        return described, None
    with TerminalProgress() as progress:
        clusters = find_clusters(described.store, described.row, asked.clusters, asked.seed, progress)
    document["clusters"] = describe_clusters(described, clusters, asked.seed)
    return described, clusters


def _finder(
    manifest: Manifest,
    source: PictureSource | None,
    described: "Described | None",
    test: tuple[Manifest | None, PictureSource | None],
) -> PictureFinder:
    """Finds pictures by their id: in the folder, else where the store saw them."""
    stored = (
        {} if described is None else dict(zip(described.image_id, described.store.path[described.row], strict=True))
    )
    return PictureFinder(_by_id(manifest, source), _by_id(*test), stored)


def _by_id(manifest: Manifest | None, source: PictureSource | None) -> tuple[PictureSource | None, Mapping[str, int]]:
    return source, {} if manifest is None else {name: row for row, name in enumerate(manifest.image_id.tolist())}


def _picture_lines(measured: Measured) -> Iterator[str]:
    """A line for each picture, best resolution first, unreadable ones last."""
    measures, row = measured.measures, measured.measures.row
    outlier: dict[int, list[str]] = {}
    for kind, found in statistics.outliers(measures).items():
        for at in found.tolist():
            outlier.setdefault(at, []).append(kind)
    copies = {}
    for groups in (same_look(measured.table.hashes), same_bytes(measured.table.column("sha256"))):
        copies.update({int(at): measured.image_id[row[group[0]]] for group in groups for at in group[1:]})
    names = [*statistics.MEASURES, "outlier", "copy_of", "unreadable"]
    yield csv_line(["image_id", "landmark_id", "width", "height", *names])
    for at in statistics.ranking(measures, "pixels_per_inch").tolist():
        values = [_number(measures.values[name][at]) for name in statistics.MEASURES]
        size = [int(measures.width[at]), int(measures.height[at])]
        ends = [" ".join(outlier.get(at, ())), copies.get(at, ""), ""]
        yield csv_line([measured.image_id[row[at]], measured.landmark[row[at]], *size, *values, *ends])
    blank = [""] * (len(statistics.MEASURES) + 4)
    for at, reason in measured.table.unreadable.items():
        yield csv_line([measured.image_id[at], measured.landmark[at], *blank, reason])


def _cluster_lines(described: "Described", clusters: "Clusters") -> Iterator[str]:
    """A line for each picture that the store describes, in its order."""
    yield csv_line(["image_id", "landmark_id", "cluster", "similarity"])
    columns = (described.image_id, described.label, clusters.cluster, clusters.similarity)
    for name, label, number, similarity in zip(*columns, strict=True):
        yield csv_line([name, label, int(number), f"{similarity:.4f}"])


def _number(value: float) -> str:
    """Six digits, whole numbers in full."""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
