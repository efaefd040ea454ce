"""What a split came to, as JSON and as a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cli.terminal import shown
from retrieval.arrays import LongArray
from retrieval.data.manifest import Manifest
from retrieval.split.roles import UNKNOWN, mixed_groups
from retrieval.split.split import DROPPED, Split
from retrieval.split.stratify import TEST, VAL
from retrieval.words import counted


def to_json(split: Split, parts: Mapping[str, Manifest], group: LongArray, given: Manifest) -> dict[str, Any]:
    """Counts of each part, of what was dropped and of near-duplicates. given: the manifest before the split."""
    n_of_landmarks = int((split.roles.landmark >= 0).sum())
    return {
        "parts": {name: _counts(part) | {"share": _share(part, n_of_landmarks)} for name, part in parts.items()},
        "dropped": dict(split.dropped),
        "unknown_landmarks": {
            name: len(set(given.landmark[(split.part == number) & (split.roles.of_row == UNKNOWN)].tolist()))
            for name, number in (("val", VAL), ("test", TEST))
        },
        "groups": _group_counts(split, group, given),
    }


def to_text(content: Mapping[str, Any]) -> str:
    """The table and what is to be said below it."""
    lines = [f"{'':12}{'pictures':>12}{'landmarks':>12}{'non-landmarks':>16}{'share':>10}"]
    for name, part in content["parts"].items():
        share = f"{part['share']:.1%}" if part["landmarks"] else ""
        lines.append(
            f"{name:12}{part['pictures']:>12,}{part['landmarks']:>12,}{part['non_landmarks']:>16,}{share:>10}".rstrip()
        )
    lines += [f"dropped: {counted(n, 'picture')} ({shown(reason)})" for reason, n in content["dropped"].items()]
    unknown = content["unknown_landmarks"]
    if any(unknown.values()):
        lines.append(f"unknown landmarks held out: {unknown['val']} in val, {unknown['test']} in test")
    groups = content["groups"]
    if content["near_duplicates"]["by"] != "none":
        lines.append(
            f"near-duplicates: {counted(groups['n_groups'], 'group')} of "
            f"{counted(groups['n_pictures'], 'picture')}, each in one part; "
            f"{groups['n_mixed']:,} of several landmarks; the largest has {groups['largest']:,}"
        )
    return "\n".join(lines)


def _counts(part: Manifest) -> dict[str, int]:
    known = part.landmark[part.landmark >= 0]
    return {
        "pictures": len(part),
        "landmarks": len(np.unique(known)),
        "non_landmarks": len(part) - len(known),
    }


def _share(part: Manifest, n: int) -> float:
    """Of all pictures of known landmarks."""
    return round(float((part.landmark >= 0).sum()) / n, 6)


def _group_counts(split: Split, group: LongArray, given: Manifest) -> dict[str, int]:
    """Of the rows that were not dropped: groups of several, the pictures in them, those of several landmarks."""
    rows = np.flatnonzero(split.part != DROPPED)
    _, number, size = np.unique(group[rows], return_inverse=True, return_counts=True)
    mixed = mixed_groups(given.landmark[rows], number)
    return {
        "n_groups": int((size > 1).sum()),
        "n_pictures": int(size[size > 1].sum()),
        "n_mixed": int(mixed.sum()),
        "largest": int(size.max(initial=0)),
    }
