"""Images given one by one: by path, in a tar, by URL, as encoded bytes or as PIL images."""

import errno
import io
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import LmrError, UnreadableError
from retrieval.files.urls import remote_url
from retrieval.images import noise
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.remote import read_remote
from retrieval.images.tars.archive import find_member, is_tar
from retrieval.images.walk import walk_images
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = str | Path | bytes | Image

URL_TIMEOUT_S = 20.0  # for a whole image of a query
QUERY_AGENT = "lmr/0.1 (looks at one picture for a person)"

_WANTING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what is wrong is not the image
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # of PIL images, kept as they are
_TIFF_MODES = ("I", "F")  # which PNG cannot hold


class GivenImages:
    """Images of every kind as a source of bytes.

    allow_private: whether URLs may lead to loopback, private and link-local addresses. Raises TypeError for what is no
    list of images.
    """

    def __init__(self, images: Sequence["ImageLike"], allow_private: bool) -> None:
        _require_images(images)
        self.images, self.allow_private = images, allow_private
        self._lock = threading.Lock()  # two threads cannot load one PIL image

    def read(self, i: int) -> bytes:
        """Encoded image i. Raises UnreadableError."""
        image = self.images[i]
        if isinstance(image, bytes):
            return image
        if isinstance(image, str | Path):
            return QueryImage(str(image), self.allow_private).read()
        with self._lock:
            return _encoded(image)

    def fetched(self, i: int) -> "ImageLike":
        """Image i, a URL that can be fetched as the bytes that it leads to."""
        image = self.images[i]
        if not isinstance(image, str) or not _is_url(image):
            return image
        try:
            return self.read(i)
        except UnreadableError:
            return image


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image named on the command line.

    where: its path or URL. allow_private: whether a URL may lead to loopback, private and link-local addresses.
    """

    where: str
    allow_private: bool = False

    @property
    def is_url(self) -> bool:
        """True for one that has to be fetched."""
        return _is_url(self.where)

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The encoded image. Raises UnreadableError with the reason."""
        if not self.is_url:
            return read_image(self.where, limits)
        from retrieval.images.http import fetch_image

        rules = FetchRules(
            timeout_s=URL_TIMEOUT_S, allow_private=self.allow_private, user_agent=QUERY_AGENT, limits=limits
        )
        return fetch_image(self.where, rules)


def list_images(paths: Sequence[str], progress: Progress = SILENT) -> list[QueryImage]:
    """The images that paths of images, folders and tars (all images in them) and URLs name, in their order.

    progress: is warned of each kind of thing that was passed over in a folder.
    Raises LmrError on a path that does not exist, a folder or tar without images, a tar that cannot be used, and a
    URL that is not http or https.
    """
    return [image for path in paths for image in _images_of(path, progress)]


def read_image(path: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a file, of `<tar>/<path in it>`, or of either at a URL of fsspec.

    Raises UnreadableError with the reason when it is no file or too large.
    """
    noise.reading(path)
    if "://" in path and remote_url(path) == path:
        found = find_member(path)
        return read_remote(path, limits) if found is None else found.read(limits)
    return _read_local(path, limits, None)


def read_head(path: str, n_bytes: int, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """As `read_image`, the first bytes alone; what lies elsewhere is read in full."""
    if "://" in path and remote_url(path) == path:
        return read_image(path, limits)
    return _read_local(path, limits, n_bytes)


def _read_local(path: str, limits: Limits, n_bytes: int | None) -> bytes:
    """A file, or an image in a tar: all of it, or its first bytes. Raises UnreadableError with the reason."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("not a file")
            if status.st_size > limits.max_bytes:
                raise UnreadableError(f"{status.st_size:,} bytes, over the limit of {limits.max_bytes:,}")
            return file.read(n_bytes)
    except IsADirectoryError as error:
        raise UnreadableError("a folder, not a picture") from error
    except FileNotFoundError as error:
        raise UnreadableError("not found") from error
    except NotADirectoryError as error:
        if (found := find_member(path)) is None:
            raise UnreadableError("not found") from error
        return found.read(limits, n_bytes)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, OSError) and error.errno in _WANTING:
            raise LmrError(f"{path}: {error.strerror}; run the same command again with fewer `workers`") from error
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error


def image_exists(path: str) -> bool:
    """True where there is a file, or an image in a tar, at a path."""
    return bool(image_state(path))


def image_state(path: str) -> str:
    """Size and time of change of a file, of an image in a tar those of the tar; '' when it is not there."""
    try:
        status = os.stat(path)
    except NotADirectoryError:
        try:
            found = find_member(path)
        except UnreadableError:
            return ""
        return f"{found.entry.size} {found.entry.mtime_ns}" if found else ""
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _require_images(images: Sequence["ImageLike"]) -> None:
    from PIL.Image import Image

    if isinstance(images, str | bytes | Path | Image):
        raise TypeError(f"images must be a list of images, got one {type(images).__name__}")
    for i, image in enumerate(images):
        if not isinstance(image, str | bytes | Path | Image):
            raise TypeError(f"images[{i}] must be a path, URL, encoded bytes or PIL image, got {type(image).__name__}")


def _encoded(image: "Image") -> bytes:
    """A PIL image without loss and with its EXIF. Raises UnreadableError for a file that PIL cannot load."""
    buffer = io.BytesIO()
    try:
        exif = image.getexif()
        if image.mode not in _PNG_MODES + _TIFF_MODES:
            image = image.convert("RGBA" if image.mode in ("La", "PA", "RGBa") else "RGB")
        image.save(buffer, "TIFF" if image.mode in _TIFF_MODES else "PNG", exif=exif)
    except Exception as error:  # Pillow opens lazily, and raises almost anything for a broken file
        raise UnreadableError(f"broken picture: {' '.join(str(error).split()) or type(error).__name__}") from error
    return buffer.getvalue()


def _images_of(path: str, progress: Progress) -> Iterator[QueryImage]:
    if "://" in path and not os.path.exists(path):
        if not _is_url(path):
            raise LmrError(f"{path}: only http and https are fetched; give such a URL or a file")
        yield QueryImage(path)
    elif os.path.isdir(path) or is_tar(path):
        kind = "folder" if os.path.isdir(path) else "tar"
        paths = [found.path for found in walk_images(Path(path), progress if kind == "folder" else SILENT)]
        if not paths:
            raise LmrError(f"{path}: no pictures in this {kind}; give a picture or a {kind} that holds some")
        yield from (QueryImage(os.path.join(path, name)) for name in paths)
    elif image_exists(path):
        yield QueryImage(path)
    else:
        raise LmrError(f"{path}: there is no such file or folder; give pictures, folders or URLs")


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))
