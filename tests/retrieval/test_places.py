"""Places: coordinates, distances and cells."""

import math

import numpy as np
import pytest

from retrieval.data.header.names import DEGREES, PLANE
from retrieval.errors import LmrError
from retrieval.places import (
    EARTH_RADIUS_M,
    Positions,
    cells_of,
    distance_m,
    parse_cells,
    parse_distance,
    position_problem,
    read_positions,
    shown_distance,
    straight_m,
)
from retrieval.texts import Texts

EIFFEL, TROCADERO, TOKYO = (48.8584, 2.2945), (48.8616, 2.2885), (35.6586, 139.7454)


def at(*places: tuple[float, float], is_plane: bool = False) -> Positions:
    return Positions(np.array(places, dtype=np.float64).reshape(-1, 2), is_plane)


def test_distances_are_those_of_the_cosine_rule_and_do_not_depend_on_the_way() -> None:
    one, other = at(EIFFEL, EIFFEL, TOKYO), at(TROCADERO, TOKYO, TOKYO)
    found = distance_m(one, other)
    for i, ((lat, lon), (lat_of, lon_of)) in enumerate(
        zip(np.radians(one.values).tolist(), np.radians(other.values).tolist(), strict=True)
    ):
        cosine = math.sin(lat) * math.sin(lat_of) + math.cos(lat) * math.cos(lat_of) * math.cos(lon - lon_of)
        assert found[i] == pytest.approx(EARTH_RADIUS_M * math.acos(min(1, cosine)), abs=0.2)
    np.testing.assert_array_equal(found, distance_m(other, one))


def test_a_degree_of_longitude_is_short_near_the_pole_and_none_lies_beyond_180() -> None:
    degree = EARTH_RADIUS_M * math.pi / 180
    found = distance_m(at((0, 0), (60, 0), (10, 179.5), (90, 0)), at((0, 1), (60, 1), (10, -179.5), (90, 123)))
    np.testing.assert_allclose(
        found, [degree, degree / 2, degree * math.cos(math.radians(10)), 0], rtol=3e-4, atol=1e-6
    )


def test_distances_on_a_plane_are_straight() -> None:
    assert distance_m(at((3, 4), is_plane=True), at((0, 0), is_plane=True)).tolist() == [5]
    assert np.isnan(distance_m(at((math.nan, math.nan)), at(EIFFEL)))
    with pytest.raises(ValueError, match="positions in degrees and positions in metres have no distance"):
        distance_m(at((3, 4), is_plane=True), at((0, 0)))


def test_points_are_as_far_apart_as_the_straight_line_between_places() -> None:
    one, other = at(EIFFEL, EIFFEL), at(TROCADERO, TOKYO)
    chord = np.linalg.norm(one.points() - other.points(), axis=1)
    along = distance_m(one, other)
    np.testing.assert_allclose(chord, [straight_m(float(m), is_plane=False) for m in along], rtol=1e-9)
    assert straight_m(25, is_plane=True) == 25


@pytest.mark.parametrize(
    ("text", "metres"), [("25m", 25), ("1.5 km", 1500), ("100ft", 30.48), (".5m", 0.5), (" 20. km ", 20000)]
)
def test_a_distance_is_a_number_with_its_unit(text: str, metres: float) -> None:
    assert parse_distance(text, "within") == pytest.approx(metres)


@pytest.mark.parametrize("text", ["25", "m", "25 miles", "25M", "-3m", "1e3m", "nan m", "25m30", ""])
def test_another_distance_is_refused(text: str) -> None:
    with pytest.raises(LmrError) as refused:
        parse_distance(text, "within")
    assert str(refused.value) == f"`within` {text}: a distance is a number with m, km or ft, such as 25m"


def test_a_distance_of_nothing_and_one_larger_than_the_earth_are_refused() -> None:
    for text in ("0m", "20001km"):
        with pytest.raises(LmrError) as refused:
            parse_distance(text, "within")
        assert str(refused.value) == f"`within` {text}: a distance is more than 0 and at most 20,000 km"
    with pytest.raises(LmrError) as refused:
        parse_cells("4m", "cells")
    assert str(refused.value) == "`cells` 4m: cells are from 5 m to 1,000 km wide"


def test_distances_are_shown_shortly() -> None:
    assert [shown_distance(m) for m in (0.5, 25, 999, 1200, 12345, 3_400_000)] == [
        *("0.5 m", "25 m", "999 m", "1.2 km", "12 km", "3,400 km")
    ]


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (("48.8584", "2.2945"), ""),
        (("-90", "180"), ""),
        (("", " "), ""),
        (("nan", "NA"), ""),
        (("48.8", ""), "lon is missing, lat is there; give both or neither"),
        (("NaN", "2.2"), "lat is missing, lon is there; give both or neither"),
        (("48,8584", "2.2945"), "lat is '48,8584', not a number of degrees, such as 48.8584"),
        (("48.8", "2°E"), "lon is '2°E', not a number of degrees, such as 48.8584"),
        (("inf", "2"), "lat is 'inf', not a number of degrees, such as 48.8584"),
        (("4_8", "2"), "lat is '4_8', not a number of degrees, such as 48.8584"),
        (("139.7", "35.6"), "lat is 139.7, not from -90 to 90; are lat and lon swapped?"),
        (("139.7", "95"), "lat is 139.7, not from -90 to 90"),
        (("999", "2"), "lat is 999, not from -90 to 90"),
        (("48", "-181"), "lon is -181, not from -180 to 180"),
    ],
)
def test_each_fault_of_coordinates_is_told(cells: tuple[str, str], problem: str) -> None:
    assert position_problem(cells, DEGREES, DEGREES) == problem


def test_faults_name_the_columns_as_the_file_has_them() -> None:
    found = position_problem(("x", "1"), ("easting", "northing"), PLANE)
    assert found == "easting is 'x', not a number of metres"


def test_columns_of_coordinates_are_read_and_blank_ones_are_not_known() -> None:
    columns = {"lat": Texts.of(["48.5", "", "-3"]), "lon": Texts.of(["2", "nan", "1e1"]), "time": Texts.of("abc")}
    found = read_positions(columns, Texts.of("abc"), "x.csv")
    assert found is not None
    np.testing.assert_array_equal(found.values, [[48.5, 2], [math.nan, math.nan], [-3, 10]])
    assert found.known.tolist() == [True, False, True]
    plane = read_positions({"utm_east": Texts.of(["500000"]), "utm_north": Texts.of(["4e6"])}, Texts.of("a"), "x.csv")
    assert plane is not None
    assert plane.is_plane
    assert read_positions({"lat": Texts.of("123")}, Texts.of("abc"), "x.csv") is None


@pytest.mark.parametrize(
    ("lat", "problem"),
    [
        (["1", "91"], "b: lat is 91, not from -90 to 90"),
        (["1", ""], "b has utm_east and utm_north alone, others have lat and lon; give all in one way"),
    ],
)
def test_a_bad_coordinate_of_a_store_is_refused_by_the_name_of_its_image(lat: list[str], problem: str) -> None:
    columns = {"lat": lat, "lon": lat, "utm_east": ["", "5e5"], "utm_north": ["", "4e6"]}
    with pytest.raises(LmrError) as refused:
        read_positions({name: Texts.of(cells) for name, cells in columns.items()}, Texts.of(["a", "b"]), "x.h5")
    assert str(refused.value) == f"x.h5: {problem}"


def test_places_of_one_cell_are_near_and_cells_are_about_as_large_as_asked() -> None:
    rng = np.random.default_rng(0)
    places = at(*(rng.uniform(-1, 1, (2000, 2)) * [0.002, 0.002] + EIFFEL).tolist())
    code, names = cells_of(places, 25)
    assert code.min() == 0
    assert len(names) == code.max() + 1 == len(set(names))
    for cell in range(len(names)):
        own = places.values[code == cell]
        assert np.ptp(own[:, 0]) * EARTH_RADIUS_M * math.pi / 180 <= 25
        assert np.ptp(own[:, 1]) * EARTH_RADIUS_M * math.pi / 180 * math.cos(math.radians(EIFFEL[0])) <= 25.1
        lat, lon = names[cell].split("_")
        middle = at((float(lat.removesuffix("N")), float(lon.removesuffix("E"))))
        assert distance_m(at(own[0].tolist()), middle)[0] <= 25 * 0.7072 + 1.5  # names are rounded to a metre


def test_cells_depend_on_the_side_alone_and_not_on_the_other_places() -> None:
    many = at(EIFFEL, TROCADERO, TOKYO)
    code, names = cells_of(many, 100)
    for row in range(3):
        (own,) = cells_of(at(many.values[row].tolist()), 100)[1]
        assert own == names[code[row]]


def test_cells_meet_at_the_poles_and_beyond_180_degrees() -> None:
    code, names = cells_of(
        at((90, 0), (90, 179), (0, 180), (0, -180), (math.nan, math.nan), (-0.00001, -0.00001)), 1000
    )
    assert code[2] == code[3]
    assert code[4] == -1
    assert names[code[0]].startswith("90.00000N_")
    assert names[code[5]].endswith("W")
    assert len({name.translate(str.maketrans("", "", "NSEW")) for name in names}) == len(names)


def test_cells_of_a_plane_are_squares() -> None:
    code, names = cells_of(at((12, 13), (24, 24), (25, 24), (-1, -26), is_plane=True), 25)
    assert [names[cell] for cell in code] == ["12E_12N", "12E_12N", "38E_12N", "12W_38S"]
