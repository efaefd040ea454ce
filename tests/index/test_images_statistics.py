"""Measures of images, their ranking and what falls out of the common."""

from dataclasses import replace

import numpy as np
import pytest

from index.stats.images import Size, Sizes, count_sizes, histograms, measures_of, outliers, ranking, spreads
from retrieval.data.quality_cache import FactsTable
from retrieval.images.quality import ImageFacts
from retrieval.images.screen import pixels_per_inch

FACTS = ImageFacts(400, 300, 1000, "a" * 64, 0, 128.0, 50.0, 900.0, 10.0, 7.0)


def table(*changes):
    return FactsTable(tuple(row if isinstance(row, str) else replace(FACTS, **row) for row in changes))


def test_224_x_224_are_18_pixels_per_inch():
    assert pixels_per_inch(np.array([224]), np.array([224])).round(2).tolist() == [18.0]
    assert pixels_per_inch(np.array([300]), np.array([400]), 10).tolist() == [50.0]


def test_unreadable_images_are_left_out_and_rows_stay_those_of_the_manifest():
    measures = measures_of(table({"width": 100, "height": 200}, "cut short", {"n_bytes": 7}))
    assert measures.row.tolist() == [0, 2]
    assert measures.values["aspect_ratio"].tolist() == [0.5, 400 / 300]
    assert measures.values["megapixels"].tolist() == [0.02, 0.12]
    assert measures.values["bytes"].tolist() == [1000, 7]


def test_sizes_are_counted_and_measures_spread():
    measures = measures_of(table({}, {}, {"width": 10, "height": 10}))
    assert count_sizes(measures) == Sizes(2, (Size(400, 300, 2, 2 / 3), Size(10, 10, 1, 1 / 3)))
    assert spreads(measures)["aspect_ratio"].min == 1
    found = histograms(measures)["megapixels"]
    assert sum(found.pictures) == 3
    assert len(found.edges) == len(found.pictures) + 1


def test_one_image_is_described_too():
    measures = measures_of(table({"sharpness": 0.0}))
    assert spreads(measures)["sharpness"].percentiles["50"] == 0
    assert sum(histograms(measures)["sharpness"].pictures) == 1


def test_the_ranking_is_from_high_to_low_and_equal_ones_stay_in_order():
    measures = measures_of(table({"entropy": 1.0}, {"entropy": 3.0}, {"entropy": 1.0}))
    assert ranking(measures, "entropy").tolist() == [1, 0, 2]


def test_outliers_lie_beyond_tukeys_fences():
    common = [{"brightness": 100.0 + i, "contrast": 40.0 + i, "sharpness": 500.0 + 50 * i} for i in range(20)]
    odd = [{"brightness": 2.0}, {"brightness": 30.0}, {"brightness": 250.0}, {"contrast": 1.0}, {"sharpness": 3.0}]
    found = outliers(measures_of(table(*common, *odd)))
    assert {kind: at.tolist() for kind, at in found.items()} == {
        "dark": [20, 21],
        "bright": [22],
        "flat": [23],
        "blurred": [24],
    }


def test_images_that_are_all_alike_have_no_outliers():
    found = outliers(measures_of(table({}, {}, {})))
    assert [len(at) for at in found.values()] == [0, 0, 0, 0]


def test_no_readable_image_is_no_error():
    measures = measures_of(table("cut short"))
    assert len(measures) == 0
    assert [len(at) for at in outliers(measures).values()] == [0, 0, 0, 0]


def test_measures_of_other_lengths_are_a_callers_mistake():
    measures = measures_of(table({}, {}))
    with pytest.raises(ValueError, match="all must have 1 rows"):
        replace(measures, row=measures.row[:1])
