"""Stores made of other stores: of all rows of its shares, of the same images by an adapter, or with other own columns.

They are what one run over all images would have made.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.files.hdf5 import pack_texts, read_texts
from retrieval.files.hdf5_digests import Digests
from retrieval.own_columns import OwnColumns, join_columns, read_columns, same_columns
from retrieval.progress import Progress
from retrieval.shard import Shard, require_all, require_lengths
from retrieval.store.file import damage_named, lay_out, open_store
from retrieval.store.info import StoreInfo
from retrieval.store.layout import DONE, FACTS, TODO, Columns, ImageFacts, has_facts
from retrieval.store.store import partial_path, read_store_info, require_finished, resume_store
from retrieval.store.stored import to_unit
from retrieval.store.writer import StoreWriter
from retrieval.texts import Texts, repeated

if TYPE_CHECKING:
    from retrieval.local.store import LocalInfo

_ROWS = 4096  # copied at a time
ROUNDING = 2e-3  # of the numbers of a unit descriptor in float16 and on other threads, by far
_TEXTS = ("image_id", "path", "kind")  # columns


@dataclass(frozen=True, slots=True)
class _Part:
    """One share's store; there may be more of them than files that a process may have open. begin: its first row."""

    path: Path
    begin: int
    state: UInt8Array

    @contextmanager
    def open(self) -> Iterator["_OpenPart"]:
        """Its file, to read."""
        with open_store(self.path) as (file, digests):
            yield _OpenPart(self, file, digests)


@dataclass(frozen=True, slots=True)
class _OpenPart:
    """One share's store, open."""

    part: _Part
    file: Any
    digests: Digests | None

    def texts(self, name: str) -> Texts:
        """A column of texts."""
        return pack_texts(self.file[name])

    def vectors(self, rows: LongArray) -> Any:
        """The descriptors of these of its rows as they are stored. LmrError where they are not as they were written."""
        if self.digests is not None:
            data = self.file["vectors"]
            with damage_named(self.part.path):
                self.digests.require_rows(rows, data.dtype.itemsize * data.shape[1])
        return self.file["vectors"][rows]

    def unit(self, rows: LongArray) -> FloatArray:
        """As `vectors`, in float32 and of unit length. LmrError also for zero, NaN or infinity."""
        return to_unit(self.vectors(rows), self.texts("image_id").select(rows), str(self.part.path))

    def facts(self, rows: LongArray) -> ImageFacts | None:
        """What the files of their images were."""
        return ImageFacts(*(self.file[name][rows] for name in FACTS)) if has_facts(self.file) else None


def join_stores(
    paths: Sequence[Path], output: Path, *, overwrite: bool, progress: Progress
) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the store of all rows; what was done, and how many rows it has.

    A join that was stopped goes on. Raises LmrError for parts that are not all shares of one store, each once, and
    for another store in the place of the output.
    """
    parts, info = _in_order(paths)
    n = sum(len(part.state) for part in parts)
    places = [] if overwrite else [place for place in (output, partial_path(output)) if place.exists()]
    for place in places:
        if difference := read_store_info(place)[0].difference(info):
            raise LmrError(f"{place} was made with {difference}; give `overwrite` or another `output`")
    if places and places[0] == output:
        if not _holds(output, parts):
            raise LmrError(f"{output} holds other descriptors; give `overwrite` or another `output`")
        renew_columns(output, _known_of(parts).own, progress)
        return "unchanged", n
    if places:
        renew_columns(places[0], _known_of(parts).own, progress)
    else:
        lay_out(partial_path(output), _known_of(parts), info)
    with resume_store(output) as writer:
        progress.begin("joining", n)
        for part in parts:
            left = np.flatnonzero(writer.state[part.begin : part.begin + len(part.state)] == TODO)
            progress.add(len(part.state) - len(left))
            _copy_rows(part, left, writer, progress)
        progress.end()
        writer.finish()
    return "joined", n


def adapt_store(
    path: Path, output: Path, info: StoreInfo, adapt: Callable[[FloatArray], FloatArray], *, progress: Progress
) -> UInt8Array:
    """Writes the store of the same images whose descriptors are adapted; the (n,) state of its rows.

    info: of the new store. adapt: unit descriptors (b, d) of the store to new ones. What an earlier run left unfinished
    is begun anew. Raises LmrError for descriptors that are not as they were written, and a full disk.
    """
    part = _Part(path, 0, read_store_info(path)[1])
    lay_out(partial_path(output), _known_of([part]), info)
    with part.open() as store, resume_store(output) as writer:
        progress.begin("adapting", len(part.state), "descriptors")
        for rows in _blocks(part):
            _copy(store, rows, writer, adapt)
            progress.add(len(rows))
        progress.end()
        writer.finish()
    return part.state


def is_adapted(path: Path, output: Path, adapt: Callable[[FloatArray], FloatArray]) -> bool:
    """Tells whether a finished store has the images of another one, and descriptors that are adapted from its own.

    They may differ by rounding. adapt: as of `adapt_store`.
    """
    part, other = _Part(path, 0, read_store_info(path)[1]), _Part(output, 0, read_store_info(output)[1])
    if not np.array_equal(part.state, other.state):
        return False
    with part.open() as store, other.open() as there:
        if store.texts("image_id") != there.texts("image_id"):
            return False
        done = (rows[part.state[rows] == DONE] for rows in _blocks(part))
        return all(
            np.allclose(there.vectors(rows), adapt(store.unit(rows)), rtol=0, atol=ROUNDING)
            for rows in done
            if len(rows)
        )


def renew_columns(path: Path, columns: OwnColumns, progress: Progress) -> bool:
    """Writes a store anew, finished or not, where its own columns are not these; tells whether it did.

    columns: of its rows. Killed at any moment it leaves the old store or the new one. Raises LmrError where it cannot
    be written, or is not as it was written.
    """
    with open_store(path) as (file, _):
        if same_columns(read_columns(file, len(file["state"])), columns):
            return False
    info, state = read_store_info(path)
    part, new = _Part(path, 0, state), path.with_name(f"{path.name}.columns")
    lay_out(partial_path(new), replace(_known_of([part]), own=columns), info)
    with resume_store(new) as writer:
        _copy_rows(part, np.flatnonzero(state != TODO), writer, progress)
        is_finished = not (writer.state == TODO).any()
        if is_finished:
            writer.finish()
    os.replace(new if is_finished else partial_path(new), path)
    progress.tell(f"{path}: its own columns are those of the manifest now; no picture is embedded again")
    return True


def _in_order(paths: Sequence[Path]) -> tuple[list[_Part], StoreInfo]:
    """The parts in the order of their shares, and the account that the whole gives of itself."""
    infos, states = [], []
    for path in paths:
        require_finished(path)
        info, state = read_store_info(path)
        infos.append(info)
        states.append(state)
    shares = shares_of(paths, infos)
    whole = replace(infos[0], shard=None)
    for path, info in zip(paths, infos, strict=True):
        if (difference := replace(info, shard=None).difference(whole)) or info.d != whole.d:
            told = difference or f"another length of descriptors ({info.d}, not {whole.d})"
            raise LmrError(f"{path} was made with {told} than {paths[0]}; give shares of one manifest by one model")
    order = require_all(shares)
    require_lengths(shares, [len(state) for state in states])
    parts, begin = [], 0
    for at in order:
        parts.append(_Part(paths[at], begin, states[at]))
        begin += len(states[at])
    return parts, whole


def shares_of(paths: Sequence[Path], infos: Sequence["StoreInfo | LocalInfo"]) -> list[tuple[Path, Shard]]:
    """Which share each part is, by what it says of itself. Raises LmrError for one that is none."""
    shares = []
    for path, info in zip(paths, infos, strict=True):
        if info.shard is None:
            raise LmrError(f"{path} is no share, it holds all rows; give what was made with `shard`")
        shares.append((path, info.shard))
    return shares


def _known_of(parts: Sequence[_Part]) -> Columns:
    """Everything of the rows but descriptors. LmrError where parts know different landmarks, or an image twice."""
    known: tuple[list[str], list[str]] | None = None
    columns: list[list[Texts]] = []
    landmark: list[IntArray] = []
    own: list[tuple[OwnColumns, int]] = []
    with_facts = False
    for part in parts:
        with part.open() as store:
            here = read_texts(store.file["landmarks"]).tolist(), read_texts(store.file["landmark_name"]).tolist()
            if known is None:
                known, with_facts = here, has_facts(store.file)
            if here[0] != known[0]:
                raise LmrError(f"{part.path} has other landmarks than {parts[0].path}; give shares of one manifest")
            columns.append([store.texts(name) for name in _TEXTS if name in store.file])
            landmark.append(store.file["landmark"][:])
            own.append((read_columns(store.file, len(part.state)), len(part.state)))
    assert known is not None
    image_id, path, *kind = (Texts.joined(column) for column in zip(*columns, strict=True))
    if repeated(image_id):
        raise LmrError(f"{parts[0].path} and other shares hold the same images; make them again from one manifest")
    return Columns(
        image_id=image_id,
        landmark=np.concatenate(landmark),
        landmarks=tuple(known[0]),
        path=path,
        kind=kind[0] if kind else None,
        names={label: name for label, name in zip(*known, strict=True) if name},
        with_facts=with_facts,
        own=join_columns(own),
    )


def _copy_rows(part: _Part, rows: LongArray, writer: StoreWriter, progress: Progress) -> None:
    """Writes rows of a part that are done or unreadable to their places in the whole."""
    with part.open() as store:
        for start in range(0, len(rows), _ROWS):
            block = rows[start : start + _ROWS]
            _copy(store, block, writer)
            progress.add(len(block))


def _copy(
    store: _OpenPart, rows: LongArray, writer: StoreWriter, adapt: Callable[[FloatArray], FloatArray] | None = None
) -> None:
    """Writes these rows of a part to their places in the whole, their descriptors adapted where that is asked for."""
    begin, state = store.part.begin, store.part.state
    done = rows[state[rows] == DONE]
    if len(done):
        vectors = store.vectors(done) if adapt is None else adapt(store.unit(done))
        writer.write(done + begin, vectors, store.facts(done))
    for row in rows[state[rows] != DONE]:
        reason = store.file["reason"][int(row)].decode()
        writer.write_unreadable(int(row) + begin, reason, store.facts(np.array([row])))


def _holds(output: Path, parts: Sequence[_Part]) -> bool:
    """Tells whether a finished store holds the same images and descriptors as the parts."""
    whole = _Part(output, 0, read_store_info(output)[1])
    if not np.array_equal(whole.state, np.concatenate([part.state for part in parts])):
        return False
    with whole.open() as there:
        image_id = there.texts("image_id")
        for part in parts:
            with part.open() as store:
                begin, end = part.begin, part.begin + len(part.state)
                if list(store.texts("image_id")) != list(image_id.select(slice(begin, end))):
                    return False
                if not all(np.array_equal(there.vectors(rows + begin), store.vectors(rows)) for rows in _blocks(part)):
                    return False
    return True


def _blocks(part: _Part) -> Iterator[LongArray]:
    for start in range(0, len(part.state), _ROWS):
        yield np.arange(start, min(start + _ROWS, len(part.state)))
