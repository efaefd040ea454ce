"""A folder of images that has changed, brought into an index: only images that are new are embedded."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from index.update.job import ChangingJob, IndexChange, change_folder
from retrieval.embed.job import AskingJob
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.lock import output_locks
from retrieval.jobs import option

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.arrays import LongArray
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest
    from retrieval.store.store import Descriptors
    from retrieval.texts import Texts

BLOCK_ROWS = 4096  # copied from one store into the next at a time


@dataclass(frozen=True)
class SyncJob(AskingJob, ChangingJob):
    """Bring a folder of images that has changed into an index."""

    folder: Path = option(is_argument=True)
    _: KW_ONLY
    store: Path | None = option(
        None, default_text="FOLDER with .h5, beside it", help="Descriptors of the folder, which are used again."
    )
    background: bool = option(
        False, help="Put images without a landmark into the background, instead of leaving them out."
    )


@dataclass(frozen=True, slots=True)
class Synced:
    """What was done. n_embedded: images that had to be; n_reused: those whose descriptors were there."""

    change: IndexChange
    n_embedded: int
    n_reused: int


def sync(job: SyncJob) -> Synced:
    """Brings an index to what a folder of images holds now: new, replaced, renamed, relabelled and removed images.

    Images of the folder are the rows whose path lies in it, or that its store has. Descriptors of images that are the
    same, by name, size and time or by content, are taken from that store. Raises LmrError as `embed` and
    `lmr.index_add`.
    """
    from index.folder.folder import open_folder
    from index.update.follow import FolderNow, plan_sync
    from retrieval.data.image_source import ImageSource, images_folder, index_tars
    from retrieval.data.overview import load_manifest
    from retrieval.embed.complete import complete_store
    from retrieval.store.store import open_descriptors

    store = job.store or find_store(job.folder, "store", job.progress)
    with output_locks(job.index, store, wait=job.wait, progress=job.progress):
        index = open_folder(job.index, device="cpu")
        model = index.model_path
        index_tars(job.folder, job.progress)
        manifest = load_manifest(job.folder, job.progress, job.column_names)
        images = images_folder(job.images, job.folder, job.progress)
        staged = store.with_name(f"{store.stem}.sync{store.suffix}")
        n_reused = _reuse(store, staged, manifest, ImageSource(manifest, images), model, job)
        complete_store(manifest, images, model, staged, job=job, overwrite=True, wait=job.wait)

        before = open_descriptors(store) if store.exists() else None
        local = _Local(index, manifest, images, staged, job)
        now = FolderNow(job.folder, manifest, staged, before, local.extract)
        change = change_folder(job, lambda folder: plan_sync(folder, now, to_background=job.background))
        n_embedded = int(open_descriptors(staged).done.sum()) - n_reused
        local.remove()
        os.replace(staged, store)
    return Synced(change, n_embedded, n_reused)


@dataclass(frozen=True, slots=True)
class _Local:
    """Local features of images that come, in a local store beside theirs until the index has them."""

    index: "IndexFolder"
    manifest: "Manifest"
    images: Path
    staged: Path
    job: SyncJob

    def extract(self, image_ids: "Texts") -> Path:
        """Makes a local store of the images of these names, as the index has them; its path."""
        import numpy as np

        from retrieval.local.job import LocalRun, complete_local
        from retrieval.local.store import local_path
        from retrieval.texts import equal_pairs

        local, known = self.index.local, self.manifest.image_id
        assert local is not None
        rows = np.sort(np.concatenate([block[:, 1] for block in equal_pairs(image_ids, known)]))
        part, output = self.manifest.select(rows), local_path(self.staged)
        run = LocalRun(overwrite=True, check=self.job.check, weights=local.weights)
        complete_local(part, self.images, local.card, output, job=self.job, run=run, wait=self.job.wait)
        return output

    def remove(self) -> None:
        """Removes the local store, which is in the index by now, and what a run that was killed began of it."""
        from retrieval.local.journal import journal_path
        from retrieval.local.store import local_path

        for place in (local_path(self.staged), journal_path(local_path(self.staged))):
            place.unlink(missing_ok=True)


def _reuse(store: Path, staged: Path, manifest: "Manifest", source: "ImageSource", model: Path, job: SyncJob) -> int:
    """Begins the store of the images as they are now with the descriptors that are there; how many.

    One that was begun already, by a run that was killed, gets those that it lacks.
    """
    import numpy as np

    from retrieval.embed.fill import FillRun, require_same_job, store_info
    from retrieval.embed.load import open_card
    from retrieval.store.store import (
        DONE,
        TODO,
        create_store,
        open_descriptors,
        partial_path,
        read_store_info,
        resume_store,
    )

    card, partial = open_card(model), partial_path(staged)
    try:
        require_same_job(staged, manifest, card, FillRun())
        if staged.exists():
            return int((read_store_info(staged)[1] == DONE).sum())
    except LmrError:
        for place in (staged, partial):
            place.unlink(missing_ok=True)
    if not store.exists():
        return 0
    old = open_descriptors(store)
    if old.info.fingerprint != card.fingerprint:
        job.progress.warn(f"{store} was made by another model than that of {job.index}; all images are embedded again")
        return 0
    rows, known = _same_images(old, manifest, source, by_content=job.check == "content")
    if not len(rows) or old.facts is None:
        return 0
    places = [os.path.abspath(place) if place else "" for place in map(source.where, range(len(manifest)))]
    info = store_info(card, manifest, "float16", old.info.d)
    with resume_store(staged) if partial.exists() else create_store(staged, manifest, places, info) as writer:
        lacking = np.flatnonzero(writer.state[rows] == TODO)
        for start in range(0, len(lacking), BLOCK_ROWS):
            part = lacking[start : start + BLOCK_ROWS]
            now = [source.status(row) or (0, 0) for row in rows[part].tolist()]
            facts = replace(
                old.facts.select(known[part]),
                size=np.array([size for size, _ in now], dtype=np.int64),
                mtime_ns=np.array([mtime_ns for _, mtime_ns in now], dtype=np.int64),
            )
            writer.write(rows[part], old.vectors[known[part]], facts)
        if not (writer.state == TODO).any():
            writer.finish()
    return len(rows)


def _same_images(
    old: "Descriptors", manifest: "Manifest", source: "ImageSource", *, by_content: bool
) -> "tuple[LongArray, LongArray]":
    """Rows of the manifest whose images a store has, and those of the store.

    An image is the same by its name, size and time of change, or by its content, under whatever name.
    """
    import numpy as np

    facts, done = old.facts, np.flatnonzero(old.done)
    if facts is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    of_id = dict(zip(old.image_id.select(done), done.tolist(), strict=True))
    sizes = set(facts.size[done].tolist())
    of_content = {facts.sha256[row].tobytes(): row for row in done.tolist()}
    pairs: list[Sequence[int]] = []
    for row, image_id in enumerate(manifest.image_id):
        status, known = source.status(row), of_id.get(image_id)
        if status is None:
            continue
        is_known = known is not None and status == (int(facts.size[known]), int(facts.mtime_ns[known]))
        if known is not None and is_known and not by_content:
            pairs.append((row, known))
        elif status[0] in sizes:
            try:
                same = of_content.get(sha256(source.read(row)).digest())
            except UnreadableError:
                continue
            if same is not None:
                pairs.append((row, same))
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
