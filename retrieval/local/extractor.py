"""Extractors: images in, local features out."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from retrieval.arrays import FloatArray
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size
from retrieval.local.config import LocalCard, LocalOptions, card_of
from retrieval.local.features import LocalFeatures, PackedFeatures
from retrieval.local.packing import pack, unpack
from retrieval.local.rootsift import RootSift

if TYPE_CHECKING:
    from PIL import Image


class Finder(Protocol):
    """Finds keypoints. is_network: it computes with threads of its own, one image after the other."""

    is_network: bool

    def find(self, image: "Image.Image") -> tuple[FloatArray, FloatArray]:
        """Points in pixels and descriptors (f, d) of an RGB image, strongest first.

        Points are (f, 2), or (f, 4) with diameters and directions where the card has frames.
        """


class Extractor:
    """Local features of images by a card: what is extracted is what is read back from a store."""

    def __init__(self, card: LocalCard, finder: Finder) -> None:
        self.card, self._finder = card, finder
        self.is_network = finder.is_network

    def extract(self, image: "Image.Image") -> LocalFeatures:
        """The features of a decoded image, upright and in RGB."""
        return unpack(self.card, self.pack(image))

    def pack(self, image: "Image.Image") -> PackedFeatures:
        """As `extract`, in the form that is stored."""
        image = self.scaled(image)
        points, descriptors = self._finder.find(image)
        return pack(self.card, points, descriptors, image.size)

    def decode(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> "Image.Image":
        """An encoded image, scaled as `extract` scales it. Raises UnreadableError with the reason."""
        return self.scaled(decode(data, self.card.long_side, limits, measured="longer"))

    def scaled(self, image: "Image.Image") -> "Image.Image":
        """The image with its longer side of at most so many pixels as the card says."""
        scale = self.card.long_side / max(image.size)
        return image.resize(scaled_size(image.size, scale)) if scale < 1 else image


def open_extractor(
    what: LocalOptions | LocalCard, device: str = "auto", threads: int | None = None, weights: Path | None = None
) -> Extractor:
    """The extractor of these options, or of a card. weights: of its network, None = those of its package.

    Raises LmrError for an extra, a package, weights or a device that is not there.
    """
    card = what if isinstance(what, LocalCard) else card_of(what)
    return Extractor(card, RootSift(card.n_keypoints))
