"""Files of a download: where they lie, what is there, what is to do, and whether they are as they were written."""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import UInt8Array
from retrieval.data.manifest import Manifest
from retrieval.download.config import Form, Layout
from retrieval.download.ledger import LEDGER_NAME, Entry, Ledger
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file
from retrieval.images.fetch_rules import FetchRules
from retrieval.progress import SILENT, Progress

THERE, FAILED, EXCLUDED, TO_FETCH, TO_VERIFY, NO_URL, BAD_ID = range(7)
ROWS_AT_ONCE = 512  # looked up in the ledger
WORK_FOLDER = ".lmr-partial"  # in the images folder: files that are not whole; emptied by the next run
_REMEDY = "the same lmr download fetches again what is not there"


class Places:
    """File names below an images folder, as the other commands look for them."""

    def __init__(self, images: Path, layout: Layout) -> None:
        self.images = images
        self.work = images / WORK_FOLDER
        self._root, self._layout = str(images), layout

    def path(self, image_id: str) -> str:
        """Raises ValueError for an id that leads out of the folder or into its work folder."""
        parts = image_id.replace("\\", "/").split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in image_id or parts[0] == WORK_FOLDER:
            raise ValueError(f"image_id {image_id!r} leads out of the images folder")
        if self._layout == "google" and len(image_id) >= 3 and len(parts) == 1:
            return os.path.join(self._root, *image_id[:3], f"{image_id}.jpg")
        return os.path.join(self._root, f"{image_id}.jpg")

    def make_work_folder(self) -> None:
        """Made anew: what a killed run left in it is removed."""
        self.work.mkdir(parents=True, exist_ok=True)
        for path in self.work.iterdir():
            path.unlink()

    def remove_work_folder(self) -> None:
        """Removes it, when nothing needs it any more; also one that a killed run left."""
        if not self.work.exists():
            return
        for path in self.work.iterdir():
            path.unlink()
        self.work.rmdir()


@dataclass(frozen=True, slots=True)
class Task:
    """Work of a run: rows of a manifest, each with its state, into places, in a form."""

    manifest: Manifest
    states: UInt8Array
    places: Places
    form: Form
    rules: FetchRules
    n_workers: int

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """id, url and what to do, of the rows for which there is something to do."""
        assert self.manifest.url is not None
        for row, state in enumerate(self.states):
            if state in (TO_FETCH, TO_VERIFY, NO_URL, BAD_ID):
                yield self.manifest.image_id[row], self.manifest.url[row], int(state)


def survey(
    manifest: Manifest,
    ledger: Ledger,
    places: Places,
    *,
    retry_failed: bool = False,
    retry_causes: Collection[str] = (),
    progress: Progress = SILENT,
) -> UInt8Array:
    """State of each row, (n,): one of the constants above.

    THERE: listed in the ledger, with a file of that size. FAILED: in an earlier run, and not to be tried again.
    EXCLUDED: by the server, in an earlier run, and not to be asked for again. retry_causes: of what failed or was
    excluded, these causes are tried again, since the rules let them pass.
    TO_VERIFY: a file that the ledger does not list. Raises LmrError when images that are there came from other URLs.
    """
    if manifest.url is None:
        raise ValueError(f"{manifest.source} has no url column")
    states = np.empty(len(manifest), dtype=np.uint8)
    trusts_files = not ledger.only_listed
    others: list[tuple[str, str, str]] = []
    progress.begin("looking", len(manifest))
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
        progress.add(len(ids))
    progress.end()
    if others:
        image_id, before, now = others[0]
        raise LmrError(
            f"{places.images} holds {len(others):,} of these pictures from other URLs, {image_id} from {before}, "
            f"{manifest.source} has {now}; give another folder, or `overwrite`"
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
    """Size of a file in bytes; -1 when there is none."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1


def verify_images(folder: Path) -> int:
    """Reads every image that the ledger of a folder says is there; how many they are.

    Raises LmrError that names the first one that is missing or was changed, and for a ledger that is damaged.
    """
    path = folder / LEDGER_NAME
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((said,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said != "ok":
                raise LmrError(f"{path} is damaged ({said.splitlines()[0]}); move it away, or choose another folder")
            done = "SELECT image_id, sha256 FROM pictures WHERE status = 'done'"
            rows = connection.execute(done).fetchall()
    except sqlite3.OperationalError as error:
        raise LmrError(f"{path} cannot be read: {error}; try again") from error
    except sqlite3.DatabaseError as error:
        raise LmrError(f"{path} is damaged ({error}); move it away, or choose another folder") from error
    for image_id, written in rows:
        image = _find(folder, image_id)
        if image is None:
            raise LmrError(f"{folder}: the picture {image_id} is missing; {_REMEDY}")
        if written is not None and sha256_file(image) != written:
            raise LmrError(f"{image} was changed since it was written; remove it: {_REMEDY}")
    return len(rows)


def _find(folder: Path, image_id: str) -> Path | None:
    """The file of an image, in either layout."""
    for places in (Places(folder, "flat"), Places(folder, "google")):
        path = Path(places.path(image_id))
        if path.is_file():
            return path
    return None
