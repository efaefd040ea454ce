"""What the answer to each query comes to: figures small enough to be kept of millions of queries, block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.evaluate.baselines import PlainVotes, plain_votes
from index.evaluate.leakage import find_calibrated_on, find_near_duplicates
from index.evaluate.places import Near, first_near
from index.folder.folder import IndexFolder
from index.folder.verified import Verifying
from index.kaggle.scoring import PRECISION_AT
from index.metrics import LIST_LENGTH, Truths, average_precision, first_hit_position, first_right_rank, truths_of
from index.queries import Queries
from index.recognition import BLOCK_QUERIES, BLOCK_VERIFIED, Answers, answer_rows, check_store
from index.search.base import Neighbours
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, read_only
from retrieval.files.kept import Kept
from retrieval.progress import SILENT, Progress
from retrieval.store.store import Descriptors

# One query. landmark: -1 = none. rank: of the first right vote, 0 = none; precision: of the list of rows, averaged.
OUTCOME = np.dtype(
    [
        *(("landmark", "<i4"), ("logit", "<f8"), ("rank", "<i4")),
        *(("nearest", "<f8"), ("nearest_rank", "<i4"), ("majority", "<f8"), ("majority_rank", "<i4")),
        *(("precision", "<f8"), ("position", "<i2"), ("hits", "u1", (len(PRECISION_AT),))),
        *(("is_found", "?"), ("is_row", "?"), ("is_near", "?"), ("is_calibrated_on", "?")),
    ]
)
# The same where rows near a query are right. near_rank: of the first such row, 0 = none; error_m: see `Near.error_m`.
PLACED = np.dtype([*OUTCOME.descr, ("near_rank", "<i2"), ("error_m", "<f8")])


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the answers to queries come to, (q,) each.

    landmark: int32 the best vote's, -1 where nothing was found; logit: what it is ranked by, -inf there. rank, and
    nearest_rank and majority_rank of two baselines: int32, of the first right vote, 0 = none; nearest, majority: what
    these are ranked by. precision, position, hits: of the list of rows, its average precision, its first right row and
    how many right rows are among the first of PRECISION_AT (q, 6). is_found: a row was found. is_row: the query is a
    row of the index, is_near: it looks the same as one, is_calibrated_on: the calibration was fitted on it. near_rank,
    error_m: int16 and float64, of PLACED; None where labels say what is right.
    """

    landmark: IntArray
    logit: FloatArray
    rank: IntArray
    nearest: FloatArray
    nearest_rank: IntArray
    majority: FloatArray
    majority_rank: IntArray
    precision: FloatArray
    position: NDArray[np.int16]
    hits: NDArray[np.uint8]
    is_found: BoolArray
    is_row: BoolArray
    is_near: BoolArray
    is_calibrated_on: BoolArray
    near_rank: NDArray[np.int16] | None = None
    error_m: FloatArray | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            array = getattr(self, item.name)
            if array is None:
                continue
            if len(array) != len(self.landmark):
                raise ValueError(f"{item.name} has {len(array)} rows, landmark {len(self.landmark)}")
            object.__setattr__(self, item.name, read_only(array))

    @classmethod
    def of(cls, blocks: Sequence[NDArray[np.void]]) -> "Outcomes":
        """Those of successive blocks of queries."""
        names = blocks[0].dtype.names or ()
        return cls(**{name: np.concatenate([block[name] for block in blocks]) for name in names})

    def __len__(self) -> int:
        return len(self.landmark)

    def select(self, rows: LongArray) -> "Outcomes":
        """Those of some of the queries."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: values[rows] for name, values in columns.items() if values is not None})

    def beside(self, plain: "Outcomes") -> "Outcomes":
        """These of verified answers, with baselines and near duplicates as of plain answers to the same queries."""
        names = ("nearest", "nearest_rank", "majority", "majority_rank", "is_near")
        return replace(self, **{name: getattr(plain, name) for name in names})

    @property
    def plain(self) -> PlainVotes:
        """The baselines that vote in another way."""
        return PlainVotes(self.is_found, self.nearest, self.nearest_rank, self.majority, self.majority_rank)


@dataclass(frozen=True, slots=True)
class Questions:
    """Labelled queries, and how an index is asked them.

    ask: the answers to some of them by their numbers, ascending, with at least 100 neighbours each where there are so
    many. n_left_out: rows of each query's own landmark that the search leaves out, 1 where the query is itself a row.
    calibrated_on: whether the calibration was fitted on these of them. is_verified: whether their best neighbours are
    verified, so that an answer takes long; near duplicates and baselines are then left to the plain answers.
    """

    folder: IndexFolder
    queries: Queries
    ask: Callable[[LongArray], Answers]
    calibrated_on: Callable[[LongArray], BoolArray]
    n_left_out: int = 0
    is_verified: bool = False

    @property
    def outcome(self) -> np.dtype[Any]:
        """Type of what the answer to one of them comes to."""
        return OUTCOME if self.queries.near is None else PLACED

    @property
    def truths(self) -> tuple[Truths, tuple[str, ...]]:
        """In the codes of the index, with further ones for landmarks that it lacks; and what all codes mean."""
        return truths_of(self.queries.landmarks, self.folder.rows.landmarks)

    def select(self, rows: LongArray) -> "Questions":
        """Only these queries, ascending."""
        return replace(
            self,
            queries=self.queries.select(rows),
            ask=lambda some: self.ask(rows[some]),
            calibrated_on=lambda some: self.calibrated_on(rows[some]),
        )


def ask_store(
    folder: IndexFolder, store: Descriptors, queries: Queries, verifying: Verifying | None = None
) -> Questions:
    """The rows of a store. queries: of the rows in their order. LmrError as `check_store`."""
    check_store(folder, store)
    return Questions(
        folder=folder,
        queries=queries,
        ask=lambda rows: answer_rows(folder, store, rows, n_neighbours=LIST_LENGTH, verifying=verifying),
        calibrated_on=lambda rows: find_calibrated_on(folder, store, rows),
        is_verified=verifying is not None,
    )


def n_true_rows(folder: IndexFolder, truths: Truths, n_left_out: int, near: Near | None = None) -> LongArray:
    """(q,) rows of the index that show a landmark of each query, without those left out; where given, the near ones."""
    if near is not None:
        return near.n_rows
    counts = np.zeros(max(len(folder.rows.landmarks), int(truths.landmark.max(initial=0)) + 1), dtype=np.int64)
    counts[: len(folder.rows.landmarks)] = folder.rows.counts
    n = np.bincount(truths.query, weights=counts[truths.landmark], minlength=truths.n_queries).astype(np.int64)
    return np.maximum(n - n_left_out, 0)


def find_outcomes(
    questions: Questions, kept: Kept | None = None, *, n_workers: int = 1, progress: Progress = SILENT
) -> Outcomes:
    """Asks all queries, at most BLOCK_QUERIES at a time, or fewer where neighbours are verified.

    kept: blocks that it has are not asked again, and new ones are kept there. n_workers: processes that compare
    images. Raises LmrError as `run_tasks`.
    """
    blocks = [] if kept is None else kept.read()
    done, n = sum(map(len, blocks)), len(questions.queries)
    truths, _ = questions.truths
    at_once = BLOCK_VERIFIED if questions.is_verified else BLOCK_QUERIES
    if n > at_once:
        progress.begin("answering", n)
        progress.add(done)
    for start in range(done, n, at_once):
        rows = np.arange(start, min(start + at_once, n))
        looking = progress if n <= at_once else SILENT
        block = _outcome(questions, rows, truths.between(start, start + len(rows)), n_workers, looking)
        blocks.append(block)
        if kept is not None:
            kept.append(block)
        if n > at_once:
            progress.add(len(rows))
    if n > at_once:
        progress.end()
    return Outcomes.of([np.empty(0, questions.outcome), *blocks])


def _outcome(
    questions: Questions, rows: LongArray, truths: Truths, n_workers: int, progress: Progress
) -> NDArray[np.void]:
    folder, answers, near = questions.folder, questions.ask(rows), questions.queries.near
    if answers.neighbours.k < min(LIST_LENGTH, len(folder.rows) - questions.n_left_out):
        raise ValueError(f"answers with {answers.neighbours.k} neighbours; a list of rows has {LIST_LENGTH}")
    block = np.empty(len(rows), questions.outcome)
    block["landmark"], block["logit"] = answers.landmark, np.where(answers.landmark >= 0, answers.logit, -np.inf)
    block["rank"] = first_right_rank(answers.votes.query, answers.votes.landmark, truths)
    plain = plain_votes(answers.neighbours, folder.rows, truths, folder.rule.k)
    for item in fields(plain):
        block[item.name] = getattr(plain, item.name)
    near = None if near is None else near.select(rows)
    for name, values in _list_figures(folder, answers.neighbours, truths, questions.n_left_out, near).items():
        block[name] = values
    if near is not None:
        block["error_m"] = near.error_m(answers.neighbours, answers.landmark, folder.rows.landmark)
    block["is_row"] = answers.same_picture >= 0
    block["is_calibrated_on"] = questions.calibrated_on(rows)
    if questions.is_verified:
        block["is_near"] = False
        return block
    paths = questions.queries.path.select(rows)
    block["is_near"] = find_near_duplicates(folder, answers.neighbours, paths, ~block["is_row"], n_workers, progress)
    return block


def _list_figures(
    folder: IndexFolder, neighbours: Neighbours, truths: Truths, n_left_out: int, near: Near | None
) -> dict[str, NDArray[Any]]:
    """Figures of the lists of rows. near: what lies near the queries, where that is what is right."""
    rows = neighbours.rows[:, :LIST_LENGTH]
    if near is None:
        landmark = np.where(rows >= 0, folder.rows.landmark[rows], -1)
        queries = np.repeat(np.arange(len(rows)), rows.shape[1])
        hits = truths.holds(queries, landmark.ravel()).reshape(rows.shape)
    else:
        hits = near.distances_m(rows) <= near.within_m
    return {
        "precision": average_precision(hits, n_true_rows(folder, truths, n_left_out, near)),
        "position": first_hit_position(hits),
        "hits": np.stack([hits[:, :k].sum(axis=1) for k in PRECISION_AT], axis=1),
        **({} if near is None else {"near_rank": first_near(hits)}),
    }
