"""What an index knows of a landmark: typical and deviant images, and what it is confused with."""

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from index.answer import Neighbour
from index.explain.job import N_SHOWN, Confused, LandmarkExplained, OwnImage
from index.search.base import Neighbours
from retrieval.errors import LmrError
from retrieval.words import counted

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.arrays import LongArray

BLOCK_ROWS = 4_096
BLOCK_ASKED = 64  # queries at once, each of which finds all images of the landmark too
N_CONFUSED = 5  # landmarks that are told
N_HINTS = 3  # spellings named beside a landmark that is not there


@dataclass(frozen=True, slots=True)
class Effort:
    """How much an account of a landmark may take.

    n_compared, n_asked: its images that are compared with each other, and that are left out and asked, evenly spread
    over them. n_near: images of other landmarks that are found for each of these, of its n_nearest nearest images,
    None = as many as it takes.
    """

    n_compared: int | None = None
    n_asked: int = 1_000
    n_near: int = 20
    n_nearest: int | None = None


THOROUGH = Effort()
QUICK = Effort(n_compared=1_000, n_asked=30, n_near=3, n_nearest=200)  # for a page that somebody waits for


def explain_landmark(
    folder: "IndexFolder", landmark: str, *, top: int = N_SHOWN, effort: Effort = THOROUGH
) -> LandmarkExplained:
    """The account of the landmark of this landmark_id or name, with at most `top` images on either end.

    Raises LmrError for one that the index does not have, with the closest spellings.
    """
    code = _code_of(folder, landmark)
    own = _spread(np.flatnonzero(folder.rows.landmark == code), effort.n_compared)
    n_images = int(folder.rows.counts[code])
    asked = _spread(own, effort.n_asked)
    notes = [] if len(asked) == n_images else [f"of its {n_images:,} images {len(asked):,} were asked"]
    if len(own) < n_images:
        notes.append(f"the most typical and deviant ones are those of {len(own):,} of them")
    similarity, typical, deviant = _ends(folder, own, top)
    shown = _own_images(folder, [*typical, *deviant], code, effort)
    near = _nearest_others(folder, asked, code, effort)
    answers = _answers(folder, code, asked, near, notes)
    confused = _confused(folder, code, answers, near)
    closest = _closest(folder, own, confused[0].landmark_id, effort) if confused else None
    if not confused:
        notes.append("the index has no other landmark, so there is nothing that it could be confused with")
    return LandmarkExplained(
        landmark_id=folder.rows.landmarks[code],
        name=_name(folder, folder.rows.landmarks[code]),
        n_images=n_images,
        similarity=similarity,
        typical=tuple(shown[: len(typical)]),
        deviant=tuple(shown[len(typical) :]),
        n_asked=len(asked),
        n_right=None if answers is None else answers.n_right,
        confused=confused,
        closest=None if closest is None else _pair(folder, *closest),
        notes=tuple(notes),
        folder=folder,
        closest_row=-1 if closest is None else closest[1],
    )


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Answers to images that were left out. taken, given: by code of the other landmark, as of Confused."""

    n_right: int | None
    taken: Counter[int]
    given: Counter[int]


def _code_of(folder: "IndexFolder", landmark: str) -> int:
    """The landmark of this landmark_id, or else of this name. Raises LmrError with the closest spellings."""
    known = folder.rows.landmarks
    if landmark in known:
        return known.index(landmark)
    named = [i for i, label in enumerate(known) if _name(folder, label) == landmark]
    if len(named) == 1:
        return named[0]
    if named:
        labels = ", ".join(known[i] for i in named[:N_HINTS])
        raise LmrError(f"{folder} has {len(named)} landmarks of the name {landmark}; give one of {labels}")
    spelt = {name.casefold(): label for label in known for name in (_name(folder, label), label) if name}
    close = difflib.get_close_matches(landmark.casefold(), spelt, n=N_HINTS)
    hint = (
        f"did you mean {' or '.join(dict.fromkeys(spelt[name] for name in close))}?"
        if close
        else (f"it has {counted(len(known), 'landmark')}, which lmr index export lists")
    )
    raise LmrError(f"{folder} has no landmark {landmark}; {hint}")


def _ends(
    folder: "IndexFolder", own: "LongArray", top: int
) -> tuple[float | None, list[tuple[int, float]], list[tuple[int, float]]]:
    """Mean cosine of two images, and rows with their mean cosine: the most typical and the most deviant ones."""
    n = len(own)
    if n == 1:
        return None, [], []
    vectors = folder.index.vectors(own).astype(np.float64)
    means = (vectors @ vectors.sum(axis=0) - (vectors**2).sum(axis=1)) / (n - 1)
    order = np.argsort(-means, kind="stable")
    ranked = [(int(own[i]), float(means[i])) for i in order]
    n_deviant = min(top, n // 2) if n > 2 else 0  # two images are as much like each other
    return float(means.mean()), ranked[: min(top, n - n_deviant)], ranked[::-1][:n_deviant]


def _nearest_others(
    folder: "IndexFolder", rows: "LongArray", code: int, effort: Effort, n: int | None = None
) -> Neighbours:
    """The n nearest images of other landmarks for each of these rows of a landmark, (q, n). n: None = n_near."""
    k = int(folder.rows.counts[code]) + (n or effort.n_near)
    k = min(len(folder.rows), k if effort.n_nearest is None else min(k, effort.n_nearest))
    blocks = [rows[i : i + BLOCK_ASKED] for i in range(0, len(rows), BLOCK_ASKED)]
    parts = [_nearest_of(folder, block, code, n or effort.n_near, k) for block in blocks]
    return Neighbours(np.concatenate([part.rows for part in parts]), np.concatenate([part.scores for part in parts]))


def _nearest_of(folder: "IndexFolder", rows: "LongArray", code: int, n: int, k: int) -> Neighbours:
    """The n nearest of other landmarks among the k nearest of all."""
    found = folder.nearest(folder.index.vectors(rows), k)
    is_other = (found.rows >= 0) & (folder.rows.landmark[found.rows] != code)
    first = np.argsort(~is_other, axis=1, kind="stable")[:, :n]
    of_others = np.take_along_axis(is_other, first, axis=1)
    return Neighbours(
        np.where(of_others, np.take_along_axis(found.rows, first, axis=1), -1),
        np.where(of_others, np.take_along_axis(found.scores, first, axis=1), -np.inf).astype(np.float32),
    )


def _answers(
    folder: "IndexFolder", code: int, asked: "LongArray", near: Neighbours, notes: list[str]
) -> _LeftOut | None:
    """The answers to these images of a landmark and to the ones nearest to them, each left out."""
    from index.evaluate.leave_one_out import ask_left_out

    if not folder.refinement.is_off:
        notes.append("images of this index borrow from each other, so none can be left out and asked")
        return None
    ask = ask_left_out(folder).ask
    answered = ask(asked).landmark
    others = np.unique(near.rows[near.rows >= 0])
    won = others[ask(others).landmark == code] if len(others) else others
    taken = Counter(answered[(answered >= 0) & (answered != code)].tolist())
    n_right: int | None = int((answered == code).sum())
    if folder.rows.counts[code] == 1:
        notes.append("it has a single image: none is typical, and left out it cannot be found")
        n_right = None
    return _LeftOut(n_right, taken, Counter(folder.rows.landmark[won].tolist()))


def _confused(folder: "IndexFolder", code: int, answers: _LeftOut | None, near: Neighbours) -> tuple[Confused, ...]:
    """The landmarks that a landmark is confused with: by answers in either direction, then by nearest images."""
    taken, given = (Counter[int](), Counter[int]()) if answers is None else (answers.taken, answers.given)
    first = near.rows[:, 0] if near.k else np.zeros(0, np.int64)
    nearest = Counter(folder.rows.landmark[first[first >= 0]].tolist())
    known = {*taken, *given, *nearest}
    order = sorted(known, key=lambda other: (-taken[other] - given[other], -nearest[other], other))[:N_CONFUSED]
    labels = folder.rows.landmarks
    return tuple(
        Confused(
            labels[other],
            _name(folder, labels[other]),
            int(folder.rows.counts[other]),
            taken[other],
            given[other],
            nearest[other],
        )
        for other in order
    )


def _closest(folder: "IndexFolder", own: "LongArray", other: str, effort: Effort) -> tuple[int, int, float]:
    """The rows of the two most similar images of a landmark and another one, and their cosine."""
    theirs = _spread(np.flatnonzero(folder.rows.landmark == folder.rows.landmarks.index(other)), effort.n_compared)
    best = (-1, -1, -np.inf)
    for start in range(0, len(own), BLOCK_ROWS):
        vectors = folder.index.vectors(own[start : start + BLOCK_ROWS])
        for begin in range(0, len(theirs), BLOCK_ROWS):
            scores = vectors @ folder.index.vectors(theirs[begin : begin + BLOCK_ROWS]).T
            i, j = np.unravel_index(int(scores.argmax()), scores.shape)
            if scores[i, j] > best[2]:
                best = (int(own[start + i]), int(theirs[begin + j]), float(scores[i, j]))
    return best


def _spread(rows: "LongArray", n: int | None) -> "LongArray":
    """At most n of these rows, evenly spread over them; None = all."""
    return rows if n is None else rows[np.linspace(0, len(rows) - 1, min(len(rows), n)).astype(np.int64)]


def _pair(folder: "IndexFolder", own: int, other: int, score: float) -> tuple[Neighbour, Neighbour]:
    return _image(folder, own, score), _image(folder, other, score)


def _own_images(folder: "IndexFolder", shown: list[tuple[int, float]], code: int, effort: Effort) -> list[OwnImage]:
    """Rows of the landmark with their mean cosine, each with the nearest image of another landmark."""
    if not shown:
        return []
    near = _nearest_others(folder, np.array([row for row, _ in shown]), code, effort, 1)
    return [
        OwnImage(_image(folder, row, mean), _image(folder, other, score) if other >= 0 else None)
        for (row, mean), other, score in zip(shown, near.rows[:, 0].tolist(), near.scores[:, 0].tolist(), strict=True)
    ]


def _image(folder: "IndexFolder", row: int, score: float) -> Neighbour:
    rows = folder.rows
    label = rows.landmarks[rows.landmark[row]]
    path, image_id = str(rows.path[row]), str(rows.image_id[row])
    return Neighbour(image_id, label, score, path, _name(folder, label), folder.kept(row))


def _name(folder: "IndexFolder", label: str) -> str:
    known = folder.names.get(label)
    return known.name if known else label
