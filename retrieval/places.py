"""Places: where images were taken, how far that is from one another, and the cells of a grid as landmarks."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, read_only
from retrieval.data.csv_table import BadRows
from retrieval.data.header.names import DEGREES, PLANE
from retrieval.data.labels import BLANK_WORDS
from retrieval.errors import LmrError
from retrieval.own_columns import OwnColumns
from retrieval.progress import SILENT, Progress
from retrieval.texts import BLOCK, Texts
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest

# Mean radius (IUGG). On a sphere distances differ from those on the ellipsoid of WGS84 by half a percent at most.
EARTH_RADIUS_M = 6_371_008.8
_M_PER_DEGREE = EARTH_RADIUS_M * math.pi / 180
_UNITS_M = {"m": 1.0, "km": 1000.0, "ft": 0.3048}
_DISTANCE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+)")
_MOST_M = 20_000_000.0  # half way round the earth
_LEAST_CELL_M = 5.0  # names of cells tell metres apart
_MOST_CELL_M = 1_000_000.0
_LARGEST = {"lat": 90.0, "lon": 180.0, "utm_east": 2e7, "utm_north": 2e7}
_BLANKS = BLANK_WORDS | {""}


@dataclass(frozen=True, slots=True)
class Positions:
    """Where images were taken.

    values: (n, 2) float64, latitude and longitude in degrees (WGS84), or east and north in metres of one plane; NaN
    where that is not known.
    """

    values: FloatArray
    is_plane: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != 2 or self.values.dtype != np.float64:
            raise ValueError(f"values must be float64 (n, 2), got {self.values.dtype} {self.values.shape}")
        object.__setattr__(self, "values", read_only(self.values))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def known(self) -> BoolArray:
        """(n,) bool."""
        return np.isfinite(self.values[:, 0])

    def select(self, rows: LongArray | BoolArray) -> "Positions":
        """Those of these images."""
        return Positions(self.values[rows], self.is_plane)

    def points(self) -> FloatArray:
        """(n, 3) in metres from the middle of the earth, or (n, 2) of the plane: near places are near there too."""
        if self.is_plane:
            return self.values
        lat, lon = np.radians(self.values).T
        points = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
        return EARTH_RADIUS_M * np.stack(points, axis=1)


def distance_m(one: Positions, other: Positions) -> FloatArray:
    """(n,) metres from each to its like, on the sphere by the haversine formula; NaN where one is not known."""
    if one.is_plane != other.is_plane:
        raise ValueError("positions in degrees and positions in metres have no distance")
    if one.is_plane:
        flat: FloatArray = np.hypot(*(one.values - other.values).T)
        return flat
    (lat, lon), (lat_of, lon_of) = np.radians(one.values).T, np.radians(other.values).T
    half = np.sin((lat_of - lat) / 2) ** 2 + np.cos(lat) * np.cos(lat_of) * np.sin((lon_of - lon) / 2) ** 2
    found: FloatArray = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(half, 1)))
    return found


def straight_m(along_m: float, *, is_plane: bool) -> float:
    """Length of the straight line between `points` that are so far apart along the earth."""
    return along_m if is_plane else 2 * EARTH_RADIUS_M * math.sin(min(along_m / EARTH_RADIUS_M, math.pi) / 2)


def parse_distance(text: str, word: str) -> float:
    """Metres of `25m`, `1.5 km` or `80ft`. word: of the option, for messages. Raises LmrError for another text."""
    match = _DISTANCE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS_M:
        raise LmrError(f"`{word}` {text}: a distance is a number with m, km or ft, such as 25m")
    metres = float(match[1]) * _UNITS_M[match[2]]
    if not 0 < metres <= _MOST_M:
        raise LmrError(f"`{word}` {text}: a distance is more than 0 and at most {_MOST_M / 1000:,.0f} km")
    return metres


def parse_cells(text: str, word: str) -> float:
    """Metres of the side of a cell. Raises LmrError as `parse_distance`, and for too small or too large ones."""
    metres = parse_distance(text, word)
    if not _LEAST_CELL_M <= metres <= _MOST_CELL_M:
        raise LmrError(f"`{word}` {text}: cells are from {_LEAST_CELL_M:g} m to {_MOST_CELL_M / 1000:,.0f} km wide")
    return metres


def shown_distance(metres: float) -> str:
    """`25 m`, `1.2 km`, `3,400 km`."""
    if metres < 1000:
        return f"{metres:.3g} m"
    return f"{metres / 1000:.2g} km" if metres < 10_000 else f"{metres / 1000:,.0f} km"


def position_problem(cells: Sequence[str], names: Sequence[str], roles: Sequence[str]) -> str:
    """Fault of the two coordinates of an image; '' where they are good, or both blank.

    names: of the columns, for messages. roles: DEGREES or PLANE.
    """
    blank = [cell.strip() in _BLANKS for cell in cells]
    if all(blank):
        return ""
    for name, is_blank, other in zip(names, blank, reversed(names), strict=True):
        if is_blank:
            return f"{name} is missing, {other} is there; give both or neither"
    values = [_number(cell) for cell in cells]
    for name, cell, value in zip(names, cells, values, strict=True):
        if not math.isfinite(value):
            what = "degrees, such as 48.8584" if roles[0] in DEGREES else "metres"
            return f"{name} is {cell!r}, not a number of {what}"
    for name, cell, value, role in zip(names, cells, values, roles, strict=True):
        if abs(value) > (most := _LARGEST[role]):
            swapped = role == "lat" and abs(value) <= _LARGEST["lon"] and abs(values[1]) <= most
            hint = f"; are {names[0]} and {names[1]} swapped?" if swapped else ""
            return f"{name} is {cell}, not from {-most:.0f} to {most:.0f}{hint}"
    return ""


def read_positions(columns: OwnColumns, image_id: Texts, source: str) -> Positions | None:
    """The positions that columns `lat` and `lon`, or `utm_east` and `utm_north`, hold; None where there are none.

    source: for messages. Raises LmrError that names the image of the first bad one, or of one with metres alone where
    others have degrees.
    """
    roles = _roles_of(columns)
    if roles is None:
        return None
    values, bad = _parsed(columns, roles)
    if len(bad):
        row = int(bad[0])
        raise LmrError(f"{source}: {image_id[row]}: {_problem_of(columns, roles, row)}")
    blank = np.flatnonzero(np.isnan(values[:, 0]))
    if roles == DEGREES and set(PLANE) <= columns.keys() and len(blank) < len(values):
        alone = next((row for row in blank.tolist() if columns[PLANE[0]][row].strip() not in _BLANKS), None)
        if alone is not None:
            raise LmrError(
                f"{source}: {image_id[alone]} has {' and '.join(PLANE)} alone, others have {' and '.join(DEGREES)}; "
                "give all in one way"
            )
    return Positions(values, is_plane=roles == PLANE)


def manifest_positions(manifest: "Manifest", *, are_needed: bool = False) -> Positions | None:
    """As `read_positions`, of a manifest as it was read. are_needed: a row without a position is a bad one too.

    Raises LmrError that names the bad rows by line.
    """
    roles = _roles_of(manifest.columns)
    if roles is None:
        return None
    values, bad = _parsed(manifest.columns, roles)
    problems = {row: _problem_of(manifest.columns, roles, row) for row in bad.tolist()}
    if are_needed:
        blank = np.setdiff1d(np.flatnonzero(np.isnan(values[:, 0])), bad)
        problems |= dict.fromkeys(blank.tolist(), f"{roles[0]} and {roles[1]} are missing")
    if problems:
        _refuse_lines(manifest.source, problems)
    return Positions(values, is_plane=roles == PLANE)


def label_by_cells(manifest: "Manifest", side_m: float, option: str, progress: Progress = SILENT) -> "Manifest":
    """The manifest with images that have a position and no landmark labelled by the cell they were taken in.

    option: what asks for it, for messages. progress: is told what was labelled. Raises LmrError as
    `manifest_positions`, and where there is no position.
    """
    positions = require_positions(manifest_positions(manifest), manifest.source, option)
    unlabelled = np.flatnonzero(manifest.landmark < 0)
    cell, names = cells_of(positions.select(unlabelled), side_m)
    progress.warn(
        f"{manifest.source}: {counted(int((cell >= 0).sum()), 'image')} labelled by {counted(len(names), 'cell')} of "
        f"{shown_distance(side_m)}"
    )
    landmarks = tuple(sorted({*manifest.landmarks, *names}))
    number = {name: code for code, name in enumerate(landmarks)}
    old = np.array([number[name] for name in manifest.landmarks], dtype=np.int32)
    new = np.array([*(number[name] for name in names), -1], dtype=np.int32)
    landmark = np.append(old, np.int32(-1))[manifest.landmark]
    landmark[unlabelled] = new[cell]
    more = {row: tuple(old[list(codes)].tolist()) for row, codes in manifest.more_landmarks.items()}
    return replace(manifest, landmark=landmark, landmarks=landmarks, more_landmarks=more, has_labels=True)


def require_positions(found: Positions | None, source: str, option: str) -> Positions:
    """The positions of a file, where it has any. option: what needs them, for the message. Raises LmrError."""
    if found is None or not found.known.any():
        what = "no columns lat and lon" if found is None else "no row with lat and lon"
        raise LmrError(f"{source} has {what}, and `{option}` goes by where pictures were taken; give both")
    return found


def _roles_of(columns: OwnColumns) -> tuple[str, str] | None:
    return next((pair for pair in (DEGREES, PLANE) if set(pair) <= columns.keys()), None)


def _parsed(columns: OwnColumns, roles: tuple[str, str]) -> tuple[FloatArray, LongArray]:
    """(n, 2) numbers, NaN where there are none, and the rows that are neither good nor blank."""
    n = len(columns[roles[0]])
    values, bad = np.empty((n, 2), dtype=np.float64), [np.zeros(0, dtype=np.int64)]
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        for i, role in enumerate(roles):
            values[part, i] = [_number(cell) for cell in columns[role].select(part)]
        within = np.all(np.abs(values[part]) <= [_LARGEST[role] for role in roles], axis=1)
        doubtful = start + np.flatnonzero(~within)
        bad.append(np.array([row for row in doubtful.tolist() if _problem_of(columns, roles, row)], np.int64))
    return values, np.concatenate(bad)


def _problem_of(columns: OwnColumns, roles: tuple[str, str], row: int) -> str:
    return position_problem([columns[role][row] for role in roles], roles, roles)


def _refuse_lines(source: str, problems: Mapping[int, str]) -> None:
    """Raises LmrError with the lines of these rows of a table, which is read again for that."""
    from retrieval.data.tables.opening import open_table

    table = open_table(source)
    assert table is not None
    bad = BadRows(table.source)
    for row, (line, _) in enumerate(table.numbered(bad)):
        if row in problems:
            bad.add(line, problems[row])
    bad.refuse_any()


def cells_of(positions: Positions, side_m: float) -> tuple[LongArray, list[str]]:
    """(n,) the cell of a grid that each position lies in, into names; -1 where it is not known.

    A band of the grid is as high as the side, and is parted into as many equal cells as are at least that wide at its
    longer edge: cells depend on the side alone. The name of a cell is its middle. As in CosPlace (Berton et al., CVPR
    2022, section 3.1), without its classes of directions.
    """
    known = positions.known
    at = positions.values[known]
    cells = _plane_cells(at, side_m) if positions.is_plane else _sphere_cells(at, side_m)
    found, code = np.unique(cells, axis=0, return_inverse=True)
    names = _plane_names(found, side_m) if positions.is_plane else _sphere_names(found, side_m)
    of_row = np.full(len(positions), -1, dtype=np.int64)
    of_row[known] = code.reshape(-1)
    return of_row, names


def _plane_cells(at: FloatArray, side_m: float) -> LongArray:
    return np.asarray(np.floor(at / side_m), np.int64)


def _plane_names(cells: LongArray, side_m: float) -> list[str]:
    middle = ((cells + 0.5) * side_m).tolist()
    return [f"{_signed(east, 'EW', 0)}_{_signed(north, 'NS', 0)}" for east, north in middle]


def _sphere_cells(at: FloatArray, side_m: float) -> LongArray:
    band = np.floor((at[:, 0] + 90) / (side_m / _M_PER_DEGREE)).astype(np.int64)
    n_cells = _cells_in(band, side_m)
    column = np.floor((at[:, 1] + 180) / 360 * n_cells).astype(np.int64) % n_cells
    return np.stack([band, column], axis=1)


def _sphere_names(cells: LongArray, side_m: float) -> list[str]:
    lat = np.minimum((cells[:, 0] + 0.5) * (side_m / _M_PER_DEGREE) - 90, 90).tolist()
    lon = ((cells[:, 1] + 0.5) / _cells_in(cells[:, 0], side_m) * 360 - 180).tolist()
    return [f"{_signed(north, 'NS', 5)}_{_signed(east, 'EW', 5)}" for north, east in zip(lat, lon, strict=True)]


def _cells_in(band: LongArray, side_m: float) -> LongArray:
    """Cells of each band of latitude, by its longer edge, which is nearer to the equator."""
    low, high = (((band + i) * (side_m / _M_PER_DEGREE) - 90) for i in (0, 1))
    nearest = np.where(low > 0, low, np.where(high < 0, high, 0.0))
    round_m = 360 * _M_PER_DEGREE * np.cos(np.radians(np.clip(nearest, -90, 90)))
    return np.asarray(np.maximum(1, np.floor(round_m / side_m)), np.int64)


def _signed(value: float, letters: str, n_digits: int) -> str:
    """A number with a letter for its sign: labels that differ in a hyphen alone are taken for one."""
    return f"{abs(value):.{n_digits}f}{letters[value < 0]}"


def _number(text: str) -> float:
    """NaN for a blank cell, and for what is no number."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
