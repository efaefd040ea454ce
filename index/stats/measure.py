"""Measuring the images of a data set, or a share of them, before its statistics are asked for."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.data.request import MeasuringJob
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.jobs import option, told
from retrieval.shard import ShardedJob

if TYPE_CHECKING:
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest
    from retrieval.progress import Progress


@dataclass(frozen=True)
class MeasureJob(MeasuringJob, ShardedJob):
    """Measure the images of a data set, or a share of them."""

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
    """Measures what is not in the file of facts yet. A share has a file of its own, `picture-facts-1-of-4.sqlite`.

    Raises LmrError for a manifest without images, and for what cannot be used.
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
        if source is None:
            raise LmrError(f"{path} holds no pictures to measure; give `images`")
        sources.append(source)
    workers = max(1, count_workers(job.workers, job.progress))
    tables = [measure_manifest(source, facts, n_workers=workers, progress=job.progress) for source in sources]
    if share is not None:
        mark_share(facts, share, sha256_json([manifest.digest for manifest in manifests]))
    return MeasureReport(facts, sum(map(len, tables)), sum(len(table.unreadable) for table in tables))


def source_of(manifest: "Manifest", images: Path | None, path: Path, progress: "Progress") -> "ImageSource | None":
    """Source of images: the folder that was given, the manifest itself, or none."""
    from retrieval.data.image_source import ImageSource, images_folder

    if images is None and not path.is_dir() and manifest.content is None:
        return None
    return ImageSource(manifest, images_folder(images, path, progress))
