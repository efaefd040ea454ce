"""Columns of texts: their bytes one after the other and where each ends, two arrays that may lie in a file.

Millions of Python strings take gigabytes; here a text takes its bytes and eight more, and becomes a string where it is
asked for. Names of files that are no UTF-8 come back as they were given.
"""

import secrets
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import BoolArray, IntArray, LongArray, ObjArray, UInt8Array, is_run, read_only, row_numbers

BLOCK = 1 << 16  # texts taken at once
_WORD = 8  # bytes
_ALL = np.uint64(2**64 - 1)
_KEY = np.uint64(secrets.randbits(64) | 1)
_BOTH: tuple[Literal["left"], Literal["right"]] = ("left", "right")
Places = LongArray | IntArray | BoolArray | slice | Sequence[int]


class Texts:
    """A read-only column of texts that is indexed as an array of strings is.

    data: (b,) uint8, the UTF-8 of all of them; ends: (n,) int64 in it. Raises ValueError where they do not fit.
    """

    __slots__ = ("data", "ends")

    def __init__(self, data: UInt8Array, ends: LongArray) -> None:
        if data.dtype != np.uint8 or ends.dtype != np.int64 or data.ndim != 1 or ends.ndim != 1:
            raise ValueError(f"data {data.dtype} {data.shape}, ends {ends.dtype} {ends.shape} must be uint8, int64")
        last = 0
        for start in range(0, len(ends), BLOCK):
            block = ends[start : start + BLOCK]
            if block[0] < last or (np.diff(block) < 0).any():
                raise ValueError("a text ends before it begins")
            last = int(block[-1])
        if last != len(data):
            raise ValueError(f"the last text ends at byte {last:,} of {len(data):,}")
        self.data, self.ends = read_only(data), read_only(ends)

    @staticmethod
    def of(texts: Iterable[str]) -> "Texts":
        """Packs these texts."""
        given, packed = iter(texts), TextsWriter()
        while block := list(islice(given, BLOCK)):
            packed.add(block)
        return packed.texts()

    @classmethod
    def of_bytes(cls, texts: Iterable[bytes]) -> Self:
        """Packs texts that are UTF-8 already."""
        data, ends = bytearray(), array("q")
        for text in texts:
            data += text
            ends.append(len(data))
        return cls(np.frombuffer(data, np.uint8), np.frombuffer(ends, np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> Self:
        """Columns one behind the other."""
        if len(parts) == 1:
            return cls(parts[0].data, parts[0].ends)
        begins = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.ends + begin for part, begin in zip(parts, begins, strict=False)]
        data = [part.data for part in parts]
        return cls(np.concatenate([np.zeros(0, np.uint8), *data]), np.concatenate([np.zeros(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def is_ascii(self) -> bool:
        """True where no text holds another letter."""
        return self.data.tobytes().isascii()

    @property
    def shape(self) -> tuple[int]:
        """(n,), as that of an array."""
        return (len(self),)

    @overload
    def __getitem__(self, at: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, at: Places) -> ObjArray: ...

    def __getitem__(self, at: Any) -> str | ObjArray:
        """A text, or those of several rows as an array of strings. Raises IndexError."""
        if isinstance(at, int | np.integer):
            row = range(len(self))[at]
            start = self.ends[row - 1] if row else 0
            return _decoded(self.data[start : self.ends[row]].tobytes())
        chosen = self.select(at)
        return np.fromiter(chosen, dtype=object, count=len(chosen))

    @property
    def n_bytes(self) -> LongArray:
        """(n,) bytes of each."""
        return np.diff(self.ends, prepend=0)

    def __iter__(self) -> Iterator[str]:
        return map(_decoded, self._pieces())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __eq__(self, other: object) -> bool:
        """Equal to a column of the same texts in the same order."""
        if not isinstance(other, Texts):
            return NotImplemented
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.data, other.data)

    def __repr__(self) -> str:
        return f"Texts({', '.join(repr(text) for text in self[:3])}{', ...' if len(self) > 3 else ''})"

    def tolist(self) -> list[str]:
        """All of them as strings."""
        return list(self)

    def select(self, rows: Places) -> "Texts":
        """The texts of these rows; of successive ones without a copy."""
        numbers = row_numbers(rows, len(self))
        if is_run(numbers):
            return self._run(int(numbers[0]), int(numbers[-1]) + 1)
        return Texts.joined([self._gather(numbers[start : start + BLOCK]) for start in range(0, len(numbers), BLOCK)])

    def _run(self, start: int, stop: int) -> "Texts":
        ends = self.ends[start:stop]
        begin = int(self.ends[start - 1]) if start else 0
        return Texts(self.data[begin : ends[-1]], ends - begin if begin else ends)

    def _gather(self, rows: LongArray) -> "Texts":
        ends = self.ends[rows]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        found = np.cumsum(ends - starts)
        shift = np.repeat(starts - (found - (ends - starts)), ends - starts)
        return Texts(self.data[shift + np.arange(len(shift))], found)

    def _pieces(self) -> Iterator[bytes]:
        """The UTF-8 of each."""
        begin = 0
        for start in range(0, len(self), BLOCK):
            ends = (self.ends[start : start + BLOCK] - begin).tolist()
            block = self.data[begin : begin + ends[-1]].tobytes()
            last = 0
            for end in ends:
                yield block[last:end]
                last = end
            begin += last

    def _hashes(self) -> NDArray[np.uint64]:
        """(n,) a number for each, equal where texts are; of this process only, so that nobody can make equal ones."""
        found = np.empty(len(self), np.uint64)
        data = self.data if len(self.data) >= _WORD else np.concatenate([self.data, np.zeros(_WORD, np.uint8)])
        words = np.ndarray(len(data) - _WORD + 1, "<u8", data, strides=(1,))  # the one that begins at each byte
        for start in range(0, len(self), BLOCK):
            ends = self.ends[start : start + BLOCK]
            begin = np.diff(ends, prepend=self.ends[start - 1] if start else 0)
            found[start : start + BLOCK] = _hash_block(words, ends - begin, begin)
        return found


class Lookup:
    """Finds the row of a text; takes sixteen bytes for each text, and a tenth of a second for a million of them."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        hashes = texts._hashes()
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def find(self, text: str) -> int:
        """The first row of this text; -1 = none."""
        try:
            own = Texts.of([text])
        except UnicodeEncodeError:  # half of a pair of UTF-16, which no column has
            return -1
        asked = own._hashes()[0]
        first, last = (np.searchsorted(self._hashes, asked, side) for side in _BOTH)
        for row in self._rows[first:last].tolist():
            if self._texts.select([row]) == own:
                return int(row)
        return -1


class TextsWriter:
    """A column of texts that grows by blocks."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("q")

    def add(self, texts: Sequence[str]) -> None:
        """Packs these texts behind those that are there."""
        joined = "".join(texts)
        if joined.isascii():
            self._ends.extend(islice(accumulate(map(len, texts), initial=len(self._data)), 1, None))
            self._data += joined.encode()
            return
        for text in texts:
            self._data += text.encode(errors="surrogateescape")
            self._ends.append(len(self._data))

    def texts(self) -> Texts:
        """All that was added; nothing can be added after it."""
        return Texts(np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64))


def to_texts(values: Texts | ObjArray) -> Texts:
    """An array of strings as a column; a column as it is."""
    return values if isinstance(values, Texts) else Texts.of(values)


def shared(texts: Texts) -> ObjArray:
    """A column of few different texts as an array of strings, of which equal ones are one."""
    known: dict[str, str] = {}
    return np.fromiter((known.setdefault(text, text) for text in texts), dtype=object, count=len(texts))


def repeated(texts: Texts) -> list[str]:
    """The texts that are there twice or more, sorted."""
    hashes = texts._hashes()
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    rows = np.union1d(order[1:][same], order[:-1][same])
    return sorted(text for text, n in Counter(texts.select(rows)).items() if n > 1)


def equal_pairs(one: Texts, other: Texts, n: int = BLOCK) -> Iterator[LongArray]:
    """Rows of equal texts in two columns, at most n pairs (p, 2) at a time, by rows of the first, then of the other."""
    asked, known = one._hashes(), other._hashes()
    order = np.argsort(known, kind="stable")
    known = known[order]
    first = np.searchsorted(known, asked, side="left")
    ends = np.cumsum(np.searchsorted(known, asked, side="right") - first)
    for start in range(0, int(ends[-1]) if len(ends) else 0, n):
        places = np.arange(start, min(start + n, ends[-1]))
        rows = np.searchsorted(ends, places, side="right")
        begins = np.where(rows > 0, ends[rows - 1], 0)
        pairs = np.stack([rows, order[first[rows] + places - begins]], axis=1)
        yield pairs[equal_rows(one.select(pairs[:, 0]), other.select(pairs[:, 1]))]


def equal_rows(one: Texts, other: Texts) -> BoolArray:
    """(n,) where two columns of n texts have the same."""
    equal: BoolArray = one.n_bytes == other.n_bytes
    rows = np.flatnonzero(equal)
    one, other = one.select(rows), other.select(rows)
    differ = np.flatnonzero(one.data != other.data)
    equal[rows[np.searchsorted(one.ends, differ, side="right")]] = False
    return equal


def _hash_block(words: NDArray[np.uint64], at: LongArray, n_bytes: LongArray) -> NDArray[np.uint64]:
    """Numbers of texts that begin at these bytes. words: the eight bytes from each byte on, little-endian."""
    number = n_bytes.astype(np.uint64) * _KEY
    rows = np.arange(len(at))
    for done in range(0, int(n_bytes.max()), _WORD):
        rows = rows[n_bytes[rows] > done]
        place = at[rows] + done
        early = np.maximum(place - (len(words) - 1), 0)  # bytes by which a word at the very end is read too early
        beyond = np.maximum(_WORD - (n_bytes[rows] - done), 0)  # bytes of the word that are not of the text
        word = words[place - early] >> (8 * early).astype(np.uint64)
        word &= _ALL >> (8 * beyond).astype(np.uint64)
        mixed = (number[rows] ^ word) * _KEY
        number[rows] = mixed ^ (mixed >> np.uint64(32))
    return number


def _decoded(text: bytes) -> str:
    return text.decode(errors="surrogateescape")
