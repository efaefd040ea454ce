"""The images of an index by their image_id: sizes, thumbnails, originals, parts; and its landmarks to browse."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PIL import Image, ImageCms

from index.folder.build import build_folder
from index.folder.config import BuildOptions, ThumbnailPlan
from index.folder.folder import open_folder
from index.folder.inputs import BuildInputs
from index.landmarks import Landmarks
from index.serving.browse import landmark, landmarks_of
from index.serving.gallery import (
    Recent,
    Size,
    UnknownError,
    crop,
    original,
    parse_box,
    read_row,
    row_of,
    size_of,
    thumbnail,
)
from retrieval.arrays import object_array
from retrieval.data.names import Name
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.decode import decode

SECRET = b"secret-place"
ORIENTATION, ARTIST, X_DPI, Y_DPI, UNIT = 0x0112, 0x013B, 0x011A, 0x011B, 0x0128


def halves(width=60, height=40):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def jpeg(image, **words):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=95, **words)
    return content.getvalue()


def exif(**tags):
    found = Image.Exif()
    for name, value in tags.items():
        found[globals()[name]] = value
    return found


def telling():
    """A JPEG on its side that says where it was taken, in every way it can."""
    found = exif(ORIENTATION=6, ARTIST=SECRET.decode())
    found.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return jpeg(halves(), exif=found, comment=SECRET, xmp=b"<x>" + SECRET + b"</x>", icc_profile=profile)


@pytest.fixture
def opened(tmp_path, make_folder, make_store):
    """Makes an opened index of these files, named by their contents; thumbnails of a side where it is given."""

    def make(files, side_px=0):
        paths = [tmp_path / name for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            if content is not None:
                path.write_bytes(content)
        store = make_store(["l"] * len(files), seed=0)
        store = replace(store, path=object_array(list(map(str, paths))), image_id=object_array(list(files)))
        inputs = BuildInputs([store], tmp_path / "model", ())
        build_folder(
            tmp_path / "landmarks",
            inputs,
            BuildOptions(whitening_power=None),
            device="cpu",
            thumbnails=ThumbnailPlan(side_px),
        )
        return Landmarks(open_folder(tmp_path / "landmarks", device="cpu"), None)

    return make


def corner(data):
    """The colour in the middle of the top edge."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return max(zip(image.getpixel((image.width // 2, 2)), ("red", "green", "blue"), strict=True))[1]


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (jpeg(halves()), Size(60, 40, None)),
        (jpeg(halves(), exif=exif(ORIENTATION=6)), Size(40, 60, None)),
        (jpeg(halves(), dpi=(300, 200)), Size(60, 40, 200.0)),
        (jpeg(halves(), exif=exif(X_DPI=240.0, Y_DPI=240.0, UNIT=2)), Size(60, 40, 240.0)),
        (jpeg(halves(), exif=exif(X_DPI=100.0, Y_DPI=100.0, UNIT=3)), Size(60, 40, 254.0)),
        (jpeg(halves(), exif=exif(X_DPI=1.0, Y_DPI=1.0, UNIT=1)), Size(60, 40, None)),
        (jpeg(halves(), exif=exif(X_DPI=0.0, Y_DPI=0.0)), Size(60, 40, None)),
        (jpeg(halves())[:400], None),
        (b"no image at all", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_size_of_an_image_is_that_of_its_file_upright(opened, content, size):
    assert size_of(opened({"one": content}), 0) == size


@pytest.mark.parametrize(
    ("kind", "dpi"), [("PNG", 150.0), ("WEBP", None), ("BMP", 150.0), ("TIFF", None), ("GIF", None)]
)
def test_sizes_of_other_kinds_of_files(opened, kind, dpi):
    content = io.BytesIO()
    halves(90, 30).save(content, kind, dpi=(150, 150))
    found = size_of(opened({"one": content.getvalue()}), 0)
    assert (found.width, found.height) == (90, 30)
    assert found.dpi == (None if dpi is None else pytest.approx(dpi, abs=0.05))


def test_a_header_alone_is_read_and_only_once(opened, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    landmarks = opened({"one": jpeg(Image.fromarray(noise))})
    asked = []
    from index.serving import gallery

    read = gallery.read_head
    monkeypatch.setattr(gallery, "read_head", lambda path, n: asked.append(n) or read(path, n))
    assert [size_of(landmarks, 0), size_of(landmarks, 0)] == [Size(700, 700)] * 2
    assert asked == [1 << 16]


def test_an_image_in_a_tar_has_a_size_a_thumbnail_and_an_original(opened, tmp_path):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        data = telling()
        entry = tarfile.TarInfo("a/one.jpg")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    landmarks = opened({"one": b"x"})
    rows = replace(landmarks.folder.rows, path=object_array([str(tmp_path / "some.tar/a/one.jpg")]))
    landmarks = Landmarks(replace(landmarks.folder, rows=rows), None)
    assert size_of(landmarks, 0) == Size(40, 60)
    assert corner(thumbnail(landmarks, "one")) == "red"
    assert corner(original(landmarks, "one")[0]) == "red"


@pytest.mark.parametrize("side_px", [0, 32])
def test_nothing_but_pixels_is_sent_of_an_image_and_they_are_upright(opened, side_px):
    landmarks = opened({"one": telling()}, side_px)
    assert SECRET in read_row(landmarks, "one")
    for data in (thumbnail(landmarks, "one"), original(landmarks, "one")[0]):
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.height > image.width, corner(data)) == ("JPEG", True, "red")
        assert SECRET not in data
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert original(landmarks, "one")[1] == "image/jpeg"


def test_of_a_file_that_is_gone_the_thumbnail_is_left(opened, tmp_path):
    landmarks = opened({"one": jpeg(halves()), "two": None}, 32)
    (tmp_path / "one").unlink()
    small = thumbnail(landmarks, "one")
    assert Image.open(io.BytesIO(small)).size == (32, 21)
    assert original(landmarks, "one") == (small, "image/jpeg")
    assert read_row(landmarks, "one") == small
    assert (thumbnail(landmarks, "two"), original(landmarks, "two")) == (None, None)
    with pytest.raises(UnreadableError, match=r"^not found$"):
        read_row(landmarks, "two")


def test_a_thumbnail_is_made_once_where_the_index_keeps_none(opened, tmp_path):
    landmarks = opened({"one": jpeg(halves(600, 400))})
    small = thumbnail(landmarks, "one")
    assert Image.open(io.BytesIO(small)).size == (160, 107)
    (tmp_path / "one").unlink()
    assert thumbnail(landmarks, "one") is small


@pytest.mark.parametrize("name", ["two", "", "../one", "/etc/passwd", "one\0", "ONE", "x" * 10_000, "\ud800"])
@pytest.mark.parametrize("ask", [thumbnail, original, read_row, row_of])
def test_images_are_found_by_their_image_id_alone(opened, name, ask):
    landmarks = opened({"one": jpeg(halves())})
    with pytest.raises(UnknownError) as error:
        ask(landmarks, name)
    assert str(error.value) == f"{landmarks.folder.path} has no image {name}; lmr index export lists those it has"


def test_a_part_of_an_image_is_cut_upright():
    """Turned by a quarter: red, which is left in the file, is above."""
    data = jpeg(halves(100, 80), exif=exif(ORIENTATION=6))
    above, below = (decode(crop(data, box)) for box in ((0, 0, 1, 0.4), (0.25, 0.6, 0.75, 1)))
    assert (above.size, below.size) == ((80, 40), (40, 40))
    assert above.getpixel((40, 20))[0] > 200
    assert below.getpixel((20, 20))[2] > 200


def test_a_part_of_a_large_image_is_made_smaller():
    content = io.BytesIO()
    Image.new("RGB", (5000, 3000)).save(content, "PNG")
    assert decode(crop(content.getvalue(), (0.0, 0.0, 0.8, 0.8))).size == (1707, 1024)


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.1, 1.0), (0.9, 0.9, 1.0, 1.0)])
def test_a_part_that_is_tiny_is_refused(box):
    with pytest.raises(LmrError, match=r"^`box` holds \d+ x \d+ pixels, fewer than 16 x 16; draw a larger one$"):
        crop(jpeg(halves()), box)


@pytest.mark.parametrize("text", ["0.5,0,0.5,1", "0.6,0,0.5,1", "-0.1,0,1,1", "0,0,1,1.1", "nan,0,1,1", "0,0,1,inf"])
def test_a_box_that_is_empty_or_lies_outside_is_refused(text):
    for ask in (parse_box, lambda box: crop(jpeg(halves()), tuple(map(float, box.split(","))))):
        with pytest.raises(LmrError) as error:
            ask(text)
        assert str(error.value) == (
            "`box` must be left,top,right,bottom within 0 and 1, left below right and top below bottom, got "
            + ",".join(f"{float(edge):g}" for edge in text.split(","))
        )


def test_a_box_is_read_from_text():
    assert parse_box("0, 0.25,1,0.75") == (0.0, 0.25, 1.0, 0.75)
    for text in ("", "0,0,1", "0,0,1,1,1", "a,b,c,d"):
        with pytest.raises(LmrError) as error:
            parse_box(text)
        assert str(error.value) == f"`box` must be four numbers left,top,right,bottom, got {text!r}"


@pytest.fixture
def towns(make_folder, make_store):
    folder = make_folder(make_store(["a1", "a1", "a1", "b2", "b2", "c3", "d4"], seed=0))
    names = {"a1": Name("Église Saint-Éloi", "http://a"), "b2": Name("Sankt Florian"), "c3": Name("SAINT-ÉTIENNE")}
    return Landmarks(replace(folder, names=names), None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["d4", "a1", "c3", "b2"]),
        ("saint", ["c3", "a1"]),
        ("ÉLOI", ["a1"]),
        ("eloi", ["a1"]),
        ("e\u0301loi", ["a1"]),
        ("B2", ["b2"]),
        ("d", ["d4"]),
        ("zz", []),
    ],
)
def test_landmarks_are_found_by_name_whatever_the_case_and_the_accents(towns, text, found):
    listed = landmarks_of(towns, text)
    assert [one.landmark_id for one in listed.items] == found
    assert listed.n_found == len(found)


def test_a_landmark_of_the_list_has_its_name_number_and_most_typical_image(towns):
    (one,) = landmarks_of(towns, "eloi").items
    vectors = towns.folder.index.vectors(np.arange(3))
    typical = f"train.h5-{(vectors @ vectors.sum(axis=0)).argmax()}"
    assert one.to_json() == {
        "landmark_id": "a1",
        "name": "Église Saint-Éloi",
        "address": "http://a",
        "n_images": 3,
        "image_id": typical,
    }


def test_pages_of_landmarks_follow_each_other(towns):
    whole = landmarks_of(towns).items
    assert tuple(one for first in range(4) for one in landmarks_of(towns, first=first, n=1).items) == whole
    assert landmarks_of(towns, first=9).items == ()
    for words in ({"first": -1}, {"n": 0}, {"n": 1001}):
        with pytest.raises(LmrError) as error:
            landmarks_of(towns, **words)
        first, n = words.get("first", 0), words.get("n", 50)
        assert str(error.value) == f"`first` must be at least 0 and `n` lie in [1, 1,000], got {first} and {n}"


def test_the_account_of_a_landmark_is_made_once(towns):
    found = landmark(towns, "a1")
    assert (found.landmark_id, found.n_images, len(found.typical)) == ("a1", 3, 2)
    assert landmark(towns, "a1") is found
    with pytest.raises(UnknownError) as error:
        landmark(towns, "Sankt Florian")
    path = towns.folder.path
    assert str(error.value) == f"{path} has no landmark Sankt Florian; lmr index export lists those it has"


def test_what_several_threads_ask_for_is_made_once_and_anew_after_an_error():
    recent, made, go = Recent(2), [], Event()

    def make():
        go.wait(10)
        made.append(1)
        if len(made) == 1:
            raise LmrError("not yet")
        return object()

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(recent.get, "key", make) for _ in range(4)]
        go.set()
    errors = [one for one in asked if one.exception()]
    assert [str(one.exception()) for one in errors] == ["not yet"]
    assert len({id(one.result()) for one in asked if one not in errors}) == 1
    assert len(made) == 2


def test_what_was_asked_for_last_is_kept():
    recent, made = Recent(2), []
    for key in "ab", "ba", "ab", "bc", "ab":
        recent.get(key, lambda key=key: made.append(key))
    assert made == ["ab", "ba", "bc"]
    recent.get("ba", lambda: made.append("ba"))
    assert made == ["ab", "ba", "bc", "ba"]
