"""Seconds, bytes and dollars of a collection on a cluster of executors and on Milvus, as formulas of constants.

What plan.py prints. n: pictures or rows; d: numbers of a descriptor; a slot: a core that does one task at a time. Each
constant says where it was measured, or that it is an assumption; docs/scale.md shows the same formulas.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

HOUR_S, MONTH_H = 3600.0, 730.0
GB = 1e9
LISTS_PER_ROOT = 4  # lists of an inverted file for each square root of the rows: index/search/plan.py
TRAINING_BYTES = 1 << 30  # of the sample that lists are learnt from, at most: index/search/plan.py
ROUNDS = 6  # of k-means: index/search/ivf.py
ROW_TEXT_BYTES = 100  # ids and paths of a row
CODE_BYTES = {"ivf-pq": 4, "ivf-pq-small": 8}  # numbers of a descriptor for each byte of its code
NUMBER_BYTES = 8  # of a row, beside its code
SECTOR_BYTES = 4096  # of a disk, of which DISKANN reads one for each row that it looks at
LISTS_READ = 64 / 4000  # share of the lists that were read for a recall of 0.95 of a million rows: search
# Of Milvus's documentation (2.6). HNSW: neighbours of a row, 4 bytes each, twice as many in its lowest layer. DISKANN:
# neighbours and their number; memory as a share of the vectors, codes 0.125 and cache 0.1; candidates of a query.
GRAPH_M, DISK_GRAPH_LINKS, DISK_GRAPH_MEMORY, DISK_GRAPH_READS = 30, 57, 0.225, 100


def constant(default: float, unit: str, source: str) -> Any:
    """A constant with its unit and its source."""
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Constants:
    """What was measured, and what is assumed. Measured ones are of an idle core where docs/benchmarks.md has one."""

    image_s: float = constant(1 / 30, "s of a core", "embedding, ResNet-50 at 224 px, 60 a second on two cores")
    image_bytes: float = constant(100e3, "bytes", "assumed: a photograph of about 800 px")
    manifest_row_s: float = constant(2.5e-6, "s of a core", "manifests: 10.2 s for 4.13 million rows")
    manifest_row_bytes: float = constant(100.0, "bytes of memory", "docs/spark.md: a row, in each process of Python")
    flops: float = constant(100e9, "operations a second of a core", "search, 110 to 220 GFLOP/s measured")
    row_s: float = constant(80e-6, "s of a core", "growth: building a million rows, less finding their lists")
    query_s: float = constant(0.18e-3, "s of a core", "search, a million rows, recall 0.95")
    query_exponent: float = constant(0.5, "", "growth has 0.35; 0.5 is what lists of 4 sqrt(n) come to")
    shard_query_s: float = constant(
        0.15e-3, "s of a core", "service_times: a query on one shard more, but for its lists"
    )
    join_bytes_s: float = constant(100e6, "bytes a second", "service_times: one task that joins stores")
    join_row_bytes: float = constant(240.0, "bytes of memory", "service_times: a row of a store that is joined")
    merge_bytes_s: float = constant(200e6, "bytes a second", "assumed: one task that copies the parts of an index")
    start_s: float = constant(30.0, "s", "service_times: until a session is there, and an executor takes tasks")
    load_s: float = constant(5.0, "s of a core", "service_times: a process of Python up to its first batch")
    task_s: float = constant(0.1, "s of a core", "service_times: a task that does nothing")
    dispatch_s: float = constant(0.005, "s of the driver", "service_times: a task without Python")
    graph_s: float = constant(0.29e-3, "s of a core", "search, hnswlib, 50,000 rows of 512, recall 0.98")
    graph_rows: float = constant(50e3, "rows", "the same")
    disk_reads_s: float = constant(100e3, "reads a second", "assumed: an NVMe drive")


@dataclass(frozen=True)
class Prices:
    """Dollars, on demand, Amazon us-east-1, before any discount. They change: every one is an option."""

    core_hour: float = constant(0.0408, "$", "m7g, 4 GB a core, June 2026")
    memory_core_hour: float = constant(0.0536, "$", "r7g, 8 GB a core, 2025")
    gb_month: float = constant(0.023, "$", "S3 Standard, 2025")
    disk_gb_month: float = constant(0.08, "$", "EBS gp3, 2025")
    million_reads: float = constant(0.40, "$", "S3 GET, 2025")
    gb_moved: float = constant(0.02, "$", "between two regions, 2025; within one it is free")


def accounts(of: Constants | Prices) -> dict[str, dict[str, Any]]:
    """Value, unit and source of each."""
    return {one.name: {"value": getattr(of, one.name), **one.metadata} for one in fields(of)}


@dataclass(frozen=True)
class Step:
    """One part of a job. work_s: core seconds that any number of cores share; serial_s: what one task does alone.

    bytes_read: from the shared storage; bytes_kept: that stay.
    """

    work_s: float = 0.0
    serial_s: float = 0.0
    bytes_read: float = 0.0
    bytes_kept: float = 0.0


def lists_of(n: float) -> float:
    """Lists of an inverted file over n rows."""
    return LISTS_PER_ROOT * math.sqrt(n)


def index_bytes(n: float, d: int, kind: str = "ivf-pq") -> float:
    """Memory of a search: codes, numbers of rows and centroids."""
    return n * (d / CODE_BYTES[kind] + NUMBER_BYTES) + 4 * d * lists_of(n)


def embed(n: float, d: int, of: Constants) -> Step:
    """Pictures to a joined store."""
    kept = n * (2 * d + ROW_TEXT_BYTES)
    return Step(n * of.image_s, kept / of.join_bytes_s, n * of.image_bytes, kept)


def build(n: float, d: int, of: Constants, cores: int, *, n_shards: int = 1) -> Step:
    """A store to an index folder. cores: of the executor that learns lists and codes; shards are not merged."""
    kept = 2 * d * n + index_bytes(n, d)
    merge_s = kept / of.merge_bytes_s if n_shards == 1 else 2 * d * n / of.merge_bytes_s
    return Step(n * (of.row_s + 2 * d * lists_of(n) / of.flops), learn_s(n, d, of, cores) + merge_s, 2 * d * n, kept)


def learn_s(n: float, d: int, of: Constants, cores: int) -> float:
    """Seconds in which the lists are learnt from a sample, on one executor."""
    return ROUNDS * 2 * d * min(n, TRAINING_BYTES / (4 * d)) * lists_of(n) / of.flops / cores


def query_s(n: float, d: int, of: Constants, n_shards: int = 1) -> float:
    """Core seconds of a query: of one index, and again the lists and the scoring for each further shard."""
    whole = of.query_s * (n / 1e6) ** of.query_exponent
    return whole + (n_shards - 1) * (of.shard_query_s + 2 * d * lists_of(n) / of.flops)


def exact_query_s(n: float, d: int, of: Constants) -> float:
    """Core seconds of a query that is compared with every row."""
    return 2 * d * n / of.flops


def submit(n: float, d: int, of: Constants, n_queries: float, *, n_shards: int = 1, n_executors: int = 1) -> Step:
    """Pictures of queries to a submission; each executor reads the shards that it searches, all of them at worst."""
    work_s = n_queries * (of.image_s + query_s(n, d, of, n_shards))
    read = n_queries * of.image_bytes + n_executors * index_bytes(n, d)
    return Step(work_s, 0.0, read, 0.0)


def shards_needed(n: float, d: int, memory_bytes: float, kind: str = "ivf-pq") -> int:
    """The fewest shards of which one fits into so much memory."""
    return max(1, math.ceil(index_bytes(n, d, kind) / memory_bytes))


@dataclass(frozen=True)
class Node:
    """A query node of Milvus. fill: share of its memory that segments may take; segment_bytes: of vectors in one."""

    cores: int = 16
    memory_bytes: float = 128 * GB
    fill: float = 0.7
    segment_bytes: float = float(1 << 30)


def milvus_kinds(d: int) -> dict[str, tuple[float, float]]:
    """Bytes of a row in the memory and on the disk of a query node, by index, of float32 vectors."""
    raw, links = 4.0 * d, 8 * GRAPH_M
    in_sector = SECTOR_BYTES // (raw + 4 * DISK_GRAPH_LINKS)  # rows that a sector of the disk holds with their links
    return {
        "FLAT": (raw, 0.0),
        "IVF_SQ8": (raw / 4 + 8, 0.0),
        "HNSW": (raw + links, 0.0),
        "DISKANN": (DISK_GRAPH_MEMORY * raw, SECTOR_BYTES / max(1, in_sector)),
    }


def milvus(n: float, d: int, kind: str, of: Constants, prices: Prices, node: Node, replicas: int = 1) -> dict[str, Any]:
    """Nodes, memory, disk, queries a second and dollars a month of one collection."""
    row, disk_row = milvus_kinds(d)[kind]
    n_nodes = max(1, math.ceil(n * row / (node.fill * node.memory_bytes))) * replicas
    n_segments = max(1, math.ceil(4 * d * n / node.segment_bytes))
    if kind == "DISKANN":
        per_s = n_nodes * of.disk_reads_s / (DISK_GRAPH_READS * n_segments)
    else:
        per_s = n_nodes * node.cores / milvus_query_s(n, d, kind, of, n_segments)
    disk_bytes = n * disk_row * replicas
    monthly = n_nodes * node.cores * MONTH_H * prices.memory_core_hour
    monthly += disk_bytes / GB * prices.disk_gb_month + 4 * d * n / GB * prices.gb_month
    return {
        "row_bytes": row,
        "disk_row_bytes": disk_row,
        "memory_gb": n * row * replicas / GB,
        "disk_gb": disk_bytes / GB,
        "nodes": n_nodes,
        "segments": n_segments,
        "queries_s": per_s,
        "dollars_month": monthly,
    }


def milvus_query_s(n: float, d: int, kind: str, of: Constants, n_segments: int) -> float:
    """Core seconds of one query over all segments, each of which has an index of its own."""
    rows = n / n_segments
    if kind == "FLAT":
        return exact_query_s(n, d, of)
    if kind == "IVF_SQ8":
        return n_segments * 2 * d * (lists_of(rows) + LISTS_READ * rows) / of.flops
    return n_segments * of.graph_s * max(1.0, math.log(rows) / math.log(of.graph_rows))
