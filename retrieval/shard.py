"""Shares of the rows of a manifest, so that several machines work side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.jobs import Job, option
from retrieval.words import counted

MOST_SHARES = 100_000
# A share ends where a batch of the whole run ends, so that every image is computed in the batch that it has there: the
# last bits of a descriptor depend on how many images are computed at once. The batches of GPUs and of CPUs.
_BLOCKS = (128, 16)
_N_NAMED = 5  # missing shares that a message names
_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of n shares of the rows of a manifest, i from 1 to n. A share is one stretch of rows.

    So what it reads lies together, in tars and folders too, and shares joined are the whole in its order.
    """

    i: int
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.i <= self.n <= MOST_SHARES:
            raise ValueError(f"share {self.i} of {self.n}: i must lie in [1, n], n in [1, {MOST_SHARES}]")

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"

    def rows(self, n_rows: int) -> range:
        """Its rows of so many; none where there are fewer rows than shares."""
        block = next((block for block in _BLOCKS if n_rows >= block * self.n), 1)
        n_blocks = -(-n_rows // block)
        begin, end = (number * n_blocks // self.n * block for number in (self.i - 1, self.i))
        return range(min(begin, n_rows), min(end, n_rows))

    def rows_of(self, source: object, n_rows: int) -> range:
        """Its rows of a source that has so many. Raises LmrError where it has fewer than there are shares."""
        if n_rows < self.n:
            raise LmrError(
                f"`shard` {self}: {source} has {counted(n_rows, 'image')}, fewer than shares; give at most "
                f"{counted(n_rows, 'share')}"
            )
        return self.rows(n_rows)

    def beside(self, path: Path) -> Path:
        """The path of its output, by that of the whole: `train.h5` -> `train-02-of-16.h5`."""
        return path.with_name(f"{path.stem}-{self.i:0{len(str(self.n))}}-of-{self.n}{path.suffix}")


def parse_shard(text: str) -> Shard:
    """`2/16` as the second of 16 shares. Raises LmrError for anything else."""
    found = _TEXT.fullmatch(text.strip())
    try:
        if found:
            return Shard(int(found[1]), int(found[2]))
    except ValueError:
        pass
    raise LmrError(f"`shard` {text}: expected I/N, share I of N counted from 1, such as 1/4 to 4/4")


@dataclass(frozen=True, kw_only=True)
class ShardedJob(Job):
    """A job that can be done by shares of the rows. shard: `I/N`, None = all rows."""

    shard: str | None = option(
        None,
        metavar="I/N",
        help="Only share I of N of the rows, counted from 1, into an output of its own name; lmr join joins them.",
    )

    def __post_init__(self) -> None:
        """Raises LmrError for what is no share."""
        super().__post_init__()
        if self.shard is not None:
            parse_shard(self.shard)

    @property
    def share(self) -> Shard | None:
        """The share that was asked for; None = all rows."""
        return None if self.shard is None else parse_shard(self.shard)


def require_all(shares: Sequence[tuple[Path, Shard]]) -> list[int]:
    """Positions of the parts in the order of their shares.

    Raises LmrError where they are shares of different numbers, one is there twice, or some are missing.
    """
    first_path, first = shares[0]
    places: dict[int, Path] = {}
    for path, shard in shares:
        if shard.n != first.n:
            raise LmrError(f"{path} is share {shard}, {first_path} is share {first}; give the shares of one run")
        if shard.i in places:
            raise LmrError(f"{places[shard.i]} and {path} are both share {shard}; give each share once")
        places[shard.i] = path
    missing = [f"{i}/{first.n}" for i in range(1, first.n + 1) if i not in places]
    if missing:
        more = f" and {len(missing) - _N_NAMED} more" if len(missing) > _N_NAMED else ""
        raise LmrError(
            f"shares {', '.join(missing[:_N_NAMED])}{more} are missing of {first.n}; give their files too, or make "
            "them first by the same command with these as `shard`"
            if len(missing) > 1
            else f"share {missing[0]} is missing; give its file too, or make it first by the same command with "
            f"`shard` {missing[0]}"
        )
    return sorted(range(len(shares)), key=lambda at: shares[at][1].i)


def require_lengths(shares: Sequence[tuple[Path, Shard]], n_rows: Sequence[int]) -> None:
    """Raises LmrError where a part has not as many rows as its share of all of them has."""
    total = sum(n_rows)
    for (path, shard), n in zip(shares, n_rows, strict=True):
        if n != len(shard.rows(total)):
            raise LmrError(
                f"{path} has {n:,} rows, share {shard} of {total:,} has {len(shard.rows(total)):,}; make it again"
            )
