"""Leave-one-out: every row of an index is asked against the others, for people with one labelled folder."""

import numpy as np

from index.evaluate.outcome import Questions
from index.folder.folder import IndexFolder
from index.metrics import LIST_LENGTH
from index.queries import Queries
from index.recognition import Answers, judge
from index.search.base import Neighbours
from index.vote import background_similarity, one_row_less, vote
from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import LmrError
from retrieval.shown import Labels
from retrieval.texts import Texts

N_COMPARED = 1_000  # rows that two indexes are compared on
SAME_CONFIDENCE = 0.01


def ask_left_out(folder: IndexFolder) -> Questions:
    """Every row, and every background image as a non-landmark, each one without itself.

    The row itself is no neighbour, its landmark counts one row less, and a background image is not compared with
    itself. Its share in the whitening stays: leaving that out too would mean an index per row.
    Raises LmrError for an index whose rows or answers borrow from each other: there the row would ask itself.
    """
    if not folder.refinement.is_off:
        raise LmrError(
            f"{folder} was built with `augment`, `expand` or `rerank`, by which pictures borrow from each other, "
            "so that none can be left out; evaluate queries, or an index without these"
        )
    return Questions(
        folder=folder,
        queries=_queries(folder, n_asked(folder)),
        ask=lambda chosen: _ask(folder, chosen),
        calibrated_on=lambda chosen: np.zeros(len(chosen), dtype=np.bool_),
        n_left_out=1,
    )


def _ask(folder: IndexFolder, chosen: LongArray) -> Answers:
    """Answers to some of the rows and the background, each without itself."""
    rows, rule = folder.rows, folder.rule
    vectors, similarity = asked_rows(folder, chosen)
    own_row = np.where(chosen < len(rows), chosen, -1)
    landmark = np.where(own_row >= 0, rows.landmark[own_row], -1).astype(np.int32)
    found = folder.nearest(vectors, max(rule.k, LIST_LENGTH) + 1)
    neighbours = without_own(found, own_row)
    votes = vote(neighbours, rows.landmark, rule, counts=rows.counts, row_background=rows.background)
    return judge(folder, neighbours, one_row_less(votes, landmark, rows.counts, rule), similarity)


def agreement(one: IndexFolder, other: IndexFolder) -> float:
    """Share of a sample of rows, each left out, that two indexes over the same rows answer alike.

    Alike means the same landmark, with confidences that differ by less than SAME_CONFIDENCE.
    """
    n = len(one.rows)
    own = np.sort(np.random.default_rng(0).permutation(n)[:N_COMPARED])
    seen = [_answers_without_own(folder, one.index.vectors(own), own) for folder in (one, other)]
    is_same = seen[0].landmark == seen[1].landmark
    is_near = np.abs(_confidence(seen[0]) - _confidence(seen[1])) < SAME_CONFIDENCE
    return float(np.mean(is_same & is_near))


def _answers_without_own(folder: IndexFolder, vectors: FloatArray, own: LongArray) -> Answers:
    found, vectors = folder.search(vectors, folder.rule.k + 1)
    neighbours, rows = without_own(found, own), folder.rows
    votes = vote(neighbours, rows.landmark, folder.rule, counts=rows.counts, row_background=rows.background)
    background = None
    if folder.background is not None:
        background = background_similarity(vectors, folder.background.vectors, folder.rule.m)
    return judge(folder, neighbours, votes, background)


def _confidence(answers: Answers) -> FloatArray:
    """(q,) float64: the confidence, or the score of an index without a calibration."""
    confidence = answers.score if answers.confidence is None else answers.confidence
    return np.where(np.isfinite(confidence), confidence, 0.0)


def n_asked(folder: IndexFolder) -> int:
    """Number of rows and background images that can be asked; one such image has nothing to be compared with."""
    n_background = 0 if folder.background is None else len(folder.background)
    return len(folder.rows) + (n_background if n_background > 1 else 0)


def asked_rows(folder: IndexFolder, chosen: LongArray) -> tuple[FloatArray, FloatArray | None]:
    """Descriptors of these, ascending, of the rows and then the background, and c(q) of each without the image."""
    n, background = len(folder.rows), folder.background
    vectors = folder.index.vectors(chosen[chosen < n])
    if background is None:
        return vectors, None
    others = chosen[chosen >= n] - n
    vectors = np.concatenate([vectors, background.vectors[others]])
    own_row = np.concatenate([np.full(len(vectors) - len(others), -1, dtype=np.int64), others])
    return vectors, background_similarity(vectors, background.vectors, folder.rule.m, own_row=own_row)


def without_own(neighbours: Neighbours, own_row: LongArray) -> Neighbours:
    """The neighbours less each query's own row, or less the last one where that row was not found."""
    rows, scores = neighbours.rows, neighbours.scores
    own = rows == np.where(own_row >= 0, own_row, -2)[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return Neighbours(rows[~own].reshape(shape), scores[~own].reshape(shape))


def _queries(folder: IndexFolder, n_queries: int) -> Queries:
    """The rows with their landmarks, then the background images as non-landmarks."""
    rows, others = folder.rows, n_queries - len(folder.rows)
    if folder.background is None or not others:
        return Queries(rows.image_id, Labels.of_codes(rows.landmarks, rows.landmark), rows.path)
    landmark = np.concatenate([rows.landmark, np.full(others, -1, dtype=np.int32)])
    return Queries(
        Texts.joined([rows.image_id, folder.background.image_id]),
        Labels.of_codes(rows.landmarks, landmark),
        Texts.joined([rows.path, Texts.of([""] * others)]),
    )
