"""From descriptors to answers: the one path of query, submit and evaluate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index.calibration import Calibration
from index.confidence import sigmoid
from index.copies import SAME_IMAGE
from index.folder.folder import IndexFolder, tell_difference
from index.folder.verified import Verifying, cast_votes
from index.rerank.evidence import Evidence, rerank_verified
from index.search.base import Neighbours
from index.vote import Votes, background_similarity, best, best_evidence
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.store.store import Descriptors
from retrieval.store.stored import StoredVectors
from retrieval.texts import Texts, to_texts
from retrieval.words import counted

N = TypeVar("N", bound=np.generic)

# How much c(q) counts against S(q, c), in units of the score, where no calibration has fitted it.
UNCALIBRATED_BACKGROUND_WEIGHT = 0.75
BLOCK_QUERIES = 8192  # of a store, answered at once
BLOCK_VERIFIED = 256  # the same where neighbours are verified, which takes up to a minute


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of an index to its queries.

    neighbours: (q, k). background: (q,) c(q), None where the index has no background. votes: flat, v of them;
    vote_logit: (v,) float64, their ranking key. landmark: (q,) int32 the best vote's, -1 where nothing was found.
    score: (q,) S of the best vote; logit: (q,) its ranking key, both float64 and -inf where nothing was found.
    same_picture: (q,) int64, the index row that is the query itself or a copy of it, -1 = none.
    evidence: of the neighbours, None where they were not to be verified.
    The ranking key is the logit of the confidence, or S(q, c) - 0.75 * c(q) where the index is not calibrated.
    """

    neighbours: Neighbours
    background: FloatArray | None
    votes: Votes
    vote_logit: FloatArray
    landmark: IntArray
    score: FloatArray
    logit: FloatArray
    landmarks: tuple[str, ...]
    calibration: Calibration | None
    same_picture: LongArray
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        q, v = self.neighbours.n_queries, len(self.votes)
        lengths = {"background": q, "vote_logit": v, "landmark": q, "score": q, "logit": q, "same_picture": q}
        for name, length in lengths.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (length,):
                raise ValueError(f"{name} must be ({length},), got {array.shape}")
            object.__setattr__(self, name, read_only(array))
        if self.evidence is not None and self.evidence.inliers.shape != self.neighbours.rows.shape:
            raise ValueError(
                f"evidence is of {self.evidence.inliers.shape}, neighbours of {self.neighbours.rows.shape}"
            )

    def __len__(self) -> int:
        return self.neighbours.n_queries

    @property
    def confidence(self) -> FloatArray | None:
        """(q,) float64 in [0, 1], 0 where nothing was found; None where the index is not calibrated."""
        return sigmoid(self.logit) if self.calibration else None


@dataclass(frozen=True, slots=True)
class Predictions:
    """One answer per query, in the order of the queries.

    image_id, landmark: (q,) columns, or arrays of strings to pack; landmark: landmark_ids, '' = none. logit: (q,)
    float64, the key that predictions are ranked by, -inf where nothing was found; confidence: (q,) float64 in [0, 1],
    for people, NaN where the index is not calibrated.
    """

    image_id: Texts
    landmark: Texts
    logit: FloatArray
    confidence: FloatArray

    def __post_init__(self) -> None:
        for name in ("image_id", "landmark"):
            object.__setattr__(self, name, to_texts(getattr(self, name)))
        for name in ("landmark", "logit", "confidence"):
            values = getattr(self, name)
            if values.shape != (len(self.image_id),):
                raise ValueError(f"{name} has shape {values.shape}, image_id {self.image_id.shape}")
        for name in ("logit", "confidence"):
            object.__setattr__(self, name, read_only(getattr(self, name)))
        if self.logit.dtype != np.float64 or self.confidence.dtype != np.float64:
            raise ValueError(f"logit and confidence must be float64, not {self.logit.dtype}, {self.confidence.dtype}")
        if np.isnan(self.logit).any():
            raise ValueError(f"logit[{int(np.flatnonzero(np.isnan(self.logit))[0])}] is NaN")
        if np.any((self.confidence < 0) | (self.confidence > 1)):
            raise ValueError("confidence must lie in [0, 1]")

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def answered(self) -> BoolArray:
        """(q,) bool: the query was given a landmark."""
        return np.asarray(self.landmark.n_bytes > 0)


def answer(
    folder: IndexFolder, descriptors: FloatArray, *, n_neighbours: int = 0, verifying: Verifying | None = None
) -> Answers:
    """Neighbours, votes and confidences of queries.

    descriptors: (q, d) as the folder's model makes them. n_neighbours: how many neighbours to return where more
    than those that vote are wanted. Raises ValueError for another d, NaN or infinity.
    """
    vectors = to_index_space(folder, descriptors)
    n_verified = 0 if verifying is None else verifying.verification.by.top
    nearest = None if folder.refinement.is_off else folder.nearest(vectors, 1)
    neighbours, vectors = folder.search(vectors, max(folder.rule.k, n_neighbours, n_verified))
    background = None
    if folder.background is not None:
        background = background_similarity(vectors, folder.background.vectors, folder.rule.m)
    if verifying is None:
        return judge(folder, neighbours, cast_votes(folder, neighbours), background, nearest)
    evidence = verifying.verify(folder, neighbours, background)
    rule, nearest = verifying.verification.rule, neighbours if nearest is None else nearest
    if rule is None:
        return judge(folder, neighbours, cast_votes(folder, neighbours), background, nearest, evidence)
    ordered, worths, order = rerank_verified(neighbours, evidence.worth(rule), rule.weight)
    votes = cast_votes(folder, ordered, None, worths, rule.weight)
    return judge(folder, ordered, votes, background, nearest, evidence.ordered(order))


def answer_store(folder: IndexFolder, store: Descriptors, *, n_neighbours: int = 0) -> Answers:
    """The answers to every row of a store; rows without a descriptor have no neighbours, votes or landmark.

    Raises LmrError when the store was made by another model, or a descriptor is not finite.
    """
    return join_answers([answers for _, answers in answer_blocks(folder, store, n_neighbours=n_neighbours)])


def answer_blocks(
    folder: IndexFolder,
    store: Descriptors,
    first: int = 0,
    *,
    n_neighbours: int = 0,
    verifying: Verifying | None = None,
) -> Iterator[tuple[slice, Answers]]:
    """As `answer_store`, of the rows from the first on, at most `block_size` at a time; of none in one block."""
    check_store(folder, store)
    size = block_size(verifying)
    for start in range(first, max(1, len(store)), size):
        part = slice(start, min(start + size, len(store)))
        rows = np.arange(part.start, part.stop)
        yield part, answer_rows(folder, store, rows, n_neighbours=n_neighbours, verifying=verifying)


def answer_rows(
    folder: IndexFolder,
    store: Descriptors,
    rows: LongArray,
    *,
    n_neighbours: int = 0,
    verifying: Verifying | None = None,
) -> Answers:
    """As `answer_store`, of these rows at once, of a store that `check_store` has passed.

    verifying: by the rows of the store.
    """
    done = np.flatnonzero(store.done[rows])
    these = None if verifying is None else verifying.of(rows[done])
    answers = answer(folder, store.vectors[rows[done]], n_neighbours=n_neighbours, verifying=these)
    return _spread(answers, done, len(rows))


def block_size(verifying: Verifying | None) -> int:
    """Number of queries that are answered at once, and kept together: fewer where each takes long."""
    return BLOCK_QUERIES if verifying is None else BLOCK_VERIFIED


def check_store(folder: IndexFolder, store: Descriptors) -> None:
    """Raises LmrError when a store was not made by the folder's model, or a descriptor is not finite."""
    if store.info.fingerprint != folder.fingerprint:
        what = tell_difference(store.info, folder.model_path)
        raise LmrError(f"{store.source} does not fit {folder}: {what}; embed with the same model")
    if store.info.d != folder.n_columns:
        raise LmrError(
            f"{store.source} has descriptors of {counted(store.info.d, 'column')}, {folder} is of "
            f"{folder.n_columns}; "
            "embed with the model of the index"
        )
    if isinstance(store.vectors, StoredVectors):  # which are checked where they are read
        return
    bad = np.flatnonzero(store.done & ~np.isfinite(store.vectors).all(axis=1))
    if len(bad):
        raise LmrError(f"{store.source}: the descriptor of {store.image_id[bad[0]]} is not finite; embed it again")


def to_index_space(folder: IndexFolder, descriptors: FloatArray) -> FloatArray:
    """Descriptors as the index compares them: unit length, whitened where the index is; (q, d_index) float32."""
    vectors = np.asarray(descriptors, dtype=np.float32)
    norms = np.sqrt(np.einsum("qd,qd->q", vectors, vectors))
    vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    return folder.whitening.apply(vectors) if folder.whitening else vectors


def judge(
    folder: IndexFolder,
    neighbours: Neighbours,
    votes: Votes,
    background: FloatArray | None,
    nearest: Neighbours | None = None,
    evidence: Evidence | None = None,
) -> Answers:
    """The ranking key of every vote and the best vote of every query.

    background: (q,) c(q), None where the index has none. nearest: by the images' own descriptors, where neighbours
    were found or are ordered in another way. evidence: of the neighbours, where they were verified. The best vote is
    that of the best score, as it was for the calibration; no other one has a larger key, whatever its evidence.
    """
    landmark, score = best(votes, neighbours.n_queries)
    of_vote = None if background is None else background[votes.query]
    of_best = best_evidence(votes, neighbours.n_queries)
    logit = _ranking_key(folder.calibration, score, background, of_best)
    vote_logit = _ranking_key(folder.calibration, votes.score, of_vote, votes.evidence)
    if votes.evidence is not None:  # of a lower score, which the confidence was not fitted on
        vote_logit = np.minimum(vote_logit, logit[votes.query])
    return Answers(
        neighbours=neighbours,
        background=background,
        votes=votes,
        vote_logit=vote_logit,
        landmark=landmark,
        score=score,
        logit=np.where(landmark >= 0, logit, -np.inf),
        landmarks=folder.rows.landmarks,
        calibration=folder.calibration,
        same_picture=_same_image(neighbours if nearest is None else nearest),
        evidence=evidence,
    )


def named_at(answers: Answers, threshold_logit: float) -> IntArray:
    """(q,) int32: the best landmark of queries whose ranking key reaches the threshold, -1 of the others."""
    answered = (answers.landmark >= 0) & (answers.logit >= threshold_logit)
    return np.where(answered, answers.landmark, -1).astype(np.int32)


def confidence_or_nan(answers: Answers) -> FloatArray:
    """(q,) float64: the confidences, NaN where the index is not calibrated."""
    return np.full(len(answers), np.nan) if answers.confidence is None else answers.confidence


def _same_image(nearest: Neighbours) -> LongArray:
    if nearest.k == 0:
        return np.full(nearest.n_queries, -1, dtype=np.int64)
    return np.where(nearest.scores[:, 0] > SAME_IMAGE, nearest.rows[:, 0], -1)


def _ranking_key(
    calibration: Calibration | None, score: FloatArray, background: FloatArray | None, evidence: FloatArray | None
) -> FloatArray:
    """(n,) float64 of scores, the c(q) of their queries and their evidence; -inf stays -inf."""
    if calibration is not None:
        logit: FloatArray = calibration.confidence.logit(score, background, evidence)
        return logit
    return score if background is None else score - UNCALIBRATED_BACKGROUND_WEIGHT * background.astype(np.float64)


def _spread(answers: Answers, rows: LongArray, n_queries: int) -> Answers:
    """The same answers as rows of a larger set of queries, of which the others found nothing."""
    return Answers(
        neighbours=Neighbours(
            _placed(answers.neighbours.rows, rows, n_queries, -1),
            _placed(answers.neighbours.scores, rows, n_queries, -np.inf),
        ),
        background=None if answers.background is None else _placed(answers.background, rows, n_queries, np.nan),
        votes=replace(answers.votes, query=rows[answers.votes.query]),
        vote_logit=answers.vote_logit,
        landmark=_placed(answers.landmark, rows, n_queries, -1),
        score=_placed(answers.score, rows, n_queries, -np.inf),
        logit=_placed(answers.logit, rows, n_queries, -np.inf),
        landmarks=answers.landmarks,
        calibration=answers.calibration,
        same_picture=_placed(answers.same_picture, rows, n_queries, -1),
        evidence=None if answers.evidence is None else answers.evidence.placed(rows, n_queries),
    )


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The answers to queries one behind the other; at least one part."""
    begins = np.cumsum([0, *(len(part) for part in parts)])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("vote_logit", "landmark", "score", "logit", "same_picture")
    }
    background = [part.background for part in parts if part.background is not None]
    evidence = [part.evidence for part in parts if part.evidence is not None]
    of_votes = [part.votes.evidence for part in parts if part.votes.evidence is not None]
    return Answers(
        neighbours=Neighbours(
            np.concatenate([part.neighbours.rows for part in parts]),
            np.concatenate([part.neighbours.scores for part in parts]),
        ),
        background=np.concatenate(background) if background else None,
        votes=Votes(
            np.concatenate([part.votes.query + begin for part, begin in zip(parts, begins, strict=False)]),
            np.concatenate([part.votes.landmark for part in parts]),
            np.concatenate([part.votes.score for part in parts]),
            np.concatenate(of_votes) if of_votes else None,
        ),
        landmarks=parts[0].landmarks,
        calibration=parts[0].calibration,
        evidence=Evidence.joined(evidence) if evidence else None,
        **columns,
    )


def _placed(values: NDArray[N], rows: LongArray, n: int, fill: float) -> NDArray[N]:
    placed = np.full((n, *values.shape[1:]), fill, dtype=values.dtype)
    placed[rows] = values
    return placed
