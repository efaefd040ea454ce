"""Scores a submission against a solution file as the Google Landmarks challenges do, by their halves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from index.kaggle.submission import (
    RecognitionSolution,
    RecognitionSubmission,
    RetrievalSolution,
    RetrievalSubmission,
    Solution,
    Submission,
    read_solution,
    read_submission,
)
from index.metrics import LIST_LENGTH, first_hit_position, gap, list_hits, map_at_100, precision_at_k
from retrieval.arrays import BoolArray, LongArray, object_array
from retrieval.data.header.mapping import BY_HEADER, ColumnMap
from retrieval.data.labels import require_meeting
from retrieval.errors import LmrError
from retrieval.progress import Progress
from retrieval.words import agreeing, counted

PRECISION_AT = (1, 5, 10, 20, 50, 100)

Half = Literal["All", "Public", "Private"]
HALVES: Mapping[Half, tuple[str, ...]] = {
    "All": ("Public", "Private"),
    "Public": ("Public",),
    "Private": ("Private",),
}


@dataclass(frozen=True, slots=True)
class RecognitionScores:
    """Metrics of recognition, None in a half without landmark queries.

    gap_ignoring_non_landmarks: predictions of queries that show no landmark are dropped before ranking. top1: share of
    the landmark queries whose prediction is right.
    """

    gap: float | None
    gap_ignoring_non_landmarks: float | None
    top1: float | None
    n_queries: int
    n_landmark_queries: int


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Metrics of retrieval.

    precision_at: by number of images as text. mean_position, median_position: of the first right image, 1 to 101.
    """

    map_at_100: float
    precision_at: Mapping[str, float]
    mean_position: float
    median_position: float
    n_queries: int


@dataclass(frozen=True, slots=True)
class PlaceScores(RetrievalScores):
    """Metrics of retrieval where images of the index near a query are right, over queries that have any.

    recall_at: share of queries with such an image among the first, by number of images as text. n_without_place:
    queries without one in the whole index.
    """

    recall_at: Mapping[str, float]
    n_without_place: int


Scores = dict[Half, RecognitionScores] | dict[Half, RetrievalScores] | dict[Half, PlaceScores]


def score_places(
    submission: Path,
    queries: Path,
    index: Path,
    within: str,
    *,
    names: ColumnMap = BY_HEADER,
    ignore_unknown: bool,
    progress: Progress,
) -> dict[Half, PlaceScores]:
    """Scores lists of images: those of the index that were taken so near a query are right.

    queries, index: manifests with coordinates; the first may have a Usage. names: of their columns. Raises LmrError as
    `score`, for a submission of landmarks, for lists with an image that the index lacks, and where positions cannot be
    used.
    """
    from index.evaluate.places import PlacedRows, require_near
    from retrieval.data.overview import load_manifest
    from retrieval.places import manifest_positions, parse_distance, require_positions

    within_m = parse_distance(within, "within")
    answers = read_submission(submission, progress)
    if not isinstance(answers, RetrievalSubmission):
        raise LmrError(f"{submission} names landmarks; `within` scores lists of images, with the header id,images")
    asked, there = load_manifest(queries, progress, names), load_manifest(index, progress, names.of_others())
    positions = require_positions(manifest_positions(asked, are_needed=True), str(queries), "within")
    rows = PlacedRows(require_positions(manifest_positions(there), str(index), "within"))
    require_near(positions, rows, asked.image_id, (str(queries), str(index)), within_m)
    near: list[list[str]] = [[] for _ in range(len(asked))]
    for query, row in rows.pairs(positions, within_m):
        for at, image_id in zip(query.tolist(), there.image_id[row], strict=True):
            near[at].append(image_id)
    usage = np.full(len(asked), "Public", dtype=object) if asked.usage is None else asked.usage
    truth = RetrievalSolution(str(queries), asked.image_id[:], object_array([tuple(one) for one in near]), usage)
    if ignore_unknown:
        unknown = _unknown(answers, truth)
        answers = answers.select(~unknown)
        _tell_left_out(int(unknown.sum()), queries, progress)
    _require_images(answers, set(there.image_id), str(index))
    has_place = np.array([bool(one) for one in near], dtype=np.bool_)
    found: dict[Half, PlaceScores] = {}
    for half in score(answers, truth):
        kept = np.isin(usage.astype(str), HALVES[half])
        if (kept & has_place).any():
            found[half] = _of_places(answers, truth, kept, has_place)
        else:
            progress.warn(f"{half} is not scored: none of its queries lies within {within} of a picture of {index}")
    if "All" not in found:
        raise LmrError(f"{queries}: no Public or Private query lies within {within} of a picture of {index}")
    return found


def _of_places(
    answers: RetrievalSubmission, truth: RetrievalSolution, kept: BoolArray, has_place: BoolArray
) -> PlaceScores:
    from index.evaluate.places import RECALL_AT, recall_at_k

    plain = _retrieval(answers, truth, kept & has_place)
    first = dict(zip(answers.image_id, answers.images, strict=True))
    pairs = zip(truth.image_id[kept & has_place], truth.images[kept & has_place], strict=True)
    there = ((first.get(name, ())[: max(RECALL_AT)], set(true)) for name, true in pairs)
    right = [[image in true for image in images] for images, true in there]
    rank = np.array([one.index(True) + 1 if True in one else 0 for one in right], dtype=np.int64)
    return PlaceScores(
        **asdict(plain),
        recall_at={str(k): recall_at_k(rank, k) for k in RECALL_AT},
        n_without_place=int((kept & ~has_place).sum()),
    )


def _require_images(answers: RetrievalSubmission, known: set[str], index: str) -> None:
    """Raises LmrError for a list that holds an image that the index lacks."""
    for line, images in zip(answers.line, answers.images, strict=True):
        if unknown := [image for image in images if image not in known]:
            raise LmrError(f"{answers.source}:{line}: {unknown[0]} is not in {index}; give the manifest of the index")


def score_files(
    submission: Path, solution: Path, *, ignore_unknown: bool, allow_disjoint: bool, progress: Progress
) -> Scores:
    """As `score`, of files. ignore_unknown: ids that the solution lacks are left out, which is told."""
    answers, truth = read_submission(submission, progress), read_solution(solution, progress)
    if ignore_unknown:
        answers, n_unknown = without_unknown(answers, truth)
        _tell_left_out(n_unknown, solution, progress)
    if not allow_disjoint:
        require_common_labels(answers, truth)
    return score(answers, truth)


def score(submission: Submission, solution: Solution) -> Scores:
    """`All`, `Public` and `Private` -> metrics; halves without rows are absent, Ignored rows are left out.

    Raises LmrError: recognition against retrieval, an id that the solution lacks (with its line), a solution
    without rows that count or, for recognition, without landmark queries.
    """
    unknown = _unknown(submission, solution)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        others = f" and {unknown.sum() - 1} others" if unknown.sum() > 1 else ""
        raise LmrError(
            f"{submission.source}:{submission.line[row]}: id {submission.image_id[row]}{others} not in "
            f"{solution.source}; where that holds only a part of the test set, give `ignore_unknown`"
        )
    kept = {half: np.isin(solution.usage.astype(str), usages) for half, usages in HALVES.items()}
    if not kept["All"].any():
        raise LmrError(f"{solution.source} has no Public or Private row to score against")
    if isinstance(submission, RecognitionSubmission) and isinstance(solution, RecognitionSolution):
        if not any(solution.landmarks[kept["All"]]):
            raise LmrError(f"{solution.source} has no query with a landmark; GAP needs at least one")
        return {half: _recognition(submission, solution, rows) for half, rows in kept.items() if rows.any()}
    if isinstance(submission, RetrievalSubmission) and isinstance(solution, RetrievalSolution):
        return {half: _retrieval(submission, solution, rows) for half, rows in kept.items() if rows.any()}
    raise AssertionError("_unknown refuses a submission and a solution of different tasks")


def require_common_labels(submission: Submission, solution: Solution) -> None:
    """Raises LmrError where no label (or image, in retrieval) of the submission is in the solution, or not spelt alike.

    A submission without answers passes.
    """
    between = (submission.source, solution.source)
    if isinstance(submission, RecognitionSubmission) and isinstance(solution, RecognitionSolution):
        require_meeting(set(submission.landmark), {label for truth in solution.landmarks for label in truth}, between)
    elif isinstance(submission, RetrievalSubmission) and isinstance(solution, RetrievalSolution):
        given, true = ({image for images in of.images for image in images} for of in (submission, solution))
        require_meeting(given, true, between, noun="image")


def without_unknown(submission: Submission, solution: Solution) -> tuple[Submission, int]:
    """The submission without the ids that the solution lacks, and how many those were.

    Raises LmrError for recognition against retrieval.
    """
    unknown = _unknown(submission, solution)
    return submission.select(~unknown), int(unknown.sum())


def _tell_left_out(n: int, solution: Path, progress: Progress) -> None:
    if n:
        progress.warn(f"left out: {counted(n, 'id')} that {agreeing(n, 'is', 'are')} not in {solution}")


def _unknown(submission: Submission, solution: Solution) -> BoolArray:
    """(n,) bool: the submission's ids that are not in the solution."""
    recognition = isinstance(submission, RecognitionSubmission), isinstance(solution, RecognitionSolution)
    if recognition[0] != recognition[1]:
        mine, theirs = ("recognition" if is_one else "retrieval" for is_one in recognition)
        raise LmrError(
            f"{submission.source} is a {mine} submission and {solution.source} a {theirs} solution; "
            f"score it against a {mine} solution"
        )
    known = set(solution.image_id)
    return np.array([image_id not in known for image_id in submission.image_id], dtype=np.bool_)


def _recognition(
    submission: RecognitionSubmission, solution: RecognitionSolution, kept: BoolArray
) -> RecognitionScores:
    truths = dict(zip(solution.image_id[kept], solution.landmarks[kept], strict=True))
    n_landmark_queries = sum(1 for truth in truths.values() if truth)
    if n_landmark_queries == 0:
        return RecognitionScores(None, None, None, len(truths), n_landmark_queries)
    pairs = zip(submission.image_id, submission.landmark, strict=True)
    answered = np.array([i in truths and label != "" for i, label in pairs], dtype=np.bool_)
    ids, labels = submission.image_id[answered], submission.landmark[answered]
    scores = submission.score[answered]
    right = np.array([c in truths[i] for i, c in zip(ids, labels, strict=True)], dtype=np.bool_)
    known = np.array([bool(truths[i]) for i in ids], dtype=np.bool_)
    return RecognitionScores(
        gap=gap(scores, right, n_landmark_queries, ids),
        gap_ignoring_non_landmarks=gap(scores[known], right[known], n_landmark_queries, ids[known]),
        top1=int(right.sum()) / n_landmark_queries,
        n_queries=len(truths),
        n_landmark_queries=n_landmark_queries,
    )


def _retrieval(submission: RetrievalSubmission, solution: RetrievalSolution, kept: BoolArray) -> RetrievalScores:
    """Queries in the solution's order; those the submission lacks have an empty list."""
    lists = dict(zip(submission.image_id, submission.images, strict=True))
    found = [lists.get(image_id, ())[:LIST_LENGTH] for image_id in solution.image_id[kept]]
    true = [set(images) for images in solution.images[kept]]
    number: dict[str, int] = {}
    retrieved: LongArray = np.full((len(found), LIST_LENGTH), -1, dtype=np.int64)
    relevant = np.zeros(retrieved.shape, dtype=np.bool_)
    for row, (images, truth) in enumerate(zip(found, true, strict=True)):
        retrieved[row, : len(images)] = [number.setdefault(image, len(number)) for image in images]
        relevant[row, : len(images)] = [image in truth for image in images]
    hits = list_hits(retrieved, relevant)
    position = first_hit_position(hits)
    return RetrievalScores(
        map_at_100=map_at_100(hits, np.array([len(truth) for truth in true], dtype=np.int64)),
        precision_at={str(k): precision_at_k(hits, k) for k in PRECISION_AT},
        mean_position=float(position.mean()),
        median_position=float(np.median(position)),
        n_queries=len(found),
    )
