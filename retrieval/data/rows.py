"""The rows of a table as columns of a manifest: every row checked, bad ones named by their line."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from retrieval.data.csv_cells import unguard
from retrieval.data.csv_table import BadRows, Table
from retrieval.data.formats import Layout
from retrieval.data.labels import compose, labels_in, require_apart, require_no_decimals, spelling_of
from retrieval.images.parquet_parts import EmbeddedImages
from retrieval.own_columns import OwnColumns
from retrieval.texts import Texts, TextsWriter, repeated

USAGES = ("Public", "Private", "Ignored")

_SPACE = re.compile(r"[\s\0]")
_CONTROL = re.compile(r"[\0\t\r\n\x1f]")
_TEXTS = ("image_id", "path", "url")
_WORDS = ("kind", "usage")  # of which there are few
_NO_URL = "None"  # as in Google's files of 2018


@dataclass(slots=True)
class Columns:
    """Columns of a manifest, still to be put in order.

    label: code of each row into label_names, which are in order of appearance; -1 = none. more: row -> further codes.
    """

    image_id: Texts
    label: list[int]
    label_names: list[str]
    has_labels: bool
    more: dict[int, tuple[int, ...]] = field(default_factory=dict)
    path: Texts | None = None
    url: Texts | None = None
    kind: list[str] | None = None
    usage: list[str] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    content: EmbeddedImages | None = None
    own: OwnColumns = field(default_factory=dict)

    def spell_out(self, source: str) -> list[str]:
        """Reads the labels as they are meant; a line for each kind that is read otherwise than it is written.

        Raises LmrError for labels that are numbers with decimals, and two that are one landmark.
        """
        require_no_decimals(self.label_names, source)
        spelling = spelling_of(self.label_names)
        if not spelling.read_as:
            return []
        require_apart(self.label_names, spelling, source)
        called = {meant: name for label, name in self.names.items() if (meant := spelling.of(label))}
        self.names = {spelling.of(label): label.strip() for label in spelling.spaced()} | called
        count = Counter(self.label)
        count.update(code for codes in self.more.values() for code in codes)
        code_of = {label: code for code, label in enumerate(self.label_names)}
        codes = Codes()
        new = [codes[spelling.of(label)] for label in self.label_names] + [-1]
        all_of = {row: [new[code] for code in (self.label[row], *more)] for row, more in self.more.items()}
        self.label = [new[code] for code in self.label]
        self.more = {}
        for row, given in all_of.items():
            first, *further = dict.fromkeys(code for code in given if code >= 0) or (-1,)
            self.label[row] = first
            if further:
                self.more[row] = tuple(further)
        self.label_names = codes.names()
        return spelling.notes(source, lambda label: count[code_of[label]])


class Codes(dict[str, int]):
    """Codes of labels in order of appearance; blank has -1."""

    def __init__(self) -> None:
        super().__init__({"": -1})

    def __missing__(self, label: str) -> int:
        code = self[label] = len(self) - 1
        return code

    def names(self) -> list[str]:
        """Labels by code."""
        return list(self)[1:]


def read_images(table: Table, layout: Layout) -> Columns:
    """One image a row. Raises LmrError with the bad rows."""
    columns = _read_quickly(table, layout)
    if columns is None:
        _name_bad_rows(table, layout)
        raise AssertionError(f"{table.source}: read quickly it has bad rows, read slowly none")
    return columns


def read_clean(table: Table, layout: Layout) -> Columns:
    """GLDv2 train_clean.csv: a landmark and its images a row."""
    bad, codes = BadRows(table.source), Codes()
    line_of: dict[str, int] = {}
    label: list[int] = []
    for line, row in table.numbered(bad):
        name, images = row[layout.columns["landmark"]], row[layout.columns["images"]].split()
        problem = (
            _landmark_problem(name) or (not name and "landmark_id is missing") or (not images and "images is missing")
        )
        if problem:
            bad.add(line, problem)
            continue
        for image_id in images:
            if image_id in line_of:
                bad.add(line, f"image {image_id} is also on line {line_of[image_id]}")
            else:
                line_of[image_id] = line
                label.append(codes[name])
    bad.refuse_any()
    return Columns(Texts.of(line_of), label, codes.names(), has_labels=True)


def read_open_images(table: Table, layout: Layout) -> Columns:
    """Open Images labels or boxes: the most confident label of an image first, equal ones in the file's order.

    A label of confidence 0 was looked for and is not there: it does not count; an image without another is left out.
    """
    bad, codes = BadRows(table.source), Codes()
    labels: dict[str, dict[int, float]] = {}
    at = [layout.columns[role] for role in ("image_id", "label_name", "confidence")]
    for line, row in table.numbered(bad):
        image_id, name, confidence = (row[i] for i in at)
        problem = _id_problem(image_id) or label_problem(name) or share_problem(confidence, "Confidence")
        if not name:
            problem = problem or "LabelName is missing"
        if problem:
            bad.add(line, problem)
        elif float(confidence) > 0:
            of_image, code = labels.setdefault(image_id, {}), codes[name]
            of_image[code] = max(of_image.get(code, 0.0), float(confidence))
    bad.refuse_any()
    ranked = [sorted(of_image, key=lambda code: -of_image[code]) for of_image in labels.values()]
    more = {row: tuple(codes_of_row[1:]) for row, codes_of_row in enumerate(ranked) if len(codes_of_row) > 1}
    return Columns(Texts.of(labels), [codes_of_row[0] for codes_of_row in ranked], codes.names(), True, more)


def ids_of_paths(paths: Texts) -> Texts:
    """Image ids for images that have only a path: the file names without suffix where all differ, else the paths.

    Names in composed and decomposed letters (NFC, NFD) are one name.
    """
    stems = Texts.of(re.sub(r"(?<=.)\.[^.]*$", "", path.replace("\\", "/").rsplit("/", 1)[-1]) for path in paths)
    return paths if _are_alike(stems) else stems


def _are_alike(texts: Texts) -> bool:
    """Tells whether one of them is there twice, in composed or decomposed letters."""
    return bool(repeated(texts if texts.is_ascii else Texts.of(map(compose, texts))))


# Columns of tables that lmr guards for spreadsheets and that may be given back to it: failed.csv, the table of
# images of `lmr stats`, and that of near-duplicates.
_GUARDED_BY = frozenset(("cause", "copy_of", "cluster"))


class _Gathering:
    """Columns that grow by batches of rows, checked a batch at a time."""

    def __init__(self, layout: Layout, header: Sequence[str]) -> None:
        at = layout.columns
        self._n_fields = len(header)
        self._is_guarded = _is_guarded(header)
        self._texts = {role: TextsWriter() for role in _TEXTS if role in at}
        self._words: dict[str, list[str]] = {role: [] for role in _WORDS if role in at}
        self._one_of_equal: dict[str, str] = {}
        self._own = {name: (position, TextsWriter()) for name, position in layout.own}
        self._at = at
        self._key = next((role for role in ("image_id", "path") if role in at), "")
        self._key_at = at.get(self._key, -1)
        self._has_many = "landmarks" in at
        self._label_at = at.get("landmarks", at.get("landmark", -1))
        self._codes = Codes()
        self._is_one = layout.is_one_text
        self._name_at = at.get("name", -1) if "landmark" in at or self._is_one else -1
        self._names: dict[str, str] = {}
        self._is_strict = layout.names_landmarks
        self._label: list[int] = []
        self._more: dict[int, tuple[int, ...]] = {}
        self._n = 0

    def add(self, rows: list[list[str]]) -> bool:
        """False when there is a bad row among them."""
        if set(map(len, rows)) != {self._n_fields}:
            return False
        if self._is_guarded:
            rows = [list(map(unguard, row)) for row in rows]
        fields = list(zip(*rows, strict=True))
        if self._key and not are_ids(fields[self._key_at]):
            return False
        for role, texts in self._texts.items():
            given = fields[self._at[role]]
            texts.add([_real_url(url) for url in given] if role == "url" and _NO_URL in given else given)
        for role, words in self._words.items():
            words += map(self._one_of_equal.setdefault, fields[self._at[role]], fields[self._at[role]])
        for position, texts in self._own.values():
            texts.add(fields[position])
        if self._has_many:
            self._add_many(fields[self._label_at])
        elif self._label_at >= 0:
            self._label += map(self._codes.__getitem__, fields[self._label_at])
        self._n += len(rows)
        if self._name_at < 0:
            return True
        labels = map(_only_label, fields[self._label_at]) if self._is_one else fields[self._label_at]
        return self._add_names(labels, fields[self._name_at])

    def columns(self) -> Columns | None:
        """All that was added; None when the rows do not go together."""
        names, usage = self._codes.names(), self._words.get("usage")
        if any(map(_landmark_problem, names)) or not set(usage or ()) <= set(USAGES):
            return None
        key, path, url = (
            None if texts is None else texts.texts() for texts in map(self._texts.get, ("image_id", "path", "url"))
        )
        if key is None:
            key = Texts.of(f"{row:08d}" for row in range(self._n)) if path is None else ids_of_paths(path)
        if _are_alike(key):
            return None
        label = self._label if self._label_at >= 0 else [-1] * self._n
        columns = Columns(key, label, names, self._label_at >= 0, self._more, path, url, self._words.get("kind"), usage)
        columns.names = {label: name for label, name in self._names.items() if label and name != label}
        columns.own = {name: texts.texts() for name, (_, texts) in self._own.items()}
        return columns

    def _add_names(self, labels: Iterable[str], names: Sequence[str]) -> bool:
        """Takes the names of landmarks. A column that was not said to hold them does not where one has two."""
        for label, name in zip(labels, names, strict=True):
            if name and self._names.setdefault(label, name) != name and label:
                if self._is_strict:
                    return False
                self._names, self._name_at = {}, -1
                break
        return True

    def _add_many(self, cells: Sequence[str]) -> None:
        for row, cell in enumerate(cells, start=self._n):
            codes = list(dict.fromkeys(map(self._codes.__getitem__, labels_in(cell, is_one=self._is_one))))
            self._label.append(codes[0] if codes else -1)
            if len(codes) > 1:
                self._more[row] = tuple(codes[1:])


def _only_label(cell: str) -> str:
    """The label of a cell that holds one, '' for any other."""
    labels = labels_in(cell, is_one=True)
    return labels[0] if len(labels) == 1 else ""


def _real_url(url: str) -> str:
    return "" if url == _NO_URL else url


def _is_guarded(header: Sequence[str]) -> bool:
    """Tells whether the cells of a table with this header were guarded when it was written."""
    return not _GUARDED_BY.isdisjoint(map(str.lower, header))


def _read_quickly(table: Table, layout: Layout) -> Columns | None:
    """None when there is anything that is not as it should be."""
    gathering = _Gathering(layout, table.header)
    try:
        if not all(gathering.add(rows) for rows in table.batches() if rows):
            return None
    except csv.Error:
        return None
    return gathering.columns()


def _name_bad_rows(table: Table, layout: Layout) -> None:
    """Raises LmrError with all that is wrong with a table of one image a row."""
    bad, at = BadRows(table.source), layout.columns
    line_of: dict[str, int] = {}
    named: dict[str, tuple[str, int]] = {}
    hint = _hint(layout, table.header)
    is_guarded = _is_guarded(table.header)
    key = "image_id" if "image_id" in at else "path"
    for line, given in table.numbered(bad):
        row = list(map(unguard, given)) if is_guarded else given
        problem = _id_problem(row[at[key]], table.header[at[key]]) if key in at else ""
        if not problem and "landmark" in at:
            problem = _landmark_problem(row[at["landmark"]])
        if not problem and "landmarks" in at:
            labels = labels_in(row[at["landmarks"]], is_one=layout.is_one_text)
            problem = next(filter(None, map(_landmark_problem, labels)), "")
        if not problem and "usage" in at and row[at["usage"]] not in USAGES:
            problem = f"{table.header[at['usage']]} is {row[at['usage']]!r}, not {', '.join(USAGES[:2])} or {USAGES[2]}"
        if not problem and layout.names_landmarks and ("landmark" in at or layout.is_one_text):
            label = _only_label(row[at["landmarks"]]) if layout.is_one_text else row[at["landmark"]]
            problem = _name_problem(label, row[at["name"]], line, named)
        if key in at and (first := line_of.setdefault(compose(row[at[key]]), line)) != line and not problem:
            problem = f"{table.header[at[key]]} {row[at[key]]} is also on line {first}{hint}"
            hint = ""
        if problem:
            bad.add(line, problem)
    bad.refuse_any()


def _name_problem(label: str, name: str, line: int, named: dict[str, tuple[str, int]]) -> str:
    """Fault of the name of a landmark; '' when it is good. named: of each landmark, and on which line, so far."""
    if not label or not name or (before := named.setdefault(label, (name, line)))[0] == name:
        return ""
    return f"landmark_id {label} is called {name!r}, on line {before[1]} {before[0]!r}"


def _hint(layout: Layout, header: Sequence[str]) -> str:
    """Says what a repeated id may mean where images have a path and no landmark."""
    at = layout.columns
    if not {"image_id", "path"} <= at.keys() or at.keys() & {"landmark", "landmarks"}:
        return ""
    return f"; if {header[at['image_id']]} is the landmark, name that column landmark_id"


def are_ids(values: Sequence[str]) -> bool:
    """Tells whether all of them can be the ids of images."""
    if all(values) and not _SPACE.search("".join(values)):
        return True
    return not any(map(_id_problem, values))


def _id_problem(image_id: str, column: str = "id") -> str:
    if not image_id:
        return f"{column} is missing"
    if image_id != image_id.strip():
        return f"{column} {image_id!r} begins or ends with white space"
    return f"{column} {image_id!r} holds a control character" if _CONTROL.search(image_id) else ""


def label_problem(label: str) -> str:
    """Fault of the LabelName of Open Images; '' when it is good."""
    return f"landmark_id {label!r} holds white space" if _SPACE.search(label) else ""


def _landmark_problem(label: str) -> str:
    """Fault of a landmark_id, in which white space is read as `_`; '' when it is good."""
    return f"landmark_id {label!r} holds a control character" if "\0" in label else ""


def share_problem(text: str, column: str) -> str:
    """Fault of a number from 0 to 1; '' when it is good."""
    try:
        is_good = 0 <= float(text) <= 1
    except ValueError:
        is_good = False
    return "" if is_good else f"{column} is {text!r}, not a number from 0 to 1"
