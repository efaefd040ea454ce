"""A small made-up world of landmarks for the tests of calibration: index rows, held-out queries, a background."""

import numpy as np

from index.calibrate.queries import CalibrationQueries
from index.metrics import make_truths
from index.search.flat import FlatIndex
from index.vote import background_similarity


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_queries(n=120, *, n_landmarks=8, share=0.4, with_background=True, k=20, seed=0):
    """Noisy views of landmarks and, at this share, of none; some wrong answers, some confident false ones."""
    rng = np.random.default_rng(seed)
    centre, common = rng.standard_normal((n_landmarks, 16)), rng.standard_normal(16)
    landmark = np.repeat(np.arange(n_landmarks, dtype=np.int32), 5)
    rows = unit(centre[landmark] + 1.1 * rng.standard_normal((len(landmark), 16)) + common)
    truth = np.where(rng.uniform(size=n) < share, -1, rng.integers(0, n_landmarks, n))
    shown = np.where(truth[:, None] >= 0, centre[truth], rng.standard_normal((n, 16)))
    vectors = unit(shown + 1.1 * rng.standard_normal((n, 16)) + common)
    background = unit(1.5 * rng.standard_normal((30, 16)) + common)
    return CalibrationQueries(
        neighbours=FlatIndex.build(rows, device="cpu").search(vectors, k),
        landmark=landmark,
        truths=make_truths([[code] for code in truth]),
        image_id=np.array([f"q{i:04d}" for i in range(n)], dtype=object),
        kind=np.where(truth >= 0, "landmark", "other").astype(object),
        background=background_similarity(vectors, background, 3) if with_background else None,
        row_background=background_similarity(rows, background, 3) if with_background else None,
    )
