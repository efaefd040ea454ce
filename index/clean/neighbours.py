"""The nearest other images of every labelled image, and what they say: block by block, in bounded memory."""

import io
import tempfile
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from index.clean.config import CleaningRule
from index.clean.labels import Support, support
from index.folder.vectors import store_rows
from index.search.base import Neighbours
from index.search.flat import FlatIndex
from index.vote import background_similarity
from index.whitening import Whitening, fit_whitening
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, Matrix
from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes
from retrieval.progress import SILENT, Progress
from retrieval.store.stored import BLOCK_ROWS as READ_ROWS

# Of the whitening. Of the labels that were flipped in real photographs (seeds 3 to 12), at a precision of 90 %, 0.933
# are found with 0.25, 0.927 with 0.5, 0.918 with 0; with 50 neighbours instead of 100 between 0.90 and 0.92.
POWER = 0.25
MEAN_OF = 3  # largest similarities that stand for the likeness to a landmark or to the background
SHOWN = 5  # neighbours that are named as evidence
JOINED = 20  # nearest images of its landmark that each one is joined with
BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class CentredSpace:
    """labelled: (n, d) and background: (b, d) unit vectors, centred together."""

    labelled: Matrix
    background: FloatArray


@dataclass(frozen=True, slots=True)
class _WhiteRows:
    """Rows as the whitening makes them, where they are asked for."""

    rows: Matrix
    whitening: Whitening

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0], self.whitening.matrix.shape[1]

    def __getitem__(self, at: slice | LongArray) -> FloatArray:
        return self.whitening.apply(self.rows[at])


@dataclass(frozen=True, slots=True)
class _Both:
    """Rows and those of the background behind them, in slices."""

    rows: Matrix
    background: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0] + len(self.background), self.rows.shape[1]

    def __getitem__(self, at: slice) -> FloatArray:
        n = self.rows.shape[0]
        start, stop, _ = at.indices(self.shape[0])
        others = self.background[max(start - n, 0) : max(stop - n, 0)]
        return np.concatenate([self.rows[min(start, n) : min(stop, n)], others])


@dataclass(frozen=True, slots=True)
class _IndexRows:
    """The rows of an index."""

    index: FlatIndex

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index), self.index.d

    def __getitem__(self, at: LongArray) -> FloatArray:
        return self.index.vectors(at)


@dataclass(frozen=True, slots=True)
class Block:
    """Surroundings of rows [first, first + b).

    support: of their landmarks. nearest: (b, 5) rows, -1 = none. own_similarity, other_similarity: (b,) mean of the 3
    largest similarities to images with the same label, with others; own is NaN for a landmark's only image.
    background_similarity: (b,), NaN without a background. joined, copies: (m, 2) pairs of rows.
    """

    support: Support
    nearest: LongArray
    own_similarity: FloatArray
    other_similarity: FloatArray
    background_similarity: FloatArray
    joined: LongArray
    copies: LongArray


def centre(labelled: Matrix, background: FloatArray) -> CentredSpace:
    """Subtracts the mean of all and keeps the largest components, a little evened out; then unit length.

    Networks without training give descriptors that all point the same way; centred, a similarity of 0 means nothing in
    common whatever the network. Where all descriptors are equal they stay as they are.
    """
    try:
        whitening = fit_whitening(_Both(labelled, background), POWER)
    except LmrError:
        return CentredSpace(labelled, background)
    return CentredSpace(_WhiteRows(labelled, whitening), whitening.apply(background))


def n_blocks(n: int) -> int:
    """Number of blocks that n rows make."""
    return -(-n // BLOCK_ROWS)


def look_around(index: FlatIndex, space: CentredSpace, landmark: IntArray, number: int, rule: CleaningRule) -> Block:
    """One block of rows. index: of space.labelled; landmark: (n,) int32, none -1; number: of the block."""
    rows = np.arange(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, len(landmark)), dtype=np.int64)
    found = nearest_others(index, rows, rule.n_neighbours)
    real = found.rows >= 0
    same = real & (landmark[np.where(real, found.rows, 0)] == landmark[rows][:, None])
    n_others = np.bincount(landmark)[landmark[rows]] - 1
    last = np.where(real, found.scores, np.inf).min(axis=1, initial=1.0)
    # Rows of its landmark that were not found are at most as similar as the last one that was.
    own = _mean_of_largest(np.where(same, found.scores, -np.inf), last, n_others)
    other = _mean_of_largest(np.where(real & ~same, found.scores, -np.inf), last, real.sum(axis=1) - same.sum(axis=1))
    shown = np.full((len(rows), SHOWN), -1, dtype=np.int64)
    shown[:, : min(SHOWN, found.k)] = found.rows[:, :SHOWN]
    near = same & (np.cumsum(same, axis=1) <= JOINED) & (found.scores >= rule.component_similarity)
    return Block(
        support=support(found, _IndexRows(index), landmark, rows),
        nearest=shown,
        own_similarity=own,
        other_similarity=other,
        background_similarity=_to_background(index.vectors(rows), space.background),
        joined=_pairs(rows, found, near),
        copies=_pairs(rows, found, real & (found.scores >= rule.near_similarity)),
    )


def nearest_others(index: FlatIndex, rows: LongArray, k: int) -> Neighbours:
    """The k nearest rows of each of these rows of the index, without itself.

    Searched with one more than k; where the row itself was not found among rows that are equal to it, the last one is
    left out.
    """
    found = index.search(index.vectors(rows), k + 1)
    own = found.rows == rows[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), k)
    return Neighbours(found.rows[~own].reshape(shape), found.scores[~own].reshape(shape))


def join_blocks(blocks: list[Block]) -> Block:
    """Successive blocks as one."""
    parts = [block.support for block in blocks]
    whole = Support(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Support)))
    further = {
        item.name: np.concatenate([getattr(block, item.name) for block in blocks])
        for item in fields(Block)
        if item.name != "support"
    }
    return Block(support=whole, **further)


def _mean_of_largest(scores: FloatArray, last: FloatArray, n_there: LongArray) -> FloatArray:
    """(q,) mean of the 3 largest of each line, those beyond the ones found counting as `last`; NaN for n_there = 0."""
    m = min(MEAN_OF, scores.shape[1])
    largest = -np.sort(np.partition(-scores, m - 1, axis=1)[:, :m], axis=1)
    largest = np.where(np.isfinite(largest), largest, last[:, None])
    counted = np.arange(m) < n_there[:, None]
    n = counted.sum(axis=1)
    mean: FloatArray = np.where(n > 0, np.where(counted, largest, 0).sum(axis=1) / np.maximum(n, 1), np.nan)
    return mean.astype(np.float32)


def _to_background(vectors: FloatArray, background: FloatArray) -> FloatArray:
    if not len(background):
        return np.full(len(vectors), np.nan, dtype=np.float32)
    return background_similarity(vectors, background, MEAN_OF)


def _pairs(rows: LongArray, found: Neighbours, chosen: BoolArray) -> LongArray:
    """The chosen neighbours as pairs of rows, lower first, each once within the block."""
    pairs = np.stack([np.broadcast_to(rows[:, None], chosen.shape)[chosen], found.rows[chosen]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def look_around_all(
    space: CentredSpace,
    landmark: IntArray,
    rule: CleaningRule,
    work: Path | None,
    *,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Block:
    """All blocks of the labelled rows, those in the folder `work` taken from there and new ones put there.

    The centred rows lie in a file there, or in a temporary one, while they are compared. landmark: (n,) int32, none -1.
    Raises LmrError when the folder cannot be written or the disk is full; what was written before stays.
    """
    blocks: list[Block] = []
    index: FlatIndex | None = None
    progress.begin("comparing", len(landmark))
    with ExitStack() as held:
        for number in range(n_blocks(len(landmark))):
            path = None if work is None else work / f"block-{number:06d}.npz"
            block = _read(path)
            if block is None:
                index = index or _store(space.labelled, work, device, held, progress)
                block = look_around(index, space, landmark, number, rule)
                _write(path, block)
            blocks.append(block)
            progress.add(len(block.nearest))
    progress.end()
    return join_blocks(blocks)


def _store(rows: Matrix, work: Path | None, device: str, held: ExitStack, progress: Progress) -> FlatIndex:
    """An index of these rows, which lie in a file until `held` ends."""
    path = (work or Path(held.enter_context(tempfile.TemporaryDirectory()))) / "rows.faiss"
    held.callback(path.unlink, missing_ok=True)
    starts = range(0, rows.shape[0], READ_ROWS)
    return store_rows(path, (rows[start : start + READ_ROWS] for start in starts), "float32", device, progress)


def _read(path: Path | None) -> Block | None:
    """None where there is none, or where it is damaged: it is then made again."""
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
        own = {item.name: found[f"support_{item.name}"] for item in fields(Support)}
        return Block(Support(**own), *(found[item.name] for item in fields(Block) if item.name != "support"))
    except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path | None, block: Block) -> None:
    if path is None:
        return
    arrays = {item.name: getattr(block, item.name) for item in fields(Block) if item.name != "support"}
    arrays |= {f"support_{item.name}": getattr(block.support, item.name) for item in fields(Support)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
