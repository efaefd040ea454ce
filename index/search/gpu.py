"""Search on GPUs: copies that propose rows, which are then scored from the stored rows as ever.

Johnson, Douze, Jegou: Billion-scale similarity search with GPUs, 2017. A copy is made when so many queries have been
asked that it pays. A GPU that fails, most often for want of memory, is left alone from then on: the CPU gives the same
answers. FAISS uses a GPU from one thread at a time.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from index.search.config import gigabytes
from retrieval.arrays import FloatArray, LongArray
from retrieval.device_name import parse_device
from retrieval.errors import LmrError
from retrieval.progress import Progress

MAX_WIDTH = 2048  # rows that FAISS selects on a GPU, and lists that it reads there, at most
SCRATCH_BYTES = 1 << 29  # of each GPU, for products; FAISS would take three times as much from the network
SLAB_BYTES = 1 << 29  # of float32 rows that go to a GPU at once and stay apart there: FAISS copies what it adds to
ROWS_FROM = 1 << 14  # a CPU compares fewer rows in milliseconds
_ONE_AT_A_TIME = threading.Lock()

T = TypeVar("T")
R = TypeVar("R")


def gpus_of(device: str, progress: Progress) -> tuple[int, ...]:
    """The numbers of the GPUs that `device` means, () for the CPU.

    Where FAISS was built without GPUs the CPU is used, which is told if a GPU was asked for. Raises LmrError for a GPU
    that is not there.
    """
    name = parse_device(device)
    if name.kind in ("cpu", "mps"):
        return ()
    from index.search.library import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        if name.kind == "cuda":
            progress.warn(f"`device` {device}: this FAISS was built without GPUs; rows are searched on the CPU")
        return ()
    n_gpus = faiss.get_num_gpus()
    if name.kind == "auto" and n_gpus == 0:
        return ()
    numbers = name.numbers or (0,)
    if max(numbers) >= n_gpus:
        raise LmrError(f"`device` {device}: FAISS sees {n_gpus} GPUs; give `device` cpu or auto")
    return numbers


class OnGpus(Generic[T]):
    """Something that is made on GPUs once it pays, and used there as long as they do not fail.

    gpus: their numbers, () = none. make: makes it of the numbers. pays_from: queries that have been asked by then.
    """

    def __init__(
        self, gpus: Sequence[int], make: Callable[[tuple[int, ...]], T], progress: Progress, *, pays_from: int = 0
    ) -> None:
        self._gpus, self._make, self._progress, self._pays_from = tuple(gpus), make, progress, pays_from
        self._n_asked = 0
        self._made: T | None = None

    def expect(self, n_queries: int) -> None:
        """Counts queries that are asked now."""
        self._n_asked += n_queries

    @property
    def is_used(self) -> bool:
        """True where the GPUs have the next word."""
        return bool(self._gpus) and self._n_asked >= self._pays_from

    def use(self, ask: Callable[[T], R]) -> R | None:
        """What it answers; None where that is left to the CPU."""
        if not self.is_used:
            return None
        with _ONE_AT_A_TIME:
            if not self.is_used:  # it failed meanwhile
                return None
            try:
                if self._made is None:
                    self._made = self._make(self._gpus)
                return ask(self._made)
            except (RuntimeError, MemoryError) as error:  # of FAISS
                self._progress.warn(
                    f"{_named(self._gpus)} cannot be used ({_reason(error)}); the CPU searches, with the same answers"
                )
                self._gpus, self._made = (), None
                return None


@dataclass(frozen=True, slots=True)
class _Slab:
    """Successive rows on one GPU, from `start` on."""

    index: Any
    start: int
    n: int

    def search(self, queries: FloatArray, width: int) -> tuple[FloatArray, LongArray]:
        """Scores and rows (q, w) of the nearest, w = the smaller of `width` and n; -1 where FAISS gives no row."""
        scores, places = self.index.search(queries, min(width, self.n))
        return scores, np.where(places >= 0, places + self.start, -1)


class GpuRows:
    """Rows as float16 on GPUs, a part on each: which of them may be the nearest, and what the others score at most."""

    def __init__(self, stored: FloatArray, largest_norm: float, gpus: Sequence[int], progress: Progress) -> None:
        """stored: (n, d) float32 or float16, read in slabs. largest_norm: length of the longest row."""
        n, d = stored.shape
        progress.tell(f"{n:,} x {d} rows are put on {_named(gpus)} ({gigabytes(2 * n * d)})")
        self._largest_norm = largest_norm
        self._lost = 0.0  # length of the longest difference between a row and its float16
        # Products are exact in float32. Sums of them that are cut off, not rounded, err by twice what rounded ones do.
        self._of_sums = 3 * d * 2.0**-24 * largest_norm
        ends = [n * i // len(gpus) for i in range(len(gpus) + 1)]
        step = max(1, SLAB_BYTES // (4 * d))
        self._gpus: list[list[_Slab]] = []
        for number, (first, end) in zip(gpus, pairwise(ends), strict=True):
            slabs = []
            for start in range(first, end, step):
                slabs.append(self._slab(stored[start : min(start + step, end)], start, number))
                progress.note(f"{start + slabs[-1].n:,} of {n:,} rows on {_named(gpus)}")
            self._gpus.append(slabs)
        progress.note("")

    def _slab(self, stored: FloatArray, start: int, number: int) -> _Slab:
        rows = np.ascontiguousarray(stored, dtype=np.float32)
        if stored.dtype != np.float16:
            self._lost = max([self._lost, *(_lost(rows[i : i + 4096]).max() for i in range(0, len(rows), 4096))])
        slab = flat_on(number, rows.shape[1], is_float16=True)
        slab.add(rows)
        return _Slab(slab, start, len(rows))

    def propose(self, queries: FloatArray, width: int) -> tuple[LongArray, FloatArray]:
        """Rows (q, width), best first, and (q,) the most that any other row scores; width: at most n and MAX_WIDTH."""
        found = [one for some in self._ask_each(queries, width) for one in some]
        scores, rows = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        order = np.argsort(-scores, axis=1)[:, :width]
        bound = np.take_along_axis(scores, order[:, -1:], axis=1)[:, 0] + self.slack(queries)
        return np.take_along_axis(rows, order, axis=1), bound

    def slack(self, queries: FloatArray) -> FloatArray:
        """(q,) by how much the score of a row here is below that from the stored row, at most: what rounding takes."""
        norms = np.linalg.norm(queries, axis=1)
        with np.errstate(invalid="ignore"):
            of_queries = _lost(queries) * (self._largest_norm + self._lost)
        slack: FloatArray = of_queries + norms * (self._lost + self._of_sums)
        return slack

    def _ask_each(self, queries: FloatArray, width: int) -> list[list[tuple[FloatArray, LongArray]]]:
        """What each slab of each GPU finds; GPUs work side by side."""

        def ask(slabs: list[_Slab]) -> list[tuple[FloatArray, LongArray]]:
            return [slab.search(queries, width) for slab in slabs]

        if len(self._gpus) == 1:
            return [ask(self._gpus[0])]
        with ThreadPoolExecutor(len(self._gpus)) as pool:
            return list(pool.map(ask, self._gpus))


def flat_on(number: int, d: int, *, is_float16: bool = False) -> Any:
    """An empty index of inner products on a GPU."""
    from index.search.library import faiss

    options: Any = faiss.GpuIndexFlatConfig()
    options.device, options.useFloat16 = number, is_float16
    return faiss.GpuIndexFlatIP(_resources(number), d, options)


def ivf_on(gpus: Sequence[int], ivf: Any) -> Any:
    """A copy of an inverted file of scalar codes on GPUs; each has a share of every list."""
    from index.search.library import faiss

    library: Any = faiss
    options = library.GpuMultipleClonerOptions()
    options.shard = len(gpus) > 1
    return library.index_cpu_to_gpu_multiple_py([_resources(number) for number in gpus], ivf, options, list(gpus))


@functools.cache
def _resources(number: int) -> Any:
    """What FAISS needs of a GPU, one for all copies there."""
    from index.search.library import faiss

    resources: Any = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    resources.setPinnedMemory(0)  # a quarter of a GB of the CPU, for batches larger than any here
    return resources


def _lost(vectors: FloatArray) -> FloatArray:
    """(n,) length of what each vector loses as float16; infinite beyond its range."""
    with np.errstate(over="ignore"):
        rounded = vectors.astype(np.float16).astype(np.float32)
    lost: FloatArray = np.linalg.norm(vectors - rounded, axis=1)
    return lost


def _named(gpus: Sequence[int]) -> str:
    return f"cuda:{','.join(map(str, gpus))}"


def _reason(error: Exception) -> str:
    """Why FAISS failed, in a few words."""
    said = str(error)
    if isinstance(error, MemoryError) or "out of memory" in said:
        return "it has too little free memory"
    return said.rsplit("failed: ", 1)[-1].strip().splitlines()[0][:100] if said.strip() else type(error).__name__
