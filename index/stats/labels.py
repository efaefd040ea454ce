"""Distribution of images over landmarks and hosts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.data.manifest import Manifest
from retrieval.texts import Texts

PERCENTS = tuple(range(10, 100, 10))
BIGGEST = (1, 10, 100, 1_000, 10_000, 100_000)
N_CURVE = 200  # points of a curve at most


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """Landmarks that each image shows.

    image, landmark: (m,) int64, pairs, each once, ordered by image: rows of images below n_pictures and
    numbers of names. names: landmark ids, in the order of their text.
    """

    n_pictures: int
    names: tuple[str, ...]
    image: LongArray
    landmark: LongArray

    def __post_init__(self) -> None:
        if self.image.shape != self.landmark.shape or self.image.ndim != 1:
            raise ValueError(f"pairs must be (m,), got {self.image.shape} and {self.landmark.shape}")
        for name, limit in (("image", self.n_pictures), ("landmark", len(self.names))):
            values = getattr(self, name)
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise ValueError(f"{name} must lie in [0, {limit})")
            object.__setattr__(self, name, read_only(values))

    @property
    def counts(self) -> LongArray:
        """(landmarks,) images of each."""
        return np.bincount(self.landmark, minlength=len(self.names)).astype(np.int64)

    @property
    def n_labelled(self) -> int:
        """Images that show a landmark."""
        return len(np.unique(self.image))

    def first_landmark(self) -> LongArray:
        """(n_pictures,) the first landmark of each, -1 = none."""
        first = np.full(self.n_pictures, -1, dtype=np.int64)
        first[self.image[::-1]] = self.landmark[::-1]
        return first


def labelling_of(manifest: Manifest) -> Labelling:
    """All landmarks of all images of a manifest."""
    rows = np.flatnonzero(manifest.landmark >= 0)
    more = [(row, code) for row, codes in manifest.more_landmarks.items() for code in codes]
    further = np.array(more, dtype=np.int64).reshape(-1, 2)
    image = np.concatenate([rows, further[:, 0]])
    landmark = np.concatenate([manifest.landmark[rows].astype(np.int64), further[:, 1]])
    order = np.argsort(image, kind="stable")
    return Labelling(len(manifest), manifest.landmarks, image[order], landmark[order])


@dataclass(frozen=True, slots=True)
class Spread:
    """Spread of values, in their unit. percentiles: the 10th to the 90th by their number, linear between two values."""

    mean: float
    min: float
    max: float
    percentiles: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LandmarkSizes(Spread):
    """Spread of the images per landmark. single: landmarks with one image."""

    single: int


@dataclass(frozen=True, slots=True)
class Biggest:
    """The k biggest landmarks: their labels, and the share of all labels that these are."""

    k: int
    labels: int
    share: float


@dataclass(frozen=True, slots=True)
class LandmarkCounts:
    """Landmarks that have an image, and their labels, which are pairs of an image and a landmark.

    half: how many of the biggest landmarks hold half of the labels. None where there are no landmarks.
    """

    landmarks: int
    labels: int
    pictures_per_landmark: LandmarkSizes | None
    biggest: tuple[Biggest, ...]
    half: int | None


def count_landmarks(counts: LongArray) -> LandmarkCounts:
    """Counts and spread of the images per landmark. counts: (landmarks,); those without an image are left out."""
    counts = np.sort(counts[counts > 0])[::-1]
    if not len(counts):
        return LandmarkCounts(0, 0, None, (), None)
    total = np.cumsum(counts)
    ks = sorted({k for k in BIGGEST if k < len(counts)} | {len(counts)})
    sizes = spread(counts)
    return LandmarkCounts(
        landmarks=len(counts),
        labels=int(total[-1]),
        pictures_per_landmark=LandmarkSizes(
            sizes.mean, sizes.min, sizes.max, sizes.percentiles, single=int((counts == 1).sum())
        ),
        biggest=tuple(Biggest(k, int(total[k - 1]), float(total[k - 1] / total[-1])) for k in ks),
        half=int(np.searchsorted(total, total[-1] / 2) + 1),
    )


def spread(values: FloatArray | LongArray) -> Spread:
    """Mean, smallest, largest and the 10th to 90th percentile. values: (n,), at least one."""
    table = np.percentile(values, PERCENTS)
    return Spread(
        mean=float(values.mean()),
        min=values.min().item(),
        max=values.max().item(),
        percentiles={str(percent): float(value) for percent, value in zip(PERCENTS, table, strict=True)},
    )


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Number of landmarks that have from `first` to `last` images."""

    first: int
    last: int
    landmarks: int


def histogram(counts: LongArray) -> tuple[SizeBin, ...]:
    """Landmarks by number of images: 1, 2 to 3, 4 to 7 and so on by doubling."""
    counts = counts[counts > 0]
    if not len(counts):
        return ()
    doubling = np.bincount(np.frexp(counts.astype(np.float64))[1] - 1)
    return tuple(SizeBin(1 << i, (2 << i) - 1, int(n)) for i, n in enumerate(doubling))


@dataclass(frozen=True, slots=True)
class Density:
    """Curve of (n,) points: numbers of images, and the density of landmarks there, by decimal logarithm."""

    pictures: tuple[float, ...]
    density: tuple[float, ...]


def density(counts: LongArray) -> Density | None:
    """Density of the decimal logarithm of the images per landmark: Gaussian kernels, Scott's rule.

    None where all landmarks have equally many images, or there are fewer than three.
    """
    from scipy.stats import gaussian_kde

    values, weights = np.unique(counts[counts > 0], return_counts=True)
    if len(values) < 2 or weights.sum() < 3:
        return None
    kernels = gaussian_kde(np.log10(values), weights=weights)
    at = np.linspace(0, np.log10(values[-1]) + 0.4, N_CURVE)
    return Density(tuple((10**at).tolist()), tuple(kernels(at).tolist()))


@dataclass(frozen=True, slots=True)
class LongTail:
    """Curve of (n,) points: numbers of the biggest landmarks, and the share of all labels that they hold."""

    landmarks: tuple[int, ...]
    share: tuple[float, ...]


def long_tail(counts: LongArray) -> LongTail:
    """Share of the labels in the k biggest landmarks, for at most 200 values of k on a logarithmic scale."""
    counts = np.sort(counts[counts > 0])[::-1]
    if not len(counts):
        return LongTail((), ())
    k = np.unique(np.geomspace(1, len(counts), N_CURVE).round().astype(np.int64))
    return LongTail(tuple(k.tolist()), tuple((np.cumsum(counts)[k - 1] / counts.sum()).tolist()))


def most_frequent(counts: LongArray, n: int) -> LongArray:
    """The n landmarks with most images, equal ones in their order."""
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0][:n]


def least_frequent(counts: LongArray, n: int) -> LongArray:
    """The n landmarks with fewest images, but some; equal ones in their order."""
    order = np.argsort(counts, kind="stable")
    return order[counts[order] > 0][:n]


def samples(labelling: Labelling, landmark: int, n: int) -> list[int]:
    """At most n images of a landmark, spread evenly over all of its images."""
    rows = labelling.image[labelling.landmark == landmark]
    return [int(rows[i]) for i in np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))] if len(rows) else []


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its images. share: of all images of the manifest."""

    host: str
    pictures: int
    share: float


@dataclass(frozen=True, slots=True)
class Hosts:
    """Number of hosts, images without one, and the hosts with most images."""

    hosts: int
    without: int
    top: tuple[Host, ...]


def rank_hosts(url: Texts, n_shown: int) -> Hosts:
    """Number of hosts, and the n_shown with most images. url: (n,), '' = none."""
    counts = count_hosts(url)
    without = counts.pop("", 0)
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_shown]
    return Hosts(len(counts), without, tuple(Host(host, n, n / len(url)) for host, n in top))


def count_hosts(urls: Iterable[str]) -> Counter[str]:
    """Images by host in small letters, without user and port; '' for what has no host."""
    counts: Counter[str] = Counter()
    for place, n in Counter(url.partition("://")[2].partition("/")[0] for url in urls).items():
        counts[_host(place)] += n
    return counts


def _host(place: str) -> str:
    """`user@Host:80?x` -> `host`; an address of version 6 keeps its brackets."""
    host = place.partition("?")[0].partition("#")[0].rpartition("@")[2].lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
