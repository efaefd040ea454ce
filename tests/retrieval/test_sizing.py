"""Scaled images have no side of 0, whatever their shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import encoded
from PIL import Image

from cli.report.html import small_image
from cli.report.sheet import SheetEntry, draw_sheet
from retrieval.images.limits import contain, scaled_size
from retrieval.images.preprocess import prepare
from retrieval.images.quality import measure_image
from retrieval.images.spec import ImageSpec
from retrieval.local.config import LocalOptions
from retrieval.local.extractor import open_extractor

THREADS = [(1, 30_000), (30_000, 1), (2, 9_000), (1, 1)]


def thread(size: tuple[int, int]) -> bytes:
    return encoded(Image.new("RGB", size, (10, 200, 30)), "PNG")


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1e-9, 10))
def test_no_side_is_ever_0(width: int, height: int, scale: float) -> None:
    assert min(scaled_size((width, height), scale)) >= 1


def test_sides_are_rounded() -> None:
    assert scaled_size((100, 33), 0.1) == (10, 3)


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 30_000), (1, 96)), ((30_000, 1), (96, 1)), ((40, 20), (96, 48)), ((1, 1), (96, 96))]
)
def test_a_contained_image_is_whole_at_any_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert contain(Image.new("RGB", size), 96).size == expected


@pytest.mark.parametrize("size", THREADS)
def test_threads_of_images_are_prepared_measured_and_shown(size: tuple[int, int], tmp_path: str) -> None:
    data = thread(size)
    assert prepare(data, ImageSpec(size=32, fit="pad")).shape == (32, 32, 3)
    facts = measure_image(data)
    assert (facts.width, facts.height, facts.sharpness) == (*size, 0.0)
    assert small_image(data, 96, 80).startswith("data:image/jpeg;base64,/9j/")
    path = f"{tmp_path}/thread.png"
    with open(path, "wb") as file:
        file.write(data)
    sheet = np.asarray(draw_sheet([SheetEntry(path, None, (), None, ())]))
    assert ((sheet == (10, 200, 30)).all(axis=-1)).any()


@pytest.mark.parametrize("size", THREADS)
def test_threads_of_images_have_no_local_features(size: tuple[int, int]) -> None:
    pytest.importorskip("cv2")
    extractor = open_extractor(LocalOptions(kind="rootsift"))
    assert len(extractor.extract(extractor.decode(thread(size)))) == 0
