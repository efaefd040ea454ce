"""What is refused, by its limits or because it is broken; part of the tests of retrieval/images.py."""

import random
import struct
import warnings
import zlib
from typing import Any

import pytest
from made_images import encoded, smooth
from PIL import Image

from retrieval.errors import UnreadableError
from retrieval.images.decode import decode
from retrieval.images.limits import Limits


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode(data, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page, not a picture"),
        (b"\xef\xbb\xbf\n <html>", "a web page, not a picture"),
        (b"no picture at all", "not a picture in a known format"),
        (b"ab", "not a picture in a known format"),
        (bytes(4000), "not a picture in a known format"),
        (b"\xff\xd8\xff", "broken JPEG: no picture in it"),
        (encoded(smooth(200, 200), "JPEG")[:700], "broken JPEG: cut short"),
        (encoded(smooth(200, 200), "PNG")[:300], "broken PNG: cut short"),
        (encoded(smooth(200, 200), "TIFF")[:-300], "broken TIFF: cut short"),
        (encoded(smooth(200, 200), "BMP")[:300], "broken BMP: cut short"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture in a known format"),
    ],
)
def test_what_is_no_image_is_unreadable_with_its_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_the_limit_on_bytes_is_kept() -> None:
    data = encoded(smooth(8, 8), "PNG")
    assert decode(data, limits=Limits(max_bytes=len(data))).size == (8, 8)
    message = f"{len(data)} bytes, over the limit of {len(data) - 1}"
    assert reason(data, limits=Limits(max_bytes=len(data) - 1)) == message


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_the_limit_on_pixels_is_that_of_the_file_and_not_of_the_reduced_scale(file_format: str) -> None:
    data = encoded(smooth(80, 50), file_format)
    assert decode(data, min_side=5, limits=Limits(max_pixels=4000)).mode == "RGB"
    message = "80 x 50 pixels, over the limit of 3,999 pixels"
    assert reason(data, min_side=5, limits=Limits(max_pixels=3999)) == message


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_a_decompression_bomb_is_refused_by_its_header_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(png_header(60_000, 60_000)) == "60000 x 60000 pixels, over the limit of 178,956,970 pixels"
        # Pillow itself would warn from 89,478,486 pixels on.
        assert reason(png_header(12_000, 10_000), limits=Limits(max_pixels=110_000_000)) == (
            "12000 x 10000 pixels, over the limit of 110,000,000 pixels"
        )


def test_pillow_s_own_pixel_limit_neither_counts_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for file_format in ("JPEG", "PNG", "BMP"):
        assert decode(encoded(smooth(64, 48), file_format)).size == (64, 48), file_format
    assert Image.MAX_IMAGE_PIXELS == 10


FUZZED = {
    "JPEG": encoded(smooth(40, 30), "JPEG"),
    "progressive": encoded(smooth(40, 30), "JPEG", progressive=True),
    "CMYK": encoded(smooth(40, 30).convert("CMYK"), "JPEG"),
    "PNG": encoded(smooth(40, 30), "PNG"),
    "palette": encoded(smooth(40, 30).quantize(16), "PNG", transparency=3),
    "WEBP": encoded(smooth(40, 30), "WEBP"),
    "GIF": encoded(smooth(40, 30), "GIF"),
    "TIFF": encoded(smooth(40, 30), "TIFF", compression="tiff_lzw"),
    "plain TIFF": encoded(smooth(40, 30), "TIFF"),
    "BMP": encoded(smooth(40, 30), "BMP"),
    "ICO": encoded(smooth(32, 32), "ICO"),
    "TGA": encoded(smooth(40, 30), "TGA"),
    "PPM": encoded(smooth(40, 30), "PPM"),
    "JPEG2000": encoded(smooth(40, 30), "JPEG2000"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUZZED)
def test_damaged_files_are_decoded_or_unreadable_and_nothing_else(name: str) -> None:
    rng = random.Random(name)
    whole = FUZZED[name]
    reasons = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((0, 1, 1, 3, 20))):
            data[rng.randrange(min(len(data), rng.choice((40, 10**6))))] = rng.randrange(256)
        del data[rng.choice((len(data), rng.randrange(len(data)))) :]
        try:
            assert decode(bytes(data), min_side=10, limits=Limits(max_pixels=10**6)).mode == "RGB"
        except UnreadableError as error:
            reasons.append(str(error))
    assert len(reasons) > 5
    assert all(0 < len(reason) < 150 and "\n" not in reason for reason in reasons)
