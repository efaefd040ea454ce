"""Maps over two images, for people: what each place of them adds to a score, or how much the score hangs on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retrieval.arrays import FloatArray, read_only
from retrieval.errors import LmrError
from retrieval.extras import missing
from retrieval.images.spec import ImageSpec

if TYPE_CHECKING:
    from retrieval.explain.network import ExplainedNetwork

Area = tuple[float, float, float, float]  # left, top, right, bottom, as shares of an upright image's width and height
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)
SAME_FILE = 0.98  # cosine of a row's descriptor and that of its file, below which the file is another one now


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


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the index row that it is compared with.

    query, row: encoded images; row None where its image is gone. row_vector: (d,) its unit descriptor in the space of
    the index, in which the row has no whitening, refinement or borrowing but that of `Space`.
    """

    query: bytes
    row: bytes | None
    row_vector: FloatArray


class Space(Protocol):
    """The way from unit descriptors to those that an index compares: x -> (x - mean) @ matrix, then unit length."""

    @property
    def mean(self) -> FloatArray: ...

    @property
    def matrix(self) -> FloatArray: ...


def open_explainer(
    model: Path, *, space: Space | None = None, device: str = "auto", threads: int | None = None
) -> "ExplainedNetwork":
    """The network of a model folder, or of the one in an index folder, ready to be explained.

    space: of the index, None = it compares the descriptors themselves.
    LmrError: no weights there (an exported model has none), damaged, a device that is not there, torch missing.
    """
    if missing("torch"):
        raise LmrError("maps need torch, which is not installed; install it")
    from retrieval.embed.load import onnx_path
    from retrieval.explain.network import ExplainedNetwork
    from retrieval.models.checkpoint import load_network
    from retrieval.models.device import resolve_device
    from retrieval.models.folder import read_any_card

    if onnx_path(model) is not None:
        raise LmrError(f"{model} has no weights, it is of lmr export, whose network cannot be looked into")
    members = [(load_network(model, member.card), member) for member in read_any_card(model).members]
    return ExplainedNetwork(members, space, resolve_device(device), threads)


def join_maps(parts: Sequence[tuple[FloatArray, Area]]) -> tuple[FloatArray, Area]:
    """One map that sums to what all of them sum to, over all that they cover, on places as fine as the finest.

    Maps of the same places are added; of others, the value of each place is shared out by what it has in common with
    the new ones.
    """
    if len({(values.shape, area) for values, area in parts}) == 1:
        return np.sum([values for values, _ in parts], axis=0), parts[0][1]
    edges = np.array([area for _, area in parts])
    left, top = edges[:, :2].min(axis=0).tolist()
    right, bottom = edges[:, 2:].max(axis=0).tolist()
    fineness = np.max([_per_unit(values, area) for values, area in parts], axis=0)
    h, w = (int(np.ceil(np.round(n, 6))) for n in fineness * (bottom - top, right - left))
    total = np.zeros((h, w))
    for values, (x0, y0, x1, y1) in parts:
        rows = _shares(values.shape[0], (y0, y1), h, (top, bottom))
        columns = _shares(values.shape[1], (x0, x1), w, (left, right))
        total += rows @ values @ columns.T
    return total, (left, top, right, bottom)


def _per_unit(values: FloatArray, area: Area) -> tuple[float, float]:
    return values.shape[0] / (area[3] - area[1]), values.shape[1] / (area[2] - area[0])


def _shares(n: int, of: tuple[float, float], n_new: int, within: tuple[float, float]) -> FloatArray:
    """(n_new, n): the share of each of n places along a line that lies in each new place; columns sum to 1."""
    old, new = np.linspace(*of, n + 1), np.linspace(*within, n_new + 1)
    common = np.minimum(old[None, 1:], new[1:, None]) - np.maximum(old[None, :-1], new[:-1, None])
    common = np.clip(common, 0, None)
    shares: FloatArray = common / common.sum(axis=0)
    return shares
