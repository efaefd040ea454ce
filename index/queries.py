"""Labelled queries: a manifest or a store, to descriptors by the model of an index and what each query shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index.rerank.config import VerifyJob
from index.verify import STORES
from retrieval.embed.complete import complete_store
from retrieval.embed.job import AskingJob, of_share
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.jobs import WritingJob, option

if TYPE_CHECKING:
    from index.evaluate.places import Near, PlacedIndex
    from index.folder.folder import IndexFolder
    from retrieval.arrays import LongArray, ObjArray
    from retrieval.data.manifest import Manifest
    from retrieval.local.store import LocalStore
    from retrieval.progress import Progress
    from retrieval.shard import Shard
    from retrieval.shown import Labels
    from retrieval.store.store import Descriptors
    from retrieval.texts import Texts


@dataclass(frozen=True, slots=True)
class Queries:
    """Labelled queries.

    image_id, path: (q,) columns, or arrays of strings to pack; landmarks: (q,) landmark_ids, none of a non-landmark,
    or an array of tuples of them to pack; kind: (q,) or None. near: what lies near each, where that says what it shows.
    """

    image_id: "Texts"
    landmarks: "Labels"
    path: "Texts"
    kind: "ObjArray | None" = None
    near: "Near | None" = None

    def __post_init__(self) -> None:
        from retrieval.arrays import read_only
        from retrieval.shown import to_labels
        from retrieval.texts import to_texts

        for name, packed in (("image_id", to_texts), ("landmarks", to_labels), ("path", to_texts), ("kind", read_only)):
            column = getattr(self, name)
            if column is not None:
                object.__setattr__(self, name, packed(column))
        for name in ("landmarks", "path", "kind"):
            column = getattr(self, name)
            if column is not None and column.shape != self.image_id.shape:
                raise ValueError(f"{name} must be {self.image_id.shape}, got {column.shape}")

    def __len__(self) -> int:
        return len(self.image_id)

    def select(self, rows: "LongArray") -> "Queries":
        """Only these queries, in this order."""
        kind = None if self.kind is None else self.kind[rows]
        near = None if self.near is None else self.near.select(rows)
        return Queries(self.image_id.select(rows), self.landmarks.select(rows), self.path.select(rows), kind, near)

    @property
    def digest(self) -> str:
        """sha256 (hex) over all that is known of them, as of JSON."""
        import hashlib

        from retrieval.files.digest import update_json

        total = hashlib.sha256()
        update_json(total, [self.image_id, self.path, self.landmarks, self.kind])
        if self.near is not None:
            self.near.update(total.update)
        return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class QueriesJob(AskingJob, VerifyJob, WritingJob):
    """A job that asks an index labelled queries."""

    store: Path | None = option(None, default_text="QUERIES with .h5, beside it", help="Descriptors of the queries.")
    allow_disjoint: bool = option(
        False,
        help="Go on where the labels of the two sides have nothing in common, or would if they were spelt alike.",
    )
    within: str | None = option(
        None,
        metavar="DISTANCE",
        help="Ground truth by distance: a query shows the landmarks of those pictures of the index that were taken so "
        "near, as 25m, by the columns lat and lon of both.",
    )

    def __post_init__(self) -> None:
        """Raises LmrError for what is no distance."""
        super().__post_init__()
        _ = self.within_m

    @property
    def within_m(self) -> float | None:
        """The distance in metres; None where labels are the ground truth."""
        from retrieval.places import parse_distance  # which needs numpy

        return None if self.within is None else parse_distance(self.within, "within")


def queries_of(store: "Descriptors") -> Queries:
    """The rows of a store as queries, unreadable ones too."""
    from retrieval.shown import Labels

    return Queries(store.image_id, Labels.of_codes(store.landmarks, store.landmark), store.path, store.kind)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: the model that embeds queries, the landmarks that there are, and its name for people.

    placed: the same by where pictures were taken, where that says what queries show.
    """

    model_path: Path
    landmarks: Sequence[str]
    name: str
    placed: "PlacedIndex | None" = None


def embed_queries(
    path: Path, folder: "IndexFolder", job: QueriesJob, share: "Shard | None" = None
) -> "tuple[Descriptors, Queries]":
    """The labelled queries of a manifest or a store (.h5), or a share of them, embedded by the model of an index.

    Rows whose Usage is Ignored are left out. Raises LmrError where the queries and the index have no landmark in
    common, or would have more if they were spelt alike; with `within` as `PlacedIndex.require`.
    """

    def require_local(manifest: "Manifest", images: Path, store: Path) -> None:
        if job.verify:
            require_local_of(folder, manifest, images, store, job=job, overwrite=job.overwrite)

    asked = Asked(folder.model_path, folder.rows.landmarks, str(folder), _placed(folder, job))
    return embed_by(asked, path, job, share, require_local)


def embed_by(
    asked: Asked,
    path: Path,
    job: QueriesJob,
    share: "Shard | None" = None,
    check: "Callable[[Manifest, Path, Path], None]" = lambda *_: None,
) -> "tuple[Descriptors, Queries]":
    """As `embed_queries`, by a model. check: is given the manifest, images and store before anything is embedded."""
    import numpy as np

    from retrieval.data.image_source import images_folder
    from retrieval.shown import Labels
    from retrieval.store.store import open_descriptors

    placed = asked.placed
    if path.suffix in STORES:
        job.column_names.refuse(path, "a store")
        store = open_descriptors(path)
        if placed is None:
            _require_meeting(path, store.landmarks, asked, job)
        else:
            placed.require(store.columns, store.image_id, str(path))
        if share is not None:
            store = store.select(np.array(share.rows_of(path, len(store)), np.int64))
        queries = queries_of(store)
        return store, queries if placed is None else placed.label(queries, store.columns)
    whole = _read_queries(path, asked, job, job.progress)
    if placed is not None:
        placed.require(whole.columns, whole.image_id, str(path))
    manifest = whole.share(share)
    output = of_share(store_of(path, job), share)
    images = images_folder(job.images, path, job.progress)
    check(manifest, images, output)
    store = complete_store(manifest, images, asked.model_path, output, job=job, overwrite=job.overwrite, wait=job.wait)
    shown = Labels.of_codes(manifest.landmarks, manifest.landmark, manifest.more_landmarks)
    queries = Queries(store.image_id, shown, store.path, store.kind)
    return store, queries if placed is None else placed.label(queries, manifest.columns)


def local_queries(path: Path, folder: "IndexFolder", job: QueriesJob, share: "Shard | None" = None) -> "LocalStore":
    """The local features of the queries that `embed_queries` embeds, extracted as those of the rows of an index.

    Raises LmrError as that, and where a store (.h5) has no local store of such features of the same files beside it.
    """
    from index.folder.local import beside, find_places, require_alike
    from index.folder.verified import complete_local_of
    from retrieval.data.image_source import images_folder
    from retrieval.local.store import open_local
    from retrieval.progress import SILENT
    from retrieval.store.store import open_descriptors

    assert folder.local is not None
    if path.suffix in STORES:
        local = open_local(beside(path))
        require_alike(local.card, str(local.path), folder.local.card, str(folder))
        find_places(open_descriptors(path), [local.path])  # refuses those of other files
        return local
    asked = Asked(folder.model_path, folder.rows.landmarks, str(folder))
    manifest = _read_queries(path, asked, job, SILENT).share(share)
    images, output = images_folder(job.images, path, job.progress), of_share(store_of(path, job), share)
    return complete_local_of(folder, manifest, images, output, job=job, overwrite=job.overwrite, wait=job.wait)


def require_local_of(
    folder: "IndexFolder", manifest: "Manifest", images: Path, store: Path, *, job: AskingJob, overwrite: bool
) -> None:
    """Raises LmrError as `complete_local_of`, before anything is embedded."""
    from index.folder.local import beside
    from retrieval.data.image_source import ImageSource
    from retrieval.local.job import LocalRun, require_local

    assert folder.local is not None
    run = LocalRun(overwrite, check=job.check, weights=folder.local.weights)
    require_local(beside(store), manifest, ImageSource(manifest, images), folder.local.card, job=job, run=run)


def store_of(path: Path, job: QueriesJob) -> Path:
    """The store of queries: the one that is given as such, or that of their manifest."""
    return path if path.suffix in STORES else job.store or find_store(path, "store", job.progress)


def _read_queries(path: Path, asked: Asked, job: QueriesJob, progress: "Progress") -> "Manifest":
    """The manifest of labelled queries without rows whose Usage is Ignored."""
    from retrieval.data.image_source import index_tars
    from retrieval.data.overview import load_manifest
    from retrieval.places import manifest_positions

    index_tars(path, progress)
    manifest = load_manifest(path, progress, job.column_names)
    if job.within is not None:
        manifest_positions(manifest, are_needed=True)  # bad ones are named by their lines
    elif not manifest.has_labels:
        raise LmrError(f"{path} has no landmark_id column, so there is nothing to compare answers with")
    if manifest.usage is not None:
        manifest = manifest.select((manifest.usage != "Ignored").nonzero()[0])
    if job.within is None:
        _require_meeting(path, manifest.landmarks, asked, job)
    return manifest


def _placed(folder: "IndexFolder", job: QueriesJob) -> "PlacedIndex | None":
    """The index by where its pictures were taken, where that is the ground truth."""
    from index.evaluate.places import placed_index

    return None if job.within_m is None else placed_index(folder.rows, str(folder), job.within_m)


def _require_meeting(path: Path, landmarks: Sequence[str], asked: Asked, job: QueriesJob) -> None:
    from retrieval.data.labels import require_meeting

    if not job.allow_disjoint:
        require_meeting(landmarks, asked.landmarks, (str(path), asked.name))
