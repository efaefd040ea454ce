"""Calibrates an index folder: held-out queries are asked, and what they teach can be written into the folder."""

from dataclasses import replace

import numpy as np

from index.answers import check_store, to_index_space
from index.calibrate.fit import Evidence, calibrate
from index.calibrate.queries import CalibrationQueries
from index.calibrate.tune import MAX_TUNED, Grid
from index.calibration import Calibration, CalibrationSettings, Origin
from index.copies import leave_out_copies, pack_sketches, refuse_known, sketches
from index.evaluate.leakage import seen_names, trained_on_rows
from index.evaluate.leave_one_out import asked_rows, without_own
from index.folder.folder import IndexFolder, replace_calibration
from index.metrics import make_truths
from index.queries import Queries
from index.vote import background_similarity
from retrieval.errors import LmrError
from retrieval.store.store import Descriptors
from retrieval.words import counted

MOST_TRAINED_ON = 0.05  # share of the index that the network may have been trained on and still find new


def calibrate_folder(
    folder: IndexFolder, store: Descriptors, queries: Queries, settings: CalibrationSettings
) -> Calibration:
    """As `calibration_of`, and replaces the folder's calibration.json."""
    calibration = calibration_of(folder, store, queries, settings)
    replace_calibration(folder.path, calibration)
    return calibration


def calibration_of(
    folder: IndexFolder, store: Descriptors, queries: Queries, settings: CalibrationSettings
) -> Calibration:
    """What the queries that have a descriptor teach about the folder; the same for the same queries.

    queries: of the rows of `store`. Raises LmrError: another model, no landmark query, no descriptor, queries that
    are also in the index or its background.
    """
    held_out, left_out = held_out_queries(folder, store, queries)
    origin = Origin(store.source, folder.fingerprint, folder.info.inputs_digest)
    calibration = calibrate(held_out, origin, settings, evidence=leave_one_out_evidence(folder, settings.seed))
    kept = np.flatnonzero(np.isin(store.image_id, held_out.image_id) & store.done)
    packed = pack_sketches(sketches(to_index_space(folder, store.vectors[kept])))
    names = seen_names(store.image_id[kept])
    warnings = (*left_out, *calibration.warnings)
    return replace(calibration, warnings=warnings, query_names=names, query_sketches=packed)


def held_out_queries(
    folder: IndexFolder, store: Descriptors, queries: Queries
) -> tuple[CalibrationQueries, tuple[str, ...]]:
    """The queries that have a descriptor with what the folder finds for them; a warning of those left out.

    Raises LmrError as `calibration_of`.
    """
    check_store(folder, store)
    rows = np.flatnonzero(store.done)
    if not len(rows):
        raise LmrError(f"{store.source}: none of the {counted(len(store), 'calibration query')} has a descriptor")
    vectors = to_index_space(folder, store.vectors[rows])
    image_id = store.image_id[rows]
    m = int(folder.info.options["m"])
    refuse_known(image_id, vectors, folder.rows.image_id, folder.index.vectors, "the index")
    nearest = folder.index.search(vectors, 1).scores[:, 0]
    if folder.background is not None:
        known = folder.background
        refuse_known(image_id, vectors, known.image_id, known.vectors.__getitem__, "the background")
        nearest = np.maximum(nearest, background_similarity(vectors, folder.background.vectors, 1))
    kept, left_out = leave_out_copies(image_id, nearest)
    rows, vectors, image_id = rows[kept], vectors[kept], image_id[kept]
    neighbours, vectors = folder.search(vectors, max(Grid().k))
    background = None
    if folder.background is not None:
        background = background_similarity(vectors, folder.background.vectors, m)
    code = {label: i for i, label in enumerate(folder.rows.landmarks)}
    truths = make_truths([code.setdefault(label, len(code)) for label in labels] for labels in queries.landmarks[rows])
    held_out = CalibrationQueries(
        neighbours=neighbours,
        landmark=folder.rows.landmark,
        truths=truths,
        image_id=image_id,
        kind=None if queries.kind is None else queries.kind[rows],
        background=background,
        row_background=folder.rows.background,
        m=m,
    )
    return held_out, left_out


def leave_one_out_evidence(folder: IndexFolder, seed: int) -> Evidence:
    """Leave-one-out over the folder, where it says what the vote does to pictures that are new."""
    if len(folder.rows) == 1:
        return Evidence(None, "since the index has one picture")
    if not folder.refinement.is_off:
        return Evidence(None, "since pictures of this index borrow from each other")
    trained_on, unknown = trained_on_rows(folder)
    if trained_on.mean() > MOST_TRAINED_ON:
        return Evidence(
            None,
            f"since the network was trained on {int(trained_on.sum()):,} of the "
            f"{counted(len(trained_on), 'picture')} of the index",
        )
    if unknown:
        return Evidence(None, "since the network may have been trained on pictures of the index: it kept no record")
    return Evidence(left_out_queries(folder, max(Grid().k), MAX_TUNED, seed))


def left_out_queries(folder: IndexFolder, k: int, n_most: int, seed: int) -> CalibrationQueries:
    """The same questions as queries that rules of the vote can be judged by, with k neighbours each.

    n_most: rows, and as many background pictures, that are drawn where there are more. The folder borrows nothing.
    """
    rows, rng = folder.rows, np.random.default_rng(seed)
    vectors, similarity = asked_rows(folder)
    parts = (np.arange(len(rows)), np.arange(len(rows), len(vectors)))
    drawn = np.sort(np.concatenate([rng.permutation(part)[:n_most] for part in parts]))
    own_row = np.where(drawn < len(rows), drawn, -1)
    own = np.where(own_row >= 0, rows.landmark[own_row], -1).astype(np.int32)
    image_id = np.concatenate([rows.image_id, [] if folder.background is None else folder.background.image_id])
    return CalibrationQueries(
        neighbours=without_own(folder.index.search(vectors[drawn], k + 1), own_row),
        landmark=rows.landmark,
        truths=make_truths([code] for code in own.tolist()),
        image_id=image_id[drawn].astype(object),
        background=None if similarity is None else similarity[drawn],
        row_background=rows.background,
        m=folder.rule.m,
        own=own,
    )
