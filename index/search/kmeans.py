"""Spherical k-means."""

from typing import Any

import numpy as np

from retrieval.arrays import FloatArray


def train_centroids(vectors: FloatArray, k: int, seed: int, n_iterations: int = 20, index: Any = None) -> FloatArray:
    """(k, d) float32 centroids of unit length: spherical k-means over all these rows.

    vectors: (n, d) of unit length, n >= k. The same seed gives the same centroids. index: an empty FAISS index of inner
    products that compares them, on a GPU say, and holds them in the end; None = one on the CPU.
    """
    from index.search.library import faiss

    n, d = vectors.shape
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": -(-n // k)}
    kmeans = faiss.Kmeans(d, k, niter=n_iterations, seed=seed, spherical=True, **limits)
    if index is not None:
        kmeans.index = index
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32)
