"""Labelled queries: a manifest or a store, to descriptors by the model of an index and what each query shows."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from index.folder.config import INDEX_FOLDER
from retrieval.embed.job import StoreFilling, complete, complete_store, of_share
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.jobs import WritingJob, option, told
from retrieval.shard import ShardedJob

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.arrays import LongArray, ObjArray
    from retrieval.data.manifest import Manifest
    from retrieval.embed.fill import FillReport
    from retrieval.store.store import Descriptors


@dataclass(frozen=True, slots=True)
class Queries:
    """Labelled queries.

    image_id, path: (q,) str; landmarks: (q,) of tuples of landmark_ids, empty for a non-landmark; kind: (q,) or None.
    """

    image_id: "ObjArray"
    landmarks: "ObjArray"
    path: "ObjArray"
    kind: "ObjArray | None" = None

    def __post_init__(self) -> None:
        from retrieval.arrays import read_only

        for name in ("image_id", "landmarks", "path", "kind"):
            array = getattr(self, name)
            if array is not None and array.shape != self.image_id.shape:
                raise ValueError(f"{name} must be {self.image_id.shape}, got {array.shape}")
            if array is not None:
                object.__setattr__(self, name, read_only(array))

    def __len__(self) -> int:
        return len(self.image_id)

    def select(self, rows: "LongArray") -> "Queries":
        """Only these queries, in this order."""
        kind = None if self.kind is None else self.kind[rows]
        return Queries(self.image_id[rows], self.landmarks[rows], self.path[rows], kind)


@dataclass(frozen=True, kw_only=True)
class QueriesJob(StoreFilling, WritingJob):
    """A job that asks an index labelled queries."""

    store: Path | None = option(None, default_text="QUERIES with .h5, beside it", help="Descriptors of the queries.")
    allow_disjoint: bool = option(
        False,
        help="Go on where the labels of the two sides have nothing in common, or would if they were spelt alike.",
    )


@dataclass(frozen=True)
class EmbedQueriesJob(QueriesJob, ShardedJob):
    """Embed labelled queries by the model of an index, or a share of them."""

    queries: Path = field(metadata=told(is_argument=True))
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")


def queries_of(store: "Descriptors") -> Queries:
    """The rows of a store as queries, unreadable ones too."""
    from retrieval.arrays import object_array

    labels = [(store.landmarks[code],) if code >= 0 else () for code in store.landmark]
    return Queries(store.image_id[:], object_array(labels), store.path[:], store.kind)


def embed_queries(path: Path, folder: "IndexFolder", job: QueriesJob) -> "tuple[Descriptors, Queries]":
    """The labelled queries of a manifest or a store (.h5), embedded by the model of an index folder.

    Rows whose Usage is Ignored are left out. Raises LmrError where the queries and the index have no landmark in
    common, or would have more if they were spelt alike.
    """
    from retrieval.arrays import object_array
    from retrieval.data.image_source import images_folder
    from retrieval.store.store import open_descriptors

    if path.suffix in (".h5", ".hdf5"):
        store = open_descriptors(path)
        _require_meeting(path, store.landmarks, folder, job)
        return store, queries_of(store)
    manifest = _read_queries(path, folder, job)
    output = job.store or find_store(path, "store", job.progress)
    images = images_folder(job.images, path, job.progress)
    store = complete_store(manifest, images, folder.model_path, output, job=job, overwrite=job.overwrite, wait=job.wait)
    truths = [tuple(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    return store, Queries(store.image_id[:], object_array(truths), store.path[:], store.kind)


def fill_queries(job: EmbedQueriesJob) -> "tuple[Path, FillReport]":
    """Makes, completes or finds the store of labelled queries, or of a share of them; where it is, what was done.

    Raises LmrError as `embed_queries`.
    """
    from index.folder.folder import open_folder
    from retrieval.data.image_source import images_folder

    path, share = job.queries, job.share
    folder = open_folder(job.index, device=job.device, threads=job.threads)
    if path.suffix in (".h5", ".hdf5"):
        raise LmrError(f"{path} is a store, its pictures are embedded; give their manifest")
    manifest = _read_queries(path, folder, job).share(share)
    output = of_share(job.store or find_store(path, "store", job.progress), share)
    images = images_folder(job.images, path, job.progress)
    model, overwrite = folder.model_path, job.overwrite
    return output, complete(manifest, images, model, output, job=job, overwrite=overwrite, wait=job.wait)


def _read_queries(path: Path, folder: "IndexFolder", job: QueriesJob) -> "Manifest":
    """The manifest of labelled queries without rows whose Usage is Ignored."""
    from retrieval.data.image_source import index_tars
    from retrieval.data.overview import load_manifest

    index_tars(path, job.progress)
    manifest = load_manifest(path, job.progress)
    if not manifest.has_labels:
        raise LmrError(f"{path} has no landmark_id column, so there is nothing to compare answers with")
    if manifest.usage is not None:
        manifest = manifest.select((manifest.usage != "Ignored").nonzero()[0])
    _require_meeting(path, manifest.landmarks, folder, job)
    return manifest


def _require_meeting(path: Path, landmarks: Sequence[str], folder: "IndexFolder", job: QueriesJob) -> None:
    from retrieval.data.labels import require_meeting

    if not job.allow_disjoint:
        require_meeting(landmarks, folder.rows.landmarks, (str(path), str(folder.path)))
