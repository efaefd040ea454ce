"""What is read although something around its pixels is broken or missing, and what is not since pixels are."""

import io
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from made_images import encoded, smooth
from made_profiles import SRGB, rgb_profile
from PIL import Image

from retrieval.arrays import UInt8Array
from retrieval.errors import UnreadableError
from retrieval.images.codecs.how import How
from retrieval.images.codecs.opencv import open_with_opencv
from retrieval.images.codecs.orientation import ORIENTATION
from retrieval.images.codecs.pillow import decode_opened
from retrieval.images.decode import decode, image_size

PNG = encoded(smooth(60, 40), "PNG")
EOI = b"\xff\xd9"
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 3},
    "fine": {"quality": 98, "subsampling": 0},
}


def pixels(data: bytes) -> UInt8Array:
    return np.asarray(decode(data))


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode(data)
    return str(caught.value)


def chunk(kind: bytes, content: bytes, *, sound: bool = True) -> bytes:
    """A chunk of a PNG. sound: its check sum is right."""
    crc = zlib.crc32(kind + content) ^ (not sound)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def with_chunk(kind: bytes, content: bytes, *, sound: bool = True, data: bytes = PNG) -> bytes:
    """A PNG with a further chunk behind its header."""
    return data[:33] + chunk(kind, content, sound=sound) + data[33:]


LARGE = bytes(1_200_000)
VARIANTS = {
    "a long compressed text": (b"zTXt", b"a\0\0" + zlib.compress(LARGE)),
    "a long text": (b"iTXt", b"a\0\0\0\0\0" + LARGE),
    "a long compressed international text": (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(LARGE)),
    "a text compressed in an unknown way": (b"zTXt", b"a\0\7" + zlib.compress(b"b")),
    "a compressed text that is broken": (b"zTXt", b"a\0\0broken"),
    "a long profile": (b"iCCP", b"a\0\0" + zlib.compress(LARGE)),
    "a profile compressed in an unknown way": (b"iCCP", b"a\0\1" + zlib.compress(b"b")),
    "an empty profile": (b"iCCP", b""),
    "a short gamma": (b"gAMA", b"\0\0"),
    "short chromaticities": (b"cHRM", b"\0\0"),
    "an empty sRGB": (b"sRGB", b""),
    "a short resolution": (b"pHYs", b"\0\0"),
    "an animation without frames": (b"acTL", b"\0\0"),
    "a short frame": (b"fcTL", b"\0\0"),
    "an empty EXIF": (b"eXIf", b""),
    "an unknown chunk": (b"quIz", b"?"),
}


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_describes_a_png_does_not_make_it_unreadable(name: str, sound: bool) -> None:
    kind, content = VARIANTS[name]
    data = with_chunk(kind, content, sound=sound)
    assert np.array_equal(pixels(data), np.asarray(smooth(60, 40)))
    assert image_size(data) == (60, 40)


def test_a_png_is_read_that_ends_before_its_end_chunk() -> None:
    assert np.array_equal(pixels(PNG[:-12]), np.asarray(smooth(60, 40)))


def test_what_can_be_read_around_a_broken_chunk_of_a_png_counts() -> None:
    broken = with_chunk(b"gAMA", b"\0\0")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(with_chunk(b"eXIf", exif.tobytes()[6:], data=broken)).size == (40, 60)
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="8"/>' + LARGE
    assert decode(with_chunk(b"iTXt", xmp)).size == image_size(with_chunk(b"iTXt", xmp)) == (40, 60)
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<tiff:Orientation>6</tiff:Orientation>" + LARGE)
    assert decode(with_chunk(b"iTXt", packed)).size == (40, 60)
    linear = b"a\0\0" + zlib.compress(rgb_profile(SRGB, 1.0))
    grey = with_chunk(b"gAMA", b"\0", data=encoded(Image.new("RGB", (2, 2), (64, 64, 64)), "PNG"))
    assert np.abs(pixels(with_chunk(b"iCCP", linear, data=grey)).astype(int) - 137).max() <= 1
    palette = encoded(Image.new("P", (2, 2)), "PNG", transparency=0)
    assert (pixels(with_chunk(b"gAMA", b"\0", data=palette)) == 255).all()


def test_a_png_whose_pixels_are_cut_short_stays_unreadable() -> None:
    noise = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)), "PNG")
    assert reason(noise[:4000]) == "broken PNG: cut short"
    assert reason(with_chunk(b"gAMA", b"\0\0", data=noise)[:4000]) == "broken PNG: cut short"


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_without_its_end_marker_is_read(name: str, grey: bool) -> None:
    whole = encoded(smooth(150, 101).convert("L" if grey else "RGB"), "JPEG", **JPEGS[name])
    assert whole.endswith(EOI)
    for end in (b"", b"\xff", bytes(5000), b"\xff" * 300, b"appended text", b"\xff\xd8\xff\xe0 another"):
        data = whole[:-2] + end
        assert np.array_equal(pixels(data), pixels(whole)), end[:4]
        assert image_size(data) == (150, 101)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_whose_last_scan_is_cut_short_stays_unreadable(name: str) -> None:
    whole = encoded(smooth(150, 101), "JPEG", **JPEGS[name])
    start = whole.rindex(b"\xff\xda")
    rng = random.Random(name)
    cuts = {len(whole) - 2 - n for n in (3, 5, 9, 20)} | {rng.randrange(start + 14, len(whole) - 8) for _ in range(12)}
    for cut in cuts:
        for end in (b"", bytes(9000)):
            assert reason(whole[:cut] + end) == "broken JPEG: cut short", (cut, len(whole), end[:1])


def test_a_progressive_jpeg_that_lacks_scans_stays_unreadable() -> None:
    whole = encoded(smooth(150, 101), "JPEG", progressive=True)
    assert reason(whole[: whole.rindex(b"\xff\xda")]) == "broken JPEG: cut short"


@pytest.mark.parametrize("name", [name for name in JPEGS if "progressive" not in name])
@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_whose_scan_is_cut_short_before_its_end_marker_is_not_filled_up_with_grey(name: str, grey: bool) -> None:
    whole = encoded(smooth(150, 101).convert("L" if grey else "RGB"), "JPEG", **JPEGS[name])
    start = whole.rindex(b"\xff\xda")
    rng = random.Random(name)
    cuts = {len(whole) - 22, *(rng.randrange(start + 14, len(whole) - 22) for _ in range(12))}
    for cut in cuts:
        for end in (EOI, EOI + b"appended text", EOI + whole):
            assert reason(whole[:cut] + end) == "broken JPEG: cut short", (cut, len(whole), end[2:4])
    missing = whole[: start + 100] + whole[start + 400 :]
    assert name == "restarts" or reason(missing) == "broken JPEG: cut short"


def test_a_jpeg_with_another_image_behind_it_is_read() -> None:
    whole = encoded(smooth(150, 101), "JPEG")
    for end in (b"appended text", whole, EOI, b"\xff\xda"):
        assert np.array_equal(pixels(whole + end), pixels(whole))


@pytest.mark.parametrize("name", ["progressive", "progressive restarts"])
def test_a_progressive_jpeg_may_lack_the_end_of_its_last_bits_but_no_scan(name: str) -> None:
    whole = encoded(smooth(150, 101), "JPEG", **JPEGS[name])
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for start, end in itertools.pairwise(scans):
        for cut in (start, (start + 14 + end) // 2):
            assert reason(whole[:cut] + EOI) == "broken JPEG: cut short"
    if name == "progressive":
        without_last_bits = pixels(whole[: scans[-1] + 16] + EOI).astype(int)
        assert np.abs(without_last_bits - pixels(whole)).max() <= 16


def test_the_first_of_several_images_is_read_that_lacks_its_end_marker() -> None:
    several = encoded(smooth(150, 101), "MPO", save_all=True, append_images=[smooth(150, 101).rotate(180)])
    second = several.index(b"\xff\xd8\xff", 2)
    assert several[second - 2 : second] == EOI
    assert np.array_equal(pixels(several[: second - 2] + several[second:]), pixels(several[:second]))


def test_a_jpeg_without_its_end_marker_is_turned_and_coloured_as_it_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.new("RGB", (60, 40), (64, 64, 64))
    data = encoded(grey, "JPEG", exif=exif, icc_profile=rgb_profile(SRGB, 1.0))[:-2]
    assert pixels(data).shape == (60, 40, 3)
    assert np.abs(pixels(data).astype(int) - 137).max() <= 1
    assert image_size(data) == (40, 60)
    assert decode(encoded(smooth(800, 400), "JPEG")[:-2], min_side=100).size == (200, 100)


def bmp(bits: int, compression: int, pixels_: bytes, masks: bytes = b"") -> bytes:
    """A BMP of 2 x 2 pixels with a header of 40 bytes."""
    start = 14 + 40 + len(masks)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, bits, compression, len(pixels_), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels_), 0, 0, start) + header + masks + pixels_


def test_a_bmp_with_colours_in_an_order_of_its_own_is_read_and_one_that_is_cut_short_is_not() -> None:
    masks = struct.pack("<III", 0x0000FF00, 0x00FF0000, 0x000000FF)  # an order that Pillow does not know
    data = bmp(32, 3, struct.pack("<4I", 0x0000FF00, 0x00FF0000, 0x000000FF, 0x00221133), masks)
    with pytest.raises(OSError, match="Unsupported BMP"):
        Image.open(io.BytesIO(data))
    # Rows are stored from below.
    assert pixels(data).tolist() == [[[0, 0, 255], [17, 34, 51]], [[255, 0, 0], [0, 255, 0]]]
    assert image_size(data) == (2, 2)
    assert reason(data[:-3]) == "broken BMP: Unsupported BMP bitfields layout"
    few = struct.pack("<III", 0xC000, 0x3800, 0x0007)  # 2 bits of red, 3 of green and of blue
    assert pixels(bmp(16, 3, struct.pack("<4H", 0xC000, 0x3800, 7, 0x4801), few)).tolist() == [
        [[0, 0, 255], [85, 36, 36]],
        [[255, 0, 0], [0, 255, 0]],
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright_once_by_whichever_decoder_reads_it(orientation: int) -> None:
    pytest.importorskip("cv2")
    buffer = io.BytesIO()
    smooth(60, 40).save(buffer, "TIFF", tiffinfo={ORIENTATION: orientation})
    opened = open_with_opencv(buffer.getvalue(), How(), lambda: "")
    upright = decode_opened(opened, How(), shrink=False)
    assert np.array_equal(np.asarray(upright), pixels(buffer.getvalue()))


def test_a_format_that_only_opencv_knows_the_header_of_is_read_and_no_file_that_is_cut_short() -> None:
    pytest.importorskip("cv2")
    plain = encoded(smooth(60, 40), "BMP")
    odd = plain[:10] + struct.pack("<II", 54 + 8, 48) + plain[18:54] + bytes(8) + plain[54:]  # a header of 48 bytes
    with pytest.raises(OSError, match="Unsupported BMP header type"):
        Image.open(io.BytesIO(odd))
    assert np.array_equal(pixels(odd), np.asarray(smooth(60, 40)))
    assert image_size(odd) == (60, 40)
    for cut in (1, 100, 5000):
        assert reason(odd[:-cut]) == "broken BMP: Unsupported BMP header type (48)"
