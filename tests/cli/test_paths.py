"""Paths and ids as tables of other programs have them, found end to end."""

import shutil
from pathlib import Path

import h5py
import pytest
from tiny_set import hear, write_csv

NETWORK = ("--backbone", "plain-cnn", "--size", "32", "--workers", "1", "--output", "s.h5")
FROM_ELSEWHERE = "t.csv: paths that lead nowhere below images are read without its name, or from the table's own folder"
SLASHES = "t.csv: \\ in paths is read as /"
LETTERS = "t.csv: suffixes are read in capital or small letters, as the files have them"


@pytest.mark.parametrize(
    ("start", "end", "options", "said"),
    [
        ("images/", ".jpg", ("--images", "images"), FROM_ELSEWHERE),
        ("./images/", ".jpg", ("--images", "images"), FROM_ELSEWHERE),
        ("images\\", ".jpg", (), FROM_ELSEWHERE),
        ("images\\", ".jpg", ("--images", "images"), FROM_ELSEWHERE),
        (".\\", ".jpg", ("--images", "images"), SLASHES),
        ("", ".JPG", ("--images", "images"), LETTERS),
        ("images/", ".JPG", (), FROM_ELSEWHERE),
        ("./", ".jpg", ("--images", "images"), None),
    ],
)
def test_images_are_found_by_paths_of_other_programs(images, start, end, options, said):
    names = [f"train-{label}-{n}" for label in ("arch", "dome") for n in range(2)]
    write_csv(Path("t.csv"), "path,landmark_id", [f"{start}{name}{end},{name.split('-')[1]}" for name in names])
    result = hear("embed", "t.csv", *options, *NETWORK)
    assert result.exit_code == 0, result.output
    own = [line for line in result.stderr.splitlines() if " read " in line or "are read" in line]
    assert own == ([said] if said else [])
    with h5py.File("s.h5") as store:
        assert [text.decode() for text in store["image_id"]] == names
        assert store["state"][:].tolist() == [1] * 4


def test_ids_with_their_suffix_in_other_letters_are_found(images):
    write_csv(Path("t.csv"), "id,landmark_id", ["train-arch-0.JPG,arch", "train-dome-0.jpg,dome"])
    result = hear("embed", "t.csv", "--images", "images", *NETWORK)
    assert (result.exit_code, LETTERS in result.stderr.splitlines()) == (0, True), result.output


@pytest.mark.parametrize(
    ("path", "tried"),
    [
        ("C:\\photos\\train-arch-0.jpg", "C:\\photos\\train-arch-0.jpg"),
        ("/gone/train-arch-0.jpg", "/gone/train-arch-0.jpg"),
        ("other/train-arch-0.jpg", "images/other/train-arch-0.jpg"),  # a name alone is no proof
    ],
)
def test_what_is_not_there_is_named_with_a_place_that_was_tried(images, path, tried):
    write_csv(Path("t.csv"), "path,landmark_id", [f"{path},arch"])
    result = hear("embed", "t.csv", "--images", "images", *NETWORK)
    assert result.exit_code == 1
    assert f"unreadable: train-arch-0: not found: tried {tried}" in result.stderr.splitlines()


def test_two_images_that_a_path_may_be_are_not_chosen_from(images):
    Path("images/images").mkdir()
    shutil.move("images/train-arch-0.jpg", "images/images/a.jpg")
    shutil.copytree("images/images", "set/images")
    shutil.copy("images/train-dome-0.jpg", "set/images/a.jpg")
    write_csv(Path("set/t.csv"), "path,landmark_id", ["images/images/a.jpg,arch", "images/a.jpg,dome"])
    result = hear("embed", "set/t.csv", "--images", "images", *NETWORK)
    assert result.exit_code == 0, result.output
    with h5py.File("s.h5") as store:
        assert store["state"][:].tolist() == [1, 1]
    write_csv(Path("set/t.csv"), "path,landmark_id", ["images/b.jpg,arch"])
    shutil.copy("images/train-dome-0.jpg", "images/b.jpg")
    shutil.copy("images/train-dome-1.jpg", "set/images/b.jpg")
    said = hear("embed", "set/t.csv", "--images", "images", *NETWORK[:-1], "t.h5").stderr.splitlines()
    assert "unreadable: b: may be images/b.jpg or set/images/b.jpg; give its whole path" in said


def test_a_file_that_another_row_names_is_not_taken_for_its_like(images):
    write_csv(Path("t.csv"), "id,landmark_id", ["train-arch-0.jpg,arch", "train-arch-0.JPG,dome"])
    said = hear("embed", "t.csv", "--images", "images", *NETWORK).stderr
    assert "unreadable: train-arch-0.JPG: not found: tried images/train-arch-0.JPG" in said
