"""A body becomes a file under a private name: decoded, resized, measured, flushed to disk. Runs in a worker."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from retrieval.download.rules import Form, Resize
from retrieval.errors import UnreadableError
from retrieval.images import noise
from retrieval.images.decode import decode, picture_size
from retrieval.images.limits import Limits
from retrieval.images.sizing import scaled_size

_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Stored:
    """Facts of a file that was stored, and the size of the picture that it was made from, upright.

    perceptual_hash: 64 bits. n_original_bytes and the original's width and height are 0 where they are not known.
    """

    n_bytes: int
    sha256: str
    width: int
    height: int
    perceptual_hash: int
    n_original_bytes: int = 0
    original_width: int = 0
    original_height: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker needs besides the body. partial: the private name that the file gets."""

    partial: str
    form: Form
    limits: Limits


def store_picture(content: bytes | Path, order: Order) -> Stored:
    """Stores a body and tells of it. Raises UnreadableError for what is no picture, OSError from the disk."""
    noise.reading(os.path.basename(order.partial))
    data = content.read_bytes() if isinstance(content, Path) else content
    size = picture_size(data, order.limits)
    kept = data if order.form.resize is None else resized(data, size, order.form, order.limits)
    stored = measure(kept, order.limits)
    with open(order.partial, "wb") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    return Stored(
        **{name: getattr(stored, name) for name in ("n_bytes", "sha256", "width", "height", "perceptual_hash")},
        n_original_bytes=len(data),
        original_width=size[0],
        original_height=size[1],
    )


def verify_picture(path: str, limits: Limits) -> Stored:
    """Tells of a file that is there already. Raises UnreadableError when it is not a whole picture."""
    return measure(Path(path).read_bytes(), limits)


def measure(data: bytes, limits: Limits) -> Stored:
    """The facts of a file. Raises UnreadableError."""
    from retrieval.picture_facts import hash_picture  # it needs scipy, of which only workers should hold a copy

    digest = hash_picture(data, limits)
    width, height = picture_size(data, limits)
    return Stored(len(data), hashlib.sha256(data).hexdigest(), width, height, digest)


def resized(data: bytes, size: tuple[int, int], form: Form, limits: Limits) -> bytes:
    """A JPEG of the picture, whose width and height are given, in this form. Raises UnreadableError."""
    assert form.resize is not None
    small = resize(decode(data, _needed_side(size, form), limits), form.resize, form.size)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=form.quality)
    return file.getvalue()


def resize(picture: Image.Image, how: Resize, size: int) -> Image.Image:
    """The RGB picture at a size, as `Form` says."""
    width, height = picture.size
    if how == "center-crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        return picture.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    scale = size / (min(width, height) if how == "shorter" else max(width, height))
    if how != "square-pad":
        scale = min(scale, 1.0)
    inner = picture
    if scale != 1:
        inner = picture.resize(scaled_size(picture.size, scale), Image.Resampling.BICUBIC)
    if how != "square-pad":
        return inner
    ground = Image.new("RGB", (size, size), _WHITE)
    ground.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return ground


def cause_of(error: UnreadableError) -> str:
    """The reason in a few words that can be counted."""
    text = str(error)
    if "over the limit" in text:
        return "too many pixels" if "pixels" in text else "too many bytes"
    if text.startswith("a web page"):
        return "a web page"
    return "broken picture" if text.startswith("broken") else "not a picture"


def _needed_side(size: tuple[int, int], form: Form) -> int:
    """The shorter side that has to be decoded."""
    if form.resize in ("shorter", "center-crop"):
        return form.size
    return -(-form.size * min(size) // max(size))
