"""The parts of the document of `lmr stats` that need a descriptor store: copies, the map, clusters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.progress import TerminalProgress
from cli.stats.measured import describe_groups
from retrieval.arrays import LongArray, ObjArray, read_only
from retrieval.errors import LmrError
from retrieval.store.blocks import StoreBlocks, open_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from index.stats.clusters import Clusters

N_EXAMPLES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """The pictures of the manifest that a store describes.

    row: (n,) int64 rows of the store. landmark: (n,) int64 into names, -1 = none; both by the manifest.
    """

    store: StoreBlocks
    row: LongArray
    landmark: LongArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("row", "landmark"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def image_id(self) -> ObjArray:
        return self.store.image_id[self.row]

    @property
    def label(self) -> ObjArray:
        """(n,) str, '' = none."""
        return np.array((*self.names, ""), dtype=object)[self.landmark]


def open_described(path: "Path", image_id: ObjArray, landmark: LongArray, names: tuple[str, ...]) -> Described:
    """Opens the store and finds the pictures of the manifest in it. LmrError when it describes none of them."""
    store = open_blocks(path)
    place = {name: row for row, name in enumerate(image_id.tolist())}
    of_row = np.array([place.get(name, -1) for name in store.image_id[store.done].tolist()], dtype=np.int64)
    if not (of_row >= 0).any():
        raise LmrError(f"{path} describes none of the pictures of the manifest; give the store that was made from it")
    return Described(store, store.done[of_row >= 0], landmark[of_row[of_row >= 0]], names)


def describe_alike(described: Described, near_similarity: float, seed: int) -> dict[str, Any]:
    """Groups of pictures with near descriptors."""
    from index.stats.duplicates import same_descriptor

    rng = np.random.default_rng(seed)
    with TerminalProgress() as progress:
        alike = same_descriptor(described.store, described.row, near_similarity, rng, progress)
    return {
        "near_similarity": near_similarity,
        "compared": alike.n_compared,
        **describe_groups(alike.groups, described.image_id, described.label),
    }


def describe_map(described: Described, n_pictures: int, seed: int) -> dict[str, Any]:
    """Where the descriptors of at most n_pictures, drawn by the seed, lie in the plane."""
    from index.stats.clusters import map_descriptors

    at = np.arange(len(described.row))
    if len(at) > n_pictures:
        at = np.sort(np.random.default_rng(seed).choice(at, n_pictures, replace=False))
    with TerminalProgress() as progress:
        progress.begin("mapping", len(at))
        points = map_descriptors(described.store.vectors(described.row[at]), seed)
        progress.add(len(at))
    return {
        "pictures": len(at),
        "of": len(described.row),
        "seed": seed,
        "image_id": described.image_id[at].tolist(),
        "landmark_id": [label or None for label in described.label[at]],
        "x": points[:, 0].astype(float).round(4).tolist(),
        "y": points[:, 1].astype(float).round(4).tolist(),
    }


def describe_clusters(described: Described, clusters: "Clusters", seed: int) -> dict[str, Any]:
    """All clusters with their landmarks and the pictures nearest to their centroids."""
    from index.stats.clusters import central, describe_cluster, purity

    landmark, image_id = described.landmark, described.image_id
    return {
        "seed": seed,
        "purity": purity(clusters, landmark),
        "clusters": [
            {
                **describe_cluster(clusters, number, landmark, described.names),
                "examples": image_id[central(clusters, number, N_EXAMPLES)].tolist(),
            }
            for number in range(clusters.n_clusters)
        ],
    }
