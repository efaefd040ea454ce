"""The images of an opened index by their image_id: thumbnails, originals, sizes. What was read is kept in memory."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from index.folder.config import DEFAULT_PX
from index.folder.thumbnails import make_thumbnail
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.decode import Header, decode, read_header
from retrieval.images.given import read_head, read_image
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size
from retrieval.images.screen import SCREEN_DIAGONAL_IN, pixels_per_inch
from retrieval.texts import Lookup

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.landmarks import Landmarks

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of an upright image's width and height
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
LEAST_CROP_PX = 16  # of either side: less shows nothing that a network could tell
MOST_CROP_PX = 1024  # shorter side of what is embedded, which is more than any network takes
ORIGINAL_QUALITY = 92  # of the JPEG of an original
KEPT_SIZES = 1 << 17  # a few bytes each
KEPT_LISTS = 1 << 9  # of up to 5,000 rows, about 60 kB each
KEPT_ACCOUNTS = 1 << 8  # of landmarks, some kilobytes each
KEPT_THUMBNAILS = 1 << 12  # about 5 kB each

T = TypeVar("T")


class UnknownError(LmrError):
    """An image_id or landmark_id that the index does not have."""


class _Once:
    """What is made when it is first asked for, by one thread while others wait; anew after an exception."""

    def __init__(self) -> None:
        self._lock, self._made = threading.Lock(), list[Any]()

    def get(self, make: Callable[[], T]) -> T:
        """What was made, or is made now."""
        with self._lock:
            if not self._made:
                self._made.append(make())
            found: T = self._made[0]
            return found


class Recent:
    """What was asked for last, at most n of it; each is made once, also where several threads ask for it."""

    def __init__(self, n: int) -> None:
        self._n, self._lock = n, threading.Lock()
        self._known: OrderedDict[Hashable, _Once] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made for a key, or is made now."""
        with self._lock:
            known = self._known.setdefault(key, _Once())
            self._known.move_to_end(key)
            while len(self._known) > self._n:
                self._known.popitem(last=False)
        return known.get(make)


class Memory:
    """What was found out of an opened index, kept as long as that is open.

    rows: of image_ids. codes: of landmark_ids. lists: whatever is listed of it.
    """

    def __init__(self, landmarks: "Landmarks") -> None:
        self.rows = Lookup(landmarks.folder.rows.image_id)
        self.codes = {label: code for code, label in enumerate(landmarks.folder.rows.landmarks)}
        self.headers, self.thumbnails, self.lists = Recent(KEPT_SIZES), Recent(KEPT_THUMBNAILS), Recent(KEPT_LISTS)
        self.spellings, self.typical, self.accounts = Recent(1), Recent(KEPT_SIZES), Recent(KEPT_ACCOUNTS)


_kept: "WeakKeyDictionary[Landmarks, Memory]" = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of an image, upright, in pixels. dpi: dots per inch that its file states, None = none."""

    width: int
    height: int
    dpi: float | None = None

    @property
    def megapixels(self) -> float:
        """Width times height, in millions."""
        return self.width * self.height / 1e6

    @property
    def pixels_per_inch(self) -> float:
        """Pixels per inch of the image on the whole of a common screen."""
        return float(pixels_per_inch(self.width, self.height, SCREEN_DIAGONAL_IN))


def row_of(landmarks: "Landmarks", image_id: str) -> int:
    """The row of an image. Raises UnknownError."""
    row = kept_of(landmarks).rows.find(image_id)
    if row < 0:
        raise UnknownError(f"{landmarks.folder} has no image {image_id}; lmr index export lists those it has")
    return row


def code_of(landmarks: "Landmarks", landmark_id: str) -> int:
    """The number of a landmark. Raises UnknownError."""
    code = kept_of(landmarks).codes.get(landmark_id)
    if code is None:
        raise UnknownError(f"{landmarks.folder} has no landmark {landmark_id}; lmr index export lists those it has")
    return code


def size_of(landmarks: "Landmarks", row: int) -> Size | None:
    """The size of a row's image by the header of its file; None where that is gone or cannot be read."""
    path = str(landmarks.folder.rows.path[row])
    found = kept_of(landmarks).headers.get(row, lambda: _header(path))
    return None if found is None else Size(found.width, found.height, found.dpi)


def thumbnail(landmarks: "Landmarks", image_id: str) -> bytes | None:
    """A small JPEG of an image, without metadata; None where the index keeps none and the file is gone.

    Raises UnknownError.
    """
    row = row_of(landmarks, image_id)
    return kept_of(landmarks).thumbnails.get(row, lambda: _thumbnail(landmarks, row))


def original(landmarks: "Landmarks", image_id: str) -> tuple[bytes, str] | None:
    """An image in full, upright and without metadata, and its media type; its thumbnail where the file is gone.

    It is encoded anew, so that nothing but its pixels is sent. None where there is neither. Raises UnknownError.
    """
    path = str(landmarks.folder.rows.path[row_of(landmarks, image_id)])
    try:
        return _jpeg(decode(read_image(path))), "image/jpeg"
    except UnreadableError:
        small = thumbnail(landmarks, image_id)
        return None if small is None else (small, "image/jpeg")


def read_row(landmarks: "Landmarks", image_id: str) -> bytes:
    """The encoded image of a row, or its thumbnail. Raises UnknownError, UnreadableError where there is neither."""
    row = row_of(landmarks, image_id)
    path = str(landmarks.folder.rows.path[row])
    try:
        return read_image(path)
    except UnreadableError:
        small = thumbnail(landmarks, image_id)
        if small is None:
            raise
        return small


def parse_box(text: str) -> Box:
    """A box from `left,top,right,bottom`. Raises LmrError for another text, and as `crop`."""
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise LmrError(f"`box` must be four numbers left,top,right,bottom, got {text!r:.60}") from None
    _require_box((left, top, right, bottom))
    return left, top, right, bottom


def crop(image: bytes, box: Box, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The part of an encoded image within a box, upright, encoded without loss.

    Raises LmrError for a box that is empty, lies outside or holds less than 16 x 16 pixels; UnreadableError.
    """
    _require_box(box)
    left, top, right, bottom = box
    share = min(right - left, bottom - top)
    upright = decode(image, round(MOST_CROP_PX / share), limits)
    edges = (left * upright.width, top * upright.height, right * upright.width, bottom * upright.height)
    x0, y0, x1, y1 = map(round, edges)
    part = upright.crop((x0, y0, x1, y1))
    if min(part.size) < LEAST_CROP_PX:
        raise LmrError(
            f"`box` holds {part.width} x {part.height} pixels, fewer than {LEAST_CROP_PX} x {LEAST_CROP_PX}; "
            "draw a larger one"
        )
    if min(part.size) > MOST_CROP_PX:
        part = part.resize(scaled_size(part.size, MOST_CROP_PX / min(part.size)), reducing_gap=2)
    content = io.BytesIO()
    part.save(content, "BMP")  # which takes no time
    return content.getvalue()


def _require_box(box: Box) -> None:
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise LmrError(
            "`box` must be left,top,right,bottom within 0 and 1, left below right and top below bottom, got "
            f"{','.join(f'{edge:g}' for edge in box)}"
        )


def kept_of(landmarks: "Landmarks") -> Memory:
    with _lock:
        kept: Memory | None = _kept.get(landmarks)
        if kept is None:
            kept = _kept[landmarks] = Memory(landmarks)
        return kept


def _header(path: str) -> Header | None:
    try:
        return read_header(lambda n: read_head(path, n))
    except UnreadableError:
        return None


def _thumbnail(landmarks: "Landmarks", row: int) -> bytes | None:
    kept = landmarks.folder.kept(row)
    return (
        (None if kept is None else kept()) or make_thumbnail(str(landmarks.folder.rows.path[row]), DEFAULT_PX) or None
    )


def _jpeg(image: "Image") -> bytes:
    content = io.BytesIO()
    image.info = {}  # Pillow would write the comment of the file
    image.save(content, "JPEG", quality=ORIGINAL_QUALITY)
    return content.getvalue()
