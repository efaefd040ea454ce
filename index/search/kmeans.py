"""Spherical k-means, and the nearest of many centroids."""

import numpy as np

from retrieval.arrays import FloatArray, LongArray

BLOCK = 1 << 12  # vectors compared with all centroids at once


def train_centroids(vectors: FloatArray, k: int, seed: int, n_iterations: int = 20) -> FloatArray:
    """(k, d) float32 centroids of unit length: spherical k-means over all these rows.

    vectors: (n, d) of unit length, n >= k. The same seed gives the same centroids.
    """
    import faiss

    n, d = vectors.shape
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": -(-n // k)}
    kmeans = faiss.Kmeans(d, k, niter=n_iterations, seed=seed, spherical=True, **limits)
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def nearest_centroid(vectors: FloatArray, centroids: FloatArray) -> LongArray:
    """(n,) int64: the centroid with the largest inner product, the first of equal ones; vectors: (n, d)."""
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), BLOCK):
        part = slice(start, start + BLOCK)
        nearest[part] = np.argmax(vectors[part].astype(np.float32, copy=False) @ centroids.T, axis=1)
    return nearest
