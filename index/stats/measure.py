"""Measuring the images of a data set and comparing their descriptors, or a share of that, before its statistics."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.data.request import NEAR_SIMILARITY, MeasuringJob
from retrieval.errors import LmrError, WordsError
from retrieval.files.digest import sha256_json
from retrieval.jobs import option, told
from retrieval.shard import Shard, ShardedJob

if TYPE_CHECKING:
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest
    from retrieval.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ComparingJob(MeasuringJob):
    """Measure images, and compare their descriptors."""

    store: Path | None = option(None, help="Descriptors of the images: a map, copies, clusters.")
    n_clusters: int | None = option(None, low=1, help="Clusters to find in the store (k-means).")
    near_similarity: float = option(
        NEAR_SIMILARITY, low=0.5, high=1, help="With `store`: similarity of descriptors from which images are copies."
    )
    seed: int = option(0, low=0, high=2**31 - 1, help="Random seed.")

    def __post_init__(self) -> None:
        """Raises WordsError for words that need another one."""
        super().__post_init__()
        if self.n_clusters is not None and self.store is None:
            raise WordsError("`clusters` needs `store`")


@dataclass(frozen=True)
class MeasureJob(ComparingJob, ShardedJob):
    """Measure the images of a data set and compare their descriptors, or a share of them."""

    manifest: Path = field(metadata=told(is_argument=True, metavar="CSV"))
    _: KW_ONLY
    test: Path | None = option(None, help="Manifest of a test set, whose images are measured too.")
    test_images: Path | None = option(None, default_text="`images`", help="Folder of the test set's images.")


@dataclass(frozen=True, slots=True)
class MeasureReport:
    """What was measured. facts: the file that keeps it."""

    facts: Path
    n_images: int
    n_unreadable: int


def measure(job: MeasureJob) -> MeasureReport:
    """Measures and compares what is not in the file of facts yet; a share has its own, `picture-facts-1-of-4.sqlite`.

    With a store images need not be given. Raises LmrError for a manifest with neither, and for what cannot be used.
    """
    from retrieval.data.facts_shares import mark_share
    from retrieval.data.overview import load_manifest
    from retrieval.data.quality_cache import measure_manifest
    from retrieval.files.made_of import require_place
    from retrieval.parallel import count_workers

    share = job.share
    facts = job.facts if share is None else share.beside(job.facts)
    require_place(facts)
    given = [(job.manifest, job.images)]
    if job.test is not None:
        given.append((job.test, job.test_images or job.images))
    manifests = [load_manifest(path, job.progress) for path, _ in given]
    parts = [manifest.share(share) for manifest in manifests]
    sources = []
    for part, (path, images) in zip(parts, given, strict=True):
        source = source_of(part, images, path, job.progress)
        if source is None and job.store is None:
            raise LmrError(f"{path} holds no pictures to measure; give `images`")
        if source is not None:
            sources.append(source)
    workers = max(1, count_workers(job.workers, job.progress))
    tables = [measure_manifest(source, facts, n_workers=workers, progress=job.progress) for source in sources]
    whole: list[Any] = [manifest.digest for manifest in manifests]
    if job.store is not None:
        whole.append(_compare(job, job.store, manifests[0], facts))
    if share is not None:
        mark_share(facts, share, sha256_json(whole))
    return MeasureReport(facts, sum(map(len, tables)), sum(len(table.unreadable) for table in tables))


def _compare(job: MeasureJob, store: Path, manifest: "Manifest", facts: Path) -> list[Any]:
    """Compares the descriptors; what tells the comparison from another one."""
    from index.stats.clusters import open_stored
    from index.stats.comparing import Comparing

    stored = open_stored(store, manifest.image_id, manifest.landmark.astype("int64"), manifest.landmarks)
    comparing = Comparing(stored, job.near_similarity, job.n_clusters, job.seed, facts)
    comparing.do_share(job.share or Shard(1, 1), job.progress)
    return [stored.store.info.fingerprint, len(stored.row), job.near_similarity, job.n_clusters, job.seed]


def source_of(manifest: "Manifest", images: Path | None, path: Path, progress: "Progress") -> "ImageSource | None":
    """Source of images: the folder that was given, the manifest itself, or none."""
    from retrieval.data.image_source import ImageSource, images_folder
    from retrieval.images.parquet_parts import is_folder

    if images is None and not is_folder(path) and manifest.content is None:
        return None
    return ImageSource(manifest, images_folder(images, path, progress))
