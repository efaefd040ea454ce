"""A user's own columns of a store changed to those that the manifest has now; descriptors stay as they are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval.own_columns import OwnColumns, read_columns, same_columns
from retrieval.progress import Progress
from retrieval.store.file import lay_out, open_store
from retrieval.store.join import copy_rows, known_of, whole_store
from retrieval.store.layout import TODO
from retrieval.store.store import partial_path, read_store_info, resume_store


def renew_columns(path: Path, columns: OwnColumns, progress: Progress) -> bool:
    """Writes a store anew, finished or not, where its own columns are not these; tells whether it did.

    columns: of its rows. Killed at any moment it leaves the old store or the new one. Raises LmrError where it cannot
    be written, or is not as it was written.
    """
    with open_store(path) as (file, _):
        if same_columns(read_columns(file, len(file["state"])), columns):
            return False
    info, state = read_store_info(path)
    part, new = whole_store(path, state), path.with_name(f"{path.name}.columns")
    lay_out(partial_path(new), replace(known_of([part]), own=columns), info)
    with resume_store(new) as writer:
        copy_rows(part, np.flatnonzero(state != TODO), writer, progress)
        is_finished = not (writer.state == TODO).any()
        if is_finished:
            writer.finish()
    os.replace(new if is_finished else partial_path(new), path)
    progress.tell(f"{path}: its own columns are those of the manifest now; no picture is embedded again")
    return True
