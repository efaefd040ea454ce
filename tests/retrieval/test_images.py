"""Decoding of every kind of image and its preparation, against pixels known beforehand."""

import io
import struct
import sys
import warnings
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import encoded, smooth
from PIL import Image, ImageOps

from retrieval.arrays import UInt8Array
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.decode import decode
from retrieval.images.limits import Limits
from retrieval.images.preprocess import fit, prepare
from retrieval.images.spec import ImageSpec

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(data: bytes) -> UInt8Array:
    return np.asarray(decode(data))


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode(data, **options)
    return str(caught.value)


def smooth_jpeg(width: int, height: int) -> bytes:
    return encoded(smooth(width, height), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 8),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
        ("TGA", {}, 0),
        ("ICO", {"sizes": [(64, 48)]}, 0),
        ("JPEG2000", {"irreversible": False}, 0),
    ],
)
def test_every_format_gives_the_image_back(file_format: str, options: dict[str, Any], tolerance: int) -> None:
    image = smooth(64, 48)
    result = decode(encoded(image, file_format, **options))
    assert (result.mode, result.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(result).astype(int) - np.asarray(image)).max() <= tolerance


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
        assert (pixels(data) == RED).all(), file_format


def test_a_jpeg_with_further_images_in_it_gives_the_first() -> None:
    data = encoded(smooth(300, 200), "MPO", save_all=True, append_images=[smooth(300, 200).rotate(180)], quality=95)
    assert np.abs(pixels(data).astype(int) - np.asarray(smooth(300, 200))).max() <= 6
    assert decode(data, min_side=50).size == (75, 50)


def test_cmyk_jpegs_of_adobe_are_not_inverted() -> None:
    data = encoded(smooth(64, 48).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(pixels(data).astype(int) - np.asarray(smooth(64, 48))).max() <= 8


def test_cmyk_jpegs_without_adobes_mark_are_taken_as_they_are() -> None:
    inverted = Image.fromarray(255 - np.asarray(smooth(64, 48).convert("CMYK")), mode="CMYK")
    data = encoded(inverted, "JPEG", quality=95)
    start = data.index(b"\xff\xee")  # APP14, Adobe's mark
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    without = data[:start] + data[start + 2 + length :]
    assert np.abs(pixels(without).astype(int) - np.asarray(smooth(64, 48))).max() <= 8


def test_cmyk_jpegs_are_decoded_at_reduced_scale_too() -> None:
    data = encoded(smooth(640, 480).convert("CMYK"), "JPEG", quality=95)
    result = decode(data, min_side=100)
    assert result.size == (160, 120)
    expected = np.asarray(smooth(640, 480).resize((160, 120), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(result) - expected).max() <= 8


def test_ycck_jpegs_have_the_right_colours() -> None:
    # libjpeg makes C = 255 - R of the R, G, B that it finds in YCC, K stays; Adobe's CMYK is inverted: R is the true C.
    # The file is a CMYK one with YCC in it and 2 (YCCK) as Adobe's colour transform.
    cmyk = np.asarray(smooth(64, 48).convert("CMYK"))
    ycc = np.asarray(Image.fromarray(cmyk[..., :3]).convert("YCbCr"))
    stored = np.concatenate([ycc, 255 - cmyk[..., 3:]], axis=-1)
    data = bytearray(encoded(Image.fromarray(255 - stored, mode="CMYK"), "JPEG", quality=95))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    assert np.abs(pixels(bytes(data)).astype(int) - np.asarray(smooth(64, 48))).max() <= 8


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    for file_format in ("PNG", "TIFF"):
        grey = pixels(encoded(Image.fromarray(values), file_format))
        assert grey[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255], file_format
        assert (grey == grey[..., :1]).all()


def test_16_bit_pgm_is_scaled() -> None:
    assert pixels(b"P5 2 1 65535\n" + bytes([0, 0, 255, 255]))[0, :, 0].tolist() == [0, 255]


def test_floating_point_is_stretched_over_its_finite_range() -> None:
    values = np.array([[-1.0, 0.0, 3.0, np.nan, np.inf]], dtype=np.float32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 64, 255, 0, 0]
    flat = np.full((1, 2), 7.0, dtype=np.float32)
    assert pixels(encoded(Image.fromarray(flat), "TIFF")).tolist() == [[[0, 0, 0]] * 2]


def test_transparency_becomes_white() -> None:
    rgba = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], dtype=np.uint8))
    assert pixels(encoded(rgba, "PNG"))[0].tolist() == [[255, 0, 0], [255, 255, 255], [255, 204, 204]]
    la = Image.fromarray(np.array([[[0, 255], [0, 0], [0, 51]]], dtype=np.uint8), mode="LA")
    assert pixels(encoded(la, "PNG"))[0, :, 0].tolist() == [0, 255, 204]


def test_palettes_are_resolved_with_and_without_a_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG"))[0].tolist() == [list(RED), list(GREEN)]
    for file_format in ("PNG", "GIF"):
        data = encoded(image, file_format, transparency=1)
        assert pixels(data)[0].tolist() == [list(RED), list(WHITE)], file_format


def test_a_transparent_colour_without_palette_becomes_white() -> None:
    rgb = Image.fromarray(np.array([[RED, GREEN]], dtype=np.uint8))
    assert pixels(encoded(rgb, "PNG", transparency=GREEN))[0].tolist() == [list(RED), list(WHITE)]
    grey = Image.fromarray(np.array([[5, 9]], dtype=np.uint8))
    assert pixels(encoded(grey, "PNG", transparency=9))[0, :, 0].tolist() == [5, 255]
    deep = Image.fromarray(np.array([[257, 514]], dtype=np.uint16))
    assert pixels(encoded(deep, "PNG", transparency=514))[0, :, 0].tolist() == [1, 255]


def test_grey_and_black_and_white_become_rgb() -> None:
    grey = Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
    assert pixels(encoded(grey, "PNG"))[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]
    assert pixels(encoded(grey.point(lambda v: 255 * (v > 99)).convert("1"), "PNG"))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(64, 40), file_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(smooth(64, 40), "PNG", exif=exif))))
    assert decode(data).size == ((64, 40) if orientation < 5 else (40, 64))
    assert np.abs(pixels(data).astype(int) - np.asarray(upright)).max() <= 12


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_scale_looks_at_the_shorter_side_of_rotated_images_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(800, 400), "JPEG", exif=exif)
    assert sorted(decode(data, min_side=100).size) == [100, 200]
    assert sorted(decode(data, min_side=101).size) == [200, 400]


def test_broken_exif_does_not_make_a_image_unreadable() -> None:
    data = encoded(smooth(64, 48), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(data).size == (64, 48)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_reduced_scale_leaves_at_least_what_is_needed_and_at_least_the_image(w: int, h: int, side: int) -> None:
    result = decode(smooth_jpeg(w, h), min_side=side)
    assert min(result.size) >= min(side, min(w, h))
    scale = next(s for s in (8, 4, 2, 1) if s == 1 or min(w, h) // side >= s)
    assert result.size == (-(-w // scale), -(-h // scale))


@pytest.mark.parametrize("fitting", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (64, 48), (1000, 30), (1, 1), (500, 1)])
def test_every_fit_gives_the_spec_s_size(fitting: Any, size: tuple[int, int]) -> None:
    result = prepare(smooth_jpeg(*size), ImageSpec(size=32, fit=fitting))
    assert result.shape == (32, 32, 3)
    assert result.dtype == np.uint8
    assert result.flags.writeable


def test_reduced_scale_changes_the_prepared_image_little() -> None:
    fits: tuple[Literal["squash", "crop", "pad"], ...] = ("squash", "crop", "pad")
    for fitting in fits:
        spec = ImageSpec(size=32, fit=fitting)
        from_jpeg = prepare(smooth_jpeg(640, 480), spec).astype(int)
        from_png = prepare(encoded(smooth(640, 480), "PNG"), spec)
        assert np.abs(from_jpeg - from_png).max() <= 6, fitting


def test_crop_takes_the_middle_square() -> None:
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    assert (prepare(encoded(image, "PNG"), ImageSpec(size=30, fit="crop")) == GREEN).all()


def test_pad_keeps_everything_on_the_mean_colour() -> None:
    image = Image.new("RGB", (40, 20), RED)
    result = prepare(encoded(image, "PNG"), ImageSpec(size=40, fit="pad", mean=(0.0, 1.0, 0.2)))
    assert (result[10:30] == RED).all()
    assert (result[:10] == (0, 255, 51)).all()
    assert (result[30:] == (0, 255, 51)).all()


@pytest.mark.parametrize(("fitting", "min_side"), [("squash", 100), ("crop", 100), ("pad", 13)])
def test_each_fit_decodes_at_the_scale_that_it_needs(fitting: Any, min_side: int) -> None:
    data, spec = smooth_jpeg(800, 100), ImageSpec(size=100, fit=fitting)
    assert np.array_equal(prepare(data, spec), np.asarray(fit(decode(data, min_side=min_side), spec)))


def test_squash_fills_the_square() -> None:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    result = prepare(encoded(image, "PNG"), ImageSpec(size=20))
    assert (result[:, :9] == RED).all()
    assert (result[:, 11:] == GREEN).all()


def test_making_smaller_averages_and_does_not_skip_pixels() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = prepare(encoded(Image.fromarray(stripes), "PNG"), ImageSpec(size=8))
    assert np.abs(result.astype(int) - 127).max() <= 12


def test_heic_without_its_extra_is_unreadable_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100)
    assert reason(data) == f"HEIC needs {install_hint('heic')}"


def test_heic_is_decoded_with_its_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(smooth(64, 48)).save(file, quality=95)
    assert np.abs(pixels(file.getvalue()).astype(int) - np.asarray(smooth(64, 48))).max() <= 12
    assert reason(file.getvalue(), limits=Limits(max_pixels=9)) == "64 x 48 pixels, over the limit of 9 pixels"


def radiance(width: int, height: int) -> bytes:
    """A plain Radiance HDR: mantissas of red, green and blue and their exponent, 129 = times 2 / 256."""
    return (
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (height, width)
        + bytes((0, 0, 127, 129)) * width * height
    )


def test_radiance_hdr_goes_to_opencv() -> None:
    pytest.importorskip("cv2")
    blue = pixels(radiance(4, 3))
    assert blue.shape == (3, 4, 3)
    assert (np.abs(blue.astype(int) - (0, 0, 254)) <= 1).all()
    assert reason(radiance(4, 3), limits=Limits(max_pixels=11)) == "4 x 3 pixels, over the limit of 11 pixels"
    assert reason(radiance(4, 3)[:-8]) == "broken Radiance HDR: OpenCV cannot decode it"


class TestImageSpec:
    def test_json_gives_it_back(self) -> None:
        spec = ImageSpec(size=320, fit="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3), resample="bicubic")
        assert ImageSpec.from_json(spec.to_json()) == spec
        assert ImageSpec().to_json() == {
            "size": 224,
            "fit": "squash",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "resample": "bilinear",
            "colors": "srgb",
        }

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"siz": 3}, "image_spec: unknown key 'siz'; did you mean size?"),
            ({"zzz": 3}, "image_spec: unknown key 'zzz'; it takes size, fit, mean, std, resample, colors"),
            ({"size": 0}, "image_spec: size must be a positive whole number up to 8192, got 0"),
            ({"size": "224"}, "image_spec: size must be a positive whole number up to 8192, got '224'"),
            ({"fit": "stretch"}, "image_spec: fit must be squash, crop or pad, got 'stretch'"),
            ({"resample": "box"}, "image_spec: resample must be bilinear or bicubic, got 'box'"),
            ({"colors": "lab"}, "image_spec: colors must be srgb or as-stored, got 'lab'"),
            ({"mean": [0.5, 0.5]}, "image_spec: mean must be three numbers in [0, 1], got (0.5, 0.5)"),
            ({"std": [0.5, 0.5, 0]}, "image_spec: std must be three positive numbers, got (0.5, 0.5, 0)"),
        ],
    )
    def test_a_wrong_entry_is_named(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(LmrError) as caught:
            ImageSpec.from_json(ImageSpec().to_json() | change)
        assert str(caught.value) == message

    def test_a_missing_entry_is_named(self) -> None:
        content = ImageSpec().to_json()
        del content["std"]
        with pytest.raises(LmrError) as caught:
            ImageSpec.from_json(content)
        assert str(caught.value) == "image_spec: std missing; it takes size, fit, mean, std, resample, colors"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_what_is_made_of_the_pixels_carries_nothing_else_of_the_file(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "somewhere"
    how = {"exif": exif} if file_format != "GIF" else {}
    data = encoded(smooth(64, 48), file_format, comment=b"somewhere", description="somewhere", **how)
    assert b"somewhere" in data
    for other in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        assert b"somewhere" not in encoded(decode(data), other)
