"""Descriptors gathered into clusters, and how far clusters and landmarks agree; memory does not grow with the store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.search.flat import FlatIndex
from index.search.kmeans import train_centroids
from retrieval.arrays import FloatArray, IntArray, LongArray, ObjArray, read_only
from retrieval.data.csv_cells import table_lines
from retrieval.data.facts_shares import Pieces
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress
from retrieval.store.blocks import StoreBlocks, open_blocks
from retrieval.store.stored import BLOCK_ROWS
from retrieval.texts import Texts
from retrieval.words import counted

TRAINING_ROWS = 256  # descriptors for each centroid that are trained on at most; FAISS's own limit
PERPLEXITY = 30.0  # neighbours that count for each point, roughly; the value of the paper
_ASSIGNED = np.dtype([("cluster", "<i4"), ("similarity", "<f4")])
_FEW = 5  # below that many points there are no neighbourhoods to keep
_SAME = 1e-6  # largest difference of coordinates from their mean at which all points are one


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """cluster: (n,) int32, of each row; 0 is the largest. similarity: (n,) float32, to its centroid."""

    n_clusters: int
    cluster: IntArray
    similarity: FloatArray

    def __post_init__(self) -> None:
        if self.cluster.shape != self.similarity.shape:
            raise ValueError(f"cluster {self.cluster.shape} and similarity {self.similarity.shape} must be equal")
        for name in ("cluster", "similarity"):
            object.__setattr__(self, name, read_only(getattr(self, name)))


def find_clusters(
    store: StoreBlocks,
    rows: LongArray,
    n_clusters: int,
    seed: int,
    progress: Progress = SILENT,
    pieces: Pieces | None = None,
) -> Clusters:
    """Spherical k-means on a bounded sample of these rows, then the nearest centroid of every one, in blocks.

    pieces: blocks that it has are not compared again. Raises LmrError when there are fewer rows than clusters.
    """
    if n_clusters > len(rows):
        raise LmrError(
            f"{counted(n_clusters, 'cluster')} of {counted(len(rows), 'descriptor')} in {store.source}; ask for fewer"
        )
    numbers = range(n_clustered_blocks(len(rows)))
    found = np.concatenate(list(assigned(store, rows, n_clusters, seed, numbers, progress, pieces)))
    cluster = found["cluster"].astype(np.int64)
    order = np.argsort(-np.bincount(cluster, minlength=n_clusters), kind="stable")
    place = np.empty(n_clusters, dtype=np.int32)
    place[order] = np.arange(n_clusters, dtype=np.int32)
    return Clusters(n_clusters, place[cluster], np.ascontiguousarray(found["similarity"]))


def n_clustered_blocks(n: int) -> int:
    """Blocks in which so many rows are given their clusters."""
    return -(-n // BLOCK_ROWS)


def assigned(
    store: StoreBlocks,
    rows: LongArray,
    n_clusters: int,
    seed: int,
    numbers: range,
    progress: Progress = SILENT,
    pieces: Pieces | None = None,
) -> Iterator[NDArray[np.void]]:
    """The nearest centroid of the rows of some blocks, and how near it is, as of `find_clusters`."""
    parts = [rows[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS] for number in numbers]
    index: FlatIndex | None = None
    progress.begin("clustering", sum(map(len, parts)), "descriptors")
    for number, part in zip(numbers, parts, strict=True):
        known = None if pieces is None else pieces.read(number)
        block = np.empty(len(part), _ASSIGNED) if known is None else np.frombuffer(known, _ASSIGNED)
        if known is None:
            index = index or FlatIndex.build(_centroids(store, rows, n_clusters, seed), device="cpu")
            nearest = index.search(store.vectors(part), 1)
            block["cluster"], block["similarity"] = nearest.rows[:, 0], nearest.scores[:, 0]
            if pieces is not None:
                pieces.write(number, block.tobytes())
        yield block
        progress.add(len(part))
    progress.end()


def _centroids(store: StoreBlocks, rows: LongArray, n_clusters: int, seed: int) -> FloatArray:
    sample, limit = rows, n_clusters * TRAINING_ROWS
    if len(rows) > limit:
        sample = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    return train_centroids(store.vectors(sample), n_clusters, seed)


@dataclass(frozen=True, slots=True)
class ClusterLandmark:
    """A landmark with its images in a cluster."""

    landmark_id: str
    pictures: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster by its number, 0 is the largest.

    purity: share of its labelled images that the biggest landmark has, None without any. landmarks: the five biggest.
    examples: ids of the images nearest to its centroid.
    """

    cluster: int
    pictures: int
    labelled: int
    purity: float | None
    landmarks: tuple[ClusterLandmark, ...]
    examples: tuple[str, ...]


def count_cluster(stored: "StoredImages", clusters: Clusters, number: int) -> Cluster:
    """Size, purity, biggest landmarks and most central images of a cluster."""
    inside = stored.landmark[clusters.cluster == number]
    labels, counts = np.unique(inside[inside >= 0], return_counts=True)
    top = np.argsort(-counts, kind="stable")[:5]
    return Cluster(
        cluster=number,
        pictures=len(inside),
        labelled=int(counts.sum()),
        purity=float(counts.max() / counts.sum()) if len(counts) else None,
        landmarks=tuple(ClusterLandmark(stored.names[labels[i]], int(counts[i])) for i in top),
        examples=tuple(stored.image_id[central(clusters, number, N_EXAMPLES)]),
    )


def purity(clusters: Clusters, landmark: LongArray) -> float | None:
    """Share of the labelled images that are of the biggest landmark of their cluster; None without labels."""
    labelled = landmark >= 0
    if not labelled.any():
        return None
    pairs = np.stack([clusters.cluster[labelled].astype(np.int64), landmark[labelled]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    biggest = np.zeros(clusters.n_clusters, dtype=np.int64)
    np.maximum.at(biggest, found[:, 0], counts)
    return float(biggest.sum() / labelled.sum())


def central(clusters: Clusters, number: int, n: int) -> LongArray:
    """Positions of the n images of a cluster that are nearest to its centroid."""
    inside = np.flatnonzero(clusters.cluster == number)
    return inside[np.argsort(-clusters.similarity[inside], kind="stable")][:n]


def map_descriptors(vectors: FloatArray, seed: int) -> FloatArray:
    """(n, 2) float32 in [-1, 1]: t-SNE from principal components (van der Maaten and Hinton, Visualizing data using
    t-SNE, JMLR 2008); the principal components themselves for fewer than five points.

    vectors: (n, d) float32 of unit length. Directions and distances far apart have no meaning.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n, d = vectors.shape
    centred = vectors - vectors.mean(axis=0)
    if n < _FEW or np.abs(centred).max() < _SAME:
        found = np.zeros((n, 2), dtype=np.float32)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        found[:, : min(2, n, d)] = (u * s)[:, :2]
    else:
        reduced = PCA(min(50, n, d), random_state=seed).fit_transform(vectors)
        perplexity = min(PERPLEXITY, (n - 1) / 3)
        found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(found / max(float(np.abs(found).max()), 1e-12), dtype=np.float32)


N_EXAMPLES = 4


@dataclass(frozen=True, slots=True, eq=False)
class StoredImages:
    """The images of the manifest that a store has descriptors of.

    row: (n,) int64 rows of the store. landmark: (n,) int64 into names, -1 = none; both by the manifest.
    """

    store: StoreBlocks
    row: LongArray
    landmark: LongArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("row", "landmark"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def image_id(self) -> ObjArray:
        """(n,) ids of the images."""
        return self.store.image_id[self.row]

    @property
    def label(self) -> ObjArray:
        """(n,) str, '' = none."""
        return np.array((*self.names, ""), dtype=object)[self.landmark]


def open_stored(path: Path, image_id: Texts, landmark: LongArray, names: tuple[str, ...]) -> StoredImages:
    """Opens a store and finds the images of the manifest in it. LmrError when it describes none of them."""
    store = open_blocks(path)
    place = {name: row for row, name in enumerate(image_id)}
    of_row = np.array([place.get(name, -1) for name in store.image_id[store.done].tolist()], dtype=np.int64)
    if not (of_row >= 0).any():
        raise LmrError(f"{path} describes none of the pictures of the manifest; give the store that was made from it")
    return StoredImages(store, store.done[of_row >= 0], landmark[of_row[of_row >= 0]], names)


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """A descriptor store, the images of the manifest that it describes, and of how many."""

    source: str
    pictures: int
    of: int


@dataclass(frozen=True, slots=True)
class DescriptorMap:
    """Places of descriptors in the plane.

    pictures, of: images on the map, of so many in the store. seed: that drew them. image_id, landmark_id, x, y:
    (pictures,) of each; landmark_id None = none, x and y in [-1, 1].
    """

    pictures: int
    of: int
    seed: int
    image_id: tuple[str, ...]
    landmark_id: tuple[str | None, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]


def draw_map(stored: StoredImages, n_images: int, seed: int, progress: Progress) -> DescriptorMap:
    """Places in the plane of the descriptors of at most n_images, drawn by the seed."""
    at = np.arange(len(stored.row))
    if len(at) > n_images:
        at = np.sort(np.random.default_rng(seed).choice(at, n_images, replace=False))
    progress.begin("mapping", len(at), "descriptors")
    points = map_descriptors(stored.store.vectors(stored.row[at]), seed)
    progress.add(len(at))
    progress.end()
    return DescriptorMap(
        pictures=len(at),
        of=len(stored.row),
        seed=seed,
        image_id=tuple(stored.image_id[at]),
        landmark_id=tuple(label or None for label in stored.label[at]),
        x=tuple(points[:, 0].astype(float).round(4).tolist()),
        y=tuple(points[:, 1].astype(float).round(4).tolist()),
    )


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """Clusters, the largest first, found with this seed, and their purity as that of `purity`."""

    seed: int
    purity: float | None
    clusters: tuple[Cluster, ...]


def count_clusters(stored: StoredImages, clusters: Clusters, seed: int) -> ClusterCounts:
    """All clusters with their landmarks and the images nearest to their centroids."""
    counted = tuple(count_cluster(stored, clusters, number) for number in range(clusters.n_clusters))
    return ClusterCounts(seed, purity(clusters, stored.landmark), counted)


def cluster_lines(stored: StoredImages, clusters: Clusters) -> Iterator[str]:
    """CSV lines of the images of the store, in its order."""
    columns = {
        "image_id": stored.image_id,
        "landmark_id": stored.label,
        "cluster": clusters.cluster,
        "similarity": clusters.similarity,
    }
    return table_lines(columns, "%.4f")
