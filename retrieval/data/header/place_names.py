"""Coordinates in the names of images, as the benchmarks of visual place recognition write them.

`@UTM_EAST@UTM_NORTH@ZONE@LETTER@LAT@LON@...@.jpg` (Berton et al., Deep Visual Geo-localization Benchmark, CVPR 2022):
Pitts30k, Tokyo 24/7, MSLS, SF-XL and others are spread so.
"""

import re
from collections.abc import Sequence

from retrieval.data.header.names import DEGREES, PLANE
from retrieval.own_columns import OwnColumns
from retrieval.progress import Progress
from retrieval.texts import Texts
from retrieval.words import counted, shortened

_NUMBER = r"(-?\d+(?:\.\d*)?)"
_NAME = re.compile(rf"@{_NUMBER}@{_NUMBER}@(\d*)@([A-Za-z]?)@{_NUMBER}?@{_NUMBER}?@")
_MOST_M = 2e7  # of metres of a zone, as anywhere


def columns_of_names(names: Sequence[str], source: str, progress: Progress) -> OwnColumns:
    """The coordinates that file names hold, as columns; none where no name holds any.

    They are degrees where every name that has a place has these, else metres of one zone; blank for other names.
    progress: is warned of what was read, and of coordinates that have no common plane and are left out.
    """
    found = [_NAME.match(name) for name in names]
    found = [match if match and max(_sizes(match, (1, 2))) <= _MOST_M else None for match in found]
    placed = [match for match in found if match is not None]
    if not placed:
        return {}
    told = f"{source}: names of {counted(len(placed), 'image', of=len(names))} say where they were taken"
    other = next((match for match in placed if not _has_degrees(match)), None)
    in_degrees = other is None
    zones = sorted({f"{match[3] or '?'} {'south' if 'C' <= match[4].upper() < 'N' else 'north'}" for match in placed})
    if other is not None and len(zones) > 1:
        progress.warn(
            f"{told}, {shortened(other.string)} without degrees, and zones such as {' and '.join(zones[:2])} have no "
            "common metres: left out; give a table with lat and lon"
        )
        return {}
    roles, places = (DEGREES, (5, 6)) if in_degrees else (PLANE, (1, 2))
    progress.warn(f"{told}; read as {roles[0]} and {roles[1]}")
    return {
        role: Texts.of("" if match is None else match[place] for match in found)
        for role, place in zip(roles, places, strict=True)
    }


def _sizes(match: re.Match[str], groups: Sequence[int]) -> list[float]:
    return [abs(float(match[group])) for group in groups]


def _has_degrees(match: re.Match[str]) -> bool:
    return bool(match[5] and match[6]) and _sizes(match, (5,)) <= [90] and _sizes(match, (6,)) <= [180]
