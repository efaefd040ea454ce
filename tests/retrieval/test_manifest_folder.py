"""Folders of images and single images as manifests."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder

from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


def error_of(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), path.name)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_the_topmost_folder_is_the_landmark(tmp_path: Path) -> None:
    make(tmp_path, "b/2.jpg", "b/deeper/3.PNG", "a/1.jpeg", "0.webp", ".hidden/4.jpg", "a/._1.jpg")
    manifest = read_manifest(tmp_path)
    assert manifest.image_id.tolist() == ["0", "1", "2", "3"]
    assert labels(manifest) == ["", "a", "b", "b"]
    assert manifest.path is not None
    assert list(manifest.path) == [str(tmp_path / p) for p in ("0.webp", "a/1.jpeg", "b/2.jpg", "b/deeper/3.PNG")]


def test_file_names_that_occur_twice_make_paths_the_ids(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")
    assert read_manifest(tmp_path).image_id.tolist() == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]


def test_white_space_becomes_an_underscore_and_the_name_is_kept(tmp_path: Path) -> None:
    make(tmp_path, "Hawa  Mahal/1.jpg", "Louvre/2.jpg")
    manifest = read_manifest(tmp_path)
    assert manifest.landmarks == ("Hawa_Mahal", "Louvre")
    assert manifest.names == {"Hawa_Mahal": "Hawa  Mahal"}


def test_two_folders_that_become_one_landmark_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "Hawa Mahal/1.jpg", "Hawa_Mahal/2.jpg")
    message = "the folders 'Hawa Mahal' and 'Hawa_Mahal' are both the landmark Hawa_Mahal; rename one"
    assert error_of(tmp_path) == f"{tmp_path.name}: {message}"


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = f"{tmp_path.name}: no pictures in this folder; give one that holds <landmark>/<picture>"
    assert error_of(tmp_path) == message


def test_other_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    warnings: list[str] = []
    make(tmp_path, "a/1.jpg", "a/notes.txt", "b/movie.mp4")
    assert len(read_manifest(tmp_path, Recorder(warnings))) == 1
    assert warnings == [f"{tmp_path}: 2 files that are not pictures by their suffix were passed over: 1 .txt, 1 .mp4"]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert read_manifest(tmp_path).image_id.tolist() == ["1"]


def test_a_moved_folder_keeps_its_digest(tmp_path: Path) -> None:
    make(tmp_path / "here", "a/1.jpg", "b/2.jpg")
    before = read_manifest(tmp_path / "here").digest
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_manifest(tmp_path / "there").digest == before


def test_one_image_is_a_manifest_of_one(tmp_path: Path) -> None:
    (tmp_path / "photo.of.me.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(20))
    manifest = read_manifest(tmp_path / "photo.of.me.jpg")
    assert manifest.image_id.tolist() == ["photo.of.me"]
    assert labels(manifest) == [""]
    assert manifest.path is not None
    assert list(manifest.path) == [str(tmp_path / "photo.of.me.jpg")]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO])
@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_a_folder_that_cannot_be_entered_is_one_unreadable_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    make(tmp_path, "a/1.jpg", "shut/2.jpg", "z/3.jpg")
    real, warnings, reason = getattr(os, call), list[str](), os.strerror(number)

    def refuse(path: Any, *args: Any, **keywords: Any) -> Any:
        if path == str(tmp_path / "shut"):
            raise OSError(number, reason, path)
        return real(path, *args, **keywords)

    monkeypatch.setattr(os, call, refuse)
    manifest = read_manifest(tmp_path, Recorder(warnings))
    assert manifest.image_id.tolist() == ["1", "3"]
    assert labels(manifest) == ["a", "z"]
    assert warnings == [
        f"{tmp_path}: 1 unreadable folder or link was passed over: {tmp_path / 'shut'}: {reason}",
    ]


def test_a_folder_to_be_read_that_cannot_be_entered_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_of(tmp_path) == f"{tmp_path.name} cannot be read: Permission denied"
