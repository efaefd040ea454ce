"""What tasks of a cluster have finished of an index, in files of its staging folder.

A file that is there is whole and need not be made again. One that is found damaged is removed, and is then made again.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.folder.sums import PairSums, groups_of, row_groups
from retrieval.arrays import FloatArray
from retrieval.errors import DamageError
from retrieval.files.atomic import replacing
from retrieval.files.digest import sha256_file

if TYPE_CHECKING:
    from index.build_index import BuildJob
    from index.folder.build import Digests
    from index.search.plan import IndexPlan

PART_ROWS = 1 << 14  # a part ends at a multiple of it: where blocks of a whole build end too


class PartDamageError(DamageError):
    """A file of the staging folder is not as it was written, and was removed."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What there is to build. n_both: rows and background; n_pairs: blocks of landmarks with several images.

    is_there: the same index is there already. states: size and time of each store, background last.
    """

    n_rows: int
    n_both: int
    d: int
    n_pairs: int
    plan: "IndexPlan"
    digests: "Digests"
    is_there: bool
    states: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class BuildWork:
    """What every task is told. job: as one machine would do it; folder: the staging; n_parts: that rows are made in."""

    job: "BuildJob"
    folder: Path
    looked: Looked
    n_parts: int

    def part(self, name: str, i: int) -> Path:
        """The file of part i, counted from 0."""
        return self.folder / f"{name}-{i + 1:06}.npz"

    def rows_of(self, i: int) -> range:
        """The rows of part i."""
        n = self.looked.n_rows
        n_blocks = -(-n // PART_ROWS)
        first, last = (n_blocks * j // self.n_parts * PART_ROWS for j in (i, i + 1))
        return range(min(first, n), min(last, n))


def most_parts(n_rows: int) -> int:
    """Parts that so many rows have at most."""
    return max(1, -(-n_rows // PART_ROWS))


def write_part(path: Path, **arrays: Any) -> None:
    """Writes arrays, each with its checksum, whole or not at all. Raises LmrError where that is not possible."""
    with replacing(path) as file:
        np.savez(file, **arrays)


def read_part(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that `write_part` wrote. Raises PartDamageError where the file is gone or is not as it was written."""
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise removed(path) from error


def removed(*paths: Path) -> PartDamageError:
    """Removes files of which the first one is damaged or gone, and gives the error that says so."""
    for path in paths:
        path.unlink(missing_ok=True)
    return PartDamageError(f"{paths[0]} was damaged or removed; it is made again")


def seal(path: Path, **facts: Any) -> None:
    """Says that a file is finished: its sha256, and what is known of it, go into a part beside it."""
    write_part(seal_of(path), sha256=np.array(sha256_file(path)), **facts)


def seal_of(path: Path) -> Path:
    """Where `seal` writes."""
    return path.with_name(f"{path.name}.npz")


def sealed(path: Path) -> dict[str, NDArray[Any]]:
    """What `seal` wrote of a file. Raises PartDamageError where that or the file is gone or damaged."""
    try:
        facts = read_part(seal_of(path))
    except PartDamageError:
        raise removed(path, seal_of(path)) from None
    if not path.is_file() or sha256_file(path) != str(facts["sha256"]):
        raise removed(path, seal_of(path))
    return facts


@dataclass(frozen=True, slots=True)
class StagedSums:
    """The sums that tasks made of the vectors, one file for each group."""

    work: BuildWork

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.work.looked.n_both, self.work.looked.d

    def vectors(self) -> Iterator[FloatArray]:
        """As of `Sums`."""
        return (self._read("vectors", i)["total"] for i in range(len(row_groups(self.shape[0]))))

    def products(self, mean: FloatArray) -> Iterator[FloatArray]:
        """As of `Sums`; the tasks took the mean of the same sums."""
        return (self._read("products", i)["total"] for i in range(len(row_groups(self.shape[0]))))

    def pairs(self) -> Iterator[PairSums]:
        """As of `Sums`."""
        for i in range(len(groups_of(self.work.looked.n_pairs))):
            held = self._read("pairs", i)
            yield PairSums(int(held["n"]), int(held["n_free"]), float(held["fourth"]), held["products"])

    def _read(self, name: str, i: int) -> dict[str, NDArray[Any]]:
        return read_part(self.work.part(name, i))
