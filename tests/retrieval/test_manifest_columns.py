"""Columns by the names that others give them: understood and said, or refused by name; never row numbers instead."""

from pathlib import Path

import pytest
from recorder import Recorder

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError


def write(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    path = write(folder, text)
    manifest = read_manifest(path, Recorder(said))
    return manifest, [line.replace(str(path), "t.csv") for line in said]


def problem(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), "t.csv")


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


@pytest.mark.parametrize(
    "column", ["image", "img", "filename", "file_name", "File Name", "filepath", "image_path", "path"]
)
@pytest.mark.parametrize("label", ["label", "class", "class_name", "category", "species", "Landmark", "landmark_id"])
def test_file_names_and_labels_are_found_under_their_usual_names(tmp_path: Path, column: str, label: str) -> None:
    manifest, said = read(tmp_path, f"{column},{label}\nb.jpg,B\na.jpg,A\n")
    (tmp_path / "a.jpg").write_bytes(b"picture a")
    (tmp_path / "b.jpg").write_bytes(b"picture b")
    assert manifest.image_id.tolist() == ["b", "a"]
    assert labels(manifest) == ["B", "A"]
    assert [ImageSource(manifest, None).read(row) for row in range(2)] == [b"picture b", b"picture a"]
    taken = [f"{column} taken as path"] if column != "path" else []
    taken += [f"{label} taken as landmark_id"] if label != "landmark_id" else []
    assert said == ([f"t.csv: {', '.join(taken)}"] if taken else [])


def test_file_names_without_a_suffix_are_found_under_the_common_ones(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "image,label\nx/b,B\n")
    (tmp_path / "images" / "x").mkdir(parents=True)
    (tmp_path / "images" / "x" / "b.png").write_bytes(b"picture b")
    assert ImageSource(manifest, None).read(0) == b"picture b"


@pytest.mark.parametrize("header", [",id,label", "Unnamed: 0,id,label"])
def test_the_index_that_pandas_writes_is_said_and_left_out(tmp_path: Path, header: str) -> None:
    manifest, said = read(tmp_path, f"{header}\n0,a,A\n1,b,B\n")
    assert (manifest.image_id.tolist(), labels(manifest)) == (["a", "b"], ["A", "B"])
    name = "a column without a name" if header.startswith(",") else "Unnamed: 0"
    assert said == [
        "t.csv: label taken as landmark_id",
        f"t.csv: not used: {name}",
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "image,class,species",
            "t.csv: the columns class and species may both be the landmark_id; name the right one landmark_id, "
            "or give `column` landmark_id=species",
        ),
        (
            "file_name,file_path,label",
            "t.csv: the columns file_name and file_path may both be the path; name the right one path, "
            "or give `column` path=file_path",
        ),
        (
            "id,landmark_id,label",
            "t.csv: the columns landmark_id and label mean the same; keep one of them, or give `column` "
            "landmark_id=label",
        ),
        (
            "image,breed",
            "t.csv: no column is known to hold the landmarks, and breed may; "
            "name that one landmark_id, give `column` landmark_id=breed, or landmark_id= where none does",
        ),
        ("image,labels", "t.csv: there is no column 'labels'; did you mean label?"),
    ],
)
def test_a_header_that_can_be_meant_in_two_ways_is_refused_by_name(tmp_path: Path, header: str, message: str) -> None:
    assert problem(tmp_path, f"{header}\na,b,c\n") == message


def test_label_and_class_are_two_candidates(tmp_path: Path) -> None:
    assert problem(tmp_path, "image,label,class\na.jpg,1,x\n") == (
        "t.csv: the columns label and class may both be the landmark_id; name the right one landmark_id, "
        "or give `column` landmark_id=class"
    )


def test_a_column_of_lmr_s_own_name_goes_before_the_others(tmp_path: Path) -> None:
    manifest, said = read(tmp_path, "image_id,landmark_id,class,filename,path\na,7,x,y.jpg,z.jpg\n")
    assert manifest.path is not None
    assert (labels(manifest), manifest.path.tolist()) == (["7"], ["z.jpg"])
    assert said == ["t.csv: kept for the answers: class, filename"]


def test_numbers_that_pandas_made_floats_and_blanks_in_words_are_read_as_meant(tmp_path: Path) -> None:
    manifest, said = read(tmp_path, "id,landmark_id\na,7.0\nb,\nc,nan\nd,8.0\n")
    assert labels(manifest) == ["7", "", "", "8"]
    assert said == [
        "t.csv: 1 cell nan read as no landmark",
        "t.csv: 7.0 read as 7, and so all labels that end in .0; "
        "pandas makes them of whole numbers beside blank cells, astype('Int64') does not",
    ]


def test_several_landmarks_of_a_row_are_read_as_meant(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, "id,landmarks,Usage\na,nan 8.0 7.0 8.0,Public\nb,None,Public\n")
    assert [tuple(manifest.landmarks[c] for c in manifest.truths(row)) for row in range(2)] == [("8", "7"), ()]


def test_ids_that_are_one_name_in_two_forms_are_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, "id,landmark_id\nCaf\u00e9,1\nCafe\u0301,1\n").endswith(
        "t.csv:3: id Cafe\u0301 is also on line 2"
    )


def test_white_space_in_labels_is_read_as_in_folders(tmp_path: Path) -> None:
    manifest, said = read(
        tmp_path, "file_name,species\na.jpg,Parus major\nb.jpg,Pica\nc.jpg, Parus  caeruleus \nd.jpg, \n"
    )
    assert labels(manifest) == ["Parus_major", "Pica", "Parus_caeruleus", ""]
    assert manifest.names == {"Parus_major": "Parus major", "Parus_caeruleus": "Parus  caeruleus"}
    assert said[-2:] == [
        "t.csv: 1 cell white space read as no landmark",
        "t.csv: ' Parus  caeruleus ' read as Parus_caeruleus, and so all white space in labels",
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("Parus major", "Parus_major"), ("Parus major", "Parus  major"), ("7", "7 ")]
)
def test_labels_that_become_one_are_refused(tmp_path: Path, one: str, other: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"id,landmark_id\na,{one}\nb,{other}\n")
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    first, second = sorted((one, other), key=lambda label: ("_" not in label, label))
    meant = "_".join(one.split())
    assert str(caught.value) == f"{path}: the labels {first!r} and {second!r} are both the landmark {meant}; rename one"


def test_ids_that_repeat_beside_paths_may_be_the_landmarks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Image,Id\na.jpg,w1\nb.jpg,w1\nc.jpg,w1\n")
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    assert str(caught.value).splitlines()[1:] == [
        f"{path}:3: Id w1 is also on line 2; if Id is the landmark, name that column landmark_id",
        f"{path}:4: Id w1 is also on line 2",
    ]


def test_file_names_that_are_one_name_to_the_eye_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = ["a/caf\u00e9.jpg", "b/cafe\u0301.jpg"]
    manifest, _ = read(tmp_path, f"path,landmark_id\n{paths[0]},1\n{paths[1]},2\n")
    assert manifest.image_id.tolist() == paths


@pytest.mark.parametrize("column", ["cause", "copy_of", "cluster"])
def test_the_cells_of_tables_that_are_guarded_for_spreadsheets_are_read_as_they_were(
    tmp_path: Path, column: str
) -> None:
    manifest, _ = read(tmp_path, f"image_id,landmark_id,{column}\n'=a,'-b c,'@\n'+x,7,\n")
    assert (manifest.image_id.tolist(), labels(manifest)) == (["=a", "+x"], ["-b_c", "7"])
    assert problem(tmp_path, f"image_id,landmark_id,{column}\n'=a,1,\n=a,1,\n") == (
        "t.csv: 1 bad row; correct or remove, nothing of the file was used\nt.csv:3: image_id =a is also on line 2"
    )
