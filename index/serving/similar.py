"""Reverse image search: the images of an index by their similarity to an image, page by page, copies folded."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Unpack

import numpy as np

from index.asking.answers import neighbour_of
from index.confidence import sigmoid
from index.explain.comparison import Compared, MapsWanted, compare_images, shown_image
from index.folder.verified import cast_votes
from index.recognition import judge, to_index_space
from index.search.base import Neighbours, SearchIndex, scores_of
from index.serving.config import SearchJob
from index.serving.gallery import WHOLE, Box, Size, code_of, crop, kept_of, read_row, row_of, size_of
from index.serving.page import Page, Similar
from index.vote import background_similarity
from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.given import GivenImages
from retrieval.jobs import build, shows_words_of

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.keywords import SearchWords
    from index.landmarks import Landmarks
    from retrieval.images.given import ImageLike

# Similarity from which on one image is folded under another: no two different photographs of 1.6 million pairs reach
# it, and of copies at 512 pixels and more, compressed again or brighter, 80 to 100 % do (docs/benchmarks.md).
FOLD_FROM = 0.97
BLOCK = 250  # rows by rank that are folded together
MOST_SORTED = 1_000  # rows that are sorted by size, or filtered by confidence
MOST_ROWS = 5_000  # of an index that are looked at for one image; FAISS takes several times as long for twice as many
_ROWS_AT_ONCE = 1 << 13


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """vector: (d,) in the index's space. left_out: a row, -1 = none. code: of the one landmark that is shown, or -1."""

    vector: FloatArray
    left_out: int
    code: int

    @property
    def key(self) -> tuple[bytes, int, int]:
        return self.vector.tobytes(), self.left_out, self.code


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Rows of one image and its copies, the most similar first, with their ranks and scores."""

    ranks: tuple[int, ...]
    rows: tuple[int, ...]
    scores: tuple[float, ...]

    def led_by(self, place: int) -> "_Group":
        """The same group with another image first."""
        order = [place, *(i for i in range(len(self.rows)) if i != place)]
        ranks, rows = (tuple(column[i] for i in order) for column in (self.ranks, self.rows))
        return _Group(ranks, rows, tuple(self.scores[i] for i in order))


@shows_words_of("index.serving.config", "SearchJob")
def search(landmarks: "Landmarks", query: "FloatArray | str", **words: "Unpack[SearchWords]") -> Page:
    """The n images from number `first` on in the list of those most similar to a query.

    query: the (d,) descriptor of an image as the index's model makes it, or the image_id of an image of the index,
    which is left out. The words are those of SearchJob. The list of a query is one and the same however it is cut
    into pages, so that these neither repeat nor skip an image.
    Raises LmrError for words that cannot be; UnknownError for an image or a landmark that the index does not have.
    """
    job = build(SearchJob, words)
    asked, end = _asked(landmarks, query, job), job.n_first + job.n
    if job.sort == "similarity" and not job.sure:
        groups = _groups(landmarks, asked, job.fold, MOST_ROWS)
        shown = list(islice(groups, job.n_first, end + 1))
        looked_at = _n_looked_at(landmarks, asked, shown)
    else:
        found = list(_groups(landmarks, asked, job.fold, MOST_SORTED))
        looked_at = sum(len(group.rows) for group in found)
        if job.sure:
            found = _sure(landmarks, asked, found)
        shown = _sorted(landmarks, found, job.sort)[job.n_first : end + 1]
    return Page(tuple(_shown(landmarks, asked, shown[: job.n])), looked_at, len(shown) > job.n)


def search_image(
    landmarks: "Landmarks",
    image: "ImageLike | None",
    image_id: str | None,
    box: Box | None = None,
    *,
    allow_private: bool = False,
    **words: "Unpack[SearchWords]",
) -> Page:
    """As `search`, by an image or an image_id, or the part of either within a box. Raises UnreadableError besides."""
    if image is not None and image_id is None:
        data = GivenImages([image], allow_private).read(0)
    elif image_id is not None and image is None:
        if box is None:
            return search(landmarks, image_id, **words)
        data, words = read_row(landmarks, image_id), {"leave_out": image_id, **words}
    else:
        raise LmrError("give an image or an `image_id`, one of them")
    found, unreadable = landmarks.embed([data if box is None else crop(data, box)])
    if unreadable:
        raise UnreadableError(unreadable[0])
    return search(landmarks, found[0], **words)


def compare(
    landmarks: "Landmarks",
    query: bytes,
    image_id: str,
    *,
    box: Box = WHOLE,
    descriptor: "FloatArray | None" = None,
    maps: MapsWanted = "similarity",
) -> Compared:
    """An encoded image, or the part of it within a box, beside an image of the index. maps: those that are made.

    descriptor: (d,) of what is compared, None = it is embedded. Raises UnknownError, and as `crop`; UnreadableError.
    """
    folder, row = landmarks.folder, row_of(landmarks, image_id)
    asked = shown_image(query if box == WHOLE else crop(query, box))
    if descriptor is None:
        found, unreadable = landmarks.embed([asked.data or b""])
        if unreadable:
            raise UnreadableError(unreadable[0])
        descriptor = found[0]
    score = float(scores_of(to_index_space(folder, descriptor[None]), folder.index.vectors(np.array([[row]])))[0, 0])
    near = neighbour_of(folder, row, score)
    return compare_images(folder, asked, row, landmarks.opened, neighbour=near, maps=maps)


def _asked(landmarks: "Landmarks", query: "FloatArray | str", job: SearchJob) -> _Asked:
    folder = landmarks.folder
    code = -1 if job.landmark is None else code_of(landmarks, job.landmark)
    if isinstance(query, str):
        row = row_of(landmarks, query)
        return _Asked(folder.index.vectors(np.array([row]))[0], row, code)
    if query.shape != (folder.n_columns,):
        raise LmrError(
            f"the descriptor has shape {query.shape}, {folder} is of {folder.n_columns} columns; embed the image "
            "with the model of the index"
        )
    left_out = -1 if job.leave_out is None else row_of(landmarks, job.leave_out)
    return _Asked(to_index_space(folder, query[None])[0], left_out, code)


def _groups(landmarks: "Landmarks", asked: _Asked, fold: bool, most: int) -> Iterator[_Group]:
    """The groups of one block after the other, of at most so many rows."""
    for number in range(most // BLOCK):
        block, looked_at = _block(landmarks, asked, number, fold)
        yield from block
        if looked_at < (number + 1) * BLOCK:
            return


def _n_looked_at(landmarks: "Landmarks", asked: _Asked, shown: list[_Group]) -> int:
    if not shown:  # all of them, to see that there is none at this place
        return len(_ranked(landmarks, asked, MOST_ROWS)[0])
    last = max(max(group.ranks) for group in shown)
    return _block(landmarks, asked, (last - 1) // BLOCK, False)[1]


def _block(landmarks: "Landmarks", asked: _Asked, number: int, fold: bool) -> tuple[list[_Group], int]:
    """The groups of a block of rows, and how many rows there are up to its end."""

    def make() -> tuple[list[_Group], int]:
        rows, scores = _ranked(landmarks, asked, (number + 1) * BLOCK)
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        own, near = rows[part], scores[part]
        leaders = _leaders(landmarks.folder.index.vectors(own)) if fold and len(own) else np.arange(len(own))
        members: dict[int, list[int]] = {}
        for place, leader in enumerate(leaders.tolist()):
            members.setdefault(leader, []).append(place)
        of_row, of_score, first = own.tolist(), near.tolist(), part.start + 1
        found = [
            _Group(tuple(first + i for i in one), tuple(of_row[i] for i in one), tuple(of_score[i] for i in one))
            for one in members.values()
        ]
        return found, part.start + len(own)

    return kept_of(landmarks).lists.get((asked.key, number, fold), make)


def _ranked(landmarks: "Landmarks", asked: _Asked, n: int) -> tuple[LongArray, FloatArray]:
    """Rows and scores, at least n of them where there are as many, the most similar first; none beyond MOST_ROWS.

    The first block is what an inverted file finds, which is several times as quick as to compare all rows. Those
    that it missed, if any, come at the head of the next one.
    """
    folder = landmarks.folder
    depth = next(depth for depth in (BLOCK, MOST_SORTED, MOST_ROWS) if n <= depth)

    def make() -> tuple[LongArray, FloatArray]:
        if asked.code >= 0:
            return _others(asked, *_of_landmark(folder, asked), MOST_ROWS)
        by: SearchIndex = folder.index
        if depth == BLOCK and folder.ivf is not None and folder.ivf.rows is folder.index:
            by = folder.ivf
        found = by.search(asked.vector[None], min(depth + 1, len(folder.rows)))
        if depth == BLOCK:
            return _others(asked, found.rows[0], found.scores[0], depth)
        rows, scores = _ranked(landmarks, asked, BLOCK)
        is_new = ~np.isin(found.rows[0], rows)
        every = np.concatenate([rows, found.rows[0, is_new]]), np.concatenate([scores, found.scores[0, is_new]])
        return _others(asked, *every, depth)

    return kept_of(landmarks).lists.get((asked.key, depth), make)


def _others(asked: _Asked, rows: LongArray, scores: FloatArray, most: int) -> tuple[LongArray, FloatArray]:
    """The rows without the one that is left out, at most so many."""
    is_other = (rows != asked.left_out) & (rows >= 0)
    return rows[is_other][:most], scores[is_other][:most]


def _of_landmark(folder: "IndexFolder", asked: _Asked) -> tuple[LongArray, FloatArray]:
    """All rows of the landmark, the most similar first."""
    own = np.flatnonzero(folder.rows.landmark == asked.code)
    parts = [own[start : start + _ROWS_AT_ONCE] for start in range(0, len(own), _ROWS_AT_ONCE)]
    found = [folder.index.choose(asked.vector[None], part[None], len(part)) for part in parts]
    rows = np.concatenate([one.rows[0] for one in found])
    scores = np.concatenate([one.scores[0] for one in found])
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def _leaders(vectors: FloatArray) -> LongArray:
    """(n,) for each image in their order the first one that it is folded under; itself where there is none."""
    leaders = np.full(len(vectors), -1, dtype=np.int64)
    for i in range(len(vectors)):
        if leaders[i] < 0:  # by einsum, as BLAS would have threads wait for each other over so little
            is_same = np.einsum("nd,d->n", vectors[i:], vectors[i]) >= FOLD_FROM
            leaders[i:][is_same & (leaders[i:] < 0)] = i
            leaders[i] = i
    return leaders


def _sorted(landmarks: "Landmarks", groups: list[_Group], sort: str) -> list[_Group]:
    """Groups by the size of their largest image, which leads them; those of an unknown size last."""
    if sort == "similarity":
        return groups
    keyed = []
    for group in groups:
        sizes = [_measure(size_of(landmarks, row), sort) for row in group.rows]
        best = max(range(len(sizes)), key=lambda i: (sizes[i], -i))
        keyed.append((-sizes[best], group.led_by(best)))
    return [group for _, group in sorted(keyed, key=lambda one: one[0])]


def _measure(size: Size | None, sort: str) -> float:
    return -1.0 if size is None else size.megapixels if sort == "megapixels" else size.pixels_per_inch


def _sure(landmarks: "Landmarks", asked: _Asked, groups: list[_Group]) -> list[_Group]:
    """The groups whose first image has a landmark that reaches the threshold in the answer to the query."""
    folder = landmarks.folder
    if folder.calibration is None:
        raise LmrError(f"{folder} is not calibrated, so that no image is surely alike; run lmr calibrate")
    enough, sure = folder.calibration.threshold_precision.confidence, _voted(landmarks, asked).confidence
    return [group for group in groups if sure.get(int(folder.rows.landmark[group.rows[0]]), -1.0) >= enough]


@dataclass(frozen=True, slots=True)
class _Voted:
    """The answer to a query. rows: those that vote. confidence: of each landmark that they vote for, if calibrated."""

    rows: frozenset[int]
    confidence: dict[int, float]


def _voted(landmarks: "Landmarks", asked: _Asked) -> _Voted:
    """The answer to the query, as `Landmarks.query` gives it but for the row that is left out."""
    folder = landmarks.folder

    def make() -> _Voted:
        found, vectors = folder.search(asked.vector[None], folder.rule.k + (asked.left_out >= 0))
        kept = found.rows[0] != asked.left_out
        near = Neighbours(found.rows[:, kept][:, : folder.rule.k], found.scores[:, kept][:, : folder.rule.k])
        background = None
        if folder.background is not None:
            background = background_similarity(vectors, folder.background.vectors, folder.rule.m)
        answers = judge(folder, near, cast_votes(folder, near), background)
        confidence = (
            {}
            if folder.calibration is None
            else dict(zip(answers.votes.landmark.tolist(), sigmoid(answers.vote_logit).tolist(), strict=True))
        )
        return _Voted(frozenset(near.rows[near.rows >= 0].tolist()), confidence)

    return kept_of(landmarks).lists.get((asked.vector.tobytes(), asked.left_out), make)


def _shown(landmarks: "Landmarks", asked: _Asked, groups: list[_Group]) -> Iterator[Similar]:
    voted, landmark = _voted(landmarks, asked), landmarks.folder.rows.landmark
    for group in groups:
        leader, *others = (neighbour_of(landmarks.folder, *one) for one in zip(group.rows, group.scores, strict=True))
        yield Similar(
            neighbour=leader,
            rank=group.ranks[0],
            votes=group.rows[0] in voted.rows,
            size=size_of(landmarks, group.rows[0]),
            confidence=voted.confidence.get(int(landmark[group.rows[0]])),
            folded=tuple(others),
        )
