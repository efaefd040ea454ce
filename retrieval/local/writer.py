"""Local stores that are written whole: of features, and of the stores of all shares of a manifest."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, private_path, remove_leftovers, write_error
from retrieval.files.hdf5 import new_hdf5, write_column
from retrieval.files.hdf5_digests import room_for_digests, write_digests
from retrieval.local.features import PackedFeatures
from retrieval.local.packing import features_dtype, to_rows
from retrieval.local.store import (
    FORMAT_VERSION,
    VERSION,
    LocalColumns,
    LocalInfo,
    LocalStore,
    open_local,
    unknown_facts,
)
from retrieval.progress import Progress
from retrieval.shard import require_all, require_lengths
from retrieval.store.join import shares_of
from retrieval.store.layout import DONE, FACTS, ImageFacts, reserve
from retrieval.texts import Texts, repeated


def write_local(path: Path, info: LocalInfo, columns: LocalColumns, features: Iterable[PackedFeatures]) -> None:
    """Writes a store under a private name, with digests of what is in it, and renames it.

    features: of the images that are DONE, in their order. Raises LmrError when the disk is full; what was there stays.
    """
    dtype, total = features_dtype(info.card), int(columns.n_features.sum())
    room = room_for_digests(total * dtype.itemsize)
    private = private_path(path)
    try:
        remove_leftovers(path)
        with new_hdf5(private, room) as file:
            _make_layout(file, info, columns)
            place = file["features"].id.get_offset()
        with private.open("r+b") as raw:
            place = raw.seek(0, os.SEEK_END) if place is None else raw.seek(place)
            for packed in features:
                raw.write(to_rows(packed, dtype).tobytes())
            if raw.tell() != place + total * dtype.itemsize:
                raise ValueError(f"{(raw.tell() - place) / dtype.itemsize:g} features, the columns say {total}")
            write_digests(raw, room, place, place + total * dtype.itemsize)
            os.fsync(raw.fileno())
        os.replace(private, path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or in a folder that cannot be written
            private.unlink()


def join_local(
    paths: Sequence[Path], output: Path, *, overwrite: bool, progress: Progress
) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the local store that one run over the rows of all shares would have made.

    Returns what was done, and how many rows it has.

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


def _make_layout(file: Any, info: LocalInfo, columns: LocalColumns) -> None:
    """Fills an empty file with everything but the features, and room for them behind it."""
    file.attrs[VERSION] = FORMAT_VERSION
    file.attrs["fingerprint"] = info.card.fingerprint
    file.attrs["manifest_digest"] = info.manifest_digest
    if info.shard is not None:
        file.attrs["shard"] = str(info.shard)
    file.create_dataset("card", data=np.frombuffer(json.dumps(info.card.to_json()).encode(), np.uint8))
    write_column(file, "image_id", columns.image_id)
    write_column(file, "reason", columns.reason)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(columns.n_features)])
    file.create_dataset("offsets", data=offsets.astype("<i8"))
    file.create_dataset("state", data=columns.state)
    file.create_dataset("image_size", data=columns.size.astype("<i4"))
    if columns.facts is not None:
        for name in FACTS[:2]:
            file.create_dataset(name, data=getattr(columns.facts, name).astype("<i8"))
        file.create_dataset("sha256", data=columns.facts.sha256)
    reserve(file, "features", (int(offsets[-1]),), features_dtype(info.card))
