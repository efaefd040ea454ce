"""Descriptors in the plane, near ones near each other."""

import numpy as np

from retrieval.arrays import FloatArray

PERPLEXITY = 30.0  # neighbours that count for each point, roughly; the value of the paper
_FEW = 5  # below that many points there are no neighbourhoods to keep
_SAME = 1e-6  # largest difference of coordinates from their mean at which all points are one


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
