"""Descriptors gathered into clusters, and how far clusters and landmarks agree; memory does not grow with the store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.search.flat import FlatIndex, train_centroids
from index.stats.duplicates import same_descriptor
from index.stats.measured import describe_groups
from retrieval.arrays import FloatArray, IntArray, LongArray, ObjArray, read_only
from retrieval.data.csv_cells import table_lines
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress
from retrieval.store.blocks import StoreBlocks, open_blocks
from retrieval.words import counted

TRAINING_ROWS = 256  # descriptors for each centroid that are trained on at most; FAISS's own limit
PERPLEXITY = 30.0  # neighbours that count for each point, roughly; the value of the paper
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
    store: StoreBlocks, rows: LongArray, n_clusters: int, seed: int, progress: Progress = SILENT
) -> Clusters:
    """Spherical k-means on a bounded sample of these rows, then the nearest centroid of every one, in blocks.

    Raises LmrError when there are fewer rows than clusters.
    """
    if n_clusters > len(rows):
        raise LmrError(
            f"{counted(n_clusters, 'cluster')} of {counted(len(rows), 'descriptor')} in {store.source}; ask for fewer"
        )
    sample, limit = rows, n_clusters * TRAINING_ROWS
    if len(rows) > limit:
        sample = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    index = FlatIndex.build(train_centroids(store.vectors(sample), n_clusters, seed), device="cpu")
    found = []
    progress.begin("clustering", len(rows), "descriptors")
    for part, vectors in store.blocks(rows):
        found.append(index.search(vectors, 1))
        progress.add(len(part))
    progress.end()
    cluster = np.concatenate([nearest.rows[:, 0] for nearest in found])
    order = np.argsort(-np.bincount(cluster, minlength=n_clusters), kind="stable")
    place = np.empty(n_clusters, dtype=np.int32)
    place[order] = np.arange(n_clusters, dtype=np.int32)
    return Clusters(n_clusters, place[cluster], np.concatenate([nearest.scores[:, 0] for nearest in found]))


def describe_cluster(clusters: Clusters, number: int, landmark: LongArray, names: tuple[str, ...]) -> dict[str, Any]:
    """Size, purity (share of its labelled images that the biggest landmark has) and biggest landmarks.

    landmark: (n,) numbers of names, -1 = none.
    """
    inside = landmark[clusters.cluster == number]
    labels, counts = np.unique(inside[inside >= 0], return_counts=True)
    top = np.argsort(-counts, kind="stable")[:5]
    return {
        "cluster": number,
        "pictures": len(inside),
        "labelled": int(counts.sum()),
        "purity": float(counts.max() / counts.sum()) if len(counts) else None,
        "landmarks": [{"landmark_id": names[labels[i]], "pictures": int(counts[i])} for i in top],
    }


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


def open_stored(path: Path, image_id: ObjArray, landmark: LongArray, names: tuple[str, ...]) -> StoredImages:
    """Opens a store and finds the images of the manifest in it. LmrError when it describes none of them."""
    store = open_blocks(path)
    place = {name: row for row, name in enumerate(image_id.tolist())}
    of_row = np.array([place.get(name, -1) for name in store.image_id[store.done].tolist()], dtype=np.int64)
    if not (of_row >= 0).any():
        raise LmrError(f"{path} describes none of the pictures of the manifest; give the store that was made from it")
    return StoredImages(store, store.done[of_row >= 0], landmark[of_row[of_row >= 0]], names)


def describe_alike(stored: StoredImages, near_similarity: float, seed: int, progress: Progress) -> dict[str, Any]:
    """Groups of images with near descriptors, as a JSON object."""
    rng = np.random.default_rng(seed)
    alike = same_descriptor(stored.store, stored.row, near_similarity, rng, progress)
    return {
        "near_similarity": near_similarity,
        "compared": alike.n_compared,
        **describe_groups(alike.groups, stored.image_id, stored.label),
    }


def describe_map(stored: StoredImages, n_images: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Places in the plane of the descriptors of at most n_images, drawn by the seed, as a JSON object."""
    at = np.arange(len(stored.row))
    if len(at) > n_images:
        at = np.sort(np.random.default_rng(seed).choice(at, n_images, replace=False))
    progress.begin("mapping", len(at), "descriptors")
    points = map_descriptors(stored.store.vectors(stored.row[at]), seed)
    progress.add(len(at))
    progress.end()
    return {
        "pictures": len(at),
        "of": len(stored.row),
        "seed": seed,
        "image_id": stored.image_id[at].tolist(),
        "landmark_id": [label or None for label in stored.label[at]],
        "x": points[:, 0].astype(float).round(4).tolist(),
        "y": points[:, 1].astype(float).round(4).tolist(),
    }


def describe_clusters(stored: StoredImages, clusters: Clusters, seed: int) -> dict[str, Any]:
    """All clusters with their landmarks and the images nearest to their centroids."""
    landmark, image_id = stored.landmark, stored.image_id
    return {
        "seed": seed,
        "purity": purity(clusters, landmark),
        "clusters": [
            {
                **describe_cluster(clusters, number, landmark, stored.names),
                "examples": image_id[central(clusters, number, N_EXAMPLES)].tolist(),
            }
            for number in range(clusters.n_clusters)
        ],
    }


def cluster_lines(stored: StoredImages, clusters: Clusters) -> Iterator[str]:
    """CSV lines of the images of the store, in its order."""
    columns = {
        "image_id": stored.image_id,
        "landmark_id": stored.label,
        "cluster": clusters.cluster,
        "similarity": clusters.similarity,
    }
    return table_lines(columns, "%.4f")
