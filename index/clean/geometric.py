"""Geometric verification: neighbours of an image's landmark that show the same place, the rule behind GLDv2-clean.

Weyand et al., Google Landmarks Dataset v2, CVPR 2020, section 5.1: an image stays where at least 3 neighbours with its
label have 30 or more inliers.
"""

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from index.clean.config import CleaningRule
from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.data.image_source import PictureSource
from retrieval.errors import UnreadableError
from retrieval.files.atomic import write_error
from retrieval.progress import SILENT, Progress

_REMEMBERED_IMAGES = 512  # whose local features, about 0.5 MB each, are kept in memory

Inliers = Callable[[int, int], int]  # of two rows


def local_matcher(source: PictureSource) -> Inliers:
    """Counts the inliers of two rows' images; an image that cannot be read matches nothing."""
    from retrieval.local.sift import LocalFeatures, local_features, n_inliers

    @lru_cache(maxsize=_REMEMBERED_IMAGES)
    def features(row: int) -> LocalFeatures | None:
        try:
            return local_features(source.read(row))
        except UnreadableError:
            return None

    def inliers(one: int, other: int) -> int:
        here, there = features(one), features(other)
        return 0 if here is None or there is None else n_inliers(here, there)

    return inliers


def count_verified(
    rows: LongArray,
    landmark: IntArray,
    vectors: FloatArray,
    rule: CleaningRule,
    inliers: Inliers,
    *,
    saved: Path | None = None,
    progress: Progress = SILENT,
) -> LongArray:
    """(len(rows),) neighbours of its own landmark with rule.min_inliers inliers; counting stops at rule.min_verified.

    Asked are the rule.n_verified_neighbours most similar of `rows` with its landmark. landmark: (n,) and vectors:
    (n, d) of all rows. saved: a file of the counts so far, which a run that was stopped goes on from.
    Raises LmrError when that file cannot be written.
    """
    known = _read(saved)
    counts = np.array([known.get(row, 0) for row in rows.tolist()], dtype=np.int64)
    progress.begin("verifying", len(rows))
    for group in _groups(landmark[rows]):
        members = rows[group]
        near, pairs = vectors[members], dict[tuple[int, int], int]()
        for at, row in zip(group.tolist(), members.tolist(), strict=True):
            if row not in known:
                similarity = np.where(members == row, -np.inf, near @ vectors[row])
                order = np.lexsort((members, -similarity))[: min(rule.n_verified_neighbours, len(members) - 1)]
                counts[at] = _count(row, members[order].tolist(), rule, _remembering(inliers, pairs))
                _append(saved, row, int(counts[at]))
            progress.add(1)
    progress.end()
    return counts


def _count(row: int, others: list[int], rule: CleaningRule, inliers: Inliers) -> int:
    n_good = 0
    for other in others:
        n_good += inliers(row, other) >= rule.min_inliers
        if n_good == rule.min_verified:
            break
    return n_good


def _remembering(inliers: Inliers, pairs: dict[tuple[int, int], int]) -> Inliers:
    """Each pair is matched once, the lower row first."""

    def asked(one: int, other: int) -> int:
        key = (min(one, other), max(one, other))
        if key not in pairs:
            pairs[key] = inliers(*key)
        return pairs[key]

    return asked


def _groups(landmark: IntArray) -> list[LongArray]:
    """Positions of each landmark."""
    order = np.argsort(landmark, kind="stable")
    cuts = np.flatnonzero(np.diff(landmark[order])) + 1
    return [part for part in np.split(order, cuts) if len(part)]


def _read(saved: Path | None) -> dict[int, int]:
    """Counts by row; a last line that was not written to its end is cut off."""
    if saved is None or not saved.exists():
        return {}
    content = saved.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        try:
            os.truncate(saved, len(whole))
        except OSError as error:
            raise write_error(saved, error) from error
    return dict(map(json.loads, whole.splitlines()))


def _append(saved: Path | None, row: int, count: int) -> None:
    """At once: matching one image takes far longer, and a large landmark takes hours."""
    if saved is None:
        return
    try:
        with saved.open("ab") as file:
            file.write(f"{json.dumps([row, count])}\n".encode())
    except OSError as error:
        raise write_error(saved, error) from error
