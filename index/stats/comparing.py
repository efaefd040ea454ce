"""What is costly of the statistics of a store, in blocks of which a file of facts keeps what they found."""

import hashlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.stats.clusters import Clusters, StoredImages, assigned, find_clusters, n_clustered_blocks
from index.stats.duplicates import asked_rows, same_descriptor
from index.stats.measured import ImageGroups, name_groups
from retrieval.data.facts_shares import Pieces
from retrieval.progress import Progress
from retrieval.shard import Shard
from retrieval.store.near_duplicates import compared, n_blocks
from retrieval.store.store import open_descriptors
from retrieval.version import program_version


@dataclass(frozen=True, slots=True)
class AlikeImages:
    """Groups of images whose descriptors have at least this cosine similarity. compared: images, with all others."""

    near_similarity: float
    compared: int
    groups: ImageGroups


@dataclass(frozen=True, slots=True)
class Comparing:
    """The costly part of what a store tells, in blocks of which a file of facts keeps what they found.

    n_clusters: None = none are looked for. facts: None = nothing is kept.
    """

    stored: StoredImages
    near_similarity: float
    n_clusters: int | None
    seed: int
    facts: Path | None

    def work(self, what: str) -> Pieces:
        """What is known of the pairs (`alike`) or of the clusters (`clusters`)."""
        stored, facts = self.stored, self.facts
        if facts is None:
            return Pieces(None, {})
        rows = hashlib.sha256(np.ascontiguousarray(stored.row, dtype="<i8").tobytes()).hexdigest()
        own = {"alike": self.near_similarity, "clusters": self.n_clusters}[what]
        digest = open_descriptors(stored.store.source).digest
        made_of = {"what": what, "of": own, "seed": self.seed, "store": digest, "rows": rows}
        return Pieces(facts, {**made_of, "version": program_version()})  # another one may have other blocks

    def do_share(self, shard: Shard, progress: Progress) -> None:
        """Does a share of the blocks, which the file of facts then has."""
        stored, rows = self.stored, self.stored.row
        asked = asked_rows(len(rows), np.random.default_rng(self.seed))
        numbers = shard.rows(n_blocks(len(rows) if asked is None else len(asked)))
        pairs = compared(stored.store, rows, self.near_similarity, asked, numbers, progress, self.work("alike"))
        deque(pairs, maxlen=0)
        if self.n_clusters is not None:
            numbers, pieces = shard.rows(n_clustered_blocks(len(rows))), self.work("clusters")
            deque(assigned(stored.store, rows, self.n_clusters, self.seed, numbers, progress, pieces), maxlen=0)

    def find_alike(self, progress: Progress) -> AlikeImages:
        """Groups of images with near descriptors."""
        stored, least = self.stored, self.near_similarity
        rng = np.random.default_rng(self.seed)
        alike = same_descriptor(stored.store, stored.row, least, rng, progress, self.work("alike"))
        return AlikeImages(least, alike.n_compared, name_groups(alike.groups, stored.image_id, stored.label))

    def find_clusters(self, progress: Progress) -> Clusters | None:
        """The clusters; None where none are looked for. LmrError as `find_clusters`."""
        if self.n_clusters is None:
            return None
        store, rows = self.stored.store, self.stored.row
        return find_clusters(store, rows, self.n_clusters, self.seed, progress, self.work("clusters"))
