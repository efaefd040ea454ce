"""Labelled queries: a manifest or a store, to descriptors by the model of an index and what each query shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.embed.job import StoreFilling, complete_store
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.jobs import WritingJob, option

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.arrays import LongArray, ObjArray
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
    from retrieval.data.image_source import images_folder, index_tars
    from retrieval.data.overview import load_manifest
    from retrieval.store.store import open_descriptors

    if path.suffix in (".h5", ".hdf5"):
        store = open_descriptors(path)
        _require_meeting(path, store.landmarks, folder, job)
        return store, queries_of(store)
    index_tars(path, job.progress)
    manifest = load_manifest(path, job.progress)
    if not manifest.has_labels:
        raise LmrError(f"{path} has no landmark_id column, so there is nothing to compare answers with")
    if manifest.usage is not None:
        manifest = manifest.select((manifest.usage != "Ignored").nonzero()[0])
    _require_meeting(path, manifest.landmarks, folder, job)
    output = job.store or find_store(path, "store", job.progress)
    images = images_folder(job.images, path, job.progress)
    store = complete_store(manifest, images, folder.model_path, output, job=job, overwrite=job.overwrite, wait=job.wait)
    truths = [tuple(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    return store, Queries(store.image_id[:], object_array(truths), store.path[:], store.kind)


def _require_meeting(path: Path, landmarks: Sequence[str], folder: "IndexFolder", job: QueriesJob) -> None:
    from retrieval.data.labels import require_meeting

    if not job.allow_disjoint:
        require_meeting(landmarks, folder.rows.landmarks, (str(path), str(folder.path)))
