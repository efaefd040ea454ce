"""Addresses of pictures of Wikimedia."""

import pytest
from yarl import URL

from retrieval.download.config import Form
from retrieval.download.hosts import HostQueue, Job
from retrieval.download.wikimedia import BYTES_A_SECOND, address_of, instead, larger, names_contact, queue_of

BASE = "https://upload.wikimedia.org/wikipedia/commons"
LONG = "%C3%A4" * 80 + ".JPG"  # 164 bytes


@pytest.mark.parametrize(
    ("path", "thumbnail"),
    [
        ("a/ab/Tower.jpg", "a/ab/Tower.jpg/330px-Tower.jpg"),
        ("a/ab/Tower_%282%29.JPG?x=1#y", "a/ab/Tower_%282%29.JPG/330px-Tower_%282%29.JPG"),
        ("a/ab/Tower.svg", "a/ab/Tower.svg/330px-Tower.svg.png"),
        ("a/ab/Tower.webp", "a/ab/Tower.webp/330px-Tower.webp.png"),
        ("a/ab/Tower.tif", "a/ab/Tower.tif/lossy-page1-330px-Tower.tif.jpg"),
        (f"a/ab/{LONG}", f"a/ab/{LONG}/330px-thumbnail.jpg"),
        ("thumb/a/ab/Tower.jpg/1024px-Tower.jpg", "a/ab/Tower.jpg/330px-Tower.jpg"),
        ("thumb/a/ab/Book.pdf/page7-1024px-Book.pdf.jpg", "a/ab/Book.pdf/page7-330px-Book.pdf.jpg"),
    ],
)
def test_a_picture_has_thumbnails_by_its_kind(path, thumbnail):
    assert str(address_of(URL(f"{BASE}/{path}", encoded=True), Form())) == f"{BASE}/thumb/{thumbnail}"


@pytest.mark.parametrize(
    "url",
    [
        f"{BASE}/a/ab/Tower.ogv",
        f"{BASE}/archive/a/ab/20120101000000%21Tower.jpg",
        "https://commons.wikimedia.org/wiki/File:Tower.jpg",
        "https://example.org/wikipedia/commons/a/ab/Tower.jpg",
    ],
)
def test_what_has_no_thumbnails_is_fetched_as_it_is(url):
    assert str(address_of(URL(url, encoded=True), Form())) == url


@pytest.mark.parametrize(
    ("form", "width"),
    [
        (Form(size=250), 250),
        (Form(size=251), 330),
        (Form(resize="square-pad", size=960), 960),
        (Form(resize="shorter", size=224), 500),  # 336 of a picture of 3:2
        (Form(resize="center-crop", size=220), 330),
        (Form(size=3841), None),
    ],
)
def test_the_narrowest_thumbnail_with_the_pixels_of_the_form_is_chosen(form, width):
    name = "a/ab/Tower.jpg" if width is None else f"thumb/a/ab/Tower.jpg/{width}px-Tower.jpg"
    assert str(address_of(URL(f"{BASE}/a/ab/Tower.jpg"), form)) == f"{BASE}/{name}"


def test_originals_that_are_kept_are_fetched_and_thumbnails_in_the_next_width():
    kept, base = Form(resize=None), URL(BASE)
    assert address_of(base / "a/ab/Tower.jpg", kept) == base / "a/ab/Tower.jpg"
    for width, made in ((800, 960), (330, 330), (5, 20)):
        asked = base / f"thumb/a/ab/Tower.jpg/{width}px-Tower.jpg"
        assert address_of(asked, kept) == base / f"thumb/a/ab/Tower.jpg/{made}px-Tower.jpg"
    assert address_of(base / "thumb/a/ab/Tower.jpg/5000px-Tower.jpg", kept) == base / "a/ab/Tower.jpg"


def test_a_thumbnail_that_is_too_low_has_a_larger_one_until_the_original():
    form, thumbnail = Form(resize="shorter", size=256), f"{BASE}/thumb/a/ab/Tower.jpg/%spx-Tower.jpg"
    assert larger(URL(thumbnail % 500), (500, 256), form) is None
    assert larger(URL(thumbnail % 500), (500, 255), form) == URL(thumbnail % 960)
    assert larger(URL(thumbnail % 500), (500, 20), form) == URL(f"{BASE}/a/ab/Tower.jpg")
    assert larger(URL(thumbnail % 500), (500, 20), Form(size=256)) is None
    assert larger(URL(f"{BASE}/a/ab/Tower.jpg"), (100, 20), form) is None


def test_the_original_is_asked_for_where_a_thumbnail_is_refused_and_not_where_the_asker_is():
    thumbnail, original = URL(f"{BASE}/thumb/a/ab/Tower.jpg/330px-Tower.jpg"), URL(f"{BASE}/a/ab/Tower.jpg")
    assert [instead(thumbnail, code) for code in (400, 404, 500)] == [original] * 3
    assert [instead(thumbnail, code) for code in (403, 429, 200, None)] == [None] * 4
    assert instead(original, 404) is None
    assert instead(URL(str(thumbnail).replace("upload", "thumb")), 400) == original


def test_all_of_wikimedia_is_one_host_that_rests_as_long_as_its_bytes_may_take():
    address = URL(f"{BASE}/a/ab/Tower.jpg")
    assert queue_of(address) == queue_of(URL("http://thumb.wikimedia.org/x")) == "upload.wikimedia.org"
    assert queue_of(URL("http://example.org:8080/x")) == "example.org:8080"
    queue = HostQueue(8)
    for number in range(4):
        queue.add(Job(str(number), str(address), queue_of(address)))
    assert [queue.take(0.0) is not None for _ in range(3)] == [True, True, False]
    for _ in range(2):
        queue.served("upload.wikimedia.org", n_bytes=int(BYTES_A_SECOND), began_s=0.0)
        queue.release("upload.wikimedia.org")
    assert (queue.take(1.9), queue.wait_s(1.5)) == (None, 0.5)
    assert queue.take(2.0) is not None


@pytest.mark.parametrize(
    "user_agent", ["x/1 (me@example.org)", "x/1 (https://example.org/x)", "x/1 ([[w:en:User:Example]])"]
)
def test_a_contact_is_a_mail_address_a_page_or_a_user(user_agent):
    assert names_contact(user_agent)
    assert not names_contact("x/1 (no contact given)")
