"""Images found by their ids under any suffix and in either form of their letters, and what a walk meets besides."""

import os
from pathlib import Path

import numpy as np
import pytest
from made_tars import make_tar
from recorder import Recorder

from retrieval.data.image_source import ImageSource, images_folder
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError, UnreadableError
from retrieval.images import walk

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def source_of(folder: Path, image_id: str, path: str = "") -> ImageSource:
    given = np.array([image_id], dtype=object)
    paths = np.array([path], dtype=object)
    manifest = Manifest(str(folder / "t.csv"), given, np.array([-1], dtype=np.int32), (), path=paths)
    return ImageSource(manifest, folder)


@pytest.mark.parametrize("suffix", [".jpg", ".jPg", ".JPEG", ".heic", ".AVIF", ".gif", ".tif", ".TIFF", ".bmp", ".jp2"])
@pytest.mark.parametrize("folder", ["", "a/b/c/"])
def test_an_id_is_found_under_any_suffix_of_images(tmp_path: Path, suffix: str, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / f"abcd{suffix}").write_bytes(b"picture")
    assert source_of(tmp_path, "abcd").read(0) == b"picture"


@pytest.mark.parametrize("suffix", [".jpg", ".Tif"])
@pytest.mark.parametrize(("given", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_name_in_one_form_finds_the_file_in_the_other(tmp_path: Path, given: str, there: str, suffix: str) -> None:
    (tmp_path / f"{there}{suffix}").write_bytes(b"picture")
    assert source_of(tmp_path, given).read(0) == b"picture"
    assert source_of(tmp_path, "x", f"{given}{suffix}").read(0) == b"picture"


def test_two_folders_that_are_one_name_are_refused(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{len(name)}.jpg").write_bytes(b"picture")
    with pytest.raises(LmrError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the folders {DECOMPOSED!r} and {COMPOSED!r} are both the landmark {COMPOSED}; rename one"
    )


def test_links_in_circles_and_pipes_are_unreadable_images(tmp_path: Path) -> None:
    folder = tmp_path / "A"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(b"picture")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "around").symlink_to("around")
    os.mkfifo(folder / "pipe.jpg")
    said: list[str] = []
    manifest = read_manifest(tmp_path, Recorder(said))
    assert manifest.image_id.tolist() == ["dangling", "good", "loop", "pipe"]
    named = f"{folder}/around: Too many levels of symbolic links"
    assert said == [f"{tmp_path}: 1 unreadable folder or link was passed over: {named}"]


def test_folders_in_folders_without_end_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_DEEPEST", 3)
    deep = tmp_path / "1" / "2" / "3"
    (deep / "4" / "5").mkdir(parents=True)
    for place in (tmp_path / "top.jpg", deep / "low.jpg", deep / "4" / "lower.jpg"):
        place.write_bytes(b"picture")
    said: list[str] = []
    assert [found.path for found in walk.walk_images(tmp_path, Recorder(said))] == ["1/2/3/low.jpg", "top.jpg"]
    assert said == [f"{tmp_path}: 1 unreadable folder or link was passed over: {deep / '4'}: below more than 3 folders"]


def test_what_cannot_be_looked_at_is_told_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "t.csv").write_text("id\nloop\ngone\n")
    source = ImageSource(read_manifest(tmp_path / "t.csv"), tmp_path)
    with pytest.raises(UnreadableError) as caught:
        source.read(0)
    assert str(caught.value) == "Too many levels of symbolic links"
    with pytest.raises(UnreadableError, match="not found: tried"):
        source.read(1)
    assert [source.status(row) for row in range(2)] == [None, None]


def test_a_name_that_is_no_text_is_named_and_does_not_block_the_folder(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "good.jpg").write_bytes(b"picture")
    with open(os.fsencode(tmp_path) + b"/A/caf\xe9.jpg", "wb") as file:
        file.write(b"picture")
    said: list[str] = []
    assert read_manifest(tmp_path, Recorder(said)).image_id.tolist() == ["good"]
    assert said == [
        f"{tmp_path}: 1 file whose name is not UTF-8 or holds control characters was passed over; "
        "rename it: A/caf\\udce9.jpg"
    ]


def test_files_that_are_passed_over_are_counted_by_kind(tmp_path: Path) -> None:
    for name in ("a.jpg", "1.txt", "2.TXT", "3.pdf", "README"):
        (tmp_path / name).write_bytes(b"x")
    said: list[str] = []
    read_manifest(tmp_path, Recorder(said))
    assert said == [
        f"{tmp_path}: 4 files that are not pictures by their suffix were passed over: "
        "2 .txt, 1 .pdf, 1 without a suffix"
    ]


def found(manifest: Path, images: Path | None = None) -> list[str]:
    """Where the images of a manifest are found without being told, within its folder; '' = nowhere."""
    table = read_manifest(manifest)
    source = ImageSource(table, images_folder(images, manifest))
    return [source.where(row).removeprefix(f"{manifest.parent}/") for row in range(len(table))]


def kaggle(folder: Path, *places: str) -> None:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(place.encode())


@pytest.mark.parametrize(
    ("table", "image"),
    [
        ("train.csv", "train/a/b/c/abc1.jpg"),
        ("train_clean.csv", "train/a/b/c/abc1.jpg"),
        ("test.csv", "test/a/b/c/abc1.jpg"),
        ("index_image_to_landmark.csv", "index/a/b/c/abc1.jpg"),
        ("recognition_solution_v2.1.csv", "test/a/b/c/abc1.jpg"),
        ("mine.csv", "train/a/b/c/abc1.jpg"),
        ("whales.csv", "whales/abc1.jpg"),
        ("test.csv", "test/abc1.jpg"),
    ],
)
def test_the_sets_of_kaggle_are_found_beside_the_table(tmp_path: Path, table: str, image: str) -> None:
    kaggle(tmp_path, image, "train/0/0/0/0001.jpg", "test/0/0/0/0002.jpg", "index/0/0/0/0003.jpg")
    (tmp_path / table).write_text("landmark_id,images\n1,abc1\n" if "clean" in table else "id\nabc1\n")
    assert found(tmp_path / table) == [image]
    assert found(tmp_path / table, tmp_path) == [image]


def test_an_image_of_two_sets_is_that_of_the_table_own_set(tmp_path: Path) -> None:
    kaggle(tmp_path, "train/a/b/c/abc1.jpg", "test/a/b/c/abc1.jpg")
    for table in ("train.csv", "test.csv"):
        (tmp_path / table).write_text("id\nabc1\n")
        assert found(tmp_path / table) == [f"{table[:-4]}/a/b/c/abc1.jpg"]


def test_an_images_folder_goes_before_sets(tmp_path: Path) -> None:
    kaggle(tmp_path, "train/a/b/c/abc1.jpg", "images/abc1.jpg")
    (tmp_path / "train.csv").write_text("id\nabc1\n")
    assert found(tmp_path / "train.csv") == ["images/abc1.jpg"]


def test_the_tars_of_a_set_are_read_where_they_lie(tmp_path: Path) -> None:
    make_tar(tmp_path / "train" / "images_000.tar", [("a/b/c/abc1.jpg", b"in a tar")])
    kaggle(tmp_path, "test/a/b/c/abc2.jpg")
    (tmp_path / "train.csv").write_text("id\nabc1\nabc2\nabc3\n")
    assert found(tmp_path / "train.csv") == ["train/images_000.tar/a/b/c/abc1.jpg", "test/a/b/c/abc2.jpg", ""]


def test_paths_count_from_the_folder_of_the_table_own_name_too(tmp_path: Path) -> None:
    kaggle(tmp_path, "train/x.jpg")
    (tmp_path / "train.csv").write_text("Image,Id\n")
    (tmp_path / "train.csv").write_text("path,landmark_id\nx.jpg,w_1\n")
    assert found(tmp_path / "train.csv") == ["train/x.jpg"]


def test_folders_of_classes_beside_a_table_are_no_sets(tmp_path: Path) -> None:
    kaggle(tmp_path, "test/Tower/abc1.jpg", "abc1.jpg")
    (tmp_path / "mine.csv").write_text("id\nabc1\n")
    assert found(tmp_path / "mine.csv") == ["abc1.jpg"]
