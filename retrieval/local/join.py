"""Joins the local stores of all shares of a manifest into that which one run over all of its rows would have made."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval.errors import LmrError
from retrieval.local.features import PackedFeatures
from retrieval.local.store import LocalColumns, LocalStore, open_local, unknown_facts, write_local
from retrieval.progress import Progress
from retrieval.shard import require_all, require_lengths
from retrieval.store.join import shares_of
from retrieval.store.layout import DONE, ImageFacts
from retrieval.texts import Texts, repeated


def join_local(
    paths: Sequence[Path], output: Path, *, overwrite: bool, progress: Progress
) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the local store of all rows; what was done, and how many rows it has.

    Raises LmrError for parts that are not all shares of one store, each once, and for another store in the place of
    the output.
    """
    stores = _in_order([open_local(path) for path in paths])
    info, columns = replace(stores[0].info, shard=None), _columns(stores)
    if output.exists() and not overwrite:
        there = open_local(output)
        if difference := there.info.difference(info):
            raise LmrError(f"{output} was made with {difference}; give `overwrite` or another `output`")
        if not _is_alike(there, stores, columns):
            raise LmrError(f"{output} holds other local features; give `overwrite` or another `output`")
        return "unchanged", len(columns)
    progress.begin("joining", len(columns))
    write_local(output, info, columns, _all(stores, progress))
    progress.end()
    return "joined", len(columns)


def _in_order(stores: Sequence[LocalStore]) -> list[LocalStore]:
    """The parts in the order of their shares."""
    shares = shares_of([store.path for store in stores], [store.info for store in stores])
    for store in stores:
        if difference := replace(store.info, shard=stores[0].info.shard).difference(stores[0].info):
            raise LmrError(
                f"{store.path} was made with {difference} than {stores[0].path}; give shares of one manifest with one "
                "kind of local features"
            )
    order = require_all(shares)
    require_lengths(shares, list(map(len, stores)))
    return [stores[at] for at in order]


def _columns(stores: Sequence[LocalStore]) -> LocalColumns:
    parts = [store.columns for store in stores]
    image_id = Texts.joined([part.image_id for part in parts])
    if repeated(image_id):
        raise LmrError(f"{stores[0].path} and other shares hold the same images; make them again from one manifest")
    facts = [part.facts or unknown_facts(len(part)) for part in parts]
    return LocalColumns(
        image_id=image_id,
        state=np.concatenate([part.state for part in parts]),
        n_features=np.concatenate([part.n_features for part in parts]),
        size=np.concatenate([part.size for part in parts]),
        reason=Texts.joined([part.reason for part in parts]),
        facts=ImageFacts(
            np.concatenate([part.size for part in facts]),
            np.concatenate([part.mtime_ns for part in facts]),
            np.concatenate([part.sha256 for part in facts]),
        ),
    )


def _all(stores: Sequence[LocalStore], progress: Progress) -> Iterator[PackedFeatures]:
    """Features of the images that are DONE."""
    for store in stores:
        for row in range(len(store)):
            if (packed := store.packed(row)) is not None:
                yield packed
            progress.add(1)


def _is_alike(there: LocalStore, stores: Sequence[LocalStore], columns: LocalColumns) -> bool:
    """Tells whether a store holds the same of the same images as the parts, their features and all else."""
    if not there.columns.equals(columns):
        return False
    parts = (store.packed(row) for store in stores for row in np.flatnonzero(store.columns.state == DONE).tolist())
    mine = (there.packed(row) for row in np.flatnonzero(columns.state == DONE).tolist())
    return all(
        one is not None
        and other is not None
        and np.array_equal(one.points, other.points)
        and np.array_equal(one.descriptors, other.descriptors)
        and (one.frames is None or other.frames is None or np.array_equal(one.frames, other.frames))
        for one, other in zip(mine, parts, strict=True)
    )
