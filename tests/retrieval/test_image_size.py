"""The size that is told of an image is that of its decoded pixels, upright, in every format and orientation."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from made_images import encoded, smooth
from PIL import Image

from retrieval.images.codecs.pillow import PLUGINS
from retrieval.images.decode import decode, image_size

FORMATS = [
    *("JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "TGA", "JPEG2000", "ICO", "PCX", "SGI"),
    *("ICNS", "QOI", "DDS", "IM", "MSP", "SPIDER", "XBM", "DIB", "BLP"),
]
WITH_EXIF = ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"]


def exif_block(orientation: bytes, kind: int, count: int, order: str = "<") -> bytes:
    """EXIF with one entry. orientation: the 4 bytes of its value field, or what stands where they point to."""
    value, after = (orientation, b"") if len(orientation) <= 4 else (struct.pack(order + "I", 26), orientation)
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + value.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + start + struct.pack(order + "H", 1) + entry + bytes(4) + after


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", WITH_EXIF)
def test_orientation(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(64, 40), file_format, exif=exif)
    assert image_size(data) == decode(data).size == ((64, 40) if orientation < 5 else (40, 64))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(64, 40), (1, 1), (3, 500)])
def test_formats(file_format: str, size: tuple[int, int]) -> None:
    image = smooth(*size)
    if file_format in ("MSP", "XBM"):
        image = image.convert("1")
    elif file_format == "SPIDER":
        image = image.convert("F")
    elif file_format == "BLP":
        image = image.quantize(16)
    data = encoded(image, file_format, **({"sizes": [(size[0], min(size[1], 200))]} if file_format == "ICO" else {}))
    assert image_size(data) == decode(data).size


def test_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    for orientation in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        pillow_heif.from_pillow(smooth(64, 40)).save(file, exif=exif.tobytes())
        assert image_size(file.getvalue()) == decode(file.getvalue()).size


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "count", "value"),  # b"" = two numbers of 16 bits
    [
        (1, 1, b"\6"),  # BYTE
        (2, 2, b"6\0"),  # ASCII
        (4, 1, 6),  # LONG
        (5, 1, (6, 1)),  # RATIONAL
        (6, 1, b"\6"),  # SBYTE
        (7, 1, b"\6"),  # UNDEFINED
        (8, 1, b""),  # SSHORT
        (3, 2, b""),  # two of SHORT
    ],
)
def test_an_orientation_of_another_number_type_is_followed(kind: int, count: int, value: Any, order: str) -> None:
    if isinstance(value, tuple):
        value = struct.pack(order + "II", *value)
    elif isinstance(value, int):
        value = struct.pack(order + "I", value)
    data = encoded(
        smooth(64, 40), "JPEG", exif=exif_block(value or struct.pack(order + "HH", 6, 6), kind, count, order)
    )
    assert image_size(data) == decode(data).size == (40, 64)


@pytest.mark.parametrize("value", [0, 9, 77, 255])
def test_an_orientation_that_is_none_turns_nothing(value: int) -> None:
    data = encoded(smooth(64, 40), "JPEG", exif=exif_block(bytes([value]), 1, 1))
    assert image_size(data) == decode(data).size == (64, 40)


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_a_tiff_whose_orientation_is_of_another_number_type_is_turned_once(kind: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(smooth(64, 40), "TIFF", exif=exif)
    entry = struct.pack("<HHI", 0x0112, 3, 1)
    assert data.count(entry) == 1
    value = {1: b"\6\0\0\0", 2: b"6\0\0\0", 3: b"\6\0\0\0", 4: b"\6\0\0\0"}[kind]
    at = data.index(entry)
    data = data[:at] + struct.pack("<HHI", 0x0112, kind, 2 if kind == 2 else 1) + value + data[at + 12 :]
    assert image_size(data) == (40, 64)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(smooth(64, 40).transpose(Image.Transpose.ROTATE_270)))


def test_an_orientation_in_xmp_is_followed() -> None:
    data = encoded(smooth(64, 40), "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="6"/>')
    assert image_size(data) == decode(data).size == (40, 64)


def test_every_plugin_of_pillow_is_either_asked_or_not_for_a_reason() -> None:
    Image.init()
    not_asked = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
    assert set(Image.ID) <= {*PLUGINS, *not_asked, "HEIF"}
    assert not not_asked & set(PLUGINS)
