"""Several systems on the same labelled queries, whatever they answer by, measured by the same code."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from index.calibrate.precision import precision_threshold
from index.calibration import Curves
from index.confidence import fit_confidence
from index.evaluate.baselines import Accuracy, measure_votes
from index.metrics import Truths, gap_interval, landmark_accuracies, truths_of
from index.queries import Queries
from index.thresholds import HeldOut, curves
from index.vote import Votes, best
from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.errors import LmrError

N_FOLDS = 5  # of the held-out queries, where they both fit and judge
N_CONFUSED = 40  # landmarks that a confusion matrix has room for


@dataclass(frozen=True, slots=True)
class Asked:
    """Labelled queries in the codes of the landmarks that the systems know; others have further codes."""

    queries: Queries
    landmarks: tuple[str, ...]
    truths: Truths

    def __len__(self) -> int:
        return len(self.queries)

    def select(self, rows: LongArray) -> "Asked":
        """These queries alone."""
        return ask(self.queries.select(rows), self.landmarks)


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers of a system to the queries.

    votes: flat, best first, as many as the system gives; key: (q,) float64 what the best ones are ranked by, -inf
    where there is none. threshold: (q,) the key from which on 95 % of the answers are right, found on other queries.
    """

    votes: Votes
    key: FloatArray
    threshold: FloatArray

    def __post_init__(self) -> None:
        if self.key.shape != self.threshold.shape or np.isnan(self.key).any():
            raise ValueError(f"key {self.key.shape} and threshold {self.threshold.shape} must be equal, without NaN")
        for name in ("key", "threshold"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class Confusion:
    """Queries of one landmark (line) answered with another (column), counted; the last column is all others."""

    landmarks: tuple[str, ...]
    counts: LongArray


@dataclass(frozen=True, slots=True)
class LandmarkAccuracies:
    """Number of queries of each landmark, and the share of them that were answered rightly, in one order."""

    landmarks: tuple[str, ...]
    n_queries: LongArray
    accuracy: FloatArray


@dataclass(frozen=True, slots=True)
class Measured:
    """The measures of one system. turned_away: share of non-landmarks below the threshold, NaN without any.

    precision, recall: of the answers at the threshold, NaN without answers. gap_interval: 95 %, over queries.
    """

    accuracy: Accuracy
    gap_interval: tuple[float, float]
    by_landmark: LandmarkAccuracies
    turned_away: float
    precision: float
    recall: float
    n_queries: int
    n_landmark_queries: int
    curves: Curves | None
    confusion: Confusion

    def to_json(self) -> dict[str, Any]:
        """The figures, None where one does not exist."""
        content = {
            **asdict(self.accuracy),
            "gap_interval": list(self.gap_interval),
            "mean_landmark_accuracy": float(self.by_landmark.accuracy.mean()),
            "turned_away": self.turned_away,
            "precision_at_threshold": self.precision,
            "recall_at_threshold": self.recall,
            "n_queries": self.n_queries,
            "n_landmark_queries": self.n_landmark_queries,
        }
        return {name: None if value != value else value for name, value in content.items()}


def ask(queries: Queries, landmarks: Sequence[str]) -> Asked:
    """Queries in the codes of these landmarks; one that is not among them gets a code of its own."""
    truths, known = truths_of(queries.landmarks, landmarks)
    return Asked(queries, known, truths)


def find_threshold(votes: Votes, key: FloatArray, asked: Asked, precision: float) -> float:
    """The key from which on answers reach a precision, as `precision_threshold` finds it.

    key: anything that grows with certainty; a confidence is fitted to it first.
    """
    held = _held(votes, key, asked)
    model = fit_confidence(held.logit, held.correct)
    threshold = precision_threshold(replace(held, logit=model.logit(held.logit)), precision).logit
    answered = model.logit(held.logit) >= threshold
    return float(held.logit[answered].min()) if answered.any() else (threshold - model.e) / model.a


def folds(asked: Asked, seed: int) -> list[tuple[LongArray, LongArray]]:
    """Rows to fit on and rows to judge, of each fold; landmarks and non-landmarks are spread evenly.

    LmrError where a fold would have nothing to fit on.
    """
    known = asked.truths.known
    if known.sum() < 2:
        raise LmrError(f"val has {int(known.sum())} landmark queries; comparing needs 2 or more of them")
    by_name = np.argsort(asked.queries.image_id, kind="stable")
    shuffled = by_name[np.random.default_rng(seed).permutation(len(known))]
    fold = np.empty(len(known), dtype=np.int64)
    n_folds = min(N_FOLDS, int(known.sum()))
    fold[shuffled[np.argsort(~known[shuffled], kind="stable")]] = np.arange(len(known)) % n_folds
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(n_folds)]


def join(parts: Sequence[tuple[LongArray, Answered]], n_queries: int) -> Answered:
    """The answers to some of the queries each, as answers to all of them. parts: rows, and the answers to them."""
    key, threshold = np.full(n_queries, -np.inf), np.full(n_queries, np.inf)
    query, landmark, score = [], [], []
    for rows, answered in parts:
        key[rows], threshold[rows] = answered.key, answered.threshold
        query.append(rows[answered.votes.query])
        landmark.append(answered.votes.landmark)
        score.append(answered.votes.score)
    order = np.argsort(np.concatenate(query), kind="stable")
    votes = Votes(np.concatenate(query)[order], np.concatenate(landmark)[order], np.concatenate(score)[order])
    return Answered(votes, key, threshold)


def votes_of(landmark: LongArray, score: FloatArray) -> Votes:
    """Votes from a table of each query's landmarks, best first. landmark: (q, k), -1 = none; score: (q, k)."""
    query, place = np.nonzero(landmark >= 0)
    return Votes(query, landmark[query, place].astype(np.int32), score[query, place].astype(np.float64))


def vote_of_members(members: Sequence[tuple[Votes, FloatArray]], n_queries: int) -> tuple[Votes, FloatArray]:
    """The majority of the members' answers, and its key: members that agree, then the mean of their keys.

    members: the votes of each and their keys, (q,), any that rank answers. Landmarks without a first place come after,
    by the mean of their places' reciprocals, so that there are five and ten best ones too.
    """
    rows: dict[str, list[Any]] = {"query": [], "landmark": [], "place": [], "key": []}
    for votes, key in members:
        rows["query"].append(votes.query)
        rows["landmark"].append(votes.landmark)
        rows["place"].append(np.arange(len(votes)) - np.searchsorted(votes.query, votes.query))
        rows["key"].append(key[votes.query])
    query, landmark, place, keys = (np.concatenate(rows[name]) for name in rows)
    width = int(landmark.max(initial=0)) + 1
    pairs, group = np.unique(query * width + landmark, return_inverse=True)
    is_first = place == 0
    n_agree = np.bincount(group, weights=is_first, minlength=len(pairs))
    mean = np.bincount(group, weights=np.where(is_first, keys, 0), minlength=len(pairs)) / np.maximum(n_agree, 1)
    later = np.bincount(group, weights=1 / (1 + place), minlength=len(pairs)) / (2 * len(members))
    # The mean as a number below 1 that rises with it, and does so for large ones too.
    total = np.where(n_agree > 0, n_agree + 0.5 + np.arctan(mean) / np.pi, later)
    order = np.lexsort((-total, pairs // width))
    votes = Votes((pairs // width)[order], (pairs % width).astype(np.int32)[order], total[order])
    return votes, best(votes, n_queries)[1]


def measure(answered: Answered, asked: Asked, seed: int = 0) -> Measured:
    """The measures of a system's answers. LmrError without a landmark query; seed: of the bootstrap."""
    truths, known = asked.truths, asked.truths.known
    landmark, _ = best(answered.votes, len(asked))
    correct = truths.holds(np.arange(len(asked)), landmark)
    kept = (landmark >= 0) & (answered.key >= answered.threshold)
    others = ~known
    shown, n_shown, accuracy = landmark_accuracies(truths.first, correct)
    return Measured(
        accuracy=measure_votes(answered.votes, answered.key, truths, asked.queries.image_id),
        gap_interval=gap_interval(answered.key, correct, known, asked.queries.image_id, seed),
        by_landmark=LandmarkAccuracies(tuple(asked.landmarks[code] for code in shown), n_shown, accuracy),
        turned_away=float((~kept[others]).mean()) if others.any() else float("nan"),
        precision=float(correct[kept].mean()) if kept.any() else float("nan"),
        recall=float((correct & kept).sum() / known.sum()),
        n_queries=len(asked),
        n_landmark_queries=int(known.sum()),
        curves=curves(_held(answered.votes, answered.key, asked)) if (landmark >= 0).any() else None,
        confusion=_confusion(landmark, asked),
    )


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) over seeds; None where a value or the spread does not exist."""
    real = [value for value in values if value is not None]
    if len(real) != len(values) or not real:
        return None, None
    return float(np.mean(real)), float(np.std(real, ddof=1)) if len(real) > 1 else None


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Classes of each query by a classifier. landmark: (q, k), best first, -1 = none. probability, doubt: (q, k).

    doubt: 1 - probability, which may have digits that this difference has lost.
    """

    landmark: LongArray
    probability: FloatArray
    doubt: FloatArray

    def select(self, rows: LongArray) -> "Probabilities":
        """Those of some queries."""
        return Probabilities(self.landmark[rows], self.probability[rows], self.doubt[rows])

    @property
    def key(self) -> FloatArray:
        """(q,) log-odds of the best landmark, which do not saturate; -inf where there is none."""
        odds: FloatArray = np.where(
            self.landmark[:, 0] >= 0, log_odds(self.probability[:, 0], self.doubt[:, 0]), -np.inf
        )
        return odds


def mean_probabilities(tables: Sequence[Probabilities], n_landmarks: int) -> Probabilities:
    """The mean over members of their probabilities, best first.

    A landmark that is not among a member's best has probability 0 there.
    """
    n, width = len(tables[0].landmark), min(n_landmarks, max(table.landmark.shape[1] for table in tables))
    key = np.concatenate([table.landmark.ravel() for table in tables])
    query = np.concatenate([np.repeat(np.arange(n), table.landmark.shape[1]) for table in tables])
    real = key >= 0
    pairs, group = np.unique(query[real] * n_landmarks + key[real], return_inverse=True)

    def sums(values: Sequence[FloatArray]) -> FloatArray:
        given = np.concatenate([value.ravel() for value in values])[real]
        return np.bincount(group, weights=given, minlength=len(pairs)).astype(np.float64)

    n_silent = len(tables) - np.bincount(group, minlength=len(pairs))
    mean = sums([table.probability for table in tables]) / len(tables)
    doubt = (sums([table.doubt for table in tables]) + n_silent) / len(tables)
    order = np.lexsort((-mean, pairs // n_landmarks))
    row, landmark, mean, doubt = (
        (pairs // n_landmarks)[order],
        (pairs % n_landmarks)[order],
        mean[order],
        doubt[order],
    )
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < width
    joined = Probabilities(np.full((n, width), -1, dtype=np.int64), np.zeros((n, width)), np.ones((n, width)))
    for whole, values in ((joined.landmark, landmark), (joined.probability, mean), (joined.doubt, doubt)):
        whole[row[kept], place[kept]] = values[kept]
    return joined


def log_odds(probability: FloatArray, doubt: FloatArray) -> FloatArray:
    """The key of a probability, float64 and finite: 0 counts as the nearest number above it. doubt: 1 - probability."""
    odds: FloatArray = np.log(np.maximum(probability, 2.0**-1074)) - np.log(np.maximum(doubt, 2.0**-1074))
    return odds


def _held(votes: Votes, key: FloatArray, asked: Asked) -> HeldOut:
    landmark, _ = best(votes, len(asked))
    correct = asked.truths.holds(np.arange(len(asked)), landmark)
    logit = np.where(landmark >= 0, key, -np.inf)
    return HeldOut(logit, correct, asked.truths.known, asked.queries.image_id, asked.queries.kind)


def _confusion(landmark: Any, asked: Asked) -> Confusion:
    """Confusion of the landmarks with most wrong answers, at most N_CONFUSED, in the order of their names."""
    first = asked.truths.first
    known = first >= 0
    wrong = np.bincount(first[known], weights=landmark[known] != first[known], minlength=len(asked.landmarks))
    n_asked = np.bincount(first[known], minlength=len(asked.landmarks))
    shown = np.flatnonzero(n_asked)
    shown = shown[np.argsort(-wrong[shown], kind="stable")[:N_CONFUSED]]
    shown = shown[np.argsort([asked.landmarks[code] for code in shown], kind="stable")]
    place = np.full(len(asked.landmarks) + 1, len(shown))
    place[shown] = np.arange(len(shown))
    counts = np.zeros((len(shown), len(shown) + 1), dtype=np.int64)
    rows = np.flatnonzero(known & (place[first] < len(shown)))
    np.add.at(counts, (place[first[rows]], place[landmark[rows]]), 1)
    return Confusion(tuple(asked.landmarks[code] for code in shown), counts)
