"""Heat maps over photographs."""

import numpy as np
import pytest
from PIL import Image

from cli.report.heat import LEGEND_PX, draw_heat, heat_limit

GREY = Image.new("RGB", (200, 160), (128, 128, 128))


def shown(values: list[list[float]], **how: object) -> np.ndarray:
    """The pixels of the photograph under the map, without the legend."""
    drawn = np.asarray(draw_heat(GREY, np.array(values, np.float32), **how), dtype=np.int64)  # type: ignore[arg-type]
    assert drawn.shape == (160 + LEGEND_PX, 200, 3)
    return drawn[:160]


def test_the_colour_is_where_the_value_is() -> None:
    pixels = shown([[0, 0], [0, 1]])
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    assert colour[0, 0] < 6
    assert colour[-1, -1] > 100
    assert pixels[-1, -1, 0] > 180  # yellow
    assert pixels[-1, -1, 2] < 120


def test_values_below_zero_are_blue_and_those_above_yellow() -> None:
    pixels = shown([[-1, 1]], is_signed=True)
    assert pixels[80, 0, 2] > pixels[80, 0, 0]
    assert pixels[80, -1, 0] > pixels[80, -1, 2]
    assert np.ptp(pixels[80, 100]) < 12


def test_outside_of_the_area_the_photograph_is_bare() -> None:
    pixels = shown([[1.0]], area=(0.25, 0.0, 0.75, 1.0))
    assert np.ptp(pixels[80, 40]) == 0
    assert np.ptp(pixels[80, 100]) > 100
    assert np.ptp(pixels[80, 160]) == 0


def test_an_area_beyond_the_photograph_is_cut() -> None:
    pixels = shown([[0, 1, 0]], area=(-1.0, 0.0, 2.0, 1.0))  # a padded photograph: only the middle place is on it
    assert np.ptp(pixels[80, 100]) > 100
    assert np.ptp(pixels[80, 100]) > np.ptp(pixels[80, 2])


def test_maps_share_a_scale_by_their_limit() -> None:
    weak, strong = shown([[0.25]], limit=1.0), shown([[0.25]])
    assert np.ptp(weak[80, 100]) < np.ptp(strong[80, 100])


def test_a_map_of_zeros_leaves_the_photograph_grey() -> None:
    assert np.ptp(shown([[0.0, 0.0]]), axis=2).max() == 0


def test_a_single_pixel_far_above_the_others_does_not_hide_them() -> None:
    values = np.ones((64, 64), np.float32)
    values[0, 0] = 1000
    assert heat_limit(values) == 1


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255)])
def test_the_strongest_place_is_seen_on_black_and_on_white(ground: tuple[int, int, int]) -> None:
    drawn = np.asarray(draw_heat(Image.new("RGB", (120, 90), ground), np.array([[0, 1]], np.float32)), np.int64)
    assert np.abs(drawn[45, -1] - drawn[45, 0]).max() > 80


def test_steps_of_the_colours_are_even() -> None:
    """Lightness L* of the legend's bar rises from end to end, no step more than thrice the mean."""
    bar = np.asarray(draw_heat(GREY, np.ones((1, 1), np.float32)), np.float64)[160 + 8] / 255
    linear = np.where(bar <= 0.04045, bar / 12.92, ((bar + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.cbrt(luminance)[::10]
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()
