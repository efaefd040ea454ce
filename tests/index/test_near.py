"""Ground truth by distance: near rows, recall and errors of located answers, by a slow, obvious version."""

import math

import numpy as np
import pytest

from index.evaluate import places
from index.evaluate.places import (
    PlacedRows,
    error_quantiles,
    find_near,
    first_near,
    measure_places,
    recall_at_k,
    require_near,
)
from index.search.base import Neighbours
from retrieval.errors import LmrError
from retrieval.places import Positions, distance_m
from retrieval.texts import Texts

LANDMARKS = ("a", "b", "c")


def made(n: int, seed: int, *, is_plane: bool = False) -> Positions:
    """Places within about 200 m of one another, across the 180th meridian; every fifth of more than ten not known."""
    values = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    values = values * 100 if is_plane else values * 0.001 + [10, 180]
    if not is_plane:
        values[:, 1] = (values[:, 1] + 180) % 360 - 180
    if n > 10:
        values[::5] = math.nan
    return Positions(values, is_plane)


def slow_near(queries: Positions, rows: Positions, within_m: float) -> list[list[int]]:
    """The rows near each query, one by one."""
    found: list[list[int]] = []
    for query in range(len(queries)):
        alike = queries.select(np.full(len(rows), query, np.int64))
        found.append(np.flatnonzero(distance_m(alike, rows) <= within_m).tolist())
    return found


@pytest.mark.parametrize("is_plane", [False, True])
def test_near_rows_and_their_landmarks_are_those_of_the_slow_way(
    is_plane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PAIRS_AT_ONCE", 40)
    monkeypatch.setattr(places, "_QUERIES_AT_ONCE", 7)
    queries, rows = made(60, 0, is_plane=is_plane), made(200, 1, is_plane=is_plane)
    landmark = np.random.default_rng(2).integers(0, 3, 200).astype(np.int32)
    near, shown = find_near(queries, PlacedRows(rows), landmark, LANDMARKS, 25)
    expected = slow_near(queries, rows, 25)
    assert near.n_rows.tolist() == list(map(len, expected))
    assert any(expected)
    assert [list(one) for one in shown] == [sorted({LANDMARKS[landmark[row]] for row in one}) for one in expected]
    for query in range(60):
        distances = distance_m(queries.select(np.full(200, query)), rows)
        if np.isfinite(queries.values[query, 0]):
            assert near.nearest_m[query] == pytest.approx(float(np.nanmin(distances)), rel=1e-12)
        else:
            assert np.isnan(near.nearest_m[query])


def test_rows_at_the_very_distance_are_near() -> None:
    queries, rows = Positions(np.zeros((1, 2)), is_plane=True), Positions(np.array([[7.0, 24.0]]), is_plane=True)
    for within_m, n in ((25.0, 1), (24.999, 0)):
        near, _ = find_near(queries, PlacedRows(rows), np.zeros(1, np.int32), LANDMARKS, within_m)
        assert near.n_rows.tolist() == [n]


def test_the_error_of_an_answer_is_the_distance_to_the_best_neighbour_of_its_landmark() -> None:
    queries = Positions(np.array([[0.0, 0], [0, 0], [0, 0], [0, 0]]), is_plane=True)
    rows = Positions(np.array([[3.0, 4], [6, 8], [30, 40], [math.nan, math.nan]]), is_plane=True)
    landmark = np.array([0, 1, 1, 2], np.int32)
    near, _ = find_near(queries, PlacedRows(rows), landmark, LANDMARKS, 25)
    found = np.array([[0, 2, 1], [1, 0, -1], [3, 0, 1], [-1, -1, -1]])
    neighbours = Neighbours(found, np.where(found >= 0, -np.arange(3.0), -np.inf).astype(np.float32))
    errors = near.error_m(neighbours, np.array([1, 0, 2, -1], np.int32), landmark)
    np.testing.assert_array_equal(errors, [50, 5, math.nan, math.nan])
    distances = near.distances_m(found)
    np.testing.assert_array_equal(distances[:3], [[5, 50, 10], [10, 5, math.nan], [math.nan, 5, 10]])
    assert first_near(distances <= 25).tolist() == [1, 1, 2, 0]


def test_figures_are_of_the_queries_that_have_a_place_and_gap_is_lowered_by_the_others() -> None:
    queries = Positions(np.array([[0.0, 0], [0, 0], [1000, 0], [0, 0]]), is_plane=True)
    rows = Positions(np.array([[3.0, 4], [30, 40]]), is_plane=True)
    near, _ = find_near(queries, PlacedRows(rows), np.zeros(2, np.int32), LANDMARKS, 25)
    figures = measure_places(
        near,
        rank=np.array([1, 7, 0, 0]),
        error_m=np.array([5.0, 50, 970, math.nan]),
        confidence=np.array([0.5, 2, 1, -np.inf]),
        image_id=Texts.of("abcd"),
    )
    assert figures.recall_at == {"1": 1 / 3, "5": 1 / 3, "10": 2 / 3, "20": 2 / 3}
    assert (figures.n_place_queries, figures.n_without_place) == (3, 1)
    assert figures.located == 1 / 3
    assert figures.gap == pytest.approx(1 / 3 * 1 / 3)  # right at the third rank, of three queries
    assert figures.error_m == {"25": 5, "50": 5, "75": 50, "90": 50}
    assert figures.nearest_m == 5


def test_without_a_query_that_has_a_place_there_are_no_figures() -> None:
    assert math.isnan(recall_at_k(np.zeros(0, np.int64), 1))
    assert all(map(math.isnan, error_quantiles(np.zeros(0)).values()))


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            [[48.0, 2.0], [math.nan, math.nan]],
            "q.csv: 1 of 2 queries has no coordinates (b); fill them in, or leave that row out",
        ),
        (
            [[2.0, 48.0], [10.0, 20.0]],
            "no query of q.csv lies within 25 m of a picture of landmarks: the nearest is 4,549 km away, and with lat "
            "and lon swapped 1 of 2 queries would lie so near; give files that belong together",
        ),
        (
            [[48.001, 2.0]],
            "no query of q.csv lies within 25 m of a picture of landmarks: the nearest is 111 m away; give files that "
            "belong together",
        ),
    ],
)
def test_queries_that_cannot_be_judged_are_refused(query: list[list[float]], problem: str) -> None:
    rows = PlacedRows(Positions(np.array([[48.0, 2.0]])))
    with pytest.raises(LmrError) as refused:
        require_near(Positions(np.array(query)), rows, Texts.of("ab"[: len(query)]), ("q.csv", "landmarks"), 25)
    assert str(refused.value) == problem


def test_degrees_and_metres_are_not_compared() -> None:
    rows = PlacedRows(Positions(np.array([[48.0, 2.0]])))
    with pytest.raises(LmrError) as refused:
        require_near(Positions(np.zeros((1, 2)), is_plane=True), rows, Texts.of("a"), ("q.csv", "landmarks"), 25)
    assert str(refused.value) == "q.csv has metres of a plane, landmarks has lat and lon; give both the same way"
