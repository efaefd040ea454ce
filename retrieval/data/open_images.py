"""Open Images: label and box files with all that a manifest leaves out of them, and the hierarchy of its classes."""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, ObjArray, read_only
from retrieval.data.columns import column_position
from retrieval.data.csv_table import BadRows, Table
from retrieval.data.formats import Layout
from retrieval.data.manifest import Manifest
from retrieval.data.rows import are_ids, label_problem, read_open_images, share_problem
from retrieval.errors import LmrError
from retrieval.texts import Texts

EDGES = ("XMin", "XMax", "YMin", "YMax")
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
_NAME, _KINDS, _PARTS = "LabelName", "Subcategory", "Part"
_KNOWN = frozenset((_NAME, _KINDS, _PARTS))
_FORM = '{"LabelName": ..., "Subcategory": [...]}'


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """Rows of a label or box file, in order.

    image_id: (n,) str, every image once, as they first appear. labels: names. image: (m,) int32 into image_id.
    label: (m,) int32 into labels, -1 = blank. confidence: (m,) float32, 0 to 1. area: (m,) share of the image that
    a box covers, None for labels. flags: name -> (m,) bool, of boxes; unknown (-1) is False.
    subset: (n,) str, None where there is no such column.
    """

    source: str
    image_id: Texts
    labels: tuple[str, ...]
    image: IntArray
    label: IntArray
    confidence: FloatArray
    area: FloatArray | None
    flags: Mapping[str, BoolArray]
    subset: ObjArray | None

    def __post_init__(self) -> None:
        m = len(self.image)
        for name in ("image", "label", "confidence", "area"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != (m,):
                raise ValueError(f"{name} must have {m} rows, got {values.shape}")
            object.__setattr__(self, name, read_only(values))

    def images(self) -> Manifest:
        """All images of the file, without their labels."""
        landmark = np.full(len(self.image_id), -1, dtype=np.int32)
        return Manifest(self.source, self.image_id, landmark, (), has_labels=False)


class _Order(dict[str, int]):
    """Numbers of texts in order of appearance."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number


def read_label_rows(table: Table, layout: Layout) -> LabelRows:
    """Reads a table of the layout `open_images`. Raises LmrError with the bad rows, as `read_manifest`."""
    gathering = _Gathering(table, layout)
    if not gathering.read():
        read_open_images(table, layout)
        _refuse_bad_edges(table, gathering.edge_at)
        raise AssertionError(f"{table.source}: read quickly it has bad rows, read slowly none")
    if not gathering.images:
        raise LmrError(f"{table.source} holds a header and no pictures; add a row for each label")
    return gathering.rows()


class _Gathering:
    """Columns that grow by batches of rows. Numbers are packed: a box file has 15 million rows."""

    def __init__(self, table: Table, layout: Layout) -> None:
        self.images, self._labels, self._subsets = _Order(), _Order(), _Order()
        self._table = table
        self._at = [layout.columns[role] for role in ("image_id", "label_name", "confidence")]
        at = {name: column_position(table, name) for name in (*EDGES, *FLAGS, "Subset")}
        has_boxes = all(at[edge] is not None for edge in EDGES)
        self.edge_at = {edge: at[edge] or 0 for edge in EDGES if has_boxes}
        self._flag_at = {flag: position for flag in FLAGS if (position := at[flag]) is not None}
        self._subset_at = at["Subset"]
        self._image, self._label, self._subset = array("i"), array("i"), array("i")
        self._confidence = array("f")
        self._edges = {edge: array("f") for edge in self.edge_at}
        self._flags = {flag: bytearray() for flag in self._flag_at}

    def read(self) -> bool:
        """False when there is anything that is not as it should be."""
        try:
            if not all(self._add(rows) for rows in self._table.batches() if rows):
                return False
        except (csv.Error, ValueError):
            return False
        shares = (self._confidence, *self._edges.values())
        return all(map(_are_shares, shares)) and not any(map(label_problem, self._labels))

    def rows(self) -> LabelRows:
        """All that was read."""
        names, label = _without_blank(list(self._labels), _ints(self._label))
        image, flags = _ints(self._image), self._flags
        return LabelRows(
            source=self._table.source,
            image_id=Texts.of(self.images),
            labels=tuple(names),
            image=image,
            label=label,
            confidence=np.frombuffer(self._confidence, dtype=np.float32),
            area=self._areas(),
            flags={flag: np.frombuffer(values, dtype=np.bool_) for flag, values in flags.items()},
            subset=None if self._subset_at is None else self._subset_of_images(image),
        )

    def _add(self, rows: list[list[str]]) -> bool:
        if set(map(len, rows)) != {len(self._table.header)}:
            return False
        fields = list(zip(*rows, strict=True))
        ids, labels, confidences = (fields[position] for position in self._at)
        self._image.extend(map(self.images.__getitem__, ids))
        self._label.extend(map(self._labels.__getitem__, labels))
        self._confidence.extend(map(float, confidences))
        for edge, position in self.edge_at.items():
            self._edges[edge].extend(map(float, fields[position]))
        for flag, position in self._flag_at.items():
            self._flags[flag].extend(map(str.__eq__, fields[position], repeat("1")))
        if self._subset_at is not None:
            self._subset.extend(map(self._subsets.__getitem__, fields[self._subset_at]))
        return are_ids(ids)

    def _areas(self) -> FloatArray | None:
        if not self._edges:
            return None
        left, right, top, bottom = (np.frombuffer(self._edges[edge], dtype=np.float32) for edge in EDGES)
        return np.asarray(np.maximum(right - left, 0) * np.maximum(bottom - top, 0), dtype=np.float32)

    def _subset_of_images(self, image: IntArray) -> ObjArray:
        """Values of the first row of each image."""
        first = np.empty(len(self.images), dtype=np.int32)
        first[image[::-1]] = _ints(self._subset)[::-1]
        return np.asarray(np.array(list(self._subsets), dtype=object)[first])


def _ints(values: "array[int]") -> IntArray:
    return np.frombuffer(values, dtype=np.int32)


def _are_shares(values: "array[float]") -> bool:
    numbers = np.frombuffer(values, dtype=np.float32)
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def _without_blank(names: list[str], codes: IntArray) -> tuple[list[str], IntArray]:
    """The names but the blank one, which gets the code -1."""
    if "" not in names:
        return names, codes
    blank = names.index("")
    kept = np.where(codes == blank, -1, codes - (codes > blank))
    return names[:blank] + names[blank + 1 :], kept.astype(np.int32)


def _refuse_bad_edges(table: Table, edge_at: Mapping[str, int]) -> None:
    """Raises LmrError that names the boxes whose edges are no numbers from 0 to 1."""
    bad = BadRows(table.source)
    for line, row in table.numbered(bad):
        for edge, position in edge_at.items():
            if problem := share_problem(row[position], edge):
                bad.add(line, problem)
                break
    bad.refuse_any()


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """children: label -> the labels that are kinds of it, each once. Labels without kinds are there too.

    A part (a hand of a person) is no kind of the whole and does not count as one.
    """

    children: Mapping[str, tuple[str, ...]]

    def below(self, label: str) -> frozenset[str]:
        """The label and all kinds of it, however deep."""
        found: set[str] = set()
        left = [label]
        while left:
            if (one := left.pop()) not in found:
                found.add(one)
                left += self.children.get(one, ())
        return frozenset(found)


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Reads a JSON file of nested {"LabelName", "Subcategory", "Part"}. Raises LmrError for another file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise LmrError(f"{path}: there is no such file") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LmrError(f"{path} is not JSON ({reason}); a hierarchy is {_FORM}") from error
    children: dict[str, dict[str, None]] = {}
    for parent, label in _edges(content, str(path)):
        children.setdefault(label, {})
        if parent:
            children.setdefault(parent, {})[label] = None
    return Hierarchy({label: tuple(kinds) for label, kinds in children.items()})


def _edges(content: Any, source: str) -> Iterator[tuple[str, str]]:
    """(label above or '', label) of every entry."""
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        parent, entry = left.pop()
        if not isinstance(entry, dict) or not isinstance(entry.get(_NAME), str):
            raise LmrError(f"{source} is not a hierarchy: {_shown(entry)} has no {_NAME}; it is {_FORM}")
        if unknown := sorted(set(entry) - _KNOWN):
            raise LmrError(f"{source}: {entry[_NAME]} has {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}")
        yield parent, entry[_NAME]
        for key, above in ((_KINDS, entry[_NAME]), (_PARTS, "")):
            inner = entry.get(key, [])
            if not isinstance(inner, list):
                raise LmrError(f"{source}: {key} of {entry[_NAME]} is not a list; it is {_FORM}")
            left += [(above, item) for item in inner]


def _shown(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 60 else text[:57] + "..."
