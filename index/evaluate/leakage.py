"""Queries that an index knows too well for its answers to them to count as those to new pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.answers import Answers, check_store, to_index_space
from index.copies import sketches, unpack_sketches
from index.evaluate.evaluation import Queries
from index.evaluate.look_alikes import Looking, look_the_same
from index.folder.folder import MODEL, MODEL_CARD, IndexFolder
from retrieval.arrays import BoolArray, FloatArray, ObjArray
from retrieval.data.near_duplicates import NEAR_BITS, near_pairs
from retrieval.data.seen import record_seen, was_seen
from retrieval.files.json_file import read_json
from retrieval.store.store import Descriptors

# Similarity in the index's space from which on two pictures are looked at: of 80 photographs, 95 in 100 copies of half
# the size at JPEG quality 60 have more (EfficientNet-Lite0 untrained, half whitened), and a quarter of other queries.
COMPARED_FROM = 0.55
N_COMPARED = 3  # neighbours of a query
KINDS = ("same_picture", "near_duplicate", "calibrated_on", "trained_on")


@dataclass(frozen=True, slots=True)
class Leaks:
    """Which queries leak, (q,) bool each.

    same_picture: by their descriptor they are rows of the index. near_duplicate: they look the same as a row that is
    near. calibrated_on: the calibration was fitted on them. trained_on: their name and label are those of pictures
    that the network was trained on. training_unknown: it was trained, on what is not known.
    """

    same_picture: BoolArray
    near_duplicate: BoolArray
    calibrated_on: BoolArray
    trained_on: BoolArray
    training_unknown: bool

    @property
    def any(self) -> BoolArray:
        """(q,) bool: those of any kind."""
        found: BoolArray = np.any([getattr(self, name) for name in KINDS], axis=0)
        return found


def find_leaks(
    folder: IndexFolder,
    answers: Answers,
    queries: Queries,
    store: Descriptors | None = None,
    *,
    looking: Looking | None = None,
) -> Leaks:
    """What of the queries the index, its calibration and its network know already.

    store: of the queries; None where they are the index's own rows and background, each asked without itself.
    looking: how pictures are compared; those that cannot be read are not. Raises LmrError as `run_tasks`.
    """
    labels = [" ".join(labels) for labels in queries.landmarks]
    trained, unknown = trained_on(folder, queries.image_id, labels)
    same = answers.same_picture >= 0
    calibrated_on = np.zeros(len(queries), dtype=np.bool_)
    if store is not None:
        check_store(folder, store)
        rows = np.flatnonzero(store.done)
        vectors = to_index_space(folder, store.vectors[rows])
        calibrated_on[rows] = _calibrated_on(folder, store.image_id[rows], vectors)
    near = _near_duplicates(folder, answers, queries, ~same, looking or Looking())
    return Leaks(same, near, calibrated_on, trained, unknown)


def trained_on_rows(folder: IndexFolder) -> tuple[BoolArray, bool]:
    """As `trained_on`, of the rows of the index."""
    rows = folder.rows
    return trained_on(folder, rows.image_id, [rows.landmarks[code] for code in rows.landmark])


def trained_on(folder: IndexFolder, image_id: ObjArray, label: Sequence[str]) -> tuple[BoolArray, bool]:
    """Which pictures have the name and label of some that the network was trained on, (n,) bool.

    And whether the network was trained on pictures of which there is no record.
    """
    seen, unknown = np.zeros(len(image_id), dtype=np.bool_), False
    for made_by in _trainings(read_json(folder.path / MODEL / MODEL_CARD, "run lmr build-index again")):
        if "trained_on" in made_by:
            seen |= was_seen(made_by["trained_on"], image_id, label)
        else:
            unknown = True
    return seen, unknown


def seen_names(image_id: ObjArray) -> str:
    """Names of queries, for a calibration to keep."""
    return str(record_seen(image_id, [""] * len(image_id))["sha256_48"])


def _calibrated_on(folder: IndexFolder, image_id: ObjArray, vectors: FloatArray) -> BoolArray:
    """(n,) bool: the calibration was fitted on a picture of this name and descriptor, by its sketch.

    The sketch alone does not tell: a network that was trained on few landmarks makes pictures alike. Nor does the name:
    folders number their pictures alike. vectors: in the index's space.
    """
    calibration = folder.calibration
    if calibration is None or calibration.query_names is None or calibration.query_sketches is None:
        return np.zeros(len(vectors), dtype=np.bool_)
    named = was_seen({"sha256_48": calibration.query_names}, image_id, [""] * len(image_id))
    known = unpack_sketches(calibration.query_sketches)
    own = sketches(vectors)
    joined = np.concatenate([known, own])
    values, group = np.unique(joined, return_inverse=True)
    is_known = np.zeros(len(values), dtype=np.bool_)
    is_known[group[: len(known)]] = True
    first, second = near_pairs(values, NEAR_BITS).T
    near = is_known.copy()
    near[first] |= is_known[second]
    near[second] |= is_known[first]
    return named & near[group[len(known) :]]


def _trainings(card: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """What a model's card tells of each stage of training, of all members of an ensemble; nothing if untrained."""
    made_by = card.get("made_by") or {}
    for part in (made_by, *made_by.get("earlier_stages", ())):
        if part.get("training"):
            yield part
    for member in card.get("members", ()):
        yield from _trainings(member)


def _near_duplicates(
    folder: IndexFolder, answers: Answers, queries: Queries, asked: BoolArray, looking: Looking
) -> BoolArray:
    """(q,) bool: of the queries asked, those that look the same as a near row's picture."""
    rows, scores = answers.neighbours.rows[:, :N_COMPARED], answers.neighbours.scores[:, :N_COMPARED]
    compared = np.argwhere((rows >= 0) & (scores >= COMPARED_FROM) & asked[:, None])
    pairs = np.stack([compared[:, 0], rows[compared[:, 0], compared[:, 1]]], axis=1)
    near = np.zeros(len(queries), dtype=np.bool_)
    near[pairs[look_the_same(folder, queries.path, pairs, looking), 0]] = True
    return near
