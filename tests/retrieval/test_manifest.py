"""Manifests from CSV files: every known header, every bad row, line numbers, digests."""

import csv
import gzip
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder import Recorder

from retrieval.arrays import ObjArray
from retrieval.data.csv_table import CsvTable
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError

LINES_OF_BAD_FILE = "1 bad row; correct or remove, nothing of the file was used"


def write(folder: Path, text: str, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


def texts(values: ObjArray | None) -> list[str] | None:
    return None if values is None else values.tolist()


def error_of(path: Path | str) -> str:
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), Path(path).name)


@pytest.mark.parametrize(
    ("text", "ids", "expected", "has_labels"),
    [
        ("id,url,landmark_id\na,http://x/a.jpg,9633\nb,None,007\n", ["a", "b"], ["9633", "007"], True),
        ("landmark_id,id,url\n9633,a,http://x/a.jpg\n007,b,None\n", ["a", "b"], ["9633", "007"], True),
        ("id,url\na,http://x/a.jpg\nb,None\n", ["a", "b"], ["", ""], False),
        ("id\na\nb\n", ["a", "b"], ["", ""], False),
        ("id,landmark_id\na,hawa_mahal\nb,\n", ["a", "b"], ["hawa_mahal", ""], True),
        ("landmark_id,images\n17,a b\n1,c\n", ["a", "b", "c"], ["17", "17", "1"], True),
        ("id,landmarks,Usage\na,,Ignored\nb,5,Public\n", ["a", "b"], ["", "5"], True),
        ("id,landmarks,Usage\na,None,Ignored\nb,None 5,Public\n", ["a", "b"], ["", "5"], True),
        ("image_id,landmark_id,path,kind\na,x,p/a.jpg,object\n", ["a"], ["x"], True),
        ("path,landmark_id\np/a.jpg,x\np/b.jpg,\n", ["a", "b"], ["x", ""], True),
        ("ImageID,Subset,OriginalURL,License\na,train,http://x/a.jpg,cc\n", ["a"], [""], False),
        ('"id","url","landmark_id"\n"a","http://x/a,b.jpg",1\n', ["a"], ["1"], True),
        ("id,url,landmark_id\na,None,None\n", ["a"], [""], True),
    ],
)
def test_every_known_csv_file_is_told_by_its_header(
    tmp_path: Path, text: str, ids: list[str], expected: list[str], has_labels: bool
) -> None:
    manifest = read_manifest(write(tmp_path, text))
    assert manifest.image_id.tolist() == ids
    assert labels(manifest) == expected
    assert manifest.has_labels is has_labels


def test_landmarks_are_text_in_the_order_of_text(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "id,landmark_id\na,10\nb,9\nc,007\nd,7\n"))
    assert manifest.landmarks == ("007", "10", "7", "9")
    assert manifest.landmark.tolist() == [1, 3, 0, 2]
    assert manifest.landmark.dtype == np.int32


def test_further_columns_are_carried_along(tmp_path: Path) -> None:
    text = "id,url,landmark_id,path,kind,Usage\na,None,1,p/a.jpg,object,Public\nb,http://x,2,,scene,Private\n"
    manifest = read_manifest(write(tmp_path, text))
    assert texts(manifest.url) == ["", "http://x"]
    assert texts(manifest.path) == ["p/a.jpg", ""]
    assert texts(manifest.kind) == ["object", "scene"]
    assert texts(manifest.usage) == ["Public", "Private"]


def test_a_solution_row_may_have_several_landmarks(tmp_path: Path) -> None:
    text = "id,landmarks,Usage\na,9 5 9,Public\nb,,Private\nc,5,Ignored\n"
    manifest = read_manifest(write(tmp_path, text))
    assert manifest.landmarks == ("5", "9")
    assert manifest.more_landmarks == {0: (0,)}
    assert [manifest.truths(row) for row in range(3)] == [(1, 0), (), (0,)]


def test_open_images_labels_become_the_most_confident_and_the_others(tmp_path: Path) -> None:
    text = (
        "ImageID,Source,LabelName,Confidence\n"
        "a,verification,/m/1,0\na,machine,/m/2,0.5\na,machine,/m/3,0.9\na,crowd,/m/2,0.7\n"
        "b,verification,/m/4,1\nb,verification,/m/1,1\nc,verification,/m/1,0\n"
    )
    manifest = read_manifest(write(tmp_path, text))
    assert manifest.image_id.tolist() == ["a", "b"]
    names = [[manifest.landmarks[code] for code in manifest.truths(row)] for row in range(2)]
    assert names == [["/m/3", "/m/2"], ["/m/4", "/m/1"]]


def test_open_images_boxes_are_read_for_their_labels(tmp_path: Path) -> None:
    box = "a,x,/m/1,1,0,1,0,1,0\n"
    text = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded\n" + box + box
    warnings: list[str] = []
    path = write(tmp_path, text, "boxes.csv")
    manifest = read_manifest(path, Recorder(warnings))
    assert (manifest.image_id.tolist(), labels(manifest), dict(manifest.more_landmarks)) == (["a"], ["/m/1"], {})
    assert warnings == [f"{path}: of the boxes only their labels are used"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,landmrk_id\na,1", "train.csv: there is no column 'landmrk_id'; did you mean landmark_id?"),
        ("id,landmark_id,kinds\na,1,x", "train.csv: there is no column 'kinds'; did you mean kind?"),
        (
            "id,image_id\na,b",
            "train.csv: the columns id and image_id mean the same; keep one of them, or "
            "give `column` image_id=image_id",
        ),
        (
            "id;landmark\t_id\na;1",
            "train.csv: no known manifest has the header 'id;landmark\\t_id'; the nearest is 'id' (test.csv); "
            "columns are separated by commas",
        ),
        (
            "url,landmark_id\nhttp://x,2",
            "train.csv: no known manifest has the header 'url,landmark_id'; the nearest is 'id,url,landmark_id' "
            "(GLDv2 train.csv); `column` path=NAME takes another name",
        ),
        (
            "id,images,Usage\na,b c,Public",
            "train.csv is a retrieval solution or submission, not a manifest; compare a submission with a solution "
            "with lmr score SUBMISSION SOLUTION",
        ),
        (
            "id,landmarks\na,5 0.9",
            "train.csv is a submission, not a manifest; compare a submission with a solution with lmr score "
            "SUBMISSION SOLUTION",
        ),
        (
            "landmark_id,category\n1,http://x",
            "train.csv holds names of landmarks, it is not a manifest; give it as `names` train.csv",
        ),
        (
            "landmark_id,category,supercategory,hierarchical_label,natural_or_human_made\n1,http://x,,,",
            "train.csv holds names of landmarks, it is not a manifest; give it as `names` train.csv",
        ),
        (
            "/m/011k07,Tortoise\n/m/1,Cat",
            "train.csv holds names of landmarks, it is not a manifest; give it as `names` train.csv",
        ),
        (
            '{"LabelName": "/m/0bl9f"}',
            "train.csv is JSON, Open Images' class hierarchy; give the csv file of labels as the table",
        ),
        ("", "train.csv is empty; a manifest begins with a header such as id,landmark_id"),
        ("\n\n", "train.csv is empty; a manifest begins with a header such as id,landmark_id"),
        ("id,landmark_id\n", "train.csv holds a header and no pictures; add a row for each picture"),
        ("\0\1\2", "train.csv is not a text file; give a csv file, a Parquet file or a folder"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path: Path, header: str, message: str) -> None:
    assert error_of(write(tmp_path, header)) == message


@pytest.mark.parametrize("label", ["landmark_id,name\na.jpg,7,Old Mill", "landmarks,title\na.jpg,7 8,Mill"])
def test_a_table_of_paths_holds_images_whatever_labels_them(tmp_path: Path, label: str) -> None:
    manifest = read_manifest(write(tmp_path, f"path,{label}"))
    assert (manifest.landmarks[manifest.landmark[0]], [*manifest.image_id]) == ("7", ["a"])


def test_a_descriptor_store_is_refused_as_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "train.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    message = "train.h5 is an HDF5 file, not a manifest; give a csv file, a Parquet file or a folder"
    assert error_of(tmp_path / "train.h5") == message


def test_a_missing_file_is_named() -> None:
    assert error_of("nowhere.csv") == "nowhere.csv: there is no such file or folder"


def test_an_unknown_column_is_kept_and_said_so(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = write(tmp_path, "id,landmark_id,photographer\na,1,me\n")
    assert labels(read_manifest(path, Recorder(warnings))) == ["1"]
    assert warnings == [f"{path}: kept for the answers: photographer"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("b", "3: 1 field, the header has 2"),
        ("b,1,2", "3: 3 fields, the header has 2"),
        (",1", "3: id is missing"),
        ("a,1", "3: id a is also on line 2"),
        (" b,1", "3: id ' b' begins or ends with white space"),
        ('b,"1\n', "3: a quotation mark is opened and never closed"),
        ('b,"1"2', "3: broken quoting (',' expected after '\"')"),
        ('"b\tc",1', "3: id 'b\\tc' holds a control character"),
    ],
)
def test_a_bad_row_is_reported_with_its_line(tmp_path: Path, rows: str, problem: str) -> None:
    path = write(tmp_path, f"id,landmark_id\na,1\n{rows}\n")
    assert error_of(path) == f"train.csv: {LINES_OF_BAD_FILE}\n{path}:{problem}".replace(str(path), "train.csv")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,landmarks,Usage\na,1,Publik\n", "2: Usage is 'Publik', not Public, Private or Ignored"),
        ("landmark_id,images\n1,a b\n2,b\n", "3: image b is also on line 2"),
        ("landmark_id,images\n,a\n", "2: landmark_id is missing"),
        ("landmark_id,images\n1,\n", "2: images is missing"),
        ("path\na/b.jpg\n\na/b.jpg\n", "4: path a/b.jpg is also on line 2"),
        ("ImageID,Source,LabelName,Confidence\na,x,/m/1,high\n", "2: Confidence is 'high', not a number from 0 to 1"),
        ("ImageID,Source,LabelName,Confidence\na,x,/m/1,nan\n", "2: Confidence is 'nan', not a number from 0 to 1"),
        ("ImageID,Source,LabelName,Confidence\na,x,,1\n", "2: LabelName is missing"),
    ],
)
def test_each_format_reports_its_own_bad_rows(tmp_path: Path, text: str, problem: str) -> None:
    assert error_of(write(tmp_path, text)) == f"train.csv: {LINES_OF_BAD_FILE}\ntrain.csv:{problem}"


def test_ten_bad_rows_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "id,landmark_id\n" + ",1\n" * 1234)
    lines = error_of(path).splitlines()
    assert lines[0] == "train.csv: 1,234 bad rows; correct or remove, nothing of the file was used"
    assert lines[1:11] == [f"train.csv:{line}: id is missing" for line in range(2, 12)]
    assert lines[11:] == ["and 1,224 more"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_numbers_hold_with_quoted_newlines_blank_lines_and_any_line_end(
    tmp_path: Path, newline: str, start: str
) -> None:
    text = start + 'id,url,landmark_id\na,"x\n\ny",1\n\nb,,2\n,,3\n'.replace("\n", newline)
    assert error_of(write(tmp_path, text)).splitlines()[1] == "train.csv:7: id is missing"


def test_a_byte_order_mark_utf_16_gzip_and_zip_are_read(tmp_path: Path) -> None:
    text = "id,landmark_id\na,Köln\n"
    (tmp_path / "bom.csv").write_bytes(text.encode("utf-8-sig"))
    (tmp_path / "utf16.csv").write_bytes(text.encode("utf-16"))
    (tmp_path / "packed.csv").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", text)
    for path in tmp_path.iterdir():
        assert labels(read_manifest(path)) == ["Köln"], path


def test_text_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"id,landmark_id\na,1\n" + b"x" * 100_000 + b",1\nb,K\xf6ln\n")
    assert error_of(path) == "train.csv:4: not UTF-8 (byte 0xf6); save the file as UTF-8"


def test_a_gzip_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(b"id\n" + b"".join(b"%d\n" % i for i in range(9999)))[:-200])
    message = "train.csv.gz cannot be read: Compressed file ended before the end-of-stream marker was reached"
    assert error_of(path) == message


@pytest.mark.parametrize(
    ("method", "name", "reason"),
    [
        (zipfile.ZIP_STORED, "é.csv", r"a name in it is not UTF-8: b'\xff\xff.csv'"),
        (zipfile.ZIP_LZMA, "t.csv", "Corrupt input data"),
    ],
)
def test_a_zip_whose_name_or_content_is_broken_is_one_line(tmp_path: Path, method: int, name: str, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", method) as archive:
        archive.writestr(name, "id\n" + "".join(f"{i}\n" for i in range(999)))
    data = (tmp_path / "t.zip").read_bytes().replace("é".encode(), b"\xff\xff")
    if method == zipfile.ZIP_LZMA:
        data = data[:60] + bytes(40) + data[100:]
    (tmp_path / "t.zip").write_bytes(data)
    assert error_of(tmp_path / "t.zip") == f"t.zip cannot be read: {reason}"


def test_a_zip_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.csv", "id\na\n")
        archive.writestr("b.csv", "id\nb\n")
    assert error_of(tmp_path / "all.zip") == "all.zip holds 2 files; give a zip archive of one csv, or unpack it"


def test_a_cell_may_be_longer_than_csv_allows_by_default(tmp_path: Path) -> None:
    ids = [f"{i:016x}" for i in range(20_000)]
    manifest = read_manifest(write(tmp_path, f"landmark_id,images\n1,{' '.join(ids)}\n"))
    assert manifest.image_id.tolist() == ids


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.text('ab", \n\ré', min_size=1).filter(lambda s: s == s.strip()), st.text('12",;', max_size=3)),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_what_csv_writes_is_read_back_or_refused_row_by_row(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "landmark_id"), *rows])
        n_bad = sum(bool({"\n", "\r"} & set(image_id)) for image_id, _ in rows)
        if not n_bad:
            manifest = read_manifest(path)
            assert list(zip(manifest.image_id, labels(manifest), strict=True)) == rows
        else:
            assert f" {n_bad} bad row" in error_of(path)


def test_rows_are_selected_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    text = "id,landmarks,Usage,kind\na,1,Public,x\nb,3 2,Private,y\nc,,Ignored,z\n"
    manifest = read_manifest(write(tmp_path, text)).select(np.array([2, 1]))
    assert manifest.image_id.tolist() == ["c", "b"]
    assert manifest.landmarks == ("1", "2", "3")
    assert [manifest.truths(row) for row in range(2)] == [(), (2, 1)]
    assert texts(manifest.kind) == ["z", "y"]
    mask = np.array([False, True])
    assert manifest.select(mask).image_id.tolist() == ["b"]


@pytest.mark.parametrize(
    "other",
    [
        "id,landmark_id,kind,path\na,1,x,\nc,2,y,\n",
        "id,landmark_id,kind,path\na,1,x,\nb,1,y,\n",
        "id,landmark_id,kind,path\na,1,x,\nb,2,z,\n",
        "id,landmark_id,kind,path\na,1,x,\nb,2,y,p\n",
        "id,landmark_id,kind,path\nb,2,y,\na,1,x,\n",
        "id,landmark_id,kind,path\na,1,x,\n",
        "id,landmark_id,kind,path\na,3,x,\nb,4,y,\n",
    ],
)
def test_the_digest_changes_with_anything_that_embed_depends_on(tmp_path: Path, other: str) -> None:
    text = "id,landmark_id,kind,path\na,1,x,\nb,2,y,\n"
    digest = read_manifest(write(tmp_path, text)).digest
    assert read_manifest(write(tmp_path, other, "other.csv")).digest != digest
    same = "landmark_id,path,kind,id\r\n1,,x,a\r\n2,,y,b\r\n"
    assert read_manifest(write(tmp_path, same, "same.csv")).digest == digest


def test_a_manifest_can_be_pickled_and_its_arrays_not_written(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "id,landmark_id\na,1\nb,2\n"))
    assert pickle.loads(pickle.dumps(manifest)).digest == manifest.digest
    with pytest.raises(ValueError, match="read-only"):
        manifest.landmark[0] = 1


def test_a_manifest_that_contradicts_itself_cannot_be_made() -> None:
    ids, none = np.array(["a", "a"], dtype=object), np.array([-1, -1], dtype=np.int32)
    with pytest.raises(ValueError, match="image_id must be unique"):
        Manifest("x", ids, none, ())
    ids = np.array(["a", "b"], dtype=object)
    with pytest.raises(ValueError, match=r"landmark must lie in \[-1, 1\)"):
        Manifest("x", ids, np.array([0, 1], dtype=np.int32), ("1",))
    with pytest.raises(ValueError, match="landmarks must be unique and sorted"):
        Manifest("x", ids, none, ("2", "1"))
    with pytest.raises(ValueError, match=r"kind must have 2 rows, got \(1,\)"):
        Manifest("x", ids, none, (), kind=ids[:1])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("id;landmark_id\na;1\n\nb;\n", "semicolons"),
        ("id\tlandmark_id\na\t1\nb\t\n", "tabs"),
        ("id|landmark_id\na|1\nb|\n", "bars"),
        ("sep=;\r\nid;landmark_id\r\na;1\r\nb;\r\n", "semicolons"),
        ('"sep=\t"\n\nid\tlandmark_id\na\t1\nb\t\n', "tabs"),
        ('\n"id";"landmark_id";"caption"\n"a";"1";"x, y"\nb;;"u; v"\n', "semicolons"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_columns_are_separated_by_what_the_header_shows(tmp_path: Path, text: str, name: str, encoding: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(text, encoding=encoding, newline="")
    warnings: list[str] = []
    manifest = read_manifest(path, Recorder(warnings))
    assert (manifest.image_id.tolist(), labels(manifest)) == (["a", "b"], ["1", ""])
    assert warnings[0] == f"{path}: columns separated by {name}"


def test_commas_are_said_by_excel_without_a_word(tmp_path: Path) -> None:
    warnings: list[str] = []
    manifest = read_manifest(write(tmp_path, "sep=,\nid,landmark_id\na;b,1\n"), Recorder(warnings))
    assert (manifest.image_id.tolist(), warnings) == (["a;b"], [])


def test_lines_are_counted_from_that_of_excel(tmp_path: Path) -> None:
    assert error_of(write(tmp_path, "sep=;\nid;landmark_id\na;1\na;1;2\n")).splitlines() == [
        "train.csv: 1 bad row; correct or remove, nothing of the file was used",
        "train.csv:4: 3 fields, the header has 2",
    ]


def test_a_header_with_commas_and_others_is_not_guessed_at(tmp_path: Path) -> None:
    assert error_of(write(tmp_path, "id;landmark_id,url\na;1,x\n")) == (
        "train.csv: no known manifest has the header 'id;landmark_id,url'; the nearest is 'id,url,landmark_id' "
        "(GLDv2 train.csv); `column` path=NAME takes another name"
    )


def test_the_limit_of_csv_is_put_back_when_the_last_table_is_closed(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    first, second = (CsvTable(write(tmp_path, "id,landmark_id\na,1\nb,2\n", name)) for name in ("1.csv", "2.csv"))
    one, other = first.batches(), second.batches()
    next(one), next(other)
    assert csv.field_size_limit() > before
    one.close()
    assert csv.field_size_limit() > before
    other.close()
    assert csv.field_size_limit() == before
