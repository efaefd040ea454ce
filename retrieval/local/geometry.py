"""Geometry of matched keypoints: those of two images that agree on one homography or one fundamental matrix.

Keypoints with a diameter and a direction tell a similarity by a single match, so that all of them can be tried; others
need four matches or eight, drawn at random. What agrees by chance is told from the number of matches alone (a
contrario: Moisan, Stival: A probabilistic criterion to detect rigid point matches, IJCV 2004).

Needs OpenCV: the extra `local`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, read_only
from retrieval.local.features import LocalFeatures
from retrieval.local.rootsift import require_opencv

GeometryKind = Literal["homography", "fundamental", "none"]
MOST_SURPRISE = 300.0  # what float64 tells apart

# Chosen on pairs of val and train: docs/benchmarks.md, Geometric verification.
AGREE_PX = 12.0  # between a keypoint and where a model of frames puts it
NEAR_PX = 24.0  # the same, of the similarity that one match tells
SCALE_FACTOR = 2.0  # by which the scale of a match may differ from that of the model
TURN_RAD = np.pi / 6  # by which its direction may
N_TRIED = 100  # best matches whose similarity is tried
N_REFITS = 3
HOMOGRAPHY_PX = 4.0
EPIPOLAR_PX = 2.0
FUNDAMENTAL_MORE = 8.0  # surprise asked of a fundamental matrix, whose inliers say less each
CONFIDENCE = 0.999
MAX_ITERATIONS = 2000
MIN_INLIERS = {"frames": 4, "homography": 6, "fundamental": 9}  # at places of their own
MIN_WIDTH_PX = 3.0  # standard deviation of the inliers across the line that fits them best
MAX_SCALE = 16.0  # of a model, either way


@dataclass(frozen=True, slots=True)
class Match:
    """What two images have in common.

    points_query, points_row: (n, 2) float32, inliers, pixels of the two scaled images. model: (3, 3) float64 from query
    to row, None of kind "none". n_matches: pairs before geometry. spread, spread_row: share of each image's area that
    the inliers' convex hull covers. n_chance: inliers that matches at random would give. surprise: -log10 of the
    number of models with so many inliers among matches at random, of a fundamental matrix less FUNDAMENTAL_MORE; at
    least 0.
    """

    points_query: FloatArray
    points_row: FloatArray
    kind: GeometryKind
    model: FloatArray | None
    n_matches: int
    spread: float
    spread_row: float
    n_chance: float
    surprise: float

    def __post_init__(self) -> None:
        if self.points_query.shape != self.points_row.shape or self.points_query.shape[1:] != (2,):
            raise ValueError(f"points {self.points_query.shape} and {self.points_row.shape} must both be (n, 2)")
        for name in ("points_query", "points_row"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def n_inliers(self) -> int:
        """Number of matches that agree on the model."""
        return len(self.points_query)


@dataclass(frozen=True, slots=True)
class _Fit:
    """kept: (k,) positions of inliers among the matches. n_sample: matches that determine the model.

    probability: that a match at random agrees with it.
    """

    kind: GeometryKind
    model: FloatArray
    kept: LongArray
    n_sample: int
    probability: float


def no_match(n_matches: int = 0) -> Match:
    """The outcome where nothing agrees on a geometry."""
    none = np.zeros((0, 2), dtype=np.float32)
    return Match(none, none, "none", None, n_matches, 0.0, 0.0, 0.0, 0.0)


def verify(one: LocalFeatures, other: LocalFeatures, pairs: LongArray) -> Match:
    """The matches that agree on one geometry, and are more than chance would give.

    pairs: (m, 2) positions in both, best first. Of several kinds the one that is the greatest surprise.
    Inliers in one spot or on one line, and models that mirror or collapse the image, are no match.
    """
    cv2 = require_opencv()
    here, there = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
    if one.frames is not None and other.frames is not None:
        fits = [_fit_frames(here, there, one.frames[pairs[:, 0]], other.frames[pairs[:, 1]], other.size)]
    else:
        fits = [_fit_homography(cv2, here, there, other.size), _fit_fundamental(cv2, here, there, other.size)]
    told = [0.0 if fit is None else _told_by(fit, len(pairs)) for fit in fits]
    best = max(told)
    fit = fits[told.index(best)]
    if fit is None or best == 0 or not _is_sound(fit, here, there):
        return no_match(len(pairs))
    points, points_row = here[fit.kept], there[fit.kept]
    spread, spread_row = _covered(cv2, points, one.size), _covered(cv2, points_row, other.size)
    n_chance = fit.n_sample + fit.probability * (len(pairs) - fit.n_sample)
    return Match(points, points_row, fit.kind, fit.model, len(pairs), spread, spread_row, n_chance, best)


def surprise(n_inliers: int, n_matches: int, n_sample: int, probability: float) -> float:
    """-log10( C(m, s) P(at least n - s of m - s random matches agree) ): how far from chance n inliers are, at least 0.

    n_matches: m; n_sample: s, those that determine the model. probability: that a match at random agrees.
    """
    from scipy.special import betainc, gammaln

    more, rest = n_inliers - n_sample, n_matches - n_sample
    if more <= 0:
        return 0.0
    models = (gammaln(n_matches + 1) - gammaln(n_sample + 1) - gammaln(rest + 1)) / np.log(10)
    tail = max(float(betainc(more, rest - more + 1, probability)), 10.0**-MOST_SURPRISE)
    return float(np.clip(-models - np.log10(tail), 0.0, MOST_SURPRISE))


def _told_by(fit: _Fit, n_matches: int) -> float:
    """Its surprise beyond what is asked of its kind, 0 where it has too few inliers."""
    if len(fit.kept) < MIN_INLIERS["frames" if fit.n_sample == 1 else fit.kind]:
        return 0.0
    told = surprise(len(fit.kept), n_matches, fit.n_sample, fit.probability)
    return max(told - FUNDAMENTAL_MORE, 0.0) if fit.kind == "fundamental" else told


def _fit_frames(
    here: FloatArray, there: FloatArray, frames: FloatArray, frames_there: FloatArray, size: tuple[int, int]
) -> _Fit | None:
    """The similarity of one match that most others agree with, refitted as an affine map of these.

    A match agrees when its place, its scale and its direction do. Places are compared in the image that is smaller.
    """
    if len(here) < MIN_INLIERS["frames"]:
        return None
    growth = np.log(frames_there[:, 0] / frames[:, 0])
    turn = np.exp(1j * (frames_there[:, 1] - frames[:, 1])).astype(np.complex64)
    from_, to = (points.astype(np.float32).view(np.complex64)[:, 0] for points in (here, there))
    tried = slice(0, N_TRIED)
    linear = np.exp(growth[tried]) * turn[tried]
    off = to - linear[:, None] * from_ - (to[tried] - linear * from_[tried])[:, None]
    limit = NEAR_PX * np.minimum(1, np.exp(growth[tried]))
    alike = np.abs(growth - growth[tried, None]) < np.log(SCALE_FACTOR)
    alike &= (turn * turn[tried, None].conj()).real > np.cos(TURN_RAD)
    agree = alike & (off.real**2 + off.imag**2 < limit[:, None] ** 2)
    best = int(agree.sum(axis=1).argmax())
    fitted = _refit(here, there, alike[best], agree[best])
    if fitted is None:
        return None
    model, kept = fitted
    return _Fit("homography", model, _apart(here, there, kept), 1, _share(np.pi * AGREE_PX**2, size))


def _refit(
    here: FloatArray, there: FloatArray, alike: BoolArray, agree: BoolArray
) -> tuple[FloatArray, BoolArray] | None:
    """The affine map that fits matches best, and those that agree with it. alike: may; agree: to begin with."""
    found = None
    for _ in range(N_REFITS):
        if agree.sum() < MIN_INLIERS["frames"]:
            break
        model = _affine(here[agree], there[agree])
        off = ((here @ model[:2, :2].T + model[:2, 2] - there) ** 2).sum(axis=1)
        before, agree = agree, alike & (off < AGREE_PX**2 * min(1.0, abs(np.linalg.det(model[:2, :2]))))
        found = model, agree
        if (agree == before).all():
            break
    return found


def _fit_homography(cv2: Any, here: FloatArray, there: FloatArray, size: tuple[int, int]) -> _Fit | None:
    """By MAGSAC++ (Barath et al., CVPR 2020)."""
    if len(here) < MIN_INLIERS["homography"]:
        return None
    try:
        model, mask = cv2.findHomography(here, there, _magsac(cv2, HOMOGRAPHY_PX))
    except cv2.error:  # of points that lie on one another
        return None
    return _found("homography", model, mask, here, there, 4, _share(np.pi * HOMOGRAPHY_PX**2, size))


def _fit_fundamental(cv2: Any, here: FloatArray, there: FloatArray, size: tuple[int, int]) -> _Fit | None:
    """By MAGSAC++; a match agrees in a strip along its epipolar line."""
    if len(here) < MIN_INLIERS["fundamental"]:
        return None
    try:
        model, mask = cv2.findFundamentalMat(here, there, _magsac(cv2, EPIPOLAR_PX))
    except cv2.error:
        return None
    return _found("fundamental", model, mask, here, there, 7, _share(2 * EPIPOLAR_PX * np.hypot(*size), size))


def _found(
    kind: GeometryKind, model: Any, mask: Any, here: FloatArray, there: FloatArray, n_sample: int, probability: float
) -> _Fit | None:
    """What OpenCV answered: None for no model."""
    if model is None or mask is None or model.shape != (3, 3) or not np.isfinite(model).all():
        return None
    return _Fit(kind, model, _apart(here, there, mask.ravel().astype(np.bool_)), n_sample, probability)


def _magsac(cv2: Any, threshold_px: float) -> Any:
    """Settings of OpenCV's estimators, whose random numbers always start alike."""
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.sampler = cv2.SAMPLING_UNIFORM
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.threshold, params.confidence, params.maxIterations = threshold_px, CONFIDENCE, MAX_ITERATIONS
    params.isParallel, params.randomGeneratorState = False, 0
    return params


def _apart(here: FloatArray, there: FloatArray, kept: BoolArray) -> LongArray:
    """Positions of kept matches, one of each place: SIFT finds several keypoints where there are several directions."""
    at = np.flatnonzero(kept)
    for points in (here, there):
        _, first = np.unique(np.rint(points[at]), axis=0, return_index=True)
        at = at[np.sort(first)]
    return at


def _is_sound(fit: _Fit, here: FloatArray, there: FloatArray) -> bool:
    """Whether inliers lie off one line, and the model keeps the image whole and the right way round."""
    if min(_width(here[fit.kept]), _width(there[fit.kept])) < MIN_WIDTH_PX:
        return False
    points = here[fit.kept]
    model = fit.model if fit.kind == "homography" else _affine(points, there[fit.kept])
    return _keeps_whole(model, points)


def _affine(here: FloatArray, there: FloatArray) -> FloatArray:
    """The affine map (3, 3) with the least squared error."""
    places = np.column_stack([here, np.ones(len(here))]).astype(np.float64)
    return np.vstack([np.linalg.lstsq(places, there.astype(np.float64), rcond=None)[0].T, [0.0, 0.0, 1.0]])


def _width(points: FloatArray) -> float:
    """Standard deviation of points across the line that fits them best."""
    return float(np.sqrt(max(np.linalg.eigvalsh(np.cov(points.T.astype(np.float64)))[0], 0.0)))


def _keeps_whole(model: FloatArray, points: FloatArray) -> bool:
    """Whether a homography neither mirrors, folds nor collapses an image where these points are."""
    depth = model[2, :2] @ points.T + model[2, 2]
    if depth.min() * depth.max() <= 0:
        return False
    area = np.linalg.det(model) / depth**3
    return bool(area.min() > MAX_SCALE**-2 and area.max() < MAX_SCALE**2)


def _share(area: float, size: tuple[int, int]) -> float:
    """Of an image's area, at most half."""
    return float(min(area / (size[0] * size[1]), 0.5))


def _covered(cv2: Any, points: FloatArray, size: tuple[int, int]) -> float:
    """Share of an image that the convex hull of points covers."""
    return float(cv2.contourArea(cv2.convexHull(points)) / (size[0] * size[1]))
