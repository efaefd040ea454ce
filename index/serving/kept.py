"""Images that a service keeps: upright JPEGs without metadata, each by the sha256 of what was sent, within a limit."""

import hashlib
import io
import os
from collections.abc import Callable, Container
from pathlib import Path

from index.search.address import address_of
from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, write_bytes, write_error
from retrieval.files.lock import output_locks
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, contain
from retrieval.progress import SILENT

MAX_SIDE_PX = 4096  # longer side, of which no network or extractor of local features looks at more
QUALITY = 95  # of the JPEGs
_LEAVING = ".leaving"


class FullError(LmrError):
    """What a service may keep is used up."""


def side_folder(index: Path, name: str) -> Path:
    """A folder beside an index folder, which stays while others take the place of that: `landmarks.feedback`.

    Links in the path are not followed: the index may be a link that is made to point to another one. For an index on a
    server it is in the current folder, by the name of its collection.
    """
    address = address_of(index)
    if address is not None:
        index = Path(address.collection)
    place = Path(os.path.abspath(index))
    return place.with_name(f"{place.name}.{name}")


class KeptImages:
    """The images kept in a folder, as `ab/abcd….jpg` by the sha256 (hex) of the image that was sent.

    max_bytes: of all of them together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def path_of(self, sha256: str) -> Path:
        """The place of an image, there or not."""
        return self.folder / sha256[:2] / f"{sha256}.jpg"

    def keep(self, image: bytes, limits: Limits = DEFAULT_LIMITS) -> Path:
        """Keeps an encoded image, unless it is kept already; its place.

        Raises UnreadableError for the image, FullError where there is no room for it, LmrError where it cannot be
        written.
        """
        sha256 = hashlib.sha256(image).hexdigest()
        path = self.path_of(sha256)
        return path if path.is_file() else self.put(sha256, plain_jpeg(image, limits))

    def put(self, sha256: str, jpeg: bytes) -> Path:
        """Keeps an image that was made plain, unless it is kept already; its place. Raises LmrError as `keep`."""
        path = self.path_of(sha256)
        with output_locks(self.folder / "images", wait=True, progress=SILENT):
            if path.is_file():
                return path
            n_bytes = sum(kept.stat().st_size for kept in self.folder.glob("??/*.jpg"))
            if n_bytes + len(jpeg) > self.max_bytes:
                raise FullError(
                    f"{self.folder.name}: no room for an image of {len(jpeg) / 1e6:.1f} MB, it may hold "
                    f"{self.max_bytes / 1e6:,.0f} MB in all"
                )
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                flush_folder(self.folder)
            except OSError as error:
                raise write_error(path, error) from error
            write_bytes(path, jpeg)
        return path

    def begin_removal(self, path: Path) -> None:
        """Notes that an image is to go, if it is kept here; `end_removals` finishes it, also after a kill."""
        if path.parent.parent == self.folder and path.is_file():
            write_bytes(path.with_suffix(_LEAVING), b"")

    def end_removals(self, used: Callable[[], Container[str]]) -> None:
        """Removes the images that were to go, but those that are still used, by their paths. Raises LmrError."""
        notes = [*self.folder.glob(f"??/*{_LEAVING}")]
        places = used() if notes else ()
        for note in notes:
            path = note.with_suffix(".jpg")
            try:
                if str(path) not in places:
                    path.unlink(missing_ok=True)
                note.unlink()
            except OSError as error:
                raise write_error(path, error) from error


def plain_jpeg(image: bytes, limits: Limits) -> bytes:
    """The image as a JPEG, upright, in sRGB, with nothing else in the file. Raises UnreadableError."""
    decoded = decode(image, MAX_SIDE_PX, limits, measured="longer")
    if max(decoded.size) > MAX_SIDE_PX:
        decoded = contain(decoded, MAX_SIDE_PX)
    decoded.info.clear()  # Pillow writes a comment that it finds there
    jpeg = io.BytesIO()
    decoded.save(jpeg, "JPEG", quality=QUALITY, subsampling="4:4:4")
    return jpeg.getvalue()
