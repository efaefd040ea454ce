"""Landmarks that images show: a column of landmark_ids, of which an image may have several, or none."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self, overload

import numpy as np

from retrieval.arrays import IntArray, LongArray, ObjArray, object_array, read_only, row_numbers
from retrieval.texts import Places

Shown = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A read-only column of the landmark_ids that images show, indexed as an array of tuples of them is.

    names: landmark_ids. code: (t,) int32 into names; ends: (q,) int64 in it, of each image, which may have none.
    """

    names: Shown
    code: IntArray
    ends: LongArray

    def __post_init__(self) -> None:
        n = int(self.ends[-1]) if len(self.ends) else 0
        if n != len(self.code) or np.any(np.diff(self.ends, prepend=0) < 0):
            raise ValueError(f"ends must ascend to {len(self.code)}, the number of codes")
        if n and not 0 <= self.code.min() <= self.code.max() < len(self.names):
            raise ValueError(f"code must lie in [0, {len(self.names)})")
        for name in ("code", "ends"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @classmethod
    def of(cls, labels: Iterable[Sequence[str]]) -> Self:
        """Packs one collection of landmark_ids per image."""
        number: dict[str, int] = {}
        code, ends = array("i"), array("q")
        for shown in labels:
            code.extend(number.setdefault(label, len(number)) for label in shown)
            ends.append(len(code))
        return cls(tuple(number), np.frombuffer(code, np.int32), np.frombuffer(ends, np.int64))

    @classmethod
    def of_codes(cls, names: Shown, first: IntArray, more: Mapping[int, Sequence[int]] | None = None) -> Self:
        """first: (q,) int32 into names, -1 = none. more: the further ones of an image that has several."""
        if not more:
            shown = first[first >= 0].astype(np.int32, copy=False)
            return cls(names, shown, np.cumsum(first >= 0, dtype=np.int64))
        rows = np.repeat(np.fromiter(more, np.int64), [len(codes) for codes in more.values()])
        image = np.concatenate([np.flatnonzero(first >= 0), rows])
        code = np.concatenate([first[first >= 0], np.fromiter(chain.from_iterable(more.values()), np.int32)])
        ends = np.cumsum(np.bincount(image, minlength=len(first)), dtype=np.int64)
        return cls(names, code[np.argsort(image, kind="stable")], ends)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def shape(self) -> tuple[int]:
        """(q,), as that of an array."""
        return (len(self),)

    @overload
    def __getitem__(self, at: int | np.integer[Any]) -> Shown: ...

    @overload
    def __getitem__(self, at: Places) -> ObjArray: ...

    def __getitem__(self, at: Any) -> Shown | ObjArray:
        """What an image shows, or an array of that of several. Raises IndexError."""
        if isinstance(at, int | np.integer):
            row = range(len(self))[at]
            start = self.ends[row - 1] if row else 0
            return tuple(self.names[code] for code in self.code[start : self.ends[row]].tolist())
        return object_array(list(self.select(at)))

    def __iter__(self) -> Iterator[Shown]:
        start, codes = 0, self.code.tolist()
        for end in self.ends.tolist():
            yield tuple(self.names[code] for code in codes[start:end])
            start = end

    def tolist(self) -> list[Shown]:
        """All of them as tuples."""
        return list(self)

    def select(self, rows: Places) -> "Labels":
        """Those of these images."""
        numbers = row_numbers(rows, len(self))
        size, ends = self.n_shown[numbers], np.cumsum(self.n_shown[numbers], dtype=np.int64)
        begins = self.ends[numbers] - size
        places = np.arange(int(size.sum())) + np.repeat(begins - (ends - size), size)
        return Labels(self.names, self.code[places], ends)

    @property
    def n_shown(self) -> LongArray:
        """(q,) landmarks that each image shows."""
        return np.diff(self.ends, prepend=0)

    def coded(self, landmarks: Sequence[str]) -> tuple[LongArray, IntArray, Shown]:
        """The image and the landmark of each, (t,), in the codes of these landmarks; and what all codes mean.

        Landmarks that are not among them have further codes, in the order in which they are shown first.
        """
        known = {name: i for i, name in enumerate(landmarks)}
        shown, first = np.unique(self.code, return_index=True)
        new_code: IntArray = np.full(len(self.names), -1, dtype=np.int32)
        for code in shown[np.argsort(first)].tolist():
            new_code[code] = known.setdefault(self.names[code], len(known))
        image = np.repeat(np.arange(len(self), dtype=np.int64), self.n_shown)
        return image, new_code[self.code], tuple(known)


def to_labels(values: Labels | ObjArray) -> Labels:
    """An array of tuples of landmark_ids as a column; a column as it is."""
    return values if isinstance(values, Labels) else Labels.of(values)
