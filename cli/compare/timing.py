"""How many pictures a second a system takes, from encoded picture to descriptor or class."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cli.compare.workshop import Workshop
from cli.workers import default_workers
from retrieval.arrays import LongArray

N_TIMED = 256  # pictures of val


def describing(shop: Workshop, index: Path) -> Callable[[LongArray], object]:
    """A function that describes these pictures of val as the index folder does."""
    import lmr
    from retrieval.images.source import PictureSource

    n_workers = max(1, default_workers(shop.values["workers"]))
    where = {"device": shop.values["device"], "threads": shop.values["threads"]}
    opened = lmr.open_index(index, **where, workers=n_workers)
    source = PictureSource(shop.queries["val"][0], shop.data.images)
    return lambda rows: opened.embed([source.read(row) for row in rows.tolist()])


def measure_rate(shop: Workshop, describe: Callable[[LongArray], object]) -> float:
    """Pictures/s from encoded picture to descriptor or class, over some readable pictures of val, after a warm-up.

    LmrError when none can be read.
    """
    from retrieval.errors import LmrError, UnreadableError
    from retrieval.images.source import PictureSource

    source = PictureSource(shop.queries["val"][0], shop.data.images)
    readable = []
    for row in range(len(shop.queries["val"][0])):
        with contextlib.suppress(UnreadableError):
            source.read(row)
            readable.append(row)
        if len(readable) == N_TIMED:
            break
    if not readable:
        raise LmrError(f"{shop.data.parts['val']}: none of its pictures can be read")
    rows = np.array(readable, dtype=np.int64)
    describe(rows)
    began = time.monotonic()
    describe(rows)
    return len(rows) / (time.monotonic() - began)
