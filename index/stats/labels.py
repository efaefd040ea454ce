"""Distribution of images over landmarks and hosts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.arrays import FloatArray, LongArray, ObjArray, read_only
from retrieval.data.manifest import Manifest

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


def describe_counts(counts: LongArray) -> dict[str, Any]:
    """Statistics of the images per landmark, as a JSON object; None where there are no landmarks.

    counts: (landmarks,). Landmarks without an image do not count. biggest: the share of the labels (images, where
    each has one) in the k biggest landmarks. half: how many of the biggest landmarks hold half of the labels.
    """
    counts = np.sort(counts[counts > 0])[::-1]
    if not len(counts):
        return {"landmarks": 0, "labels": 0, "pictures_per_landmark": None, "biggest": [], "half": None}
    total = np.cumsum(counts)
    ks = sorted({k for k in BIGGEST if k < len(counts)} | {len(counts)})
    return {
        "landmarks": len(counts),
        "labels": int(total[-1]),
        "pictures_per_landmark": {**spread(counts), "single": int((counts == 1).sum())},
        "biggest": [{"k": k, "labels": int(total[k - 1]), "share": float(total[k - 1] / total[-1])} for k in ks],
        "half": int(np.searchsorted(total, total[-1] / 2) + 1),
    }


def spread(values: FloatArray | LongArray) -> dict[str, Any]:
    """Mean, smallest, largest and the 10th to 90th percentile (linear between two values), as a JSON object."""
    table = np.percentile(values, PERCENTS)
    return {
        "mean": float(values.mean()),
        "min": values.min().item(),
        "max": values.max().item(),
        "percentiles": {str(percent): float(value) for percent, value in zip(PERCENTS, table, strict=True)},
    }


def histogram(counts: LongArray) -> list[dict[str, int]]:
    """Landmarks by number of images: 1, 2 to 3, 4 to 7 and so on by doubling."""
    counts = counts[counts > 0]
    if not len(counts):
        return []
    doubling = np.bincount(np.frexp(counts.astype(np.float64))[1] - 1)
    return [{"first": 1 << i, "last": (2 << i) - 1, "landmarks": int(n)} for i, n in enumerate(doubling)]


def density(counts: LongArray) -> dict[str, list[float]] | None:
    """Density of the decimal logarithm of the images per landmark: Gaussian kernels, Scott's rule.

    None where all landmarks have equally many images, or there are fewer than three.
    """
    from scipy.stats import gaussian_kde

    values, weights = np.unique(counts[counts > 0], return_counts=True)
    if len(values) < 2 or weights.sum() < 3:
        return None
    kernels = gaussian_kde(np.log10(values), weights=weights)
    at = np.linspace(0, np.log10(values[-1]) + 0.4, N_CURVE)
    return {"pictures": (10**at).tolist(), "density": kernels(at).tolist()}


def long_tail(counts: LongArray) -> dict[str, list[float]]:
    """Share of the labels in the k biggest landmarks, for at most 200 values of k on a logarithmic scale."""
    counts = np.sort(counts[counts > 0])[::-1]
    if not len(counts):
        return {"landmarks": [], "share": []}
    k = np.unique(np.geomspace(1, len(counts), N_CURVE).round().astype(np.int64))
    return {"landmarks": k.tolist(), "share": (np.cumsum(counts)[k - 1] / counts.sum()).tolist()}


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


def describe_hosts(url: ObjArray, n_shown: int) -> dict[str, Any]:
    """Number of hosts, and the n_shown with most images, as a JSON object. url: (n,) str, '' = none."""
    counts = count_hosts(url)
    without = counts.pop("", 0)
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_shown]
    return {
        "hosts": len(counts),
        "without": without,
        "top": [{"host": host, "pictures": n, "share": n / len(url)} for host, n in top],
    }


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
