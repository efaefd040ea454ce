"""An image beside one of the index: what local features find in both, and what makes their similarity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from index.answer import Neighbour
from index.explain.match import ImageMatch, match_images
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import anywhere

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.folder.folder import IndexFolder
    from index.rerank.verification import Comparing
    from retrieval.explain.maps import Maps, NamedMap
    from retrieval.explain.network import ExplainedNetwork
    from retrieval.local.extractor import Extractor

SHOWN_PX = 1024  # longer side at which images are compared and drawn
MapsWanted = Literal["none", "similarity", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class ShownImage:
    """An image that is compared. pixels: RGB, upright; None where there is nothing to show.

    data: encoded, None where there is none. is_kept: it is a thumbnail that the index kept. note: where it is not the
    image itself, or there is none, why; else ''.
    """

    pixels: "Image | None"
    data: bytes | None = None
    is_kept: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compared:
    """An image and one of the index. query, row: themselves; None where there is nothing to compare.

    neighbour: the one of the index. match: what is found in both; None, and why, where they could not be compared.
    maps: what of the two images makes their similarity; None, and why, where the network cannot be looked into.
    """

    neighbour: Neighbour | None = None
    query: ShownImage | None = None
    row: ShownImage | None = None
    match: ImageMatch | None = None
    why_no_match: str = ""
    maps: "Maps | None" = None
    why_no_maps: str = ""

    @property
    def notes(self) -> list[str]:
        """Lines on what could not be shown, or not as it was."""
        shown = [one.note for one in (self.query, self.row) if one is not None]
        of_maps = () if self.maps is None else self.maps.notes
        return [note for note in (*shown, self.why_no_match, self.why_no_maps, *of_maps) if note]

    @property
    def maps_json(self) -> dict[str, Any] | None:
        """JSON object of the maps, None without any."""
        return None if self.maps is None else {"score": self.maps.score, "maps": values_of_maps(self.maps.maps)}


@dataclass(frozen=True, slots=True)
class Opened:
    """What comparisons need of an opened index, each opened when it is asked for, or LmrError raised.

    verifier: what compared neighbours, None where none was.
    """

    network: "Callable[[], ExplainedNetwork]"
    extractor: "Callable[[], Extractor]"
    verifier: "Comparing | None" = None


def compare_images(
    folder: "IndexFolder",
    query: ShownImage,
    row: int,
    opened: Opened,
    *,
    neighbour: Neighbour,
    maps: MapsWanted = "all",
) -> Compared:
    """An image beside a row of the index, which is `neighbour`. maps: which of them are made."""
    other = _shown_row(neighbour)
    if query.data is None:
        return Compared(neighbour=neighbour, query=query, row=other)
    match, why_no_match = _match(folder, row, (query.data, other.data), opened)
    found, why_no_maps = None, ""
    if maps != "none":
        found, why_no_maps = _maps(folder, row, (query.data, None if other.is_kept else other.data), opened, maps)
    return Compared(
        neighbour=neighbour,
        query=query,
        row=other,
        match=match,
        why_no_match=why_no_match,
        maps=found,
        why_no_maps=why_no_maps,
    )


def shown_image(data: bytes) -> ShownImage:
    """An encoded image, its longer side at most SHOWN_PX. Raises UnreadableError."""
    from retrieval.images.decode import decode
    from retrieval.images.limits import contain

    pixels = decode(data, SHOWN_PX, measured="longer")
    return ShownImage(contain(pixels, SHOWN_PX) if max(pixels.size) > SHOWN_PX else pixels, data)


def values_of_maps(maps: "Sequence[NamedMap]") -> list[dict[str, Any]]:
    """The sums of maps, and the values of those that sum to the score."""
    return [
        {
            "name": one.name,
            "sides": [
                {
                    "sum": float(values.sum(dtype=np.float64)),
                    "rest": rest,
                    "values": None if rest is None else values.tolist(),
                }
                for values, rest in ((one.query, one.query_rest), (one.row, one.row_rest))
                if values is not None
            ],
        }
        for one in maps
    ]


def _match(
    folder: "IndexFolder", row: int, images: tuple[bytes, bytes | None], opened: Opened
) -> tuple[ImageMatch | None, str]:
    """The match of two images, or why there is none."""
    try:
        extractor = opened.extractor()
    except LmrError as error:
        return None, f"the images are not matched: {anywhere(error)}"
    match = match_images(folder, row, images, extractor, opened.verifier)
    return (None, match) if isinstance(match, str) else (match, "")


def _maps(
    folder: "IndexFolder", row: int, images: tuple[bytes, bytes | None], opened: Opened, wanted: MapsWanted
) -> "tuple[Maps | None, str]":
    """The maps of two images, or why there are none."""
    from retrieval.explain.maps import Maps, Pair

    try:
        network = opened.network()
        from retrieval.explain.similarity import similarity_maps

        pair = Pair(*images, folder.index.vectors(np.array([row]))[0])
        with network.lock:
            similar = similarity_maps(network, pair)
    except LmrError as error:
        return None, f"there are no maps: {anywhere(error)}"
    if wanted == "similarity":
        return similar, ""
    try:
        from retrieval.explain.saliency import saliency_maps

        with network.lock:
            return Maps(similar.score, (*similar.maps, *saliency_maps(network, pair)), similar.notes), ""
    except LmrError as error:
        return similar, f"there are no saliency maps: {anywhere(error)}"


def _shown_row(near: Neighbour) -> ShownImage:
    """The image of a neighbour, or what the index keeps of it."""
    from retrieval.images.given import read_image

    where = near.path or near.image_id
    try:
        return shown_image(read_image(near.path))
    except UnreadableError as error:
        problem = f"{where} cannot be shown: {error if near.path else 'it is not known where it is'}"
    try:
        if (small := near.thumbnail) is not None:
            kept = shown_image(small)
            return ShownImage(kept.pixels, small, True, f"{problem}; the index has kept this thumbnail of it")
    except UnreadableError:
        pass
    return ShownImage(None, note=f"{problem}; the index has kept no thumbnail of it (lmr build-index keeps some)")
