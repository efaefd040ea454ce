"""Measuring the images of a data set and comparing their descriptors, or a share of that, before its statistics."""

from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.data.request import NEAR_SIMILARITY, MeasuringJob
from retrieval.errors import LmrError, WordsError
from retrieval.files.digest import sha256_json
from retrieval.jobs import option, told
from retrieval.progress import SILENT, Progress
from retrieval.shard import Shard, ShardedJob
from retrieval.spark.config import SparkJob

if TYPE_CHECKING:
    from index.stats.clusters import StoredImages
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest
    from retrieval.spark.staging import Staging
    from retrieval.spark.task import Place

_WHOLE = Shard(1, 1)


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
    from index.stats.comparing import Comparing
    from retrieval.data.facts_shares import mark_share
    from retrieval.data.quality_cache import measure_manifest
    from retrieval.files.made_of import require_place
    from retrieval.parallel import count_workers

    share = job.share
    facts = job.facts if share is None else share.beside(job.facts)
    require_place(facts)
    inputs = _read_inputs(job)
    sources = inputs.sources(job)
    workers = max(1, count_workers(job.workers, job.progress))
    tables = [measure_manifest(source, facts, n_workers=workers, progress=job.progress) for source in sources]
    if inputs.stored is not None:
        comparing = Comparing(inputs.stored, job.near_similarity, job.n_clusters, job.seed, facts)
        comparing.do_share(share or Shard(1, 1), job.progress)
    if share is not None:
        mark_share(facts, share, inputs.digest(job))
    return MeasureReport(facts, sum(map(len, tables)), sum(len(table.unreadable) for table in tables))


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is measured and compared, read. given: each manifest with its own path and that of its images."""

    given: "tuple[tuple[Manifest, Path, Path | None], ...]"
    stored: "StoredImages | None"

    def sources(self, job: MeasureJob) -> "list[ImageSource]":
        """The images of the share of a job. LmrError where there are none, nor descriptors."""
        found = []
        for manifest, path, images in self.given:
            source = source_of(manifest.share(job.share), images, path, job.progress)
            if source is None and job.store is None:
                raise LmrError(f"{path} holds no pictures to measure; give `images`")
            if source is not None:
                found.append(source)
        return found

    def digest(self, job: MeasureJob) -> str:
        """What tells all that is measured and compared from something else."""
        whole: list[Any] = [manifest.digest for manifest, _, _ in self.given]
        if self.stored is not None:
            n = len(self.stored.row)
            whole.append([self.stored.store.info.fingerprint, n, job.near_similarity, job.n_clusters, job.seed])
        return sha256_json(whole)


def _read_inputs(job: MeasureJob) -> _Inputs:
    from index.stats.clusters import open_stored
    from retrieval.data.overview import load_manifest

    paths = [(job.manifest, job.images)]
    if job.test is not None:
        paths.append((job.test, job.test_images or job.images))
    names = (job.column_names, job.column_names_beside)
    given = tuple(
        (load_manifest(path, job.progress, of_it), path, images)
        for (path, images), of_it in zip(paths, names, strict=False)
    )
    first, stored = given[0][0], None
    if job.store is not None:
        stored = open_stored(job.store, first.image_id, first.landmark.astype("int64"), first.landmarks)
    return _Inputs(given, stored)


def measure_on_spark(job: MeasureJob, on: SparkJob) -> None:
    """Measures and compares by shares on the executors of a cluster, into the same file of facts as `measure`.

    What another command is told from is left to it where that was done before, as the file of facts then says.
    """
    from retrieval.files.made_of import require_place
    from retrieval.spark.cluster import Cluster
    from retrieval.spark.staging import Staging

    require_place(job.facts)
    work = replace(job, progress=SILENT)
    with Cluster(on, job.progress) as cluster, Staging(job.facts, wait=False, progress=job.progress) as staging:
        (seen,) = cluster.run("reading", _look, [work])
        if seen.is_done:
            return
        n = _settle(staging, seen, on, cluster.n_slots, job.progress)
        cluster.require_shared(staging.folder)
        shares = [
            _Share(replace(work, shard=f"{i}/{n}", facts=staging.folder / job.facts.name), seen.digest)
            for i in range(1, n + 1)
        ]
        cluster.run("measuring", _measure_share, shares, "shares")
        cluster.run("joining", _add_shares, [(tuple(share.path for share in shares), job.facts, seen.digest)])
        staging.remove()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there is to do. n_fewest: images of the smallest manifest, of which each task has one at least."""

    n_images: int
    n_fewest: int
    digest: str
    is_done: bool


@dataclass(frozen=True, slots=True)
class _Share:
    """The job of one task. digest: of all that is measured and compared, by all of them."""

    job: MeasureJob
    digest: str

    @property
    def path(self) -> Path:
        """The file of its facts."""
        assert self.job.share is not None
        return self.job.share.beside(self.job.facts)


def _settle(staging: "Staging", seen: _Seen, on: SparkJob, n_slots: int, progress: Progress) -> int:
    """The number of shares: as it was begun, unless that was of something else, which is of no use any more."""

    def count() -> int:
        return min(on.count_tasks(seen.n_images, n_slots), seen.n_fewest)

    how: dict[str, Any] = {"count": count, "asked": None if on.n_tasks is None else count()}
    try:
        return staging.settle({"data": seen.digest}, **how, overwrite=False)[0]
    except LmrError as error:
        progress.warn(f"{str(error).partition('; ')[0]}: begun anew")
        return staging.settle({"data": seen.digest}, **how, overwrite=True)[0]


def _look(job: MeasureJob, place: "Place") -> _Seen:
    """Reads the manifests, and whether all was done before."""
    from retrieval.data.facts_shares import is_marked

    job = replace(job, progress=place.progress)
    inputs = _read_inputs(job)
    inputs.sources(job)  # says what cannot be used, and indexes tars before many tasks would
    n_rows, digest = [len(manifest) for manifest, _, _ in inputs.given], inputs.digest(job)
    return _Seen(n_rows[0], min(n_rows), digest, is_marked(job.facts, _WHOLE, digest))


def _measure_share(share: _Share, place: "Place") -> None:
    """Does a share, or finds it done. Another run of the same task, such as one that was given up, is waited for."""
    from retrieval.data.facts_shares import is_marked
    from retrieval.files.lock import output_lock

    job = share.job
    assert job.share is not None
    with output_lock(share.path, wait=True, progress=place.progress):
        if is_marked(share.path, job.share, share.digest):
            return
        share.path.unlink(missing_ok=True)
        measure(replace(job, progress=SILENT, workers=place.n_threads if job.workers is None else job.workers))
        if not is_marked(share.path, job.share, share.digest):
            raise LmrError(f"{job.manifest} or what belongs to it is not what it was when this began; run this again")


def _add_shares(item: tuple[tuple[Path, ...], Path, str], place: "Place") -> None:
    """Adds what all shares found to the file of facts."""
    from retrieval.data.facts_shares import add_shares, mark_share

    paths, facts, digest = item
    add_shares(paths, facts)
    mark_share(facts, _WHOLE, digest)


def source_of(manifest: "Manifest", images: Path | None, path: Path, progress: Progress) -> "ImageSource | None":
    """Source of images: the folder that was given, the manifest itself, or none."""
    from retrieval.data.image_source import ImageSource, images_folder
    from retrieval.images.parquet_parts import is_folder

    if images is None and not is_folder(path) and manifest.content is None:
        return None
    return ImageSource(manifest, images_folder(images, path, progress))
