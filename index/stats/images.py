"""Sizes, shapes, resolution, light and sharpness of images: spreads, rankings, and what falls out of the common."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from index.stats.labels import Spread, spread
from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.data.quality_cache import FactsTable
from retrieval.images.screen import SCREEN_DIAGONAL_IN, pixels_per_inch

FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey, Exploratory Data Analysis, 1977, chapter 2)
N_BINS = 30

RANKED = ("pixels_per_inch", "megapixels", "bytes", "sharpness", "entropy", "gradient", "aspect_ratio")
MEASURES = (*RANKED, "brightness", "contrast")
_FACTS = ("sharpness", "entropy", "gradient", "brightness", "contrast")


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """Measures of the readable images.

    row: (n,) int64, rows of the manifest. width, height: (n,) int64 pixels. values: measure -> (n,) float64, for each
    of MEASURES. aspect_ratio is width / height.
    """

    row: LongArray
    width: LongArray
    height: LongArray
    values: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        if tuple(self.values) != MEASURES:
            raise ValueError(f"values must be {MEASURES}, got {tuple(self.values)}")
        for array in (self.row, self.width, self.height, *self.values.values()):
            if array.shape != self.row.shape:
                raise ValueError(f"all must have {len(self.row)} rows, got {array.shape}")
        for name in ("row", "width", "height"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.row)


def measures_of(table: FactsTable, diagonal_in: float = SCREEN_DIAGONAL_IN) -> Measures:
    """The measures of the readable images. diagonal_in: of the screen that they are thought to fill, inches."""
    width, height = table.column("width").astype(np.int64), table.column("height").astype(np.int64)
    values = {
        "pixels_per_inch": pixels_per_inch(width, height, diagonal_in),
        "megapixels": width * height / 1e6,
        "bytes": table.column("n_bytes").astype(np.float64),
        "aspect_ratio": width / height,
        **{name: table.column(name).astype(np.float64) for name in _FACTS},
    }
    return Measures(table.readable, width, height, {name: values[name] for name in MEASURES})


@dataclass(frozen=True, slots=True)
class Size:
    """A size in pixels, the images that have it, and their share of all that can be read."""

    width: int
    height: int
    pictures: int
    share: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of distinct sizes, and the ten most common ones."""

    distinct: int
    top: tuple[Size, ...]


def count_sizes(measures: Measures) -> Sizes:
    """The most common sizes; needs at least one image."""
    import pandas as pd  # slow to import

    pairs = pd.DataFrame({"width": measures.width, "height": measures.height})
    sizes = pairs.groupby(["width", "height"], as_index=False).size()
    top = sizes.sort_values("size", ascending=False, kind="stable").head(10).to_numpy().tolist()
    return Sizes(len(sizes), tuple(Size(w, h, n, n / len(measures)) for w, h, n in top))


def spreads(measures: Measures) -> dict[str, Spread]:
    """The spread of every measure; needs at least one image."""
    return {name: spread(values) for name, values in measures.values.items()}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Images by a measure. edges: (bins + 1,) in the unit of the measure. pictures: (bins,)."""

    edges: tuple[float, ...]
    pictures: tuple[int, ...]


def histograms(measures: Measures) -> dict[str, Histogram]:
    """Histograms of four measures, that of sharpness of sharpness + 1; needs at least one image."""
    return {
        "megapixels": _histogram(measures.values["megapixels"], logarithmic=True),
        "aspect_ratio": _histogram(measures.values["aspect_ratio"], logarithmic=True),
        "brightness": _histogram(measures.values["brightness"], logarithmic=False),
        "sharpness": _histogram(measures.values["sharpness"] + 1, logarithmic=True),
    }


def ranking(measures: Measures, name: str) -> LongArray:
    """Positions in the measures, the largest value first; equal ones in the order of their rows."""
    return np.argsort(-measures.values[name], kind="stable")


def outliers(measures: Measures) -> dict[str, LongArray]:
    """Positions of the images whose light or sharpness lies beyond Tukey's fences, the most extreme first.

    dark, bright: brightness; flat: low contrast; blurred: low sharpness, on a logarithmic scale, as it spans decades.
    """
    values = measures.values
    return {
        "dark": _below(values["brightness"]),
        "bright": _below(-values["brightness"]),
        "flat": _below(values["contrast"]),
        "blurred": _below(np.log1p(values["sharpness"])),
    }


def _below(values: FloatArray) -> LongArray:
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    low, high = np.percentile(values, (25, 75))
    order = np.argsort(values, kind="stable")
    return np.asarray(order[values[order] < low - FENCE * (high - low)])


def _histogram(values: FloatArray, *, logarithmic: bool) -> Histogram:
    scale = np.log10 if logarithmic else np.asarray
    counts, edges = np.histogram(scale(values), bins=N_BINS)
    return Histogram(tuple((10**edges if logarithmic else edges).tolist()), tuple(counts.tolist()))
