"""Columns named for what they hold: the rest of a table is read as ever, and what does not fit is refused by name."""

from pathlib import Path

import pytest
from recorder import Recorder

from retrieval.data.header.mapping import ColumnMap, parse_columns
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.manifest_lines import manifest_lines
from retrieval.data.request import ImagesJob
from retrieval.errors import LmrError
from retrieval.jobs import InvalidValueError


def read(folder: Path, text: str, *columns: str, beside: bool = False) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    path = folder / "t.csv"
    path.write_text(text)
    names = parse_columns(columns)
    manifest = read_manifest(path, Recorder(said), names.of_others() if beside else names)
    return manifest, [line.replace(str(path), "t.csv") for line in said]


def problem(folder: Path, text: str, *columns: str, beside: bool = False) -> str:
    with pytest.raises(LmrError) as caught:
        read(folder, text, *columns, beside=beside)
    return str(caught.value).replace(str(folder / "t.csv"), "t.csv")


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


MUSEUM = "inventory,artist,title,file,label,breite,id\nA1,Tizian,Venus,a.jpg,oil,45.4,9\nA2,Rubens,Hero,b.jpg,oil,,8\n"
TAKEN = ("image_id=inventory", "landmark_id=title", "path=file", "lat=breite")


def test_named_columns_are_taken_and_those_that_would_have_been_are_the_user_s_own(tmp_path: Path) -> None:
    manifest, said = read(tmp_path, MUSEUM, *TAKEN)
    assert manifest.path is not None
    assert (manifest.image_id.tolist(), manifest.path.tolist()) == (["A1", "A2"], ["a.jpg", "b.jpg"])
    assert labels(manifest) == ["Venus", "Hero"]
    assert {name: texts.tolist() for name, texts in manifest.columns.items()} == {
        "artist": ["Tizian", "Rubens"],
        "label_": ["oil", "oil"],
        "lat": ["45.4", ""],
        "id_": ["9", "8"],
    }
    assert said == [
        "t.csv: inventory taken as image_id, title taken as landmark_id, breite taken as lat, file taken as path",
        "t.csv: kept for the answers: artist, label_, lat, id_",
    ]
    assert manifest.mapped == tuple(sorted(TAKEN))


def test_what_is_written_of_them_reads_back_without_naming_any(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, MUSEUM, *TAKEN)
    again, _ = read(tmp_path, "".join(manifest_lines(manifest)))
    assert again.digest == manifest.digest
    assert {**again.columns} == {**manifest.columns}
    assert again.mapped == ()


def test_columns_that_are_not_named_are_read_by_their_names(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "photo,species,breed,url\na.jpg,cat,Manx,http://x\n", "landmark_id=breed")
    assert manifest.url is not None
    assert (labels(manifest), manifest.image_id.tolist(), manifest.url.tolist()) == (["Manx"], ["a"], ["http://x"])
    assert [*manifest.columns] == ["species"]


def test_columns_of_other_formats_are_the_user_s_own_where_columns_are_named(tmp_path: Path) -> None:
    text = "key,LabelName,Confidence,images,name,what,class,labels\na,x,1,y,z,Venus,7,p\n"
    manifest, _ = read(tmp_path, text, "image_id=key", "name=what", "landmark_id=class")
    assert [*manifest.columns] == ["LabelName_", "Confidence", "images_", "name_", "name", "labels_"]
    again, _ = read(tmp_path, "".join(manifest_lines(manifest)))
    assert (again.digest, {**again.columns}) == (manifest.digest, {**manifest.columns})
    assert manifest.names == {"7": "Venus"}


def test_a_blank_column_says_that_there_is_none(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "image,breed,class\na.jpg,Manx,x\n", "landmark_id=")
    assert (manifest.has_labels, manifest.mapped) == (False, ("landmark_id=",))
    assert [*manifest.columns] == ["breed", "class_"]


def test_coordinates_of_other_columns_are_the_user_s_own(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "id,lat,longitude,y,x,seen\na,1,2,3,4,5\n", "lat=y", "lon=x")
    columns = {name: texts[:].tolist() for name, texts in manifest.columns.items()}
    assert columns == {"lat_": ["1"], "longitude_": ["2"], "lat": ["3"], "lon": ["4"], "seen": ["5"]}
    manifest, _ = read(tmp_path, "id,landmark_id,lat,lon\na,A,1,2\n", "lat=", "lon=")
    assert list(manifest.columns) == ["lat_", "lon_"]


def test_an_own_column_of_the_name_that_another_gets_is_kept(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "id,what,label,label_\na,A,B,C\n", "landmark_id=what")
    assert list(manifest.columns) == ["label_", "label__"]


def test_a_named_column_gives_the_names_of_landmarks_and_is_kept(tmp_path: Path) -> None:
    text = "id,landmark_id,title\na,Q 1,Venus\nb,Q 1,\nc,,x\nd,Q2,Hero\n"
    manifest, _ = read(tmp_path, text, "name=title")
    assert manifest.names == {"Q_1": "Venus", "Q2": "Hero"}
    assert manifest.columns["name"].tolist() == ["Venus", "", "x", "Hero"]
    assert problem(tmp_path, "id,landmark_id,title\na,1,Venus\nb,1,Hero\n", "name=title") == (
        "t.csv: 1 bad row; correct or remove, nothing of the file was used\n"
        "t.csv:3: landmark_id 1 is called 'Hero', on line 2 'Venus'"
    )


def test_a_column_name_that_was_not_named_counts_where_no_landmark_has_two(tmp_path: Path) -> None:
    assert read(tmp_path, "id,landmark_id,name\na,1,Venus\nb,1,Venus\n")[0].names == {"1": "Venus"}
    manifest, _ = read(tmp_path, "id,landmark_id,name\na,1,Venus\nb,1,Hero\nc,2,Sea\n")
    assert (manifest.names, manifest.columns["name"].tolist()) == ({}, ["Venus", "Hero", "Sea"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ("landmark_id=clas",),
            "t.csv: there is no column 'clas' (`column` landmark_id=clas); did you mean class?",
        ),
        (
            ("path=xyz",),
            "t.csv: there is no column 'xyz' (`column` path=xyz); it has image,class,class_b",
        ),
        (
            ("url=image", "path="),
            "t.csv: no column is known to name the images; give `column` image_id=NAME or path=NAME",
        ),
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_nearest(
    tmp_path: Path, columns: tuple[str, ...], message: str
) -> None:
    assert problem(tmp_path, "image,class,class_b\na.jpg,x,y\n", *columns) == message.replace(
        "image,class,class_b", "image, class, class_b"
    )


def test_a_named_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, "id,x,x\na,1,2\n", "landmark_id=x") == "t.csv has two columns 'x'; rename one of them"


def test_another_table_is_read_by_its_own_header_unless_it_has_some_of_the_columns(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "id,landmark_id\na,1\n", *TAKEN, beside=True)
    assert (labels(manifest), manifest.mapped) == (["1"], ())
    assert problem(tmp_path, "inventory,title\na,1\n", *TAKEN, beside=True) == (
        "t.csv: there is no column 'breite' (`column` lat=breite); it has inventory, title; a table beside the main "
        "one has all of the columns that `column` names, or none"
    )


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as caught:
        read_manifest(tmp_path, names=parse_columns(["landmark_id=x"]))
    assert str(caught.value) == f"{tmp_path} is a folder and has no columns; leave `column` landmark_id=x out"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["class"], "`column` class: expected ROLE=NAME, such as landmark_id=class"),
        (["label=class"], "`column` label=class: a column cannot be 'label'; did you mean landmark_id?"),
        (["latitude=y"], "`column` latitude=y: a column cannot be 'latitude'; did you mean lat?"),
        (["urll=y"], "`column` urll=y: a column cannot be 'urll'; did you mean url?"),
        (
            ["qqq=y"],
            "`column` qqq=y: a column cannot be 'qqq'; known are image_id, landmark_id, landmarks, path, url, kind, "
            "usage, name, lat, lon",
        ),
        (["path=a", "path=b"], "`column` path is given twice, as a and as b; keep one of them"),
        (
            ["landmark_id=a", "landmarks=b"],
            "`column` landmark_id and landmarks are two columns for one; keep one of them",
        ),
    ],
)
def test_what_no_column_can_be_is_refused_before_anything_is_read(given: list[str], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        ImagesJob(columns=tuple(given))
    assert str(caught.value) == message


def test_columns_are_given_as_texts_or_as_a_mapping() -> None:
    told = (("landmark_id", "class"), ("path", "file"))
    assert parse_columns(["path=file", "landmark_id=class", "path=file"]) == ColumnMap(told)
    assert parse_columns({"path": "file", "landmark_id": "class"}) == ColumnMap(told)
    assert parse_columns("path=a=b").texts == ("path=a=b",)


def test_labels_that_are_numbers_with_decimals_are_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, "image,class,score\na.jpg,x,0.5\nb.jpg,y,12.75\nc.jpg,,3\n", "landmark_id=score") == (
        "t.csv: the labels are numbers with decimals (0.5, 12.75), which name no landmark; give the column that does "
        "as `column` landmark_id=NAME, or write a letter before them"
    )
    assert labels(read(tmp_path, "id,landmark_id\na,1.5\nb,v2\n")[0]) == ["1.5", "v2"]
