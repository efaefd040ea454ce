"""Stores written in one go, for tests."""

from pathlib import Path

import numpy as np

from retrieval.files.atomic import private_path
from retrieval.store.file import lay_out
from retrieval.store.layout import Columns
from retrieval.store.store import UNREADABLE, Descriptors
from retrieval.store.writer import StoreWriter


def write_store(path: Path, descriptors: Descriptors) -> None:
    """Writes a finished store of these descriptors."""
    partial = private_path(path)
    facts, reasons, given = descriptors.facts, descriptors.reason, descriptors
    columns = Columns(
        given.image_id,
        given.landmark,
        given.landmarks,
        given.path,
        given.kind,
        given.names,
        facts is not None,
        given.columns,
    )
    lay_out(partial, columns, descriptors.info)
    with StoreWriter(path, partial) as writer:
        rows = np.flatnonzero(descriptors.done)
        writer.write(rows, descriptors.vectors[rows], None if facts is None else facts.select(rows))
        for row in np.flatnonzero(descriptors.state == UNREADABLE):
            fact = None if facts is None else facts.select(np.array([row]))
            writer.write_unreadable(int(row), "" if reasons is None else reasons[row], fact)
        writer.finish()
