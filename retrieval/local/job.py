"""Local features of a manifest's images: a store is begun, gone on with, or found finished."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.files.lock import output_lock, output_locks
from retrieval.images.bytes_source import Source
from retrieval.images.crashes import CRASHED, Careful, Flight
from retrieval.jobs import ComputingJob
from retrieval.local.config import LocalCard, LocalOptions, card_of
from retrieval.local.extractor import Extractor, open_extractor
from retrieval.local.features import PackedFeatures
from retrieval.local.journal import Journal, JournalHead, journal_path, read_head
from retrieval.local.packing import learn_projection, projected, unpack
from retrieval.local.rootsift import RootSift, require_opencv
from retrieval.local.store import LocalColumns, LocalInfo, LocalStore, open_local
from retrieval.local.writer import write_local
from retrieval.parallel import count_workers
from retrieval.store.changes import Changes, Check, WatchedSource, find_changes
from retrieval.store.layout import DONE, TODO, UNREADABLE
from retrieval.words import shortened

if TYPE_CHECKING:
    from PIL import Image

    _Begun = PackedFeatures | Image.Image

BATCH = 64  # images whose features are kept at once
_AHEAD = 2  # images a worker that are begun before they are needed
_N_SAMPLED = 500  # images on whose descriptors a projection is learnt, evenly spaced
_DESCRIPTORS_EACH = 200  # of one of them


_State = Literal["made", "resumed", "updated", "unchanged"]


class OtherStoreError(LmrError):
    """The store that is there was begun for something else."""


@dataclass(frozen=True, slots=True)
class LocalRun:
    """The filling of a local store.

    check: what of an image must be the same for it to count as unchanged. retry_unreadable: also tries the unreadable
    images of a finished store again. weights: of the network, None = those of its package.
    """

    overwrite: bool = False
    retry_unreadable: bool = False
    check: Check = "size"
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalReport:
    """Outcome of a filling. `updated`: some rows of a finished store. n_features, n_bytes: of the whole store.

    changes: of the images since the store that was there was made.
    """

    store: Path
    state: _State
    n_images: int
    n_unreadable: int
    n_features: int
    n_bytes: int
    changes: Changes = field(default_factory=Changes, compare=False)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "store": str(self.store),
            "state": self.state,
            "pictures": self.n_images,
            "unreadable": self.n_unreadable,
            "features": self.n_features,
            "bytes": self.n_bytes,
        }


def complete_local(
    manifest: Manifest,
    images: Path,
    card: LocalCard,
    output: Path,
    *,
    job: ComputingJob,
    run: LocalRun | None = None,
    wait: bool = False,
) -> LocalStore:
    """The local store of a manifest, made, completed or found.

    run: of which `overwrite` replaces a store only where it is of something else. Raises LmrError as `fill_local`.
    """
    run, source = run or LocalRun(), ImageSource(manifest, images)
    with output_locks(output, wait=wait, progress=job.progress):
        try:
            fill_local(output, manifest, source, card, job=job, run=replace(run, overwrite=False))
        except OtherStoreError:
            if not run.overwrite:
                raise
            fill_local(output, manifest, source, card, job=job, run=run)
        return open_local(output)


def fill_local(
    output: Path,
    manifest: Manifest,
    source: ImageSource,
    what: LocalOptions | LocalCard,
    *,
    job: ComputingJob,
    run: LocalRun,
    wait: bool = False,
) -> LocalReport:
    """Finds local features of every image of the manifest, in its order.

    what: a card, or options, of which a projection is learnt here. Raises OtherStoreError where the store that is
    there, finished or not, was begun for something else, and LmrError for a missing extra, device or weights.
    """
    with output_lock(output, wait=wait, progress=job.progress):
        return _Filling(output, manifest, source, job, run).fill(what)


def require_local(
    output: Path,
    manifest: Manifest,
    source: ImageSource,
    what: LocalOptions | LocalCard,
    *,
    job: ComputingJob,
    run: LocalRun,
) -> None:
    """Raises LmrError as `fill_local` will, before anything is done."""
    if what.kind == "rootsift":
        require_opencv("RootSIFT")
    _Filling(output, manifest, source, job, run).require_same(what)


class _Filling:
    """The filling of a store whose lock is held.

    base: the finished store that is there, of which some rows may be done anew. head: of a journal that goes with it.
    """

    def __init__(self, output: Path, manifest: Manifest, source: ImageSource, job: ComputingJob, run: LocalRun) -> None:
        if output.is_dir():
            raise LmrError(f"{output} is a folder; give the store another name")
        self._output, self._manifest, self._source, self._job, self._run = output, manifest, source, job, run
        self._n_workers = max(1, count_workers(job.workers, job.progress))
        self._base: LocalStore | None = None
        self._head: JournalHead | None = None
        if not run.overwrite:
            self._base = open_local(output) if output.exists() else None
            head = read_head(journal_path(output))
            if head is not None and head.base == self._identity:
                self._head = head  # others are of a store that was finished, or replaced, since

    def fill(self, what: LocalOptions | LocalCard) -> LocalReport:
        """Does what is left to do."""
        info = self.require_same(what)
        if info is None:
            assert isinstance(what, LocalOptions)
            info = self._info_of(self._learn(what))
        head = self._head or JournalHead(info, len(self._manifest), self._identity)
        # without a head, what is there is of another store, or of one that is to be made anew
        journal = Journal(journal_path(self._output), head, is_new=self._head is None)
        columns = self._columns(journal)
        changes, rows = self._to_do(columns, journal)
        if self._base is not None and not len(rows) and self._head is None:
            return self._report("unchanged", self._base, changes)
        if len(rows):
            crashed = [row for row in rows.tolist() if columns.reason[row].startswith(CRASHED)]
            self._extract(rows, journal, info.card, crashed)
        del journal  # which is as large as the one that reads it back
        self._finish(head)
        state: _State = "updated" if self._base else "resumed" if self._head else "made"
        return self._report(state, open_local(self._output), changes)

    @property
    def _identity(self) -> str:
        return "" if self._base is None else self._base.identity

    def _info_of(self, card: LocalCard) -> LocalInfo:
        return LocalInfo(card, self._manifest.digest, self._manifest.shard)

    def require_same(self, what: LocalOptions | LocalCard) -> LocalInfo | None:
        """What the store will be; None where a projection has to be learnt. OtherStoreError as `fill_local`."""
        found = self._base.info if self._base else self._head.info if self._head else None
        card = what if isinstance(what, LocalCard) else self._card_of(what, found)
        if card is None:
            return None
        info = self._info_of(card)
        if found is not None and (difference := found.difference(info)):
            place = self._output if self._base else journal_path(self._output)
            raise OtherStoreError(f"{place} was made with {difference}; give `overwrite` or another file name")
        return info

    def _card_of(self, options: LocalOptions, found: LocalInfo | None) -> LocalCard | None:
        """The card of options, with the projection that is there; None where it has to be learnt."""
        is_network = options.kind != "rootsift"
        card = self._open(options).card if is_network else card_of(options, RootSift.d)
        if not options.n_dimensions:
            return card
        if options.n_dimensions > card.d:
            raise LmrError(f"`local_dimensions` {options.n_dimensions} is more than the {card.d} of a descriptor")
        if self._manifest.shard is not None:
            raise LmrError("`local_dimensions` is learnt on all images, and does not go with `shard`; leave one out")
        return None if found is None else replace(card, d=options.n_dimensions, projection=found.card.projection)

    def _open(self, what: LocalOptions | LocalCard) -> Extractor:
        return open_extractor(what, self._job.device, self._job.threads, self._run.weights)

    def _learn(self, options: LocalOptions) -> LocalCard:
        """The card of options with a projection, learnt on some of the images."""
        extractor, n = self._open(options), len(self._manifest)
        rows = np.unique(np.linspace(0, n - 1, min(n, _N_SAMPLED)).astype(np.int64))
        parts = [np.zeros((0, extractor.card.d), np.float32)]
        self._job.progress.begin("learning", len(rows))
        for _, packed in self._found(extractor, self._source, rows):
            if not isinstance(packed, str):
                descriptors = unpack(extractor.card, packed).descriptors
                parts.append(descriptors[:: max(1, -(-len(descriptors) // _DESCRIPTORS_EACH))])
            self._job.progress.add(1)
        self._job.progress.end()
        return projected(extractor.card, learn_projection(np.concatenate(parts), options.n_dimensions))

    def _to_do(self, columns: LocalColumns, journal: Journal) -> tuple[Changes, LongArray]:
        """What became of the images that were done, and the rows that are to do."""
        state = columns.state
        changes = find_changes(state, columns.facts, self._source, self._run.check, self._n_workers)
        rows = np.union1d(changes.to_do, np.flatnonzero(state == TODO))
        if self._run.retry_unreadable and self._base is not None:
            rows = np.union1d(rows, np.flatnonzero((state == UNREADABLE) & (journal.state == TODO)))
        return changes, rows

    def _columns(self, journal: Journal) -> LocalColumns:
        """Everything but the features, of what is kept and of the finished store."""
        kept = journal.columns(self._manifest.image_id)
        return kept if self._base is None else self._base.columns.overlaid(kept, journal.state != TODO)

    def _extract(self, rows: LongArray, journal: Journal, card: LocalCard, crashed: Sequence[int]) -> None:
        """Finds features of these rows. crashed: rows whose image crashed its decoder before."""
        extractor, watched = self._open(card), WatchedSource(self._source)
        progress = self._job.progress
        batch: list[tuple[int, PackedFeatures | str]] = []
        with self._careful(extractor) as careful:
            careful.begin(rows.tolist(), watched.read, crashed)
            progress.begin("finding local features", len(rows))
            for one in self._found(extractor, watched, rows, careful):
                batch.append(one)
                if len(batch) == BATCH or one[0] == rows[-1]:
                    done = np.array([row for row, _ in batch], np.int64)
                    journal.append(done, [packed for _, packed in batch], watched.take(done))
                    batch.clear()
                progress.add(1)
            progress.end()

    def _careful(self, extractor: Extractor) -> "Careful[_Begun]":
        """For the images of the manifest; what is under way is written down beside the store."""
        place = self._output.with_name(f".{self._output.name}.decoding")
        names = self._manifest.image_id
        return Careful(
            Flight(place, self._manifest.digest),
            extractor.begin_apart,
            lambda row: shortened(names[row]),
            n_workers=self._n_workers,
            progress=self._job.progress,
        )

    def _found(
        self, extractor: Extractor, source: Source, rows: LongArray, careful: "Careful[_Begun] | None" = None
    ) -> Iterator[tuple[int, PackedFeatures | str]]:
        """Each row with its features, or why its image cannot be read, in order."""
        careful = careful or Careful(Flight(None, ""), extractor.begin_apart, str)
        threads, is_network = self._job.threads, extractor.finder.is_network
        n_workers = self._n_workers if is_network or threads is None else min(self._n_workers, threads)
        waiting: deque[tuple[int, Future[_Begun | str]]] = deque()
        with extractor.side_by_side(), ThreadPoolExecutor(n_workers) as pool:
            try:
                for row in [*rows.tolist(), *[-1] * (_AHEAD * n_workers)]:
                    if row >= 0:
                        waiting.append(
                            (row, pool.submit(careful.read_row, row, partial(source.read, row), extractor.begin))
                        )
                    if waiting and (row < 0 or len(waiting) > _AHEAD * n_workers):
                        done, future = waiting.popleft()
                        found = future.result()
                        yield done, found if isinstance(found, PackedFeatures | str) else extractor.pack(found)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _finish(self, head: JournalHead) -> None:
        """Writes the store of what is kept, and of the rest of the finished one; then nothing is kept any more."""
        journal = Journal(journal_path(self._output), head)
        columns = self._columns(journal)
        n_left = int((columns.state == TODO).sum())
        if n_left:
            raise LmrError(
                f"{journal.path}: {n_left:,} of {len(columns):,} rows do not read back as they were written; check the "
                "disk, then run the same command again, which does them again"
            )

        def features() -> Iterator[PackedFeatures]:
            for row in np.flatnonzero(columns.state == DONE).tolist():
                packed = journal.packed(row)
                if packed is None and self._base is not None:
                    packed = self._base.packed(row)
                assert packed is not None, f"row {row} is done"
                yield packed

        write_local(self._output, head.info, columns, features())
        journal.remove()

    def _report(self, state: _State, store: LocalStore, changes: Changes) -> LocalReport:
        return LocalReport(
            store=self._output,
            state=state,
            n_images=len(store),
            n_unreadable=int((store.columns.state == UNREADABLE).sum()),
            n_features=int(store.offsets[-1]),
            n_bytes=self._output.stat().st_size,
            changes=changes,
        )
