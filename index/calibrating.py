"""Calibrates an index folder: held-out queries are asked, and what they teach can be written into the folder."""

from dataclasses import replace

import numpy as np

from index.answers import check_store, to_index_space
from index.background import background_similarity
from index.calibration import Calibration, CalibrationSettings, Origin, calibrate
from index.copies import leave_out_copies, refuse_known
from index.evaluation import Queries
from index.folder import IndexFolder, replace_calibration
from index.metrics import make_truths
from index.tuning import CalibrationQueries, Grid
from retrieval.errors import LmrError
from retrieval.store import Descriptors


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
    check_store(folder, store)
    rows = np.flatnonzero(store.done)
    if not len(rows):
        raise LmrError(f"{store.source}: none of the {len(store)} calibration queries has a descriptor")
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
    origin = Origin(store.source, folder.fingerprint, folder.info.inputs_digest)
    calibration = calibrate(held_out, origin, settings)
    return replace(calibration, warnings=(*left_out, *calibration.warnings))
