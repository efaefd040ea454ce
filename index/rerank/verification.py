"""Verification of queries: their best neighbours are compared by local features, several pairs at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from index.calibration import VerifiedBy
from index.rerank.evidence import FIXED_INLIERS, UNVERIFIED, Evidence, EvidenceRule
from index.search.base import Neighbours
from retrieval.arrays import LongArray
from retrieval.files.digest import sha256_json
from retrieval.progress import SILENT, Progress
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from retrieval.local.features import LocalFeatures
    from retrieval.local.geometry import Match

AT_ONCE = 4  # neighbours of a query that are compared before it is asked whether its answer is settled

Describe = Callable[[int], "LocalFeatures | None"]  # of an image by its number; None = it has no local features
Settled = Callable[[int, Evidence], bool]  # by the number of a query and what (1, k) is found so far


class Comparing(Protocol):
    """What compares a query with other images: a `retrieval.local.verifier.Verifier`."""

    def verify(self, query: "LocalFeatures", others: "Sequence[LocalFeatures]") -> "list[Match]":
        """A match with each of the others, which does not depend on which others there are."""


@dataclass(slots=True)
class Ledger:
    """Counts of what was compared, by any thread.

    n_pairs: compared; n_spared: not compared since the answer was settled. without: rows of the index that have no
    local features; n_blind: queries that have none.
    """

    n_pairs: int = 0
    n_spared: int = 0
    n_blind: int = 0
    without: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def note(self, *, n_pairs: int = 0, n_spared: int = 0, n_blind: int = 0, without: Sequence[int] = ()) -> None:
        """Adds to the counts."""
        with self._lock:
            self.n_pairs += n_pairs
            self.n_spared += n_spared
            self.n_blind += n_blind
            self.without.update(without)

    def tell(self, progress: Progress) -> None:
        """Warns of what could not be verified."""
        if self.without:
            progress.warn(
                f"{counted(len(self.without), 'image')} of the index could not be compared: it has no local features "
                f"of {agreeing(len(self.without), 'it', 'them')}"
            )
        if self.n_blind:
            progress.warn(
                f"{counted(self.n_blind, 'image')} could not be verified: "
                f"{agreeing(self.n_blind, 'it has', 'they have')} no local features"
            )


@dataclass(frozen=True, slots=True)
class Verification:
    """How neighbours are verified.

    rows: local features of the rows of the index. by: among what else, how many of the best neighbours. rule: what they
    are worth, None = inliers are counted and change no answer. n_inliers: from which on a neighbour is called verified.
    n_threads: pairs that are compared at once.
    """

    rows: Describe
    verifier: Comparing
    by: VerifiedBy
    rule: EvidenceRule | None = None
    n_inliers: int = FIXED_INLIERS
    n_threads: int = 1
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def made_of(self) -> dict[str, str]:
        """Digest of what verified answers depend on beside their index, for the records of files made of them."""
        rule = None if self.rule is None else asdict(self.rule)
        return {"verification": sha256_json([asdict(self.by), rule])}

    def verify(
        self, queries: Describe, neighbours: Neighbours, settled: Settled | None = None, progress: Progress = SILENT
    ) -> Evidence:
        """Compares queries with their best neighbours, from the first on.

        settled: asked after every AT_ONCE neighbours whether the rest is spared. progress: told of every query.
        """
        n, k = neighbours.rows.shape
        inliers, surprise = np.full((n, k), UNVERIFIED, np.int32), np.zeros((n, k), np.float32)
        n_outer = max(1, min(self.n_threads, n))
        n_inner = self.n_threads // n_outer
        with ThreadPoolExecutor(n_outer) as outer, ThreadPoolExecutor(max(1, n_inner)) as inner:

            def compare(query: "LocalFeatures", others: "list[LocalFeatures]") -> "list[Match]":
                if n_inner <= 1:
                    return self.verifier.verify(query, others)
                pairs = inner.map(lambda other: self.verifier.verify(query, [other]), others)
                return [match for pair in pairs for match in pair]

            def verify_one(query: int) -> None:
                features = queries(query) if (neighbours.rows[query] >= 0).any() else None
                if features is not None:
                    found = _Found(neighbours.rows[query], inliers[query], surprise[query])
                    self._verify_one(query, found, partial(compare, features), settled)
                elif (neighbours.rows[query] >= 0).any():
                    self.ledger.note(n_blind=1)

            for _ in outer.map(verify_one, range(n)):
                progress.add(1)
        return Evidence(inliers, surprise)

    def _verify_one(
        self,
        query: int,
        found: "_Found",
        compare: "Callable[[list[LocalFeatures]], list[Match]]",
        settled: Settled | None,
    ) -> None:
        """Fills what is found of a query. compare: matches it with others."""
        rows = found.rows
        places = np.flatnonzero(rows[: self.by.top] >= 0)
        for start in range(0, len(places), AT_ONCE):
            others = {int(place): self.rows(int(rows[place])) for place in places[start : start + AT_ONCE]}
            there = [place for place, other in others.items() if other is not None]
            matches = compare([other for other in others.values() if other is not None])
            found.inliers[there] = [match.n_inliers for match in matches]
            found.surprise[there] = [match.surprise for match in matches]
            without = [int(rows[place]) for place, other in others.items() if other is None]
            self.ledger.note(n_pairs=len(there), without=without)
            if settled is not None and settled(query, found.so_far):
                self.ledger.note(n_spared=max(0, len(places) - start - AT_ONCE))
                return


@dataclass(frozen=True, slots=True)
class _Found:
    """What is found of one query, (k,) each: rows are its neighbours, the others columns of Evidence to be filled."""

    rows: LongArray
    inliers: NDArray[np.int32]
    surprise: NDArray[np.float32]

    @property
    def so_far(self) -> Evidence:
        """What was found, (1, k)."""
        return Evidence(self.inliers[None].copy(), self.surprise[None].copy())
