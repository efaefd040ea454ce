"""Bars while manifests are read, and the line on what is in them."""

from pathlib import Path

import pytest
from tiny_set import hear, write_csv

from cli.progress import TerminalProgress
from retrieval.data import overview
from retrieval.data.manifest import read_manifest

ROWS = "id,landmark_id\n" + "".join(f"{i:08x},{i % 7}\n" for i in range(40_000))


def watch(monkeypatch) -> tuple[list[int], list[int]]:
    """What bars are begun with, and what is added to them."""
    begun: list[int] = []
    added: list[int] = []
    monkeypatch.setattr(TerminalProgress, "begin", lambda _, what, n, unit: begun.append(n))
    monkeypatch.setattr(TerminalProgress, "add", lambda _, n: added.append(n))
    return begun, added


def test_a_large_manifest_is_read_with_a_bar_over_its_bytes(tmp_path, monkeypatch):
    path = tmp_path / "train.csv"
    path.write_text(ROWS)
    monkeypatch.setattr(overview, "_SHOWN_BYTES", len(ROWS))
    begun, added = watch(monkeypatch)
    assert overview.load_manifest(path, TerminalProgress()).digest == read_manifest(path).digest
    assert begun == [len(ROWS)]
    assert len(added) > 3
    assert sum(added) == len(ROWS)


def test_a_small_one_and_a_folder_have_none(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "p.jpg").write_bytes(b"x")
    path = tmp_path / "train.csv"
    path.write_text(ROWS[:1000].rsplit("\n", 1)[0])
    begun, _ = watch(monkeypatch)
    assert len(overview.load_manifest(path, TerminalProgress())) > 10
    assert len(overview.load_manifest(tmp_path / "a", TerminalProgress())) == 1
    assert begun == []


LINE = "train.csv: 44 images of 4 landmarks, 12 without"


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats", "train.csv"),
        ("stats", "train.csv", "--images", "images", "--workers", "1", "--test", "train.csv"),
        ("split", "train.csv", "--val", "0.3"),
        ("info", "train.csv"),
        (
            "embed",
            "train.csv",
            "--images",
            "images",
            "--backbone",
            "plain-cnn",
            "--size",
            "32",
            "--output",
            "s.h5",
            "--workers",
            "1",
        ),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_a_manifest_holds_is_said_once(images, arguments):
    result = hear(*arguments)
    assert (result.exit_code, result.stderr.splitlines().count(LINE)) == (0, 1), result.output


def test_of_labels_of_open_images_it_is_said_once_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = "ImageID,Source,LabelName,Confidence"
    labels = [*("a,human,/m/01,1", "a,human,/m/02,1", "b,human,/m/02,1", "c,human,/m/03,0")]
    write_csv(Path("labels.csv"), header, labels)
    write_csv(Path("list.csv"), "ImageID,Subset,OriginalURL", [f"{name},train,http://x/{name}" for name in "abcd"])
    first, *more = hear("stats", "labels.csv").stderr.splitlines()
    assert (first, more) == ("labels.csv: 3 images of 2 landmarks, 1 without", ["stats.html: written"])
    said = hear("stats", "labels.csv", "--image-list", "list.csv", "--json").stderr.splitlines()
    assert said[:3] == [
        "list.csv: kept for the answers: Subset",
        "list.csv: 4 images, no labels",
        "labels.csv: 4 images of 2 landmarks, 2 without",
    ]
