"""Colours are those that an image's profile means; models made before see them as they saw them then."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_images import encoded, smooth
from made_profiles import ADOBE_RGB, DISPLAY_P3, PROPHOTO, SRGB, Matrix, grey_profile, rgb_profile
from PIL import Image, ImageCms

from retrieval.arrays import UInt8Array
from retrieval.images.decode import decode
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models.card import ModelCard
from retrieval.models.config import ModelConfig
from retrieval.models.folder import read_card

PROFILES = [(ADOBE_RGB, 2.19921875), (DISPLAY_P3, None), (PROPHOTO, 1.8)]


def worst(one: UInt8Array, other: UInt8Array) -> int:
    return int(np.abs(one.astype(int) - other).max())


def mean_difference(one: UInt8Array, other: UInt8Array) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def as_seen(data: bytes, **options: Any) -> UInt8Array:
    return np.asarray(decode(data, **options))


def in_space(image: Image.Image, primaries: Matrix, gamma: float | None) -> UInt8Array:
    """The same colours in another space, by the definition: sRGB to linear, to XYZ, to the space, to its curve."""
    values = np.asarray(image) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    there = linear @ np.array(SRGB) @ np.linalg.inv(np.array(primaries))
    there = np.clip(there, 0, 1)
    curved = (
        np.where(there <= 0.0031308, 12.92 * there, 1.055 * there ** (1 / 2.4) - 0.055)
        if gamma is None
        else there ** (1 / gamma)
    )
    return np.rint(255 * curved).astype(np.uint8)


@pytest.mark.parametrize(("primaries", "gamma"), PROFILES)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_a_image_in_another_space_has_the_colours_of_the_same_in_srgb(
    primaries: Matrix, gamma: float | None, file_format: str
) -> None:
    image = smooth(64, 48)
    stored = Image.fromarray(in_space(image, primaries, gamma))
    options = {"quality": 100} | ({"lossless": True} if file_format == "WEBP" else {})
    options |= {"subsampling": "4:4:4"} if file_format in ("JPEG", "AVIF") else {}
    data = encoded(stored, file_format, icc_profile=rgb_profile(primaries, gamma), **options)
    assert mean_difference(as_seen(data), np.asarray(image)) < 2
    assert mean_difference(as_seen(data, colors="as-stored"), np.asarray(stored)) < 2
    assert mean_difference(np.asarray(stored), np.asarray(image)) > 4


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        rgb_profile(ADOBE_RGB, 2.2)[:200],
        grey_profile(1.0),  # of grey, in an image of colours
        rgb_profile(SRGB, None),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
)
def test_profiles_that_are_srgb_broken_or_of_another_kind_change_no_pixel(profile: bytes) -> None:
    assert np.array_equal(as_seen(encoded(smooth(64, 48), "PNG", icc_profile=profile)), np.asarray(smooth(64, 48)))


def test_grey_follows_its_profile() -> None:
    grey = Image.fromarray(np.array([[0, 64, 128, 255]], dtype=np.uint8))
    # Linear light 64 / 255 is 137 in sRGB, 128 / 255 is 188.
    for mode, of in (("L", grey), ("LA", grey.convert("LA"))):
        data = encoded(of, "PNG", icc_profile=grey_profile(1.0))
        assert worst(as_seen(data)[0], np.array([[v] * 3 for v in (0, 137, 188, 255)])) <= 1, mode
    assert as_seen(encoded(grey, "PNG", icc_profile=grey_profile(1.0)), colors="as-stored")[0, :, 0].tolist() == [
        0,
        64,
        128,
        255,
    ]


def test_grey_and_palettes_follow_a_profile_of_colours() -> None:
    linear = rgb_profile(SRGB, 1.0)
    grey = Image.fromarray(np.array([[64, 128]], dtype=np.uint8))
    for of in (grey, grey.convert("RGB").quantize(4), grey.convert("RGBA")):
        assert worst(as_seen(encoded(of, "PNG", icc_profile=linear))[0, :, 0], np.array([137, 188])) <= 1, of.mode


def test_the_profile_counts_at_reduced_scale_and_when_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(in_space(smooth(640, 480), ADOBE_RGB, 2.19921875))
    data = encoded(stored, "JPEG", quality=95, exif=exif, icc_profile=rgb_profile(ADOBE_RGB, 2.19921875))
    expected = np.asarray(smooth(640, 480).rotate(-90, expand=True).resize((120, 160), Image.Resampling.BOX))
    assert worst(as_seen(data, min_side=100), expected) <= 10


def test_lab_becomes_rgb() -> None:
    lab = Image.new("LAB", (4, 3), (127, 128, 128))
    assert worst(as_seen(encoded(lab, "TIFF")), np.full((3, 4, 3), 119, np.uint8)) <= 2  # L* = 50 is 119 in sRGB


def test_a_spec_made_before_there_was_a_choice_takes_colours_as_they_are_stored() -> None:
    old = ImageSpec().to_json()
    del old["colors"]
    assert ImageSpec.from_json(old).colors == "as-stored"
    assert ImageSpec.from_json(old).to_json() == old
    profile = rgb_profile(SRGB, 1.0)
    data = encoded(Image.new("RGB", (8, 8), (64, 64, 64)), "PNG", icc_profile=profile)
    assert (prepare(data, ImageSpec.from_json(old)) == 64).all()
    assert worst(prepare(data, ImageSpec()), np.full((224, 224, 3), 137, np.uint8)) <= 1


def test_a_card_written_before_there_was_a_choice_keeps_its_fingerprint(tmp_path: Path) -> None:
    config = ModelConfig("plain-cnn").to_json()
    spec = {"size": 32, "fit": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resample": "bilinear"}
    made_of = {"config": config, "image_spec": spec, "weights": "a" * 64, "flip": False, "descriptor": "neck"}
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    card = {"format_version": 1, "fingerprint": fingerprint, "config": config, "image_spec": spec}
    card |= {"weights_sha256": "a" * 64, "flip": False, "descriptor": "neck", "scales": [1.0], "made_by": {}}
    (tmp_path / "model.json").write_text(json.dumps(card))
    assert read_card(tmp_path).fingerprint == fingerprint
    assert read_card(tmp_path).image_spec.colors == "as-stored"
    assert read_card(tmp_path).to_json() == card


def test_the_fingerprint_covers_the_colours() -> None:
    cards = [
        ModelCard(ModelConfig("plain-cnn"), ImageSpec(colors=colors), "a" * 64) for colors in ("srgb", "as-stored")
    ]
    assert cards[0].fingerprint != cards[1].fingerprint
