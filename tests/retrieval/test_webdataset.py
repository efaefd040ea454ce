"""Tars of WebDataset: what lies beside an image says what it shows; all is read where it lies."""

import json
from pathlib import Path

import pytest
from made_tars import make_tar
from recorder import Recorder

from retrieval.data.image_source import ImageSource, images_folder
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


def read(path: Path) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    manifest = read_manifest(path, Recorder(said))
    return manifest, [line.replace(str(path), path.name) for line in said]


def problem(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), path.name)


def content(manifest: Manifest, path: Path) -> list[bytes]:
    source = ImageSource(manifest, images_folder(None, path))
    return [source.read(row) for row in range(len(manifest))]


def test_the_class_beside_an_image_is_its_landmark(tmp_path: Path) -> None:
    members = [("b.cls", b"7\n"), ("b.jpg", b"B"), ("a.jpg", b"A"), ("c.png", b"C"), ("c.cls", b""), ("a.cls", b"9")]
    tar = make_tar(tmp_path / "t.tar", members)
    manifest, said = read(tar)
    assert (manifest.image_id.tolist(), labels(manifest)) == (["b", "a", "c"], ["7", "9", ""])
    assert content(manifest, tar) == [b"B", b"A", b"C"]
    assert said == ["t.tar: cls taken as landmark_id"]


def test_the_json_beside_an_image_is_its_row(tmp_path: Path) -> None:
    about = {"label": "Tower", "id": 5, "by": {"name": "Ann"}, "lat": 48.80}
    members = [("x/1.jpg", b"1"), ("x/1.json", json.dumps(about).encode()), ("y/2.jpg", b"2"), ("y/2.json", b"{}")]
    manifest, _ = read(make_tar(tmp_path / "t.tar", members))
    assert (manifest.image_id.tolist(), labels(manifest)) == (["1", "2"], ["Tower", ""])
    kept = {name: texts.tolist() for name, texts in manifest.columns.items()}
    assert kept == {"json.id": ["5", ""], "by.name": ["Ann", ""], "lat": ["48.8", ""]}


def test_a_label_that_is_a_list_is_several_landmarks(tmp_path: Path) -> None:
    said = [{"label": ["Old Mill", "Tower"]}, {"label": "Old Mill"}, {"label": ["Tower"]}]
    members = [(f"{i}.jpg", b"x") for i in range(3)]
    members += [(f"{i}.json", json.dumps(one).encode()) for i, one in enumerate(said)]
    manifest, _ = read(make_tar(tmp_path / "t.tar", members))
    assert (labels(manifest), manifest.more_landmarks) == (["Old_Mill", "Old_Mill", "Tower"], {0: (1,)})
    assert manifest.names == {"Old_Mill": "Old Mill"}


def test_shards_in_a_folder_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in "01":
        members = [("0.jpg", b"A" + shard.encode()), ("0.cls", shard.encode())]
        make_tar(tmp_path / "shards" / f"t-{shard}.tar", members)
    manifest, _ = read(tmp_path / "shards")
    assert manifest.image_id.tolist() == ["t-0.tar/0.jpg", "t-1.tar/0.jpg"]
    assert labels(manifest) == ["0", "1"]
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "shards", Path("shards")):
        assert content(read_manifest(place), place) == [b"A0", b"A1"]
    assert manifest.digest == read_manifest(Path("shards")).digest


def test_several_images_of_one_sample_have_its_label(tmp_path: Path) -> None:
    members = [
        ("7.left.jpg", b"L"),
        ("7.right.jpg", b"R"),
        ("7.cls", b"Mill"),
        ("8.v1.jpg", b"V"),
        ("8.v1.cls", b"Tower"),
    ]
    manifest, _ = read(make_tar(tmp_path / "t.tar", members))
    assert manifest.image_id.tolist() == ["7.left", "7.right", "8.v1"]
    assert labels(manifest) == ["Mill", "Mill", "Tower"]


def test_texts_are_labels_where_they_are_names(tmp_path: Path) -> None:
    manifest, said = read(make_tar(tmp_path / "t.tar", [("1.jpg", b"1"), ("1.txt", b"Hawa Mahal"), ("2.jpg", b"2")]))
    assert (labels(manifest), manifest.names) == (["Hawa_Mahal", ""], {"Hawa_Mahal": "Hawa Mahal"})
    assert said[0] == "t.tar: txt taken as landmark_id"


@pytest.mark.parametrize("has_class", [False, True])
def test_sentences_are_kept_and_are_no_labels(tmp_path: Path, has_class: bool) -> None:
    members = [
        ("1.jpg", b"1"),
        ("1.txt", b"a photo of the tower at night"),
        ("2.jpg", b"2"),
        ("2.txt", b"the mill beside a river"),
    ]
    manifest, said = read(make_tar(tmp_path / "t.tar", [*members, *([("1.cls", b"5")] if has_class else [])]))
    assert labels(manifest) == (["5", ""] if has_class else ["", ""])
    assert manifest.columns["caption"].tolist() == ["a photo of the tower at night", "the mill beside a river"]
    told = "t.tar: the .txt files hold sentences and are kept as caption, not as labels"
    assert (told in said) is not has_class


@pytest.mark.parametrize("beside", ["Tower/1.txt", "Tower/1.json", "README.txt"])
def test_folders_of_classes_stay_the_labels_of_what_says_none_itself(tmp_path: Path, beside: str) -> None:
    tar = make_tar(tmp_path / "t.tar", [("Tower/1.jpg", b"1"), (beside, b'{"camera": "X"}'), ("Mill/2.jpg", b"2")])
    assert labels(read_manifest(tar)) == ["Mill", "Tower"]


def test_what_lies_beside_and_cannot_be_used_is_named_by_its_row(tmp_path: Path) -> None:
    members = [
        *(("1.jpg", b"1"), ("1.cls", b"\xff"), ("2.jpg", b"2"), ("2.json", b'{"label": 1'), ("3.jpg", b"3")),
        *(("3.json", b'["Tower"]'), ("4.jpg", b"4"), ("4.cls", b"Mill"), ("5.jpg", b"5"), ("5.cls", bytes(1_048_577))),
    ]
    assert problem(make_tar(tmp_path / "t.tar", members)).splitlines() == [
        "t.tar: 4 bad rows; correct or remove, nothing of the file was used",
        "t.tar:1: 1.jpg: its .cls is not UTF-8",
        "t.tar:2: 2.jpg: its .json: not JSON: it ends too early",
        't.tar:3: 3.jpg: its .json: ["Tower"] where an object is expected, such as {"path": ..., "label": ...}',
        "t.tar:5: 5.jpg: its .cls has 1,048,577 bytes, over the 1,048,576 that one may have",
    ]


def test_two_kinds_of_label_are_refused(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", [("1.jpg", b"1"), ("1.cls", b"5"), ("1.json", b'{"label": "Tower"}')])
    assert problem(tar).startswith("t.tar: the columns label and cls may both be the landmark_id; name the right one ")


def test_a_shard_that_is_cut_short_is_used_as_far_as_it_goes_and_said(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", [("1.jpg", b"1"), ("1.cls", b"5"), ("2.jpg", bytes(2000)), ("2.cls", b"6")])
    with tar.open("r+b") as file:
        file.truncate(4 * 512 + 512 + 100)
    manifest, said = read(tar)
    assert labels(manifest)[0] == "5"
    assert "t.tar is cut short in '2.jpg'; of its pictures the 2 up to there are used" in said


def test_shards_at_a_url_are_read_in_place(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    tar = make_tar(tmp_path / "t.tar", [("1.jpg", b"1"), ("1.cls", b"5")])
    fsspec.filesystem("memory").pipe("/webdataset/shards/t.tar", tar.read_bytes())
    url = Path("memory://webdataset/shards")
    manifest, _ = read(url)
    assert (manifest.image_id.tolist(), labels(manifest)) == (["1"], ["5"])
    assert content(manifest, url) == [b"1"]
