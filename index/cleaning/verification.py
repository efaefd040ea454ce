"""How many neighbours of a picture's landmark show the same place: the rule by which GLDv2-clean was made.

Weyand et al., Google Landmarks Dataset v2, CVPR 2020, section 5.1: a picture stays where at least 3 neighbours with its
label have 30 or more inliers.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from index.cleaning.rule import CleaningRule
from index.writing import write_error
from retrieval.arrays import FloatArray, IntArray, LongArray

Inliers = Callable[[int, int], int]  # of two rows


def count_verified(
    rows: LongArray,
    landmark: IntArray,
    vectors: FloatArray,
    rule: CleaningRule,
    inliers: Inliers,
    *,
    saved: Path | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> LongArray:
    """(len(rows),) neighbours of its own landmark with rule.min_inliers inliers; counting stops at rule.min_verified.

    Asked are the rule.n_verified_neighbours most similar of `rows` with its landmark. landmark: (n,) and vectors:
    (n, d) of all rows. saved: a file of the counts so far, which a run that was stopped goes on from. on_done: called
    with the number of rows just done. Raises LmrError when that file cannot be written.
    """
    counts = np.zeros(len(rows), dtype=np.int64)
    known = _read(saved)
    pairs: dict[tuple[int, int], int] = {}
    for group in _groups(landmark[rows]):
        members = rows[group]
        todo = [at for at in group.tolist() if int(rows[at]) not in known]
        for at in set(group.tolist()) - set(todo):
            counts[at] = known[int(rows[at])]
        on_done(len(group) - len(todo))
        pairs.clear()
        for at in todo:
            counts[at] = _count(int(rows[at]), members, vectors, rule, _remembering(inliers, pairs))
            on_done(1)
        _append(saved, {int(rows[at]): int(counts[at]) for at in todo})
    return counts


def _count(row: int, members: LongArray, vectors: FloatArray, rule: CleaningRule, inliers: Inliers) -> int:
    others = members[members != row]
    similarity = vectors[others] @ vectors[row]
    n_good = 0
    for other in others[np.lexsort((others, -similarity))][: rule.n_verified_neighbours]:
        n_good += inliers(row, int(other)) >= rule.min_inliers
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
    """Counts by row; a last line that was not written to its end is passed over."""
    counts: dict[int, int] = {}
    if saved is None or not saved.exists():
        return counts
    for line in saved.read_text(encoding="utf-8").split("\n")[:-1]:
        row, count = json.loads(line)
        counts[row] = count
    return counts


def _append(saved: Path | None, counts: dict[int, int]) -> None:
    if saved is None or not counts:
        return
    before = saved.read_bytes() if saved.exists() else b""
    whole = before[: before.rfind(b"\n") + 1]
    try:
        with saved.open("r+b" if before else "wb") as file:
            file.seek(len(whole))
            file.truncate()
            file.write("".join(f"{json.dumps([row, count])}\n" for row, count in counts.items()).encode())
    except OSError as error:
        raise write_error(saved, error) from error
