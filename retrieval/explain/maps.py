"""Maps over two images, for people: what each place of them adds to a score, or how much the score hangs on it."""

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import FloatArray, read_only
from retrieval.images.spec import ImageSpec

Area = tuple[float, float, float, float]  # left, top, right, bottom, as shares of an upright image's width and height
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class NamedMap:
    """A map over a query image, and one over the image of an index row that it is compared with.

    name: for file names and programs, such as `similarity` or `saliency-guided`. title, about: for people.
    query, row: (h, w) float32, row None where there is no second image. is_signed: values below 0 mean something.
    query_area, row_area: what the maps cover of their images, beyond them where images were padded.
    query_rest, row_rest: what belongs to no place, where a map and its rest sum to the score; None where they do not.
    """

    name: str
    title: str
    query: FloatArray
    row: FloatArray | None = None
    about: str = ""
    is_signed: bool = False
    query_area: Area = WHOLE
    row_area: Area = WHOLE
    query_rest: float | None = None
    row_rest: float | None = None

    def __post_init__(self) -> None:
        for name in ("query", "row"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.ndim != 2 or 0 in values.shape or values.dtype != np.float32:
                raise ValueError(f"{name} must be (h, w) float32, got {values.shape} {values.dtype}")
            object.__setattr__(self, name, read_only(values))


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of one query. score: similarity of the two images by the network, computed in float32.

    notes: what could not be made, and why.
    """

    score: float
    maps: tuple[NamedMap, ...]
    notes: tuple[str, ...] = ()


def covered_area(size: tuple[int, int], spec: ImageSpec) -> Area:
    """What of an upright image of that width and height, in pixels, its prepared square shows."""
    width, height = size
    if spec.fit == "squash":
        return WHOLE
    side = min(width, height) if spec.fit == "crop" else max(width, height)
    x, y = (1 - side / width) / 2, (1 - side / height) / 2
    return (x, y, 1 - x, 1 - y)
