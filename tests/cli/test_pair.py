"""Two images beside each other, with lines between what was found in both."""

import numpy as np
import pytest
from PIL import Image

from cli.report.pair import (
    GAP_PX,
    LONGEST_PX,
    MAP_HIGH_PX,
    MAP_WIDE_PX,
    MAX_LINES,
    caption_of,
    draw_maps,
    draw_pair,
    layout_of,
    outline_of,
    spread_out,
    with_caption,
    wrapped,
)
from index.explain.match import ImageMatch
from retrieval.explain.maps import NamedMap
from retrieval.local.features import LocalFeatures
from retrieval.local.geometry import Match, no_match

SIZE = (200, 160)


def features(n: int, size: tuple[int, int] = SIZE) -> LocalFeatures:
    return LocalFeatures(np.zeros((n, 2), np.float32), np.zeros((n, 128), np.float32), size)


def matched(here: list, there: list, model: list | None = None, kind: str = "homography", n_matches: int = 0):
    """A match of these inliers, of images of one size."""
    points = (np.array(points, np.float32).reshape(-1, 2) for points in (here, there))
    geometry = None if model is None else np.array(model, np.float64)
    return ImageMatch(
        Match(*points, kind, geometry, n_matches or len(here), 0.5, 0.5, 1.25, 9.0),
        "rootsift",
        features(900),
        features(1),
    )


@pytest.mark.parametrize(
    ("one", "other", "is_beside"),
    [
        ((400, 300), (400, 300), True),
        ((300, 400), (400, 300), True),
        ((4000, 500), (4000, 500), False),
        ((4000, 500), (300, 400), False),
        ((1, 900), (900, 1), True),
        ((1, 1), (1, 1), True),
    ],
)
def test_images_lie_beside_each_other_unless_that_makes_them_small(one, other, is_beside):
    layout = layout_of(one, other)
    (x0, y0, w0, h0), (x1, y1, w1, h1) = layout.query, layout.row
    assert (x0, y0) == (0, 0)
    assert (x1, y1) == ((w0 + GAP_PX, 0) if is_beside else (0, h0 + GAP_PX))
    assert (h0 == h1) if is_beside else (w0 == w1)
    assert min(w0, h0, w1, h1) >= 1
    assert max(layout.size) <= LONGEST_PX + 1
    assert layout.size == (max(x1 + w1, w0), max(y1 + h1, h0))


def test_the_outline_is_the_edge_of_the_query_as_the_homography_maps_it():
    moved = outline_of(matched([(0, 0)], [(0, 0)], [[0.5, 0, 20], [0, 0.5, 10], [0, 0, 1]]))
    assert moved.min(axis=0) == pytest.approx([20 / 200, 10 / 160])
    assert moved.max(axis=0) == pytest.approx([120 / 200, 90 / 160])
    assert moved[0] == pytest.approx([0.1, 0.0625])


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (None, "none"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "fundamental"),
        ([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]], "homography"),  # the horizon is at x = 100
        ([[100, 0, -50], [0, 100, -50], [0, 0, 1]], "homography"),  # a hundred times as large
        ([[1, 0, 300], [0, 1, 0], [0, 0, 1]], "homography"),  # beside the image
    ],
)
def test_there_is_no_outline_of_what_is_no_homography_or_leads_far_away(model, kind):
    assert outline_of(matched([(0, 0)], [(0, 0)], model, kind)) is None


def test_points_that_are_chosen_lie_far_from_each_other():
    points = np.array([[0, 0], [1, 0], [100, 0], [50, 50], [51, 50], [0, 100]], float)
    assert spread_out(points, 4).tolist() in ([0, 2, 3, 5], [1, 2, 3, 5], [0, 2, 4, 5], [1, 2, 4, 5])
    assert spread_out(points, 6).tolist() == spread_out(points, 9).tolist() == list(range(6))
    assert spread_out(np.zeros((100, 2)), 7).tolist() != []


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (127, 127, 127), (255, 224, 64), (70, 200, 255)])
def test_lines_are_seen_on_every_ground(ground):
    image = Image.new("RGB", SIZE, ground)
    match = matched([(100, 50), (100, 80)], [(100, 50), (100, 80)], kind="fundamental")
    bare, drawn = (np.asarray(draw_pair(image, image, m).convert("RGB"), int) for m in (None, match))
    assert bare.shape == drawn.shape
    column = drawn[:, drawn.shape[1] // 4 + 40]  # between the first point and the gap
    differs = np.abs(column - np.array(ground)).max(axis=1)
    assert (differs > 90).sum() >= 4


def test_a_white_image_ends_somewhere_on_white():
    image = Image.new("RGB", SIZE, (255, 255, 255))
    pixels = np.asarray(with_caption(draw_pair(image, image, None), "a", "b"), int)
    assert pixels[16].min() < 140


def test_a_line_leads_from_a_point_to_its_match():
    image = Image.new("RGB", SIZE, (60, 60, 60))
    drawn = draw_pair(image, image, matched([(40, 20)], [(160, 90)], kind="fundamental"))
    layout = layout_of(SIZE, SIZE)
    pixels = np.asarray(drawn.convert("RGB"), int)
    for (left, top, width, height), (x, y) in ((layout.query, (40, 20)), (layout.row, (160, 90))):
        at = (top + round(y / 160 * height), left + round(x / 200 * width))
        assert np.abs(pixels[at] - 60).max() > 90
    assert np.asarray(drawn)[5, layout.query[2] + GAP_PX // 2, 3] == 0


def test_of_hundreds_some_are_lines_and_all_are_dots():
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), SIZE, (300, 2)).tolist()
    title, how = caption_of(matched(points, points, kind="fundamental", n_matches=310))
    assert title == "300 of 310 matches agree on one geometry of two cameras; by chance 1.2 would"
    assert how == (f"RootSIFT found 900 and 1 keypoint; {MAX_LINES} of the 300 are drawn as lines, the others as dots")
    image = Image.new("RGB", SIZE, (60, 60, 60))
    assert draw_pair(image, image, matched(points, points, kind="fundamental")).width > 600


def test_captions_say_what_was_found():
    title, how = caption_of(matched([(0, 0)] * 9, [(0, 0)] * 9, [[0.9, 0, 1], [0, 0.9, 1], [0, 0, 1]]))
    assert title == "9 of 9 matches agree on one homography; by chance 1.2 would"
    assert how == "RootSIFT found 900 and 1 keypoint; the white outline is the edge of the picture that was asked"
    nothing = ImageMatch(no_match(1), "aliked", features(0), features(2))
    assert caption_of(nothing) == (
        "No geometry fits the 1 match: local features do not tell that both show the same thing",
        "ALIKED found 0 and 2 keypoints",
    )
    blank = ImageMatch(no_match(), "xfeat", features(0), features(0))
    assert caption_of(blank) == (
        "Nothing matches: local features do not tell that both show the same thing",
        "XFeat found 0 and 0 keypoints",
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 6), (3000, 7), (7, 3000)])
def test_images_of_every_shape_are_drawn(size):
    image, other = Image.new("RGB", size, (60, 60, 60)), Image.new("RGB", SIZE, (60, 60, 60))
    match = ImageMatch(
        Match(np.zeros((9, 2), np.float32), np.ones((9, 2), np.float32), "homography", np.eye(3), 9, 0, 0, 0, 0),
        "xfeat",
        features(9, size),
        features(9),
    )
    drawn = draw_pair(image, other, match)
    assert max(drawn.size) <= LONGEST_PX + 1
    assert with_caption(drawn, *caption_of(match)).height > drawn.height


def test_both_images_have_the_colours_of_one_scale():
    image = Image.new("RGB", (300, 300), (128, 128, 128))
    weak, strong = np.full((2, 2), 0.25, np.float32), np.full((2, 2), 1.0, np.float32)
    drawn = draw_maps(image, image, NamedMap("saliency", "Saliency", weak, strong))
    assert drawn.size == (2 * MAP_HIGH_PX + GAP_PX, MAP_HIGH_PX)
    pixels = np.asarray(drawn, int)
    of_weak, of_strong = (np.ptp(pixels[150, x, :3]) for x in (150, MAP_HIGH_PX + GAP_PX + 150))
    assert 0 < of_weak < of_strong
    assert pixels[150, MAP_HIGH_PX + GAP_PX // 2, 3] == 0


def test_a_map_without_a_second_image_stands_alone():
    image, values = Image.new("RGB", (900, 30)), np.ones((2, 2), np.float32)
    assert draw_maps(image, None, NamedMap("a", "A", values)).size == (MAP_WIDE_PX, 14)
    assert draw_maps(image, image, NamedMap("a", "A", values)).size == (MAP_WIDE_PX, 14)


def test_captions_are_broken_between_words():
    assert wrapped("", 13, 100) == []
    text = "one two three four five six seven eight nine ten"
    lines = wrapped(text, 13, 120)
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert wrapped("a verylongwordthatisalone b", 13, 30)[1] == "verylongwordthatisalone"
