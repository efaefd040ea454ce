"""The form in which images are kept."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import encoded, smooth
from PIL import Image

from retrieval.download.config import Form
from retrieval.download.resize import Order, cause_of, resize, resized, store_image, verify_image
from retrieval.download.survey import Places
from retrieval.errors import UnreadableError
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.quality import measure_image


@pytest.mark.parametrize(
    ("how", "size", "expected"),
    [
        ("shorter", 30, (60, 30)),
        ("longer", 30, (30, 15)),
        ("center-crop", 30, (30, 30)),
        ("square-pad", 30, (30, 30)),
        ("shorter", 500, (120, 60)),
        ("longer", 500, (120, 60)),
        ("center-crop", 90, (90, 90)),
        ("square-pad", 240, (240, 240)),
        ("longer", 1, (1, 1)),
    ],
)
def test_each_way_gives_its_size(how, size, expected):
    assert resize(smooth(120, 60), how, size).size == expected


def test_a_crop_keeps_the_middle():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    assert resize(image, "center-crop", 30).getcolors() == [(900, (0, 0, 255))]


def test_a_pad_keeps_everything_on_white():
    padded = np.asarray(resize(Image.new("RGB", (40, 20), "black"), "square-pad", 40))
    assert (padded[:10] == 255).all()
    assert (padded[10:30] == 0).all()
    assert (padded[30:] == 255).all()


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 64), st.sampled_from(["shorter", "longer"]))
def test_nothing_is_enlarged_and_the_shape_stays(width, height, size, how):
    new = resize(Image.new("RGB", (width, height)), how, size).size
    assert all(side <= old for side, old in zip(new, (width, height), strict=True))
    side = min(width, height) if how == "shorter" else max(width, height)
    scale = min(1, size / side)
    assert all(abs(a - max(1, b * scale)) <= 0.5 for a, b in zip(new, (width, height), strict=True))


@pytest.mark.parametrize("how", ["shorter", "longer", "center-crop", "square-pad"])
def test_reduced_decoding_gives_the_same_image(how):
    data = encoded(smooth(1600, 1200), "JPEG", quality=95)
    form = Form(resize=how, size=64, quality=95)
    quick = np.asarray(Image.open(io.BytesIO(resized(data, (1600, 1200), form, DEFAULT_LIMITS))), dtype=int)
    slow = np.asarray(resize(Image.open(io.BytesIO(data)).convert("RGB"), how, 64), dtype=int)
    assert quick.shape == slow.shape
    assert np.abs(quick - slow).mean() < 2


@pytest.fixture
def store(tmp_path):
    """Stores a body as a form and limits say; returns the facts and the path."""
    path = str(tmp_path / "picture")

    def put(content, limits=DEFAULT_LIMITS, **form):
        return store_image(content, Order(path, Form(**form), limits)), path

    return put


def test_the_facts_are_those_of_the_stored_file(store, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(smooth(640, 480), "JPEG", exif=exif)
    stored, path = store(data)
    kept = Path(path).read_bytes()
    facts = measure_image(kept)
    assert (stored.width, stored.height) == (facts.width, facts.height) == (192, 256)
    assert (stored.n_bytes, stored.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())
    assert stored.perceptual_hash == facts.perceptual_hash
    assert (stored.original_width, stored.original_height, stored.n_original_bytes) == (480, 640, len(data))
    assert verify_image(path, DEFAULT_LIMITS).sha256 == stored.sha256
    assert os.listdir(tmp_path) == ["picture"]


def test_an_original_is_kept_byte_for_byte(store):
    data = encoded(smooth(64, 48), "PNG")
    stored, path = store(data, resize=None)
    assert Path(path).read_bytes() == data
    assert stored.n_bytes == stored.n_original_bytes == len(data)


def test_a_body_in_a_file_is_stored(store, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(encoded(smooth(64, 48), "JPEG"))
    stored, _ = store(body)
    assert (stored.width, stored.height) == (64, 48)


@pytest.mark.parametrize(
    ("data", "limits", "cause"),
    [
        (b"<html>no</html>", DEFAULT_LIMITS, "a web page"),
        (b"words, words, words", DEFAULT_LIMITS, "not a picture"),
        (b"", DEFAULT_LIMITS, "not a picture"),
        (encoded(smooth(64, 48), "JPEG")[:600], DEFAULT_LIMITS, "broken picture"),
        (encoded(smooth(64, 48), "JPEG"), Limits(max_pixels=3071), "too many pixels"),
        (encoded(smooth(64, 48), "JPEG"), Limits(max_bytes=100), "too many bytes"),
    ],
)
def test_what_is_no_image_leaves_nothing_and_has_a_cause(store, tmp_path, data, limits, cause):
    with pytest.raises(UnreadableError) as error:
        store(data, limits, resize=None)
    assert cause_of(error.value) == cause
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_original_that_is_cut_short_is_not_kept(store):
    whole = encoded(smooth(640, 480), "JPEG")
    with pytest.raises(UnreadableError, match=r"^broken JPEG: cut short$"):
        store(whole[: len(whole) * 2 // 3], resize=None)


@pytest.mark.parametrize(
    "image_id", ["../x", "a/../b", "/etc/x", "a//b", ".", "..", "a\\..\\b", ".lmr-partial/x", "a\0b"]
)
def test_an_id_that_leads_elsewhere_has_no_place(tmp_path, image_id):
    with pytest.raises(ValueError, match="leads out of the images folder"):
        Places(tmp_path, "flat").path(image_id)


def test_both_layouts_are_where_images_are_looked_for(tmp_path):
    assert Places(tmp_path, "flat").path("abcd") == f"{tmp_path}/abcd.jpg"
    assert Places(tmp_path, "google").path("abcd") == f"{tmp_path}/a/b/c/abcd.jpg"
    assert Places(tmp_path, "google").path("ab") == f"{tmp_path}/ab.jpg"
    assert Places(tmp_path, "google").path("x/abcd") == f"{tmp_path}/x/abcd.jpg"
