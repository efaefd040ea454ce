"""Descriptors gathered into clusters, and how far clusters and landmarks agree; memory does not grow with the store."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from index.search.flat import FlatIndex, train_centroids
from retrieval.arrays import FloatArray, IntArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress
from retrieval.store.blocks import StoreBlocks
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
    """Size, purity (share of its labelled pictures that the biggest landmark has) and biggest landmarks.

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
    """Share of the labelled pictures that are of the biggest landmark of their cluster; None without labels."""
    labelled = landmark >= 0
    if not labelled.any():
        return None
    pairs = np.stack([clusters.cluster[labelled].astype(np.int64), landmark[labelled]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    biggest = np.zeros(clusters.n_clusters, dtype=np.int64)
    np.maximum.at(biggest, found[:, 0], counts)
    return float(biggest.sum() / labelled.sum())


def central(clusters: Clusters, number: int, n: int) -> LongArray:
    """Positions of the n pictures of a cluster that are nearest to its centroid."""
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
