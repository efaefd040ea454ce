"""Confidence that an answer is right: a logistic model of its score, and of what speaks for or against it."""

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import BoolArray, FloatArray

SMALLEST_SLOPE = 1e-3  # of S where the data give it none: predictions still rank by S
# Ridge on standardised features, as scikit-learn's C: nothing beside some hundred queries, and an end for the
# slope where right and wrong do not overlap.
INVERSE_PENALTY = 10.0
MAX_STEPS = 100
MAX_HALVINGS = 30
TOLERANCE = 1e-8  # largest change of a slope, of a standardised feature, in the last step


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """confidence = sigmoid(a * S - g * c + h * v + e).

    a: slope of the score, positive. g: of the background similarity, 0 where not fitted. h: of v, the evidence of the
    landmark's best verified neighbour (see `index.rerank.evidence`), 0 where neighbours are not verified.
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
        self, score: FloatArray, background: FloatArray | None = None, evidence: FloatArray | None = None
    ) -> FloatArray:
        """The key that predictions are ranked by, (n,) float64; -inf where the score is -inf (nothing found).

        score, background, evidence: (n,), S, c and v. Raises ValueError where g or h has nothing to multiply.
        """
        if (self.g and background is None) or (self.h and evidence is None):
            raise ValueError("the confidence model was fitted with a background or evidence that is not given")
        logit = self.a * np.asarray(score, dtype=np.float64) + self.e
        if background is not None:
            logit = logit - self.g * np.asarray(background, dtype=np.float64)
        if evidence is not None:
            logit = logit + self.h * np.asarray(evidence, dtype=np.float64)
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


def fit_confidence(score: FloatArray, correct: BoolArray, background: FloatArray | None = None) -> ConfidenceModel:
    """The model of all these queries, as `fit_confidences` fits many."""
    return fit_confidences(score, correct, background, weights=np.ones((1, len(score))))[0]


def fit_confidences(
    score: FloatArray,
    correct: BoolArray,
    background: FloatArray | None = None,
    evidence: FloatArray | None = None,
    *,
    weights: FloatArray,
) -> list[ConfidenceModel]:
    """Logistic regressions of whether answers are right, with a > 0, g >= 0 and h >= 0: one for each line of weights.

    score, correct, background, evidence: (n,), one entry per query; those with score -inf are left out. weights:
    (p, n), how often each model counts each query. A feature whose coefficient has the wrong sign is taken out and the
    rest fitted again, until none is left. Where S has no slope (constant, of the wrong sign, or all answers are right,
    or all wrong), a is SMALLEST_SLOPE; where all are right or all wrong, or there are none, the confidence is
    (right + 1) / (n + 2) at the mean score.
    """
    found = np.isfinite(score)
    columns = {"a": score}
    if background is not None:
        columns["g"] = -background
    if evidence is not None:
        columns["h"] = evidence
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


def fit_logistic(x: FloatArray, right: BoolArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes (p, f) >= 0 and intercepts (p,) of p models: P(right) = sigmoid(x @ slopes + intercept).

    x: (n, f) finite; right: (n,) bool; weights: (p, n) >= 0, how often each model counts each line. A slope that
    comes out negative is set to 0 and the rest fitted again, the most negative first. A feature that is constant for
    a model has slope 0 there. A model whose lines are all right or all wrong, or that has none, has slopes 0 and the
    intercept of (right + 1) / (n + 2).
    """
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum(axis=1)
    n_right = weights @ right.astype(np.float64)
    mixed = (n_right > 0) & (weights @ (~right).astype(np.float64) > 0)
    slopes = np.zeros((len(weights), x.shape[1]))
    intercept = np.log((n_right + 1) / (total - n_right + 1))
    if mixed.any():
        slopes[mixed], intercept[mixed] = _fit_mixed(np.asarray(x, np.float64), right, weights[mixed])
    return slopes, intercept


def _fit_mixed(x: FloatArray, right: BoolArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The models of which each has both right and wrong lines."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    x = (x - centre) / np.where(scale > 0, scale, 1.0)
    active = np.stack([np.ptp(x[line > 0], axis=0) > 0 for line in weights])
    total = weights.sum(axis=1, keepdims=True)
    # The variance that each model sees makes its ridge that of features standardised over its own lines.
    variance = np.maximum(weights @ x**2 / total - (weights @ x / total) ** 2, 0.0)
    while True:
        beta = _newton(x, right.astype(np.float64), weights, variance / INVERSE_PENALTY, active)
        slopes = np.where(active, beta[:, :-1], 0.0)
        negative = np.flatnonzero(slopes.min(axis=1, initial=0.0) < 0)
        if len(negative) == 0:
            break
        active[negative, slopes[negative].argmin(axis=1)] = False
    slopes = slopes / np.where(scale > 0, scale, 1.0)
    return slopes, beta[:, -1] - slopes @ centre


def _newton(x: FloatArray, right: FloatArray, weights: FloatArray, ridge: FloatArray, active: BoolArray) -> FloatArray:
    """Slopes and intercept, (p, f + 1), that minimise each model's loss; 0 for features that are not active."""
    x = np.column_stack([x, np.ones(len(x))])
    f = x.shape[1]
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), f * f)
    one = np.ones((len(weights), 1))
    ridge = np.column_stack([ridge, 0 * one])
    free = np.column_stack([active, one]).astype(np.bool_)
    beta = np.zeros((len(weights), f))
    loss = _loss(beta, x, right, weights, ridge)
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(beta @ x.T, -500, 500)))
        gradient = (weights * (probability - right)) @ x + ridge * beta
        curvature = ((weights * probability * (1 - probability)) @ products).reshape(-1, f, f)
        curvature[:, np.arange(f), np.arange(f)] += ridge + 1e-12
        curvature = np.where(free[:, :, None] & free[:, None, :], curvature, np.eye(f))
        step = np.linalg.solve(curvature, np.where(free, gradient, 0.0)[:, :, None])[:, :, 0]
        for _ in range(MAX_HALVINGS):
            stepped = beta - step
            stepped_loss = _loss(stepped, x, right, weights, ridge)
            worse = stepped_loss > loss + 1e-10 * np.abs(loss)
            if not worse.any():
                break
            step[worse] /= 2
        beta, loss = stepped, stepped_loss
        if np.abs(step).max() < TOLERANCE:
            break
    return beta


def _loss(beta: FloatArray, x: FloatArray, right: FloatArray, weights: FloatArray, ridge: FloatArray) -> FloatArray:
    """(p,) negative log likelihood and ridge of each model."""
    z = beta @ x.T
    likelihood = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - right * z
    loss: FloatArray = (weights * likelihood).sum(axis=1) + (ridge * beta**2).sum(axis=1) / 2
    return loss
