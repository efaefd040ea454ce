"""Confidence that an answer is right: a logistic model of its score, and of what speaks for or against it."""

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import BoolArray, FloatArray

# Ridge on standardised features, as scikit-learn's C: nothing beside some hundred queries, and an end for the
# slope where right and wrong answers do not overlap.
INVERSE_PENALTY = 10.0
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
    found = np.isfinite(score)
    columns = {"a": score, "g": None if background is None else -background}
    columns["h"] = None if inliers is None else np.log1p(inliers)
    features: dict[str, FloatArray]
    features = {name: np.asarray(x, np.float64)[found] for name, x in columns.items() if x is not None}
    right = np.asarray(correct, dtype=np.bool_)[found]
    weight = np.ones(len(right)) if weights is None else np.asarray(weights, dtype=np.float64)[found]
    slopes, e = _fit(features, right, weight)
    a = slopes.get("a", 0.0)
    if a < SMALLEST_SLOPE:
        centre = float(np.average(features["a"], weights=weight)) if weight.sum() > 0 else 0.0
        a, e = SMALLEST_SLOPE, e + (a - SMALLEST_SLOPE) * centre
    return ConfidenceModel(a, slopes.get("g", 0.0), slopes.get("h", 0.0), e)


def _fit(features: dict[str, FloatArray], right: BoolArray, weight: FloatArray) -> tuple[dict[str, float], float]:
    """Slopes that are not negative, by name, and the intercept."""
    used = weight > 0
    n_right = float(weight[right].sum())
    total = float(weight.sum())
    if len(np.unique(right[used])) < 2:
        return {}, float(np.log((n_right + 1) / (total - n_right + 1)))
    features = {name: x for name, x in features.items() if np.ptp(x[used]) > 0}
    while features:
        coefficients, intercept = _regress(np.column_stack(list(features.values())), right, weight)
        slopes = dict(zip(features, coefficients, strict=True))
        worst = min(slopes, key=lambda name: slopes[name])
        if slopes[worst] >= 0:
            return slopes, intercept
        features.pop(worst)
    return {}, float(np.log(n_right / (total - n_right)))


def _regress(x: FloatArray, right: BoolArray, weight: FloatArray) -> tuple[list[float], float]:
    """Coefficients in the units of x (n, f), and the intercept."""
    # A second to import, and answering does not need it.
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    model = LogisticRegression(C=INVERSE_PENALTY, solver="newton-cholesky")
    with config_context(assume_finite=True, skip_parameter_validation=True):  # a third of the time
        model.fit((x - mean) / deviation, right, sample_weight=weight)
    coefficients = model.coef_[0] / deviation
    return [float(c) for c in coefficients], float(model.intercept_[0] - coefficients @ mean)
