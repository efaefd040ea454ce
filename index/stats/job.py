"""Statistics of a data set: manifest, images, descriptors and test set, counted and measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.stats.measure import ComparingJob, MeasureJob, measure_on_spark, source_of
from retrieval.errors import LmrError, UnreadableError, WordsError
from retrieval.images.screen import SCREEN_DIAGONAL_IN
from retrieval.jobs import option, told
from retrieval.spark.config import SparkJob
from retrieval.words import none_can

if TYPE_CHECKING:
    from index.stats.clusters import ClusterCounts, Clusters, DescriptorMap, StoreCounts, StoredImages
    from index.stats.comparing import AlikeImages
    from index.stats.data import Data, DataCounts
    from index.stats.measured import Duplicates, ImageCounts, Leakage, Measured
    from retrieval.arrays import IntArray, LongArray, ObjArray
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest


@dataclass(frozen=True)
class StatsJob(ComparingJob, SparkJob):
    """Count and measure what is in a data set."""

    manifest: Path = field(metadata=told(is_argument=True, metavar="CSV"))
    _: KW_ONLY
    engine: Literal["local", "spark"] = option(
        "local", help="Where images are measured and descriptors compared: local (here) or spark (a cluster)."
    )
    images: Path | None = option(
        None,
        help="Folder of images to measure: <id>.jpg, Google's a/b/c/<id>.jpg, or what a path column is relative to.",
    )
    test: Path | None = option(None, help="Manifest of a test set: images that it shares with CSV.")
    test_images: Path | None = option(None, default_text="`images`", help="Folder of the test set's images.")
    names: Path | None = option(None, help="Names of the landmarks, as for build-index.")
    diagonal_in: float = option(SCREEN_DIAGONAL_IN, low=1, high=1000, help="Diagonal of the screen, inches.")
    map_pictures: int = option(2000, low=0, high=10_000, help="Images on the map.")
    image_list: Path | None = option(None, help="Open Images: the list of images, with their Subset.")
    boxes: Path | None = option(None, help="Open Images: the file of boxes.")
    hierarchy: Path | None = option(None, help="Hierarchy of labels (Open Images' JSON).")
    min_label_confidence: float = option(
        0.99, low=0, high=1, help="Open Images: least confidence of labels that count."
    )

    def __post_init__(self) -> None:
        """Raises WordsError for words that need another one."""
        super().__post_init__()
        if self.test_images is not None and self.test is None:
            raise WordsError("`test_images` needs `test`")


@dataclass(frozen=True, slots=True)
class ImageFinder:
    """Images by their image_id. own, test: a source, and the row of each id. stored: paths that a store knows."""

    own: "tuple[ImageSource | None, Mapping[str, int]]"
    test: "tuple[ImageSource | None, Mapping[str, int]]"
    stored: Mapping[str, str]

    def read(self, image_id: str, of_test: bool = False) -> bytes:
        """The encoded image. UnreadableError with the reason."""
        from retrieval.images.given import read_image

        source, rows = self.test if of_test else self.own
        if source is not None:
            return source.read(rows[image_id])
        if not of_test and self.stored.get(image_id):
            return read_image(self.stored[image_id])
        raise UnreadableError("not found")

    def where(self, image_id: str, of_test: bool = False) -> str:
        """The path of the image, '' where it has none."""
        source, rows = self.test if of_test else self.own
        if source is not None:
            return source.where(rows[image_id]) or ""
        return "" if of_test else self.stored.get(image_id, "")


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """All that was found; None for what was not asked for.

    data: of the manifest alone. measured, duplicates: of its images. leakage: of the test set. store, alike, map,
    clusters: of the descriptors. images: to show in a report. facts, stored, assigned: of each image, for tables.
    """

    data: "DataCounts"
    images: ImageFinder
    measured: "ImageCounts | None" = None
    duplicates: "Duplicates | None" = None
    leakage: "Leakage | None" = None
    store: "StoreCounts | None" = None
    alike: "AlikeImages | None" = None
    map: "DescriptorMap | None" = None
    clusters: "ClusterCounts | None" = None
    facts: "Measured | None" = None
    stored: "StoredImages | None" = None
    assigned: "Clusters | None" = None

    def to_json(self) -> dict[str, Any]:
        """As one JSON object, which `lmr stats` prints."""
        return {
            **_to_json(self.data, flat="counts"),
            "measured": None if self.measured is None else asdict(self.measured),
            "duplicates": None if self.duplicates is None else asdict(self.duplicates),
            "leakage": None if self.leakage is None else asdict(self.leakage),
            "store": None if self.store is None else asdict(self.store),
            "alike": None if self.alike is None else _to_json(self.alike, flat="groups"),
            "map": None if self.map is None else asdict(self.map),
            "clusters": None if self.clusters is None else asdict(self.clusters),
        }

    def image_lines(self) -> Iterator[str]:
        """CSV lines of the images, best resolution first, unreadable ones last. LmrError where none were measured."""
        from index.stats.measured import image_lines

        if self.facts is None:
            raise LmrError("a table of measured pictures needs `images`")
        return image_lines(self.facts)

    def cluster_lines(self) -> Iterator[str]:
        """CSV lines of the images that the store describes, in its order. LmrError where there are no clusters."""
        from index.stats.clusters import cluster_lines

        if self.stored is None or self.assigned is None:
            raise LmrError("a table of clusters needs `clusters`")
        return cluster_lines(self.stored, self.assigned)


def _to_json(part: "DataCounts | AlikeImages", flat: str) -> dict[str, Any]:
    """A part as a JSON object, in which what the field `flat` holds stands in its place."""
    content: dict[str, Any] = {}
    for name, value in asdict(part).items():
        content.update(value if name == flat else {name: value})
    return content


def stats(job: StatsJob) -> Statistics:
    """Everything that was asked for.

    Raises WordsError for words that need another one, LmrError for what is not usable.
    """
    from index.stats.data import Beside, count_data, read_data
    from index.stats.measured import count_duplicates, count_images, find_leakage
    from retrieval.data.overview import load_manifest
    from retrieval.files.made_of import require_place
    from retrieval.files.urls import text_of

    require_place(job.facts)
    if job.on_spark:
        words = {item.name: getattr(job, item.name) for item in fields(MeasureJob) if hasattr(job, item.name)}
        measure_on_spark(MeasureJob(**words), job)
    beside = Beside(job.image_list, job.boxes, job.hierarchy, job.names, job.min_label_confidence)
    data = read_data(job.manifest, beside, job.column_names, job.progress)
    counts = count_data(data, text_of(job.manifest))
    source = source_of(data.images, job.images, job.manifest, job.progress)
    test = None if job.test is None else load_manifest(job.test, job.progress, job.column_names_beside)
    test_images = job.test_images or job.images
    test_source = None if test is None or job.test is None else source_of(test, test_images, job.test, job.progress)
    facts = (
        None
        if source is None
        else _measure(data.images, _texts(data.labelling.names, data.labelling.first_landmark()), source, job)
    )
    measured = None if facts is None else count_images(facts)
    duplicates = None if facts is None else count_duplicates(facts)
    leakage = None
    if test is not None:
        both = None
        if facts is not None and test_source is not None:
            labels = _texts(test.landmarks, test.landmark)
            both = (facts, _measure(test, labels, test_source, job))
        leakage = find_leakage(data.images, test, both)
    finder = ImageFinder(_by_id(data.images, source), _by_id(test, test_source), {})
    found = Statistics(counts, finder, measured, duplicates, leakage, facts=facts)
    return found if job.store is None else _with_store(found, data, job.store, job)


def _texts(names: Sequence[str], numbers: "IntArray | LongArray") -> "ObjArray":
    """(n,) the name of each number, '' for -1."""
    import numpy as np

    texts: ObjArray = np.array((*names, ""), dtype=object)[numbers]
    return texts


def _measure(manifest: "Manifest", landmark: "ObjArray", source: "ImageSource", job: StatsJob) -> "Measured":
    """LmrError when none of the images can be read: the folder is most likely another one."""
    from index.stats.images import measures_of
    from index.stats.measured import Measured
    from retrieval.data.quality_cache import measure_manifest
    from retrieval.parallel import count_workers

    workers = max(1, count_workers(job.workers, job.progress))
    table = measure_manifest(source, job.facts, n_workers=workers, progress=job.progress)
    if not len(table.readable):
        row, reason = next(iter(table.unreadable.items()))
        name = f"{manifest.image_id[row]}: {reason}"
        raise LmrError(
            f"{manifest.source}: {none_can(len(table), 'picture', whose='its')} be read ({name}); check `images`"
        )
    return Measured(manifest.image_id, landmark, table, measures_of(table, job.diagonal_in))


def _with_store(found: Statistics, data: "Data", path: Path, job: StatsJob) -> Statistics:
    """Adds what the store tells."""
    from index.stats.clusters import StoreCounts, count_clusters, draw_map, open_stored
    from index.stats.comparing import Comparing

    labelling = data.labelling
    stored = open_stored(path, data.images.image_id, labelling.first_landmark(), labelling.names)
    facts = job.facts if job.facts.exists() else None
    comparing = Comparing(stored, job.near_similarity, job.n_clusters, job.seed, facts)
    alike = comparing.find_alike(job.progress)
    drawn = draw_map(stored, job.map_pictures, job.seed, job.progress) if job.map_pictures else None
    assigned = comparing.find_clusters(job.progress)
    clusters = None if assigned is None else count_clusters(stored, assigned, job.seed)
    return replace(
        found,
        images=replace(found.images, stored=dict(zip(stored.image_id, stored.store.path[stored.row], strict=True))),
        store=StoreCounts(str(path), len(stored.row), len(data.images)),
        alike=alike,
        map=drawn,
        clusters=clusters,
        stored=stored,
        assigned=assigned,
    )


def _by_id(manifest: "Manifest | None", source: "ImageSource | None") -> "tuple[ImageSource | None, Mapping[str, int]]":
    return source, {} if manifest is None else {name: row for row, name in enumerate(manifest.image_id.tolist())}
