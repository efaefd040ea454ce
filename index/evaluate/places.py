"""Ground truth by distance: which rows of an index lie near each query, and what the answers come to as places."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from index.folder.inputs import Gathered
from index.folder.rows import Rows
from index.metrics import gap
from index.queries import Queries
from index.search.base import Neighbours
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.own_columns import OwnColumns
from retrieval.places import (
    Positions,
    distance_m,
    read_positions,
    require_positions,
    shown_distance,
    straight_m,
)
from retrieval.shown import Labels
from retrieval.texts import Texts
from retrieval.words import agreeing, counted, named

RECALL_AT = (1, 5, 10, 20)  # neighbours, as place recognition counts them
ERROR_AT = (25, 50, 75, 90)  # per cent of the located queries
_PAIRS_AT_ONCE = 1 << 20
_QUERIES_AT_ONCE = 1 << 16
_SLACK = 1 + 1e-9  # of a search by straight lines; what it finds is measured along the earth
_KINDS = ("lat and lon", "metres of a plane")


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Queries and the rows of an index, by where they were taken.

    queries, rows: their positions. within_m: how far a row may lie from a query of its place. n_rows: (q,) int64, rows
    that lie so near; nearest_m: (q,) float64, metres to the nearest row.
    """

    queries: Positions
    rows: Positions
    within_m: float
    n_rows: LongArray
    nearest_m: FloatArray

    def __post_init__(self) -> None:
        for name in ("n_rows", "nearest_m"):
            if getattr(self, name).shape != (len(self.queries),):
                raise ValueError(f"{name} must be ({len(self.queries)},), got {getattr(self, name).shape}")
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def select(self, queries: LongArray) -> "Near":
        """Of these queries alone."""
        some = self.queries.select(queries)
        return Near(some, self.rows, self.within_m, self.n_rows[queries], self.nearest_m[queries])

    def update(self, add: Callable[[bytes], None]) -> None:
        """Adds all of it to a digest; the rows by how far they are."""
        for values in (np.float64(self.within_m), self.queries.values, self.n_rows, self.nearest_m):
            add(values.tobytes())

    def distances_m(self, rows: LongArray) -> FloatArray:
        """(q, k) metres from each query to rows (q, k) of the index, NaN where there is none or it is not known."""
        there = np.where(rows >= 0, rows, 0).ravel()
        query = np.repeat(np.arange(len(self.queries)), rows.shape[1])
        found = distance_m(self.queries.select(query), self.rows.select(there)).reshape(rows.shape)
        return np.where(rows >= 0, found, np.nan)

    def error_m(self, neighbours: Neighbours, landmark: IntArray, row_landmark: IntArray) -> FloatArray:
        """(q,) metres to the best neighbour of the landmark that each query was answered with, NaN without one."""
        rows = neighbours.rows
        is_own = (rows >= 0) & (row_landmark[rows] == landmark[:, None]) & (landmark[:, None] >= 0)
        best = np.take_along_axis(rows, is_own.argmax(axis=1)[:, None], axis=1)
        return self.distances_m(np.where(is_own.any(axis=1)[:, None], best, -1))[:, 0]


@dataclass(frozen=True, slots=True)
class PlaceFigures:
    """Figures of answers as places, over the queries that have a row of the index near them; NaN without any.

    within_m: how near. recall_at: share of them with such a row among the first neighbours, by their number as text.
    gap, located: of answers that count as right where the best neighbour of their landmark lies so near, and their
    share. error_m: quantiles of the metres to that neighbour, by per cent as text, of those that have an answer.
    n_place_queries: these queries; n_without_place: the others. nearest_m: median metres of all to the nearest row.
    """

    within_m: float
    recall_at: Mapping[str, float]
    gap: float
    located: float
    error_m: Mapping[str, float]
    n_place_queries: int
    n_without_place: int
    nearest_m: float


def measure_places(
    near: Near, rank: LongArray, error_m: FloatArray, confidence: FloatArray, image_id: Texts
) -> PlaceFigures:
    """The figures of all queries.

    rank: (q,) of the first neighbour that lies near, 0 = none. error_m: (q,) as of `Near.error_m`. confidence: (q,) any
    key that grows with it, -inf without an answer.
    """
    has_place, answered = near.n_rows > 0, confidence > -np.inf
    n = int(has_place.sum())
    right = error_m <= near.within_m
    errors = error_m[has_place & np.isfinite(error_m)]
    return PlaceFigures(
        within_m=near.within_m,
        recall_at={str(k): recall_at_k(rank[has_place], k) for k in RECALL_AT},
        gap=gap(confidence[answered], right[answered], n, image_id.select(answered)) if n else float("nan"),
        located=float(right.sum() / n) if n else float("nan"),
        error_m=error_quantiles(errors),
        n_place_queries=n,
        n_without_place=len(has_place) - n,
        nearest_m=float(np.median(near.nearest_m)) if len(has_place) else float("nan"),
    )


def recall_at_k(rank: LongArray, k: int) -> float:
    """Share of queries whose first near neighbour has at most this rank; 0 = none has. NaN without queries."""
    return float(np.mean((rank > 0) & (rank <= k))) if len(rank) else float("nan")


def error_quantiles(errors_m: FloatArray) -> dict[str, float]:
    """Metres that so many per cent of the errors do not exceed, NaN without errors."""
    if not len(errors_m):
        return {str(share): float("nan") for share in ERROR_AT}
    found = np.quantile(errors_m, np.array(ERROR_AT) / 100, method="inverted_cdf")
    return dict(zip(map(str, ERROR_AT), found.tolist(), strict=True))


def first_near(is_near: BoolArray) -> LongArray:
    """(q,) place (from 1) of the first near one of each list (q, k), 0 = none."""
    if is_near.shape[1] == 0:
        return np.zeros(len(is_near), dtype=np.int64)
    return np.where(is_near.any(axis=1), is_near.argmax(axis=1) + 1, 0).astype(np.int64)


class PlacedRows:
    """The rows of an index, found by where they were taken; those of which it is not known are near nothing.

    Takes about 60 bytes a row besides the positions.
    """

    def __init__(self, rows: Positions) -> None:
        from scipy.spatial import cKDTree  # here, so that what compares no places does not wait for it

        self.positions = rows
        self._there = np.flatnonzero(rows.known)
        self._tree: Any = cKDTree(rows.points()[self._there], balanced_tree=False, compact_nodes=False)

    def nearest_m(self, queries: Positions) -> FloatArray:
        """(q,) metres to the nearest row, NaN where there is none or the query's position is not known."""
        found = np.full(len(queries), np.nan)
        asked = np.flatnonzero(queries.known)
        if len(self._there) and len(asked):
            _, nearest = self._tree.query(queries.points()[asked])
            there = self.positions.select(self._there[nearest])
            found[asked] = distance_m(queries.select(asked), there)
        return found

    def pairs(self, queries: Positions, within_m: float) -> Iterator[tuple[LongArray, LongArray]]:
        """The pairs of a query and a row that lies so near it, about a million at a time, both ascending."""
        asked, points = np.flatnonzero(queries.known), queries.points()
        radius = straight_m(within_m, is_plane=queries.is_plane) * _SLACK
        for start in range(0, len(asked) if len(self._there) else 0, _QUERIES_AT_ONCE):
            some = asked[start : start + _QUERIES_AT_ONCE]
            n_found = np.cumsum(self._tree.query_ball_point(points[some], radius, return_length=True))
            parts = np.searchsorted(n_found, np.arange(_PAIRS_AT_ONCE, n_found[-1], _PAIRS_AT_ONCE))
            for part in np.split(some, parts):
                if not len(part):
                    continue
                lists = self._tree.query_ball_point(points[part], radius, return_sorted=True)
                query = np.repeat(part, [len(one) for one in lists])
                row = self._there[np.concatenate([np.asarray(one, np.int64) for one in lists])]
                kept = distance_m(queries.select(query), self.positions.select(row)) <= within_m
                yield query[kept], row[kept]


@dataclass(frozen=True, slots=True, eq=False)
class PlacedIndex:
    """An index whose rows near a query say which landmarks that shows. name: for messages."""

    name: str
    rows: PlacedRows
    landmark: IntArray
    landmarks: tuple[str, ...]
    within_m: float

    def require(self, columns: OwnColumns, image_id: Texts, source: str) -> None:
        """Raises LmrError for queries without positions, with positions of another kind, and where none is near a row.

        columns, image_id: of the queries, source: what they are called.
        """
        queries = require_positions(read_positions(columns, image_id, source), source, "within")
        require_near(queries, self.rows, image_id, (source, self.name), self.within_m)

    def label(self, queries: Queries, columns: OwnColumns) -> Queries:
        """The queries with what lies near them, and its landmarks as those that they show."""
        positions = read_positions(columns, queries.image_id, "queries")
        assert positions is not None
        near, landmarks = find_near(positions, self.rows, self.landmark, self.landmarks, self.within_m)
        return replace(queries, landmarks=landmarks, near=near)


def placed_index(rows: Rows | Gathered, name: str, within_m: float) -> PlacedIndex:
    """The rows of an index, or those that one is built of, by where they were taken. LmrError where that is not known.

    name: of the index, for messages.
    """
    positions = require_positions(read_positions(rows.columns, rows.image_id, name), name, "within")
    return PlacedIndex(name, PlacedRows(positions), rows.landmark, rows.landmarks, within_m)


def find_near(
    queries: Positions, rows: PlacedRows, landmark: IntArray, landmarks: tuple[str, ...], within_m: float
) -> tuple[Near, Labels]:
    """What lies near each query, and the landmarks of that: those are what the query shows.

    landmark: (n,) of each row into landmarks.
    """
    n_rows = np.zeros(len(queries), dtype=np.int64)
    pairs = [np.zeros(0, dtype=np.int64)]
    for query, row in rows.pairs(queries, within_m):
        n_rows += np.bincount(query, minlength=len(queries))
        pairs.append(np.unique(query * len(landmarks) + landmark[row]))
    query, code = np.divmod(np.unique(np.concatenate(pairs)), max(1, len(landmarks)))
    ends = np.cumsum(np.bincount(query, minlength=len(queries)), dtype=np.int64)
    near = Near(queries, rows.positions, within_m, n_rows, rows.nearest_m(queries))
    return near, Labels(landmarks, code.astype(np.int32), ends)


def require_near(
    queries: Positions, rows: PlacedRows, image_id: Texts, between: tuple[str, str], within_m: float
) -> None:
    """Raises LmrError where queries have no position, where none is near a row, and for positions of two kinds.

    between: what the queries and the rows are of.
    """
    asked, known = between
    if queries.is_plane != rows.positions.is_plane:
        kinds = [_KINDS[positions.is_plane] for positions in (queries, rows.positions)]
        raise LmrError(f"{asked} has {kinds[0]}, {known} has {kinds[1]}; give both the same way")
    missing = np.flatnonzero(~queries.known)
    if len(missing):
        n = len(missing)
        raise LmrError(
            f"{asked}: {counted(n, 'query', of=len(queries))} {agreeing(n, 'has', 'have')} no coordinates "
            f"({named(image_id.select(missing).tolist())}); fill them in, or leave "
            f"{agreeing(n, 'that row', 'those rows')} out"
        )
    nearest = rows.nearest_m(queries)
    if len(queries) and not (nearest <= within_m).any():
        raise LmrError(
            f"no query of {asked} lies within {shown_distance(within_m)} of a picture of {known}: the nearest is "
            f"{shown_distance(float(nearest.min()))} away{_if_swapped(queries, rows, within_m)}; "
            "give files that belong together"
        )


def _if_swapped(queries: Positions, rows: PlacedRows, within_m: float) -> str:
    """Says how many queries were near if their two coordinates changed places; '' if none."""
    if queries.is_plane:
        return ""
    swapped = np.where(np.abs(queries.values[:, 1:]) <= 90, queries.values[:, ::-1], np.nan)
    n = int((rows.nearest_m(Positions(swapped)) <= within_m).sum())
    return f", and with lat and lon swapped {counted(n, 'query', of=len(queries))} would lie so near" if n else ""
