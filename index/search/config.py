"""Options of the kind of an index, and what was built and measured of it."""

from dataclasses import dataclass
from typing import Literal

from retrieval.jobs import option

MOST_SHARDS = 4096
Storage = Literal["float32", "float16"]
Kind = Literal["auto", "flat", "ivf-flat", "ivf-sq8", "ivf-pq", "ivf-pq-small"]
MilvusKind = Literal["flat", "ivf-flat", "ivf-sq8", "ivf-pq", "hnsw", "hnsw-sq", "diskann"]
BuiltKind = Literal["flat", "ivf-flat", "ivf-sq8", "ivf-pq", "ivf-pq-small"]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How the nearest rows are found. recall: of the exact 10 nearest. memory_gb: None = no limit."""

    kind: Kind = option(
        "auto", help="Kind of index: exact search (flat), an inverted file, or auto, which chooses by size."
    )
    recall: float = option(
        0.99, low=0, high=1, low_open=True, help="Share of the exact 10 nearest that an inverted file must find."
    )
    memory_gb: float | None = option(
        None, name="memory", low=0, low_open=True, default_text="no limit", help="Memory of a search in GB, 10^9 bytes."
    )
    n_lists: int | None = option(None, low=2, default_text="4 sqrt(rows)", help="Lists of an inverted file.")
    n_shards: int = option(
        1,
        low=1,
        high=MOST_SHARDS,
        help="Shards of the rows, each of which has an inverted file of its own.",
    )


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """An inverted file, its settings and what was measured of it on a sample of its own rows.

    name: in the words of FAISS. n_probe: lists read for a query; n_candidates: rows scored again for each neighbour.
    target: the recall that was asked for. recall, top1: shares of the exact 10 nearest rows, and of the nearest, that
    are found, a row itself left out. queries_per_s: in batches; speedup: that, over the same of exact search.
    """

    kind: BuiltKind
    name: str
    n_probe: int
    n_candidates: int
    target: float
    recall: float
    top1: float
    queries_per_s: float
    speedup: float
    n_queries: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if min(self.n_probe, self.n_candidates) < 1:
            raise ValueError("search.n_probe and search.n_candidates must be at least 1")


def search_line(info: SearchInfo, n: int, d: int, n_shards: int = 1) -> str:
    """What was chosen and measured for n rows of d numbers, in one line."""
    shards = f" in {n_shards} shards" if n_shards > 1 else ""
    return (
        f"{n:,} x {d}: {info.name}{shards} + re-scoring, {gigabytes(info.memory_bytes)}, recall@10 {info.recall:.3f}, "
        f"{info.queries_per_s:,.0f} queries/s, {info.speedup:.1f} x exact"
    )


def gigabytes(n_bytes: float) -> str:
    """`0.7 GB`, `12.0 MB`, `4.1 kB`; 10^9, 10^6 and 10^3 bytes."""
    if n_bytes >= 1e8:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"
