"""Logistic regression with slopes that are not negative, many small ones at once.

Calibration fits some thousand models of two or three features to the same queries, each with some folds left out.
One after another through scikit-learn that takes minutes; here they share every step of Newton's method.
"""

import numpy as np

from retrieval.arrays import BoolArray, FloatArray

# Ridge on standardised features, as scikit-learn's C: nothing beside some hundred queries, and an end for the
# slope where right and wrong do not overlap.
INVERSE_PENALTY = 10.0
MAX_STEPS = 100
MAX_HALVINGS = 30
TOLERANCE = 1e-8  # largest change of a slope, of a standardised feature, in the last step


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
