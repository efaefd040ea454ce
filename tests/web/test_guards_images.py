"""Images that are none, or too much, or carry more than pixels: what a server says of them, and what it sends out."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from made_images import encoded, smooth
from PIL import Image, ImageCms, PngImagePlugin
from tiny_set import done

from cli.web.app import make_app
from cli.web.limits import image_limits
from cli.web.settings import WebSettings
from index.serving.config import ServingSettings
from index.serving.service import Service
from retrieval.images.limits import Limits

JPEG = encoded(smooth(200, 150), "JPEG")
GPS = b"GPS-51.5007N-0.1246W"  # as it stands in the bytes of a file
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PAGE = b"<!DOCTYPE html><html><script>alert(1)</script></html>"


def png(width: int, height: int, content: bytes) -> bytes:
    """A PNG that claims a size and holds this, deflated."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(content)),
        (b"IEND", b""),
    )
    made = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def located(image: Image.Image) -> bytes:
    """A JPEG that says in EXIF, XMP and a comment where and by whom it was taken."""
    exif = Image.Exif()
    exif[0x010E] = GPS.decode()
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 2.5), 3: "W", 4: (0.0, 7.0, 28.0), 29: GPS.decode()}
    return encoded(image, "JPEG", exif=exif, xmp=b"<x:xmpmeta>" + GPS + b"</x:xmpmeta>", comment=GPS)


def asked(client: TestClient, data: bytes, kind: str = "image/jpeg") -> dict[str, Any]:
    response = client.post("/v1/query", content=data, headers={"Content-Type": kind})
    assert response.status_code == 200
    (answer,) = response.json()
    return dict(answer)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[:700], "broken JPEG: cut short"),
        (b"no image", "not a picture in a known format"),
        (SVG, "a web page, not a picture"),
        (PAGE, "a web page, not a picture"),
        (PAGE + JPEG, "a web page, not a picture"),
        (b"%PDF-1.7\n" + JPEG, "not a picture in a known format"),
        (b"PK\x03\x04" + JPEG, "not a picture in a known format"),
        (png(60_000, 60_000, bytes(9999)), "60000 x 60000 pixels, over the limit of 50,000,000 pixels"),
        (png(2**31 - 1, 1, b""), "2147483647 x 1 pixels, over the limit of 50,000,000 pixels"),
        (png(7000, 7000, bytes(50_000)), "broken PNG: cut short"),
    ],
)
def test_what_is_no_image_or_too_much_is_an_answer_that_says_why(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str
) -> None:
    monkeypatch.setattr(service, "limits", image_limits(WebSettings()))
    answer = asked(client, data)
    assert (answer["unreadable"], answer["landmark_id"], answer["neighbours"]) == (reason, None, [])


@pytest.mark.parametrize("words", ["", "?top=3"])
def test_the_limit_on_pixels_is_that_of_the_server(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(service, "limits", Limits(max_pixels=29_999))
    (answer,) = client.post(f"/v1/query{words}", content=JPEG).json()
    assert answer["unreadable"] == "200 x 150 pixels, over the limit of 29,999 pixels"
    boxed = {"images": [{"data": "data:image/jpeg;base64," + _base64(JPEG), "box": [0, 0, 0.5, 0.5]}]}
    (answer,) = client.post("/v1/query", json=boxed).json()
    assert answer["unreadable"] == "200 x 150 pixels, over the limit of 29,999 pixels"


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_what_the_server_decodes_is_limited_by_its_settings() -> None:
    settings = WebSettings(max_upload_mb=2, max_pixels=1000, timeout_s=9)
    assert image_limits(settings) == Limits(max_bytes=2_000_000, max_pixels=1000, max_seconds=3)
    assert image_limits(WebSettings(timeout_s=1)).max_seconds == 1


def profile(n_bytes: int) -> bytes:
    """A colour profile with so many bytes behind it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(n_bytes)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("with a web page behind it", JPEG + PAGE),
        ("with an archive behind it", JPEG + b"PK\x05\x06" + bytes(18)),
        ("with a huge profile", encoded(smooth(200, 150), "JPEG", icc_profile=profile(1_000_000))),
        ("with a profile that is none", encoded(smooth(200, 150), "JPEG", icc_profile=b"x" * 100_000)),
        ("with as much EXIF as there can be", encoded(smooth(200, 150), "JPEG", exif=b"Exif\0\0" + b"\xff" * 65_000)),
        ("with a place", located(smooth(200, 150))),
        ("with another name", JPEG),
    ],
)
def test_an_image_that_carries_more_is_answered_by_its_pixels(client: TestClient, name: str, data: bytes) -> None:
    assert asked(client, data, "image/gif")["neighbours"] == asked(client, JPEG)["neighbours"]


def test_of_an_animation_the_first_image_is_asked(client: TestClient) -> None:
    first, rest = smooth(100, 80).quantize(16), [Image.new("RGB", (100, 80), color) for color in ("red", "blue")]
    one = asked(client, encoded(first, "PNG"))["neighbours"]
    for file_format, how in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        moving = encoded(first.convert("RGB"), file_format, save_all=True, append_images=rest, **how)
        assert asked(client, moving)["neighbours"] == one, file_format


def test_a_text_chunk_that_unpacks_to_much_is_not_unpacked(client: TestClient) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "x" * 30_000_000, zip=True)
    assert asked(client, encoded(smooth(200, 150), "PNG", pnginfo=info))["unreadable"] in (None, "broken PNG: text")


@pytest.fixture(scope="module")
def located_index(tmp_path_factory: pytest.TempPathFactory, finished_set: Path) -> Path:
    """An index of images that all say where they were taken."""
    folder = tmp_path_factory.mktemp("located")
    for label in ("arch", "dome"):
        (folder / "images" / label).mkdir(parents=True)
        for path in sorted((finished_set / "images").glob(f"train-{label}-*.jpg")):
            with Image.open(path) as image:
                (folder / "images" / label / path.name).write_bytes(located(image.convert("RGB")))
    words = ("--workers", "1", "--threads", "1", "--device", "cpu")
    model = ("--model", finished_set / "landmarks" / "model")
    done("embed", folder / "images", *model, "--output", folder / "all.h5", *words)
    done("build-index", folder / "all.h5", "--output", folder / "landmarks", *model, "--device", "cpu")
    return folder


def test_no_image_that_is_sent_says_where_it_was_taken(located_index: Path) -> None:
    service = Service(located_index / "landmarks", ServingSettings(), device="cpu", threads=1)
    app = make_app(service, WebSettings(allow_originals=True))
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        image = next((located_index / "images" / "arch").iterdir()).read_bytes()
        assert GPS in image
        answer = client.post("/v1/query", content=image).json()[0]
        for near in answer["neighbours"]:
            for size in ("thumbnail", "original"):
                sent = client.get(f"/v1/images/{near['image_id']}?size={size}")
                assert (sent.status_code, sent.headers["content-type"]) == (200, "image/jpeg")
                assert_bare(sent.content)
        page = client.post("/ask", files={"image": ("a.jpg", image)}).text
    assert GPS.decode() not in page
    assert str(located_index) not in page


def assert_bare(data: bytes) -> None:
    """Fails for an image that carries more than pixels, a size in dots, and a profile."""
    assert GPS not in data
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif()
        assert image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "icc_profile"}


def test_answers_do_not_say_where_files_lie(
    client: TestClient, finished_set: Path, client_of: Callable[..., Any]
) -> None:
    image = (finished_set / "images/test-arch-0.jpg").read_bytes()
    for path in ("/v1/query", "/v1/query?top=2", "/v1/search", "/ask"):
        kind: dict[str, Any] = {"files": {"image": ("a.jpg", image)}} if path == "/ask" else {"content": image}
        told = client.post(path, **kind)
        assert told.status_code == 200
        assert str(finished_set) not in told.text
    for path in ("/v1/landmarks", "/v1/landmarks/arch", "/v1/images/none", "/", "/openapi.json", "/metrics"):
        assert str(finished_set) not in client.get(path).text
