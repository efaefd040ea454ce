"""What a folder holds of a manifest and what is still to do, row by row."""

import os
from collections.abc import Callable, Collection

import numpy as np

from retrieval.arrays import UInt8Array
from retrieval.download.ledger import Entry, Ledger
from retrieval.download.places import Places
from retrieval.errors import LmrError
from retrieval.manifest import Manifest

THERE, FAILED, EXCLUDED, TO_FETCH, TO_VERIFY, NO_URL, BAD_ID = range(7)
ROWS_AT_ONCE = 512  # looked up in the ledger


def survey(
    manifest: Manifest,
    ledger: Ledger,
    places: Places,
    *,
    retry_failed: bool = False,
    retry_causes: Collection[str] = (),
    on_done: Callable[[int], None] = lambda _: None,
) -> UInt8Array:
    """(n,) of each row what there is to do: one of the constants above.

    THERE: listed in the ledger, with a file of that size. FAILED: in an earlier run, and not to be tried again.
    EXCLUDED: by the server, in an earlier run, and not to be asked for again. retry_causes: of what failed or was
    excluded, these causes are tried again, since the rules let them pass.
    TO_VERIFY: a file that the ledger does not list. Raises LmrError when pictures that are there came from other URLs.
    """
    if manifest.url is None:
        raise ValueError(f"{manifest.source} has no url column")
    states = np.empty(len(manifest), dtype=np.uint8)
    trusts_files = not ledger.only_listed
    others: list[tuple[str, str, str]] = []
    for start in range(0, len(manifest), ROWS_AT_ONCE):
        ids = manifest.image_id[start : start + ROWS_AT_ONCE].tolist()
        entries = ledger.find(ids)
        for row, image_id in enumerate(ids, start=start):
            entry, url = entries.get(image_id), manifest.url[row]
            if entry is not None and entry.status != "done" and (retry_failed or entry.cause in retry_causes):
                entry = None
            state = states[row] = _state(image_id, url, entry, places, trusts_files)
            if state == THERE and entry is not None and url not in ("", entry.url):
                others.append((image_id, entry.url, url))
        on_done(len(ids))
    if others:
        image_id, before, now = others[0]
        raise LmrError(
            f"{places.images} holds {len(others):,} of these pictures from other URLs, {image_id} from {before}, "
            f"{manifest.source} has {now}; give another folder, or --overwrite"
        )
    return states


def _state(image_id: str, url: str, entry: Entry | None, places: Places, trusts_files: bool) -> int:
    try:
        path = places.path(image_id)
    except ValueError:
        return BAD_ID if entry is None else FAILED
    if entry is not None and entry.status == "done":
        return THERE if _size(path) == entry.bytes else TO_FETCH
    if entry is not None and entry.url == url:
        return EXCLUDED if entry.status == "excluded" else FAILED
    if trusts_files and _size(path) >= 0:
        return TO_VERIFY
    return TO_FETCH if url else NO_URL


def _size(path: str) -> int:
    """Of a file, in bytes; -1 when there is none."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1
