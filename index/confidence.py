"""Confidence that an answer is right: a logistic model of its score, and of what speaks for or against it."""

from dataclasses import dataclass

import numpy as np

from index.logistic import fit_logistic
from retrieval.arrays import BoolArray, FloatArray

SMALLEST_SLOPE = 1e-3  # of S where the data give it none: predictions still rank by S


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """confidence = sigmoid(a * S - g * c + h * log1p(inliers) + e).

    a: slope of the score, positive. g: of the background similarity, h: of verified matches, 0 where not fitted.
    """

    a: float
    g: float
    h: float
    e: float

    def __post_init__(self) -> None:
        if not all(np.isfinite(value) for value in (self.a, self.g, self.h, self.e)):
            raise ValueError(f"a, g, h and e must be finite, not {self.a}, {self.g}, {self.h}, {self.e}")
        if self.a <= 0 or self.g < 0 or self.h < 0:
            raise ValueError(f"a must be positive, g and h not negative, not {self.a}, {self.g}, {self.h}")

    def logit(
        self, score: FloatArray, background: FloatArray | None = None, inliers: FloatArray | None = None
    ) -> FloatArray:
        """The key that predictions are ranked by, (n,) float64; -inf where the score is -inf (nothing found).

        score, background, inliers: (n,), S, c and verified matches. Raises ValueError where g or h has nothing to
        multiply.
        """
        if (self.g and background is None) or (self.h and inliers is None):
            raise ValueError("the confidence model was fitted with a background or inliers that are not given")
        logit = self.a * np.asarray(score, dtype=np.float64) + self.e
        if background is not None:
            logit = logit - self.g * np.asarray(background, dtype=np.float64)
        if inliers is not None:
            logit = logit + self.h * np.log1p(np.asarray(inliers, dtype=np.float64))
        return logit


def sigmoid(logit: FloatArray) -> FloatArray:
    """The confidence of a logit, for people to read; rank by the logit, which does not saturate."""
    confidence: FloatArray = np.exp(-np.logaddexp(0.0, -np.asarray(logit, dtype=np.float64)))
    return confidence


def logit_of(confidence: float) -> float:
    """The logit of a confidence in [0, 1]; -inf and inf at its ends."""
    if confidence in (0.0, 1.0):
        return float("inf") if confidence else float("-inf")
    return float(np.log(confidence) - np.log1p(-confidence))


def fit_confidence(
    score: FloatArray,
    correct: BoolArray,
    background: FloatArray | None = None,
    inliers: FloatArray | None = None,
    weights: FloatArray | None = None,
) -> ConfidenceModel:
    """Logistic regression of whether answers are right, with a > 0 and g, h >= 0.

    score, correct, background, inliers, weights: (n,), one entry per query; those with score -inf are left out. A
    feature whose coefficient has the wrong sign is taken out and the rest fitted again, until none is left. Where S
    has no slope (constant, of the wrong sign, or all answers are right, or all wrong), a is SMALLEST_SLOPE; where
    all are right or all wrong, or there are none, the confidence is (right + 1) / (n + 2) at the mean score.
    """
    each = np.ones(len(score)) if weights is None else weights
    return fit_confidences(score, correct, background, inliers, weights=each[None])[0]


def fit_confidences(
    score: FloatArray,
    correct: BoolArray,
    background: FloatArray | None = None,
    inliers: FloatArray | None = None,
    *,
    weights: FloatArray,
) -> list[ConfidenceModel]:
    """One model for each line of weights (p, n) as `fit_confidence` would fit it; weight 0 leaves a query out."""
    found = np.isfinite(score)
    columns = {"a": score}
    if background is not None:
        columns["g"] = -background
    if inliers is not None:
        columns["h"] = np.log1p(inliers)
    features = np.column_stack([np.asarray(values, dtype=np.float64)[found] for values in columns.values()])
    weights = weights[:, found]
    slopes, intercepts = fit_logistic(features, correct[found], weights)
    centres = weights @ features[:, 0] / np.maximum(weights.sum(axis=1), np.finfo(np.float64).tiny)
    models = []
    for line, e, centre in zip(slopes.tolist(), intercepts.tolist(), centres.tolist(), strict=True):
        slope = dict(zip(columns, line, strict=True))
        a = max(slope["a"], SMALLEST_SLOPE)
        e += (slope["a"] - a) * centre
        models.append(ConfidenceModel(a, slope.get("g", 0.0), slope.get("h", 0.0), e))
    return models
