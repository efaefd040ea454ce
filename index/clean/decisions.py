"""Decisions on each image and their reasons, as a table that a person can change, and what follows for the manifest."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval.arrays import FloatArray, ObjArray, read_only
from retrieval.data.csv_cells import table_lines, unguard
from retrieval.data.csv_table import BadRows, CsvTable
from retrieval.data.labels import spelling_of
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

DECISIONS = ("keep", "drop", "relabel")
REASONS = {
    "unreadable": "the picture cannot be read",
    "quality": "too small, dark, bright, flat or blurred, or outside the range of pixels per inch",
    "duplicate": "another picture of the set is the same",
    "non-landmark": "more like the background than like its landmark",
    "mislabelled": "its neighbours say another landmark",
    "apart": "outside the largest connected component of its landmark",
    "unverified": "too few neighbours of its landmark that show the same place",
    "few": "its landmark has too few pictures left",
}
HEADER = (
    *("image_id", "landmark_id", "decision", "suggested_landmark_id", "reason", "evidence"),
    *("label_probability", "log_odds", "neighbours"),
)
_NEEDED = HEADER[:4]


@dataclass(frozen=True, slots=True)
class Decisions:
    """One line for each image of the manifest, in its order; all arrays (n,).

    landmark: landmark_id as given, '' = none. decision: of DECISIONS. suggested: landmark_id, '' = none. reason: of
    REASONS, '' for what is kept. evidence: in words. label_probability, log_odds: NaN where the label was not judged.
    neighbours: image_ids of the nearest images, separated by |.
    """

    image_id: ObjArray
    landmark: ObjArray
    decision: ObjArray
    suggested: ObjArray
    reason: ObjArray
    evidence: ObjArray
    label_probability: FloatArray
    log_odds: FloatArray
    neighbours: ObjArray

    def __post_init__(self) -> None:
        for name in self.__slots__:
            array = getattr(self, name)
            if array.shape != self.image_id.shape or array.ndim != 1:
                raise ValueError(f"{name} must be {self.image_id.shape}, got {array.shape}")
            object.__setattr__(self, name, read_only(array))
        if not set(self.decision.tolist()) <= set(DECISIONS) or not set(self.reason.tolist()) <= {"", *REASONS}:
            raise ValueError("a decision or reason is none of those that there are")

    def __len__(self) -> int:
        return len(self.image_id)

    def counts(self) -> dict[str, int]:
        """Numbers of images of each decision, and of each reason among those not kept."""
        changed = self.decision != "keep"
        return {
            "n_pictures": len(self),
            "n_kept": int((~changed).sum()),
            "n_dropped": int((self.decision == "drop").sum()),
            "n_relabelled": int((self.decision == "relabel").sum()),
            **{f"n_{name.replace('-', '_')}": int((changed & (self.reason == name)).sum()) for name in REASONS},
        }


def first_labels(manifest: Manifest) -> ObjArray:
    """(n,) landmark_id of each row as text, the first one where there are several, '' = none."""
    names = np.array((*manifest.landmarks, ""), dtype=object)
    labels: ObjArray = names[manifest.landmark]
    return labels


def apply_decisions(manifest: Manifest, decisions: Decisions) -> Manifest:
    """The kept rows of the manifest, relabelled ones with the suggested landmark as their only one."""
    labels, changed = first_labels(manifest), decisions.decision == "relabel"
    labels[changed] = decisions.suggested[changed]
    landmarks = tuple(sorted({*manifest.landmarks, *labels[changed].tolist()} - {""}))
    code = {label: i for i, label in enumerate(landmarks)} | {"": -1}
    more = {
        row: tuple(code[manifest.landmarks[c]] for c in codes)
        for row, codes in manifest.more_landmarks.items()
        if not changed[row]
    }
    landmark = np.array([code[label] for label in labels.tolist()], dtype=np.int32)
    relabelled = replace(manifest, landmark=landmark, landmarks=landmarks, more_landmarks=more)
    return relabelled.select(decisions.decision != "drop")


def decision_lines(decisions: Decisions) -> Iterator[str]:
    """The table as CSV text."""
    columns = dict(zip(HEADER, (getattr(decisions, name) for name in decisions.__slots__), strict=True))
    for name in ("label_probability", "log_odds"):
        columns[name] = np.where(np.isfinite(columns[name]), columns[name], np.nan)
    return table_lines(columns, "%.4f")


def read_decisions(path: Path, manifest: Manifest) -> Decisions:
    """The table that a person has gone through, in the manifest's order.

    Raises LmrError that names the lines: misspelt decisions, images that the manifest lacks or names otherwise,
    a relabel without a landmark; and when an image of the manifest is missing.
    """
    table = CsvTable(path)
    at = {name.lower(): i for i, name in enumerate(table.header)}
    missing = [name for name in _NEEDED if name not in at]
    if missing:
        raise LmrError(f"{path}:1: no column {missing[0]}; give a decisions.csv that lmr clean wrote")
    row_of = {image_id: row for row, image_id in enumerate(manifest.image_id.tolist())}
    given, known = first_labels(manifest), frozenset(manifest.landmarks)
    cells: list[list[str] | None] = [None] * len(manifest)
    line_of: dict[str, int] = {}
    bad = BadRows(str(path))
    for line, row in table.numbered(bad):
        row = _as_meant(row, at, known)
        image_id = row[at["image_id"]]
        problem = _problem(row, at, manifest.source, (row_of, given))
        if not problem and image_id in line_of:
            problem = f"image_id {image_id} is also on line {line_of[image_id]}"
        if problem:
            bad.add(line, problem)
        else:
            line_of[image_id] = line
            cells[row_of[image_id]] = row
    bad.refuse_any()
    absent = [row for row, found in enumerate(cells) if found is None]
    if absent:
        raise LmrError(
            f"{path}: {counted(len(absent), 'picture', of=len(manifest))} of {manifest.source} "
            f"{agreeing(len(absent), 'is', 'are')} not in it, the first one "
            f"{manifest.image_id[absent[0]]}; give the table that was made from this manifest"
        )
    return _decisions([found for found in cells if found is not None], at)


def _as_meant(row: list[str], at: dict[str, int], known: frozenset[str]) -> list[str]:
    """The cells without guards; labels as any table of labels is read, unless the manifest has them as they are."""
    row = [unguard(cell) for cell in row]
    for name in ("landmark_id", "suggested_landmark_id"):
        label = row[at[name]]
        if label not in known:
            row[at[name]] = spelling_of([label]).of(label)
    return row


def _problem(row: list[str], at: dict[str, int], source: str, known: tuple[dict[str, int], ObjArray]) -> str:
    row_of, given = known
    image_id, label, decision, suggested = (row[at[name]] for name in _NEEDED)
    if image_id not in row_of:
        return f"image_id {image_id!r} is not in {source}"
    if label != given[row_of[image_id]]:
        return f"landmark_id of {image_id} is {label!r}, in {source} it is {given[row_of[image_id]]!r}"
    if decision not in DECISIONS:
        return f"decision {decision!r} is not {', '.join(DECISIONS[:-1])} or {DECISIONS[-1]}"
    if decision == "relabel" and (not suggested or any(character.isspace() for character in suggested)):
        return f"relabel needs suggested_landmark_id without white space, got {suggested!r}"
    return ""


def _decisions(rows: list[list[str]], at: dict[str, int]) -> Decisions:
    def column(name: str) -> ObjArray:
        position = at.get(name, -1)
        return np.array([row[position] if position >= 0 else "" for row in rows], dtype=object)

    reason = column("reason")
    reason[~np.isin(reason.astype(str), list(REASONS))] = ""
    return Decisions(
        column("image_id"),
        column("landmark_id"),
        column("decision"),
        column("suggested_landmark_id"),
        reason,
        column("evidence"),
        _numbers(column("label_probability")),
        _numbers(column("log_odds")),
        column("neighbours"),
    )


def _numbers(texts: ObjArray) -> FloatArray:
    """NaN for what is no number."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    return np.array([number(text) for text in texts.tolist()], dtype=np.float64)
