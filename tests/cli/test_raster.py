"""The renderer of the demo, against what a pinhole camera sees by hand."""

import numpy as np
import pytest

from cli.demo.raster import Camera, Frame, Patch, Round, Solid, Texture, look_at, texture
from cli.demo.solids import Parts, placed

SUN = np.array([0.0, 0.0, 1.0])


def plain(red: int, hole: bool = False) -> Texture:
    texels = np.full((16, 16, 4), 255, dtype=np.uint8)
    texels[..., 0] = red
    if hole:
        texels[:, 8:, 3] = 0
    return texture(texels)


def square(z: float, skin: Texture, *, side: float = 2.0, top: float = 1.0) -> Solid:
    """A square around the camera's axis that faces +z."""
    origin = np.array([-side / 2, -side / 2, z])
    return Solid((Patch(origin, np.array([side, 0, 0]), np.array([0, side, 0]), skin, top=top),), ())


def camera() -> Camera:
    """At the origin of x and y, ten metres before z = 0; ten pixels a metre there."""
    return look_at(np.array([0.0, 0.0, 10.0]), np.zeros(3), 100.0, (64, 48))


def drawn(*solids: Solid) -> Frame:
    frame = Frame(camera(), SUN)
    frame.draw(list(solids))
    return frame


def test_a_square_covers_the_pixels_that_the_pinhole_says_at_its_depth() -> None:
    frame = drawn(square(0.0, plain(90)))
    expected = np.zeros((48, 64))
    expected[14:34, 22:42] = 0.1
    np.testing.assert_allclose(frame.nearness, expected, atol=1e-6)
    assert set(frame.colour[14:34, 22:42, 0].ravel()) == {90}
    np.testing.assert_allclose(frame.lambert[14:34, 22:42], 1.0)


def test_the_back_of_a_patch_is_not_drawn() -> None:
    patch = square(0.0, plain(90)).patches[0]
    turned = Patch(patch.origin + patch.across, -patch.across, patch.up, patch.texture)
    assert not drawn(Solid((turned,), ())).nearness.any()


def test_nothing_behind_the_camera_is_drawn() -> None:
    assert not drawn(square(12.0, plain(90))).nearness.any()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_thing_hides_the_farther_one_in_any_order(order: tuple[int, int]) -> None:
    things = [square(0.0, plain(10), side=4.0), square(5.0, plain(200), side=1.0)]
    frame = drawn(*[things[i] for i in order])
    assert frame.colour[24, 32, 0] == 200
    assert frame.colour[24, 32 - 15, 0] == 10


def test_a_hole_shows_what_is_behind() -> None:
    frame = drawn(square(0.0, plain(10)), square(1.0, plain(200, hole=True)))
    assert frame.colour[24, 28, 0] == 200
    assert frame.colour[24, 36, 0] == 10


def test_a_patch_without_a_top_is_a_triangle() -> None:
    seen = drawn(square(0.0, plain(90), top=0.0)).nearness > 0
    widths = seen[14:34].sum(axis=1)
    assert abs(int(seen.sum()) - 200) <= 20
    assert widths[0] <= 2
    assert widths[-1] >= 18
    assert np.all(np.diff(widths) >= 0)


def test_a_ball_is_round_nearest_in_its_middle_and_lit_from_the_sun() -> None:
    ball = Round(np.array([0.0, -1.0, 0.0]), 2.0, (0.0, 2.0, -1.0), plain(90))
    frame = drawn(Solid((), (ball,)))
    assert frame.nearness[24, 32] == pytest.approx(1 / 9, abs=1e-3)
    assert frame.lambert[24, 32] == pytest.approx(1.0, abs=0.01)
    assert frame.lambert[24, 40] < 0.7
    # seen from 10 m a ball of radius 1 m has the radius 100 * 1 / sqrt(99) pixels
    assert int((frame.nearness > 0).sum()) == pytest.approx(np.pi * 100**2 / 99, rel=0.03)


def test_a_drum_of_one_radius_is_a_rectangle_with_the_front_at_its_radius() -> None:
    parts = Parts()
    parts.drum((0.0, -1.0, 0.0), 0.5, 2.0, plain(90))
    frame = drawn(parts.solid())
    columns = np.flatnonzero((frame.nearness > 0).any(axis=0))
    assert (columns[0], columns[-1]) == (27, 36)
    assert frame.nearness[24, 32] == pytest.approx(1 / 9.5, abs=1e-3)


def test_a_turned_and_moved_box_is_seen_from_its_other_side() -> None:
    parts = Parts()
    parts.box((0.0, -1.0, 0.0), (2.0, 2.0, 2.0), plain(10), plain(200))
    front, side = drawn(parts.solid()), drawn(placed(parts.solid(), (0.0, 0.0, 0.0), np.pi / 2))
    assert front.colour[24, 32, 0] == 10
    assert side.colour[24, 32, 0] == 200
    moved = drawn(placed(parts.solid(), (0.0, 0.0, 4.0), 0.0))
    assert moved.nearness[24, 32] == pytest.approx(1 / 5)


def test_levels_halve_average_the_colours_and_keep_the_panes_apart() -> None:
    texels = np.zeros((32, 32, 4), dtype=np.uint8)
    texels[::2, :, 0] = 100
    texels[..., 3] = 255
    texels[:, 16:, 3] = 7
    levels = texture(texels).levels
    assert [level.shape[:2] for level in levels] == [(32, 32), (16, 16), (8, 8)]
    assert set(levels[1][..., 0].ravel()) == {50}
    assert set(levels[2][..., 3].ravel()) == {255, 7}
