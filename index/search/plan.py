"""Kinds of index: what each needs, and which one fits a number of rows, a memory and a recall."""

import math
from dataclasses import dataclass

from index.search.config import BuiltKind, Kind, Storage, gigabytes
from retrieval.errors import LmrError
from retrieval.words import counted

RECALL_K = 10  # neighbours that the recall is of
EXACT_NUMBERS = 25_000_000  # rows * d up to which one exact query takes a few milliseconds: scripts/bench/search.py
LISTS_PER_ROOT = 4  # lists for each square root of the rows, as FAISS's guidelines advise
ROWS_PER_LIST = 32  # for training, at least; FAISS warns below 39, and more changed no recall here
LEAST_LISTS = 2  # that can be asked for
PADDED_ROWS = 16  # by which FastScan fills up a list to a multiple of 32, on average
MOST_TRAINING_BYTES = 1 << 30  # of the sample that centroids are trained on
BY_SIZE: tuple[BuiltKind, ...] = ("ivf-pq-small", "ivf-pq", "ivf-sq8", "ivf-flat")  # inverted files, smallest first
_NUMBERS_OF_PART: dict[BuiltKind, int] = {"ivf-pq": 2, "ivf-pq-small": 4}  # each part is a code of 4 bits


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """A kind of index for n rows of d numbers.

    n_lists: lists of an inverted file, 0 for flat. n_shards: stretches of the rows, which have the same lists.
    """

    kind: BuiltKind
    n: int
    d: int
    storage: Storage
    n_lists: int = 0
    n_shards: int = 1

    @property
    def n_code_bytes(self) -> int:
        """Bytes that a row takes in memory beside its row in the file, its number included."""
        if self.kind == "flat":
            return 0
        return 8 + (-(-self.n_parts // 2) if self.n_parts else {"ivf-flat": 2, "ivf-sq8": 1}[self.kind] * self.d)

    @property
    def n_parts(self) -> int:
        """Parts of a row that have a code of 4 bits each; 0 where every number has its own."""
        return n_parts(self.kind, self.d)

    @property
    def memory_bytes(self) -> int:
        """Memory of a search: what is read for every query, so that it should stay there."""
        if self.kind == "flat":
            return self.n * self.d * (4 if self.storage == "float32" else 2)
        padding = self.n_lists * PADDED_ROWS * self.n_code_bytes if self.n_parts else 0
        return self.n * self.n_code_bytes + self.n_shards * (padding + 4 * self.n_lists * self.d)

    @property
    def name(self) -> str:
        """Name in the words of FAISS (`IVF4096,SQ8`)."""
        if self.kind == "flat":
            return "Flat"
        code = f"PQ{self.n_parts}x4fs" if self.n_parts else {"ivf-flat": "Flat16", "ivf-sq8": "SQ8"}[self.kind]
        return f"IVF{self.n_lists},{code}"


def make_plan(
    kind: Kind,
    n: int,
    d: int,
    *,
    storage: Storage | None = None,
    memory_bytes: int | None = None,
    n_lists: int | None = None,
    n_shards: int = 1,
    recall: float,
) -> IndexPlan:
    """The kind that is asked for, or the one that fits.

    `auto` is exact search while one query takes a few milliseconds, above that the inverted file with 4-bit codes of
    pairs of numbers, of four numbers where the memory is too small for those, and exact search again where only that
    reaches a recall of 1. storage: None = float32 for exact search and float16 for the others. n_lists: None =
    4 sqrt(n).
    Raises LmrError, with what would do, for a recall of 1 by an approximate kind, more lists or shards than rows,
    dimensions that cannot be split, and a memory that is too small.
    """
    if n_shards > n:
        raise LmrError(f"`n_shards` {n_shards:,} is more than the {counted(n, 'row')}; give at most {n:,}")
    chosen = _choose(n, d, recall, memory_bytes, n_lists) if kind == "auto" else kind
    if chosen == "flat":
        if n_lists is not None:
            raise LmrError(
                f"`n_lists` {n_lists}: exact search has no lists; give a `kind` that begins with ivf, or none"
            )
        plan = IndexPlan("flat", n, d, storage or "float32", n_shards=n_shards)
    else:
        if recall == 1:
            raise LmrError(
                f"`recall` 1 is exact search, which `kind` {chosen} is not; give `kind` flat or `recall` 0.99"
            )
        if n_parts(chosen, d) == 1:
            raise LmrError(f"`kind` {chosen} cannot split {counted(d, 'dimension')}; give `kind` ivf-sq8")
        if n_lists is not None and n_lists * 2 > n:
            most = n // ROWS_PER_LIST
            fewer = f"give at most {most:,}, or `kind` flat" if most >= LEAST_LISTS else "give `kind` flat alone"
            raise LmrError(f"`n_lists` {n_lists:,} is too many for {counted(n, 'row')}; {fewer}")
        plan = IndexPlan(chosen, n, d, storage or "float16", n_lists or default_lists(n), n_shards)
    if memory_bytes is not None and plan.memory_bytes > memory_bytes:
        raise LmrError(_too_little(plan, memory_bytes, recall))
    return plan


def default_lists(n: int) -> int:
    """4 sqrt(n), at most one for ROWS_PER_LIST rows."""
    return max(1, min(round(LISTS_PER_ROOT * math.sqrt(n)), n // ROWS_PER_LIST))


def n_parts(kind: BuiltKind, d: int) -> int:
    """Parts that a vector of d numbers is split into for 4-bit codes, 0 for a kind that has none.

    Pairs of numbers, or four of them; larger equal parts where these do not divide d.
    """
    if kind not in _NUMBERS_OF_PART:
        return 0
    return next((m for m in range(d // _NUMBERS_OF_PART[kind], 0, -1) if d % m == 0), 1)


def _choose(n: int, d: int, recall: float, memory_bytes: int | None, n_lists: int | None) -> BuiltKind:
    """Exact search where it is quick enough and fits, else the usual kind that d and the memory allow."""
    flat = IndexPlan("flat", n, d, "float32")
    fits = memory_bytes is None or flat.memory_bytes <= memory_bytes
    if recall == 1 or (n * d <= EXACT_NUMBERS and fits) or default_lists(n) < 2:
        return "flat"
    usual: BuiltKind = "ivf-pq" if _splits_well("ivf-pq", d) else "ivf-sq8"
    needed = IndexPlan(usual, n, d, "float16", n_lists or default_lists(n)).memory_bytes
    if memory_bytes is not None and needed > memory_bytes and _splits_well("ivf-pq-small", d):
        return "ivf-pq-small"
    return usual


def _splits_well(kind: BuiltKind, d: int) -> bool:
    """Tells whether the parts are at most four times as large as they should be."""
    return n_parts(kind, d) * 4 * _NUMBERS_OF_PART[kind] >= d and n_parts(kind, d) > 1


def _too_little(plan: IndexPlan, memory_bytes: int, recall: float) -> str:
    """What a plan needs, and what would do."""
    possible = [kind for kind in BY_SIZE if n_parts(kind, plan.d) != 1]
    others = [IndexPlan(kind, plan.n, plan.d, "float16", plan.n_lists or default_lists(plan.n)) for kind in possible]
    fitting = [other for other in others[::-1] if other.memory_bytes <= memory_bytes]
    if fitting:
        remedy = f"`kind` {fitting[0].kind} needs {gigabytes(fitting[0].memory_bytes)}"
    else:
        least = math.ceil(others[0].memory_bytes / 1e7) / 100
        remedy = f"give at least `memory` {least:g}, which `kind` {others[0].kind} needs"
    if recall == 1:
        remedy += ", with `recall` 0.99"
    return (
        f"`memory` {gigabytes(memory_bytes)} is too little for {plan.name} over {plan.n:,} x {plan.d}, which needs "
        f"{gigabytes(plan.memory_bytes)}; {remedy}"
    )
