"""The staging folder of a submission: its plan, and what its rounds ask and find.

    plan.json                 what is answered, in how many blocks of queries and shards of rows
    asked-ROUND-BLOCK         the queries of a block that a round searches
    found-ROUND-BLOCK-SHARD   what they found in one shard
    known-ROUND-BLOCK         what they found in all of them
    unverified-BLOCK          images of a block that could not be verified
    submission-BLOCK-of-N.json    the answers of a block, as a share of the submission

Each file appears whole or not at all, carries its digest and says of which plan and place it is. So a file that is
there is done, and one that is damaged is made again.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.kaggle.shares import share_path
from index.search.base import Neighbours
from index.spark.replay import Question, Where
from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes, write_error
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert, read_signed_json, write_signed_json
from retrieval.files.sealed_zip import require_sealed, seal
from retrieval.shard import Shard
from retrieval.spark.staging import FORMAT_VERSION, PLAN

_REMEDY = "give `overwrite` to begin again"
_WHERE: tuple[Where, ...] = ("searched", "own")
_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submission is made of, and how it is divided.

    made_with: everything that its answers depend on. manifest: digest of the images' manifest. n_blocks: of queries;
    n_shards: of the rows of the index.
    """

    made_with: Mapping[str, Any]
    manifest: str
    n_queries: int
    n_blocks: int
    n_shards: int

    def __post_init__(self) -> None:
        if not 1 <= self.n_blocks <= max(1, self.n_queries) or self.n_shards < 1:
            raise ValueError(f"{self.n_blocks} blocks of {self.n_queries} queries by {self.n_shards} shards")

    @property
    def digest(self) -> str:
        """sha256 (hex) over it."""
        return sha256_json(asdict(self))


@dataclass(frozen=True, slots=True)
class Rounds:
    """The files of all rounds of a submission. folder: that is staged beside the output."""

    folder: Path
    output: Path
    plan: Plan

    def rows(self, block: int) -> range:
        """The queries of a block, which is counted from 0."""
        return self._shard(block).rows(self.plan.n_queries)

    def share(self, block: int) -> tuple[Path, Shard]:
        """The file of the answers to a block, and which share of the submission they are."""
        shard = self._shard(block)
        return share_path(self.folder / self.output.name, shard), shard

    def write_asked(self, round_: int, block: int, question: Question) -> None:
        """Writes what a round asks. Raises LmrError where that is not possible."""
        where = np.array(_WHERE.index(question.where))
        arrays = {"queries": question.queries, "k": np.array(question.k), "where": where}
        self._write(f"asked-{round_}-{block}", arrays)

    def asked(self, round_: int, block: int) -> Question | None:
        """What a round asks; None where that is not there. Raises DamagedError."""
        found = self._read(f"asked-{round_}-{block}")
        return None if found is None else Question(_WHERE[int(found["where"])], found["queries"], int(found["k"]))

    def write_found(self, round_: int, block: int, shard: int | None, neighbours: Neighbours) -> None:
        """Writes what was found in a shard, None = in all of them. Raises LmrError where that is not possible."""
        self._write(_found_name(round_, block, shard), {"rows": neighbours.rows, "scores": neighbours.scores})

    def found(self, round_: int, block: int, shard: int | None = None) -> Neighbours | None:
        """What was found in a shard, None = in all of them; None where that is not there. Raises DamagedError."""
        found = self._read(_found_name(round_, block, shard))
        return None if found is None else Neighbours(found["rows"], found["scores"])

    def write_unverified(self, block: int, rows: set[int], n_blind: int) -> None:
        """Writes which rows of the index, and how many queries, had no local features."""
        self._write(f"unverified-{block}", {"rows": np.array(sorted(rows), np.int64), "n_blind": np.array(n_blind)})

    def unverified(self, block: int) -> tuple[set[int], int] | None:
        """What `write_unverified` wrote; None where that is not there. Raises DamagedError."""
        found = self._read(f"unverified-{block}")
        return None if found is None else (set(found["rows"].tolist()), int(found["n_blind"]))

    def _shard(self, block: int) -> Shard:
        return Shard(block + 1, self.plan.n_blocks)

    def _write(self, name: str, arrays: _Arrays) -> None:
        data = io.BytesIO()
        arrays["of"] = np.array(self._mark(name))
        np.savez(data, allow_pickle=False, **arrays)
        write_bytes(self.folder / name, seal(data.getvalue()))

    def _read(self, name: str) -> _Arrays | None:
        path = self.folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LmrError(f"{path} cannot be read: {error.strerror}") from error
        try:
            if not require_sealed(data):
                raise ValueError("no digest")
            with np.load(io.BytesIO(data), allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
            if arrays.pop("of").item() != self._mark(name):
                raise ValueError("of another place")
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedError(path) from error
        return arrays

    def _mark(self, name: str) -> str:
        return f"{self.plan.digest} {name}"


class DamagedError(Exception):
    """A file of a round is not as it was written; it is made again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def write_plan(rounds: Rounds) -> None:
    """Makes the folder and writes its plan. Raises LmrError where that is not possible."""
    try:
        rounds.folder.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(rounds.folder, error) from error
    write_signed_json(rounds.folder / PLAN, {"format_version": FORMAT_VERSION, **asdict(rounds.plan)})


def read_plan(folder: Path) -> Plan | None:
    """The plan that is there, None without one. Raises LmrError for a damaged one."""
    path = folder / PLAN
    if not path.exists():
        return None
    return convert(read_signed_json(path, FORMAT_VERSION, _REMEDY), Plan, str(path), _REMEDY)


def _found_name(round_: int, block: int, shard: int | None) -> str:
    return f"known-{round_}-{block}" if shard is None else f"found-{round_}-{block}-{shard}"
