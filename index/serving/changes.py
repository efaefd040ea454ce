"""Images that come into a served index and leave it, one change at a time; their files are kept beside it."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.serving.feedback import said_landmark
from index.serving.gallery import UnknownError
from index.serving.kept import KeptImages, plain_jpeg, side_folder
from index.update.addition import plan_addition
from index.update.change import plan_removal, removal_digest, rows_named
from index.update.images import Images
from index.update.job import ChangingJob, IndexChange, change_folder
from retrieval.data.csv_cells import guard
from retrieval.data.rows import are_ids
from retrieval.errors import LmrError
from retrieval.files.lock import HeldError, output_locks
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.progress import SILENT
from retrieval.texts import Texts
from retrieval.words import shortened, visible

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.update.change import Change
    from retrieval.arrays import FloatArray

MAX_ID_CHARACTERS = 300
_SOURCE = "the request"


class ChangingError(LmrError):
    """Another change of the index runs; this one may be asked for again."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that is to come into an index. sha256 (hex): of what was sent. jpeg: the image as it is kept."""

    image_id: str
    landmark_id: str
    sha256: str
    jpeg: bytes

    def __post_init__(self) -> None:
        image_id = self.image_id
        shown = shortened(image_id)
        if len(image_id) > MAX_ID_CHARACTERS or visible(image_id) != image_id or not are_ids([image_id]):
            raise LmrError(f"image_id {shown!r} cannot be that of an image; give at most {MAX_ID_CHARACTERS} letters")
        if guard(image_id) != image_id:
            raise LmrError(f"image_id {shown!r} begins as a formula of a spreadsheet does; leave out {image_id[0]!r}")


def new_image(image: bytes, image_id: str, landmark_id: str, limits: Limits = DEFAULT_LIMITS) -> NewImage:
    """An encoded image that is to come into an index. Raises UnreadableError for it, LmrError for its image_id."""
    return NewImage(image_id, landmark_id, hashlib.sha256(image).hexdigest(), plain_jpeg(image, limits))


class ImageChanges:
    """Changes of an index folder by single images; `landmarks.pictures` beside it holds those that came.

    max_bytes: of all of these together.
    """

    def __init__(self, index: Path, max_bytes: int) -> None:
        self._index = index
        self._kept = KeptImages(side_folder(index, "pictures"), max_bytes)

    @cached_property
    def _job(self) -> ChangingJob:
        """How the index is changed. Raises LmrError for one on a server."""
        return ChangingJob(index=self._index, workers=0, threads=1, progress=SILENT)

    def add(self, images: Sequence[NewImage], vectors: "FloatArray", fingerprint: str) -> IndexChange:
        """Adds images; those that the index has already, with the same label and descriptor, stay as they are.

        vectors: (n, d) their descriptors, made of their `jpeg` by the model of this fingerprint. Raises ChangingError
        while another change runs, ConflictError for one that the index has otherwise, FullError where there is no room,
        LmrError for a landmark_id that cannot be, and where nothing can be written.
        """

        def plan(folder: "IndexFolder") -> "Change":
            if folder.fingerprint != fingerprint:
                raise ChangingError(f"{self._index} has just got another model; send the images again")
            labels = [said_landmark(image.landmark_id, folder) for image in images]
            names = tuple(sorted(set(labels)))
            there = Images(
                source=_SOURCE,
                image_id=Texts.of(image.image_id for image in images),
                path=Texts.of(map(str, paths)),
                landmark=np.array([names.index(label) for label in labels], dtype=np.int32),
                landmarks=names,
                vectors=lambda rows: to_index_space(folder, vectors[rows]),
            )
            return plan_addition(folder, "add", [there], {}, to_background=False)

        from index.recognition import to_index_space

        with self._alone():
            new = [image for image in images if not self._kept.path_of(image.sha256).is_file()]
            paths: list[Path] = []
            try:
                paths += [self._kept.put(image.sha256, image.jpeg) for image in images]
                return change_folder(self._job, plan)
            except LmrError:
                for image in new:
                    self._kept.begin_removal(self._kept.path_of(image.sha256))
                self._end_removals()
                raise

    def remove(self, image_id: str) -> IndexChange:
        """Removes an image and its file, where that is kept here; once more it is done already.

        Raises ChangingError while another change runs, UnknownError for an image that the index does not have,
        ConflictError where nothing would be left.
        """

        def plan(folder: "IndexFolder") -> "Change":
            row = rows_named(folder.rows.image_id, [image_id]).get(image_id)
            behind = () if folder.background is None else rows_named(folder.background.image_id, [image_id])
            if row is None and not behind:
                raise UnknownError(f"{self._index} has no image {shortened(image_id)}; nothing was removed")
            change = plan_removal(folder, [image_id], _SOURCE)
            if row is not None:
                self._kept.begin_removal(Path(folder.rows.path[row]))
            return change

        with self._alone():
            change = change_folder(self._job, plan, removal_digest([image_id]))
            self._end_removals()
            return change

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock of the index, when what a killed change left is finished. Raises ChangingError."""
        with ExitStack() as held:
            try:
                held.enter_context(output_locks(self._index, wait=False, progress=SILENT))
            except HeldError as error:
                raise ChangingError(f"{self._index} is being changed; send this again in a while") from error
            self._end_removals()
            yield

    def _end_removals(self) -> None:
        """Removes the files of images that left the index."""
        from index.folder.folder import open_folder

        self._kept.end_removals(lambda: set(open_folder(self._index, device="cpu", calibrated=False).rows.path))
