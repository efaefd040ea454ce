"""Where images are found: by id, path, folder, and from a server on this machine."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from recorder import Recorder

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.given import list_images, read_image
from retrieval.images.limits import Limits


def manifest_of(*ids: str, paths: list[str] | None = None, source: str = "nowhere/train.csv") -> Manifest:
    path = None if paths is None else np.array(paths, dtype=object)
    return Manifest(source, np.array(ids, dtype=object), np.full(len(ids), -1, dtype=np.int32), (), path=path)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reason(source: ImageSource, row: int = 0) -> str:
    with pytest.raises(UnreadableError) as caught:
        source.read(row)
    return str(caught.value)


@pytest.mark.parametrize(
    ("image_id", "place"),
    [
        *(("abcd", f"abcd{s}") for s in (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG", ".WEBP", ".Jpg")),
        *(("abcd", place) for place in ("a/b/c/abcd.jpg", "a/b/c/abcd.png")),
        ("abcd.jpg", "abcd.jpg"),
        ("v1.5", "v1.5.jpg"),
        ("ab", "ab.jpg"),
        ("Hawa_Mahal/1.jpg", "Hawa_Mahal/1.jpg"),
        ("Hawa_Mahal/1", "Hawa_Mahal/1.png"),
    ],
)
def test_a_image_is_found_by_its_id(tmp_path: Path, image_id: str, place: str) -> None:
    path = put(tmp_path / place, b"content")
    source = ImageSource(manifest_of(image_id), tmp_path)
    assert source.where(0) == str(path)
    assert source.read(0) == b"content"


def test_an_id_that_ends_like_a_file_is_not_taken_for_the_image_of_another_id(tmp_path: Path) -> None:
    one = put(tmp_path / "x.jpg")
    source = ImageSource(manifest_of("x", "x.jpg", "y.jpg"), tmp_path)
    put(tmp_path / "y.jpg")
    assert [source.where(row) for row in range(3)] == [str(one), "", str(tmp_path / "y.jpg")]
    other = put(tmp_path / "x.jpg.jpg")
    assert [source.where(row) for row in (1, 0, 1)] == [str(other), str(one), str(other)]


def test_images_of_mixed_places_are_all_found(tmp_path: Path) -> None:
    ids = [f"abc{i}" for i in range(6)]
    places = ["abc0.jpg", "a/b/c/abc1.jpg", "abc2.png", "abc3.jpg", "a/b/c/abc4.WEBP", "abc5.jpg"]
    for place in places:
        put(tmp_path / place, place.encode())
    source = ImageSource(manifest_of(*ids), tmp_path)
    assert [source.read(i).decode() for i in range(6)] == places


def test_the_manifest_s_path_is_absolute_or_within_the_images_folder(tmp_path: Path) -> None:
    put(tmp_path / "images/p/one.jpg", b"1")
    put(tmp_path / "elsewhere/two.jpg", b"2")
    put(tmp_path / "images/c.jpg", b"3")
    paths = ["p/one.jpg", str(tmp_path / "elsewhere/two.jpg"), ""]
    source = ImageSource(manifest_of("a", "b", "c", paths=paths), tmp_path / "images")
    assert [source.read(i) for i in range(3)] == [b"1", b"2", b"3"]


def test_without_an_images_folder_the_manifest_s_own_is_used(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"1")
    put(tmp_path / "images/b.jpg", b"2")
    source = ImageSource(manifest_of("a", "b", source=str(tmp_path / "train.csv")), None)
    assert [source.read(i) for i in range(2)] == [b"1", b"2"]


def test_a_missing_image_is_unreadable_and_names_where_it_was_looked_for(tmp_path: Path) -> None:
    source = ImageSource(manifest_of("abcd", "x", paths=["", "p/x.jpg"]), tmp_path)
    assert reason(source, 0) == f"not found: tried {tmp_path}/abcd.jpg and 23 other places"
    assert reason(source, 1) == f"not found: tried {tmp_path}/p/x.jpg"
    assert (source.where(0), source.where(1)) == ("", "")


@pytest.mark.parametrize("image_id", ["../secret", "a/../../secret", "/etc/secret", "a\0b", "..", "a//b", "./a"])
def test_an_id_never_leads_out_of_the_images_folder(tmp_path: Path, image_id: str) -> None:
    put(tmp_path / "secret.jpg")
    put(tmp_path / "images/a/b.jpg")
    source = ImageSource(manifest_of(image_id), tmp_path / "images")
    assert reason(source) == f"image_id {image_id!r} leads out of the images folder"
    assert source.where(0) == ""


def test_a_folder_a_pipe_and_a_large_file_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    os.mkfifo(tmp_path / "b.jpg")
    put(tmp_path / "c.jpg", bytes(11))
    source = ImageSource(manifest_of("a", "b", "c"), tmp_path, Limits(max_bytes=10))
    reasons = [reason(source, row) for row in range(3)]
    assert reasons == ["a folder, not a picture", "not a file", "11 bytes, over the limit of 10"]


def test_a_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"1")
    assert pickle.loads(pickle.dumps(ImageSource(manifest_of("a"), tmp_path))).read(0) == b"1"


def test_images_folders_and_urls_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("one.jpg", "d/b.png", "d/e/a.jpg", "d/notes.txt", "strange.name"):
        put(tmp_path / name)
    given = [str(tmp_path / "one.jpg"), "https://x/y.jpg", str(tmp_path / "d"), str(tmp_path / "strange.name")]
    expected = [given[0], given[1], str(tmp_path / "d/b.png"), str(tmp_path / "d/e/a.jpg"), given[3]]
    said: list[str] = []
    images = list_images(given, Recorder(said))
    passed = "1 file that is not a picture by its suffix was passed over: 1 .txt"
    assert said == [f"{tmp_path / 'd'}: {passed}"]
    assert [image.where for image in images] == expected
    assert [image.is_url for image in images] == [False, True, False, False, False]
    assert images[0].read() == b"x"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}/no.jpg", "{}/no.jpg: there is no such file or folder; give pictures, folders or URLs"),
        ("{}", "{}: no pictures in this folder; give a picture or a folder that holds some"),
        ("ftp://x/y.jpg", "ftp://x/y.jpg: only http and https are fetched; give such a URL or a file"),
    ],
)
def test_what_names_no_image_is_refused(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(LmrError) as caught:
        list_images([given.format(tmp_path)])
    assert str(caught.value) == message.format(tmp_path)


def test_a_image_is_not_called_unreadable_for_want_of_file_handles_or_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "a.jpg")

    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files", place)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(LmrError) as caught:
        read_image(place)
    assert type(caught.value) is LmrError
    assert str(caught.value) == f"{place}: Too many open files; run the same command again with fewer `workers`"


def test_a_file_that_vanished_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_image(str(tmp_path / "gone.jpg"))
    assert str(caught.value) == "not found"


def test_of_two_files_for_an_id_the_same_one_is_taken_whatever_came_before(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        put(tmp_path / name, name.encode())
    source = ImageSource(manifest_of("a", "b"), tmp_path)
    assert [source.read(row) for row in (0, 1, 0)] == [b"a.jpg", b"b.png", b"a.jpg"]
