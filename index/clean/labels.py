"""Label errors: two leave-one-out estimates of an image's label from its neighbours, joined and judged by confidence.

The first is the soft maximum of `index.vote`, the second a kernel ridge regression on the image's neighbours. Each
becomes a distribution over landmarks by a temperature that fits the labels as given best; their log odds are
averaged. An image is confidently of another landmark by the rule of Northcutt, Jiang and Chuang (Confident Learning,
JAIR 2021, section 3.1): when that landmark is at least as probable as it is on average for images labelled with it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.clean.config import CleaningRule
from index.search.base import Neighbours
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, Matrix, read_only
from retrieval.data.image_source import ImageSource
from retrieval.errors import UnreadableError
from retrieval.files.atomic import write_error
from retrieval.progress import SILENT, Progress
from retrieval.texts import Texts

if TYPE_CHECKING:
    from retrieval.local.extractor import Extractor
    from retrieval.local.features import LocalFeatures
    from retrieval.local.store import LocalStore

# These and the odds of the rule were chosen on flipped labels: docs/benchmarks.md, Wrong labels.
TAU = 0.1  # width of the soft maximum, in units of the centred similarity
COUNT_POWER = 0.75  # how far a landmark with many images is held back
RIDGE = 0.1  # added to the kernel's diagonal, which is 1
NOISE = 0.1  # share of labels that the fit of a temperature may leave unexplained
TEMPERATURES = np.geomspace(0.02, 50.0, 60)  # factors of the estimates, smallest first
FITTED_ROWS = 100_000  # that temperatures are fitted on, evenly spaced
MAX_CANDIDATES = 10  # landmarks of a row that are kept: those with the best votes, and its own
SOLVED_AT_ONCE = 64
_REMEMBERED_IMAGES = 512  # whose local features, about 0.5 MB each, are kept in memory
Inliers = Callable[[int, int], int]  # of two rows


@dataclass(frozen=True, slots=True)
class Support:
    """Support of landmarks by neighbours, flat, by row then landmark; a row's own landmark is always among them.

    row: (c,) int64; landmark: (c,) int32; vote, ridge: (c,) float64.
    """

    row: LongArray
    landmark: IntArray
    vote: FloatArray
    ridge: FloatArray

    def __post_init__(self) -> None:
        for name in ("row", "landmark", "vote", "ridge"):
            array = getattr(self, name)
            if array.shape != self.row.shape or array.ndim != 1:
                raise ValueError(f"{name} must be {self.row.shape}, got {array.shape}")
            object.__setattr__(self, name, read_only(array))


@dataclass(frozen=True, slots=True)
class Consistency:
    """The judgement of each row's label.

    log_odds: (n,) float64, of the best other landmark against the label, -inf where there is no other. own: (n,) the
    label's probability. suggested: (n,) int32, the best other landmark, -1 = none. confident: (n,) bool, by confident
    learning. Rows that are the only image of their landmark are not judged: log_odds -inf, confident False.
    """

    log_odds: FloatArray
    own: FloatArray
    suggested: IntArray
    confident: BoolArray

    def __post_init__(self) -> None:
        for name in ("log_odds", "own", "suggested", "confident"):
            array = getattr(self, name)
            if array.shape != self.log_odds.shape or array.ndim != 1:
                raise ValueError(f"{name} must be {self.log_odds.shape}, got {array.shape}")
            object.__setattr__(self, name, read_only(array))


def support(neighbours: Neighbours, vectors: Matrix, landmark: IntArray, rows: LongArray) -> Support:
    """Support of landmarks by the neighbours of these rows.

    neighbours: (len(rows), k) of the rows, without themselves. vectors: (n, d) unit; landmark: (n,) int32, none -1.
    vote: log( sum over neighbours i of landmark c of exp(s(q, i) / tau) / n_c ** r ), n_c without the row itself. A
    label that none of the neighbours has counts as one neighbour as far away as the last.
    ridge: prediction of the indicator of c by kernel ridge regression on the neighbours, kernel exp(s - 1).
    """
    counts = np.bincount(landmark)
    weights = _ridge_weights(neighbours, vectors)
    real = neighbours.rows >= 0
    safe = np.where(real, neighbours.rows, 0)
    last = np.where(real, neighbours.scores, np.inf).min(axis=1, initial=1.0).astype(np.float64)
    own = landmark[rows]
    query = np.concatenate([np.repeat(np.arange(len(rows)), real.sum(axis=1)), np.arange(len(rows))])
    label = np.concatenate([landmark[safe[real]], own]).astype(np.int64)
    height = np.concatenate([np.exp(neighbours.scores[real].astype(np.float64) / TAU), np.zeros(len(rows))])
    weight = np.concatenate([weights[real], np.zeros(len(rows))])
    key = query * len(counts) + label
    order = np.argsort(key, kind="stable")
    start = np.flatnonzero(np.diff(key[order], prepend=-1))
    group = key[order][start]
    of_row, of_landmark = group // len(counts), (group % len(counts)).astype(np.int32)
    total = np.add.reduceat(height[order], start)
    total = np.where(total > 0, total, np.exp(last[of_row] / TAU))
    n_others = np.maximum(counts[of_landmark] - (of_landmark == own[of_row]), 1)
    vote = np.log(total) - COUNT_POWER * np.log(n_others)
    ridge = np.add.reduceat(weight[order], start)
    kept = _first_of_each(of_row, vote) | (of_landmark == own[of_row])
    return Support(rows[of_row[kept]], of_landmark[kept], vote[kept], ridge[kept])


def judge_labels(found: Support, landmark: IntArray) -> Consistency:
    """Joins both estimates and applies the rule of confident learning. landmark: (n,) int32, all labelled."""
    n = len(landmark)
    start = np.flatnonzero(np.diff(found.row, prepend=-1))
    if len(start) != n:
        raise ValueError(f"{len(start)} rows have support, {n} have a label")
    own = found.landmark == landmark[found.row]
    scale_vote, scale_ridge = (_temperature(x, found.row, own, start) for x in (found.vote, found.ridge))
    logits = (scale_vote * found.vote + scale_ridge * found.ridge) / 2
    log_probability = _log_softmax(logits, found.row, start)
    probability = np.exp(log_probability)
    counts = np.bincount(landmark)
    mean_own = np.bincount(landmark, weights=probability[own], minlength=len(counts)) / np.maximum(counts, 1)
    others = np.where(own, -np.inf, log_probability)
    best = np.maximum.reduceat(others, start)
    at_best = np.flatnonzero((others == best[found.row]) & np.isfinite(others))
    suggested = np.full(n, -1, dtype=np.int32)
    suggested[found.row[at_best[::-1]]] = found.landmark[at_best[::-1]]  # of equal ones the lowest
    judged = (counts[landmark] > 1) & (suggested >= 0)
    threshold = mean_own[suggested]
    confident = judged & (np.exp(best) >= threshold) & (best > log_probability[own])
    log_odds = np.where(judged, best - log_probability[own], -np.inf)
    return Consistency(log_odds, probability[own], suggested, confident)


def _first_of_each(row: LongArray, vote: FloatArray) -> BoolArray:
    """The landmarks with the best votes of each row, at most MAX_CANDIDATES. row: (c,) sorted."""
    order = np.lexsort((-vote, row))
    start = np.flatnonzero(np.diff(row[order], prepend=-1))
    place = np.arange(len(row)) - np.repeat(start, np.diff(start, append=len(row)))
    kept = np.zeros(len(row), dtype=np.bool_)
    kept[order[place < MAX_CANDIDATES]] = True
    return kept


def _ridge_weights(neighbours: Neighbours, vectors: Matrix) -> FloatArray:
    """(q, k): how much the ridge regression takes from the label of each neighbour; 0 for padding."""
    weights = np.empty(neighbours.rows.shape)
    for start in range(0, len(weights), SOLVED_AT_ONCE):
        part = slice(start, start + SOLVED_AT_ONCE)
        rows, real = neighbours.rows[part], neighbours.rows[part] >= 0
        near = vectors[np.where(real, rows, 0)]
        both = real[:, :, None] & real[:, None, :]
        kernel = np.where(both, np.exp(near @ near.transpose(0, 2, 1) - 1.0), 0.0).astype(np.float64)
        kernel += RIDGE * np.eye(rows.shape[1]) + np.eye(rows.shape[1]) * ~real[:, :, None]
        asked = np.where(real, np.exp(np.where(real, neighbours.scores[part], 0) - 1.0), 0.0)
        weights[part] = np.linalg.solve(kernel, asked[:, :, None].astype(np.float64))[:, :, 0]
    return weights


def _temperature(estimate: FloatArray, row: LongArray, own: BoolArray, start: LongArray) -> float:
    """The factor under which the labels as given are most probable, some of them being wrong."""
    step = max(1, len(start) // FITTED_ROWS)
    kept = row % step == 0
    estimate, own = estimate[kept], own[kept]
    _, row = np.unique(row[kept], return_inverse=True)
    start = np.flatnonzero(np.diff(row, prepend=-1))
    n_candidates = np.diff(start, append=len(row))
    likelihood = [
        np.log((1 - NOISE) * np.exp(_log_softmax(factor * estimate, row, start)[own]) + NOISE / n_candidates).mean()
        for factor in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmax(likelihood))])


def _log_softmax(logits: FloatArray, row: LongArray, start: LongArray) -> FloatArray:
    """Within each row."""
    shifted = logits - np.maximum.reduceat(logits, start)[row]
    result: FloatArray = shifted - np.log(np.add.reduceat(np.exp(shifted), start))[row]
    return result


def local_matcher(source: ImageSource, extractor: "Extractor", known: "LocalStore | None", image_id: Texts) -> Inliers:
    """Counts the inliers of two rows' images; an image that cannot be read matches nothing.

    known: the local features of images that need not be extracted again. image_id: of all rows.
    """
    from retrieval.local.verifier import Verifier

    verifier = Verifier()
    known_row = None if known is None else known.find(image_id)

    @lru_cache(maxsize=_REMEMBERED_IMAGES)
    def features(row: int) -> "LocalFeatures | None":
        if known is not None and known_row is not None and known_row[row] >= 0:
            return known.features(int(known_row[row]))
        try:
            return extractor.extract(extractor.decode(source.read(row)))
        except UnreadableError:
            return None

    def inliers(one: int, other: int) -> int:
        here, there = features(one), features(other)
        return 0 if here is None or there is None else verifier.verify(here, [there])[0].n_inliers

    return inliers


def count_verified(
    rows: LongArray,
    landmark: IntArray,
    vectors: Matrix,
    rule: CleaningRule,
    inliers: Inliers,
    *,
    saved: Path | None = None,
    progress: Progress = SILENT,
) -> LongArray:
    """(len(rows),) neighbours of its own landmark with rule.min_inliers inliers; counting stops at rule.min_verified.

    Asked are the rule.n_verified_neighbours most similar of `rows` with its landmark. landmark: (n,) and vectors:
    (n, d) of all rows. saved: a file of the counts so far, which a run that was stopped goes on from.
    Raises LmrError when that file cannot be written.
    """
    known = _read(saved)
    counts = np.array([known.get(row, 0) for row in rows.tolist()], dtype=np.int64)
    progress.begin("verifying", len(rows))
    for group in _groups(landmark[rows]):
        members = rows[group]
        near, pairs = vectors[members], dict[tuple[int, int], int]()
        for at, row, own in zip(group.tolist(), members.tolist(), near, strict=True):
            if row not in known:
                similarity = np.where(members == row, -np.inf, near @ own)
                order = np.lexsort((members, -similarity))[: min(rule.n_verified_neighbours, len(members) - 1)]
                counts[at] = _count(row, members[order].tolist(), rule, _remembering(inliers, pairs))
                _append(saved, row, int(counts[at]))
            progress.add(1)
    progress.end()
    return counts


def _count(row: int, others: list[int], rule: CleaningRule, inliers: Inliers) -> int:
    n_good = 0
    for other in others:
        n_good += inliers(row, other) >= rule.min_inliers
        if n_good == rule.min_verified:
            break
    return n_good


def _remembering(inliers: Inliers, pairs: dict[tuple[int, int], int]) -> Inliers:
    """Each pair is matched once, the lower row first."""

    def asked(one: int, other: int) -> int:
        key = (min(one, other), max(one, other))
        if key not in pairs:
            pairs[key] = inliers(*key)
        return pairs[key]

    return asked


def _groups(landmark: IntArray) -> list[LongArray]:
    """Positions of each landmark."""
    order = np.argsort(landmark, kind="stable")
    cuts = np.flatnonzero(np.diff(landmark[order])) + 1
    return [part for part in np.split(order, cuts) if len(part)]


def _read(saved: Path | None) -> dict[int, int]:
    """Counts by row; a last line that was not written to its end is cut off."""
    if saved is None or not saved.exists():
        return {}
    content = saved.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        try:
            os.truncate(saved, len(whole))
        except OSError as error:
            raise write_error(saved, error) from error
    return dict(map(json.loads, whole.splitlines()))


def _append(saved: Path | None, row: int, count: int) -> None:
    """At once: matching one image takes far longer, and a large landmark takes hours."""
    if saved is None:
        return
    try:
        with saved.open("ab") as file:
            file.write(f"{json.dumps([row, count])}\n".encode())
    except OSError as error:
        raise write_error(saved, error) from error
