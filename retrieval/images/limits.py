"""Limits on an image: its file, its pixels, the memory that decoding takes; and sizes of which no side becomes 0."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from retrieval.errors import RefusedError
from retrieval.jobs import option

if TYPE_CHECKING:
    from PIL.Image import Image

# Bytes a pixel of what is decoded, and of what it becomes without transparency in 8 bits a channel. Pillow keeps 1 byte
# a pixel of one channel of 8 bits, 2 of 16, and 4 of everything else.
_FLAT = {"RGB": 4, "L": 1, "1": 2, "P": 5, "I;16": 3, "I": 5, "F": 5, "CMYK": 12, "YCbCr": 8, "LAB": 8, "HSV": 8}
_FLAT_WITH_ALPHA = 8
_RGB = 4
_GREY_OR_INK_WHEN_FLAT = frozenset(("L", "1", "LA", "La", "I", "F", "CMYK"))


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest image that is decoded.

    max_bytes: of the file. max_pixels: width times height in the file, before any reduction; the default is where
    Pillow stops too. max_memory: bytes that decoding may take, with every copy that it makes on the way. max_seconds:
    for an image that is decoded in a process of its own, as those are that could take long.
    """

    max_bytes: int = option(100_000_000, help="Largest file that is fetched.")
    max_pixels: int = option(178_956_970, help="Largest width times height.")
    max_memory: int = 1_000_000_000
    max_seconds: int = 50

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def require_file(self, n_bytes: int) -> None:
        """Raises RefusedError for an empty file and one that is too large."""
        if not n_bytes:
            raise RefusedError("empty file")
        if n_bytes > self.max_bytes:
            raise RefusedError(f"{n_bytes:,} bytes, over the limit of {self.max_bytes:,}")

    def require_size(self, width: int, height: int) -> None:
        """Raises RefusedError for too many pixels."""
        if width * height > self.max_pixels:
            raise RefusedError(f"{width} x {height} pixels, over the limit of {self.max_pixels:,} pixels")

    def require_memory(self, size: tuple[int, int], n_bytes: int) -> None:
        """Raises RefusedError for an image of this width and height that takes this many bytes to decode."""
        if n_bytes > self.max_memory:
            raise RefusedError(
                f"needs {n_bytes / 1e6:,.0f} MB of memory to decode {size[0]} x {size[1]} pixels, over the limit of "
                f"{self.max_memory / 1e6:,.0f} MB; scale it down"
            )


DEFAULT_LIMITS = Limits()


def memory_of(image: "Image", *, shrunk: bool) -> int:
    """Bytes that the image and its way to RGB take, at the size at which it will be decoded.

    shrunk: it is made much smaller before it becomes RGB.
    """
    has_alpha = image.has_transparency_data or image.mode not in _FLAT
    a_pixel = _FLAT_WITH_ALPHA if has_alpha else _FLAT[image.mode]
    if not shrunk and (image.mode in _GREY_OR_INK_WHEN_FLAT or image.mode.startswith("I;16")):
        a_pixel += _RGB
    return image.width * image.height * a_pixel


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Width and height times the scale, rounded, each at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def contain(image: "Image", side: int) -> "Image":
    """The whole image, made smaller or larger until its longer side is `side`."""
    from PIL.Image import Resampling

    return image.resize(scaled_size(image.size, side / max(image.size)), Resampling.LANCZOS)
