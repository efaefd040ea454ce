"""Parquet manifests and embedded images; skipped where pyarrow is not installed."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorder import Recorder

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.parquet import ParquetTable
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.parquet_parts import longest_in_dictionaries


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


def error_of(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), path.name)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(8) + b"PAR1")
    assert error_of(tmp_path / "t.parquet") == f"t.parquet: Parquet needs pyarrow; {install_hint('parquet')}"


def test_the_columns_are_those_of_the_csv_files(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": ["a", "b", "c"], "landmark_id": [7, None, 10], "kind": ["x", None, "z"]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    manifest = read_manifest(tmp_path / "t.parquet")
    assert manifest.image_id.tolist() == ["a", "b", "c"]
    assert labels(manifest) == ["7", "", "10"]
    assert manifest.kind is not None
    assert manifest.kind.tolist() == ["x", "", "z"]


def test_lists_and_numbers_with_gaps_are_read_as_text(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"landmark_id": [7.0, 2.0], "images": [["a", "b"], ["c"]]})
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert manifest.image_id.tolist() == ["a", "b", "c"]
    assert labels(manifest) == ["7", "7", "2"]


def test_embedded_images_are_read_by_row(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": bytes([i]) if i else None, "path": None} for i in range(5)]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2, 3, 4]}), tmp_path / "t.parquet", row_group_size=2)
    manifest = read_manifest(tmp_path / "t.parquet").select(np.array([4, 1, 0]))
    assert manifest.image_id.tolist() == ["00000004", "00000001", "00000000"]
    assert labels(manifest) == ["4", "1", "0"]
    source = ImageSource(manifest, None)
    assert [source.read(row) for row in range(2)] == [b"\4", b"\1"]
    assert source.where(0) == ""
    with pytest.raises(UnreadableError) as caught:
        source.read(2)
    assert str(caught.value) == f"no picture in row 1 of {tmp_path / 't.parquet'}"


def test_a_file_of_nothing_but_images_is_a_manifest(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [b"x"] * 1500}), tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert (len(manifest), manifest.image_id[1499], manifest.has_labels) == (1500, "00001499", False)


def test_bad_rows_are_counted_from_one(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"id": ["a", "b", "a"]}), tmp_path / "t.parquet")
    assert error_of(tmp_path / "t.parquet") == (
        "t.parquet: 1 bad row; correct or remove, nothing of the file was used\nt.parquet:3: id a is also on line 1"
    )


@pytest.mark.parametrize("kind", ["string", "binary"])
def test_an_image_column_of_file_names_is_the_path_of_each_image(tmp_path: Path, kind: str) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = pa.array(["b.jpg", "a.jpg"]).cast(getattr(pa, kind)())
    pq.write_table(pa.table({"image": names, "label": [7.0, float("nan")]}), tmp_path / "t.parquet")
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "b.jpg").write_bytes(b"B")
    said: list[str] = []
    manifest = read_manifest(tmp_path / "t.parquet", Recorder(said))
    assert (manifest.image_id.tolist(), labels(manifest)) == (["b", "a"], ["7", ""])
    assert [ImageSource(manifest, None).read(row) for row in range(2)] == [b"B", b"A"]
    assert said == [f"{tmp_path / 't.parquet'}: image taken as path, label taken as landmark_id"]


def test_bytes_that_are_text_are_read_as_text(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"id": [b"a", b"b"], "landmark_id": ["Köln".encode(), None]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert (manifest.image_id.tolist(), labels(manifest)) == (["a", "b"], ["Köln", ""])


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    assert error_of(tmp_path / "t.parquet").startswith("t.parquet is not a Parquet file that can be read: ")


def write_table(path: Path) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ids = [f"p{i}" for i in range(200)]
    pq.write_table(pa.table({"id": ids, "landmark_id": [f"l{i % 7}" for i in range(200)]}), path)
    return path.read_bytes()


def read_or_refuse(path: Path) -> str:
    """'' where it is read, else what is said."""
    try:
        read_manifest(path)
    except LmrError as error:
        return str(error)
    return ""


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    whole = write_table(path)
    for end in range(4, len(whole), 97):
        path.write_bytes(whole[:end])
        said = read_or_refuse(path)
        assert said.startswith(f"{path} is not a Parquet file that can be read: ")
        assert "\n" not in said


def test_changed_bytes_anywhere_never_end_in_another_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    whole = write_table(path)
    said = set()
    for at in range(4, len(whole), 11):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        said.add(read_or_refuse(path).partition(":")[0])
    assert f"{path} is not a Parquet file that can be read" in said


def test_a_changed_letter_is_noticed_where_pages_have_checksums(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["abcde"]}), path, compression="none", write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"abcde", b"abcdx", 1))
    assert error_of(path).startswith("t.parquet is not a Parquet file that can be read: ")


def test_images_of_damaged_pages_are_unreadable_alone(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    table = pa.table({"id": ["a", "b"], "image": [b"\xff" * 100, b"\xfe" * 100]})
    pq.write_table(table, path, row_group_size=1, compression="none", use_dictionary=False)
    manifest = read_manifest(path)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    source = ImageSource(manifest, None)
    assert source.read(0) == b"\xff" * 100
    with pytest.raises(UnreadableError) as caught:
        source.read(1)
    assert str(caught.value).startswith(f"row 2: {path} is not a Parquet file that can be read: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "image": [b"\xff", b"\xfe"]}), path)
    source = ImageSource(read_manifest(path), None)
    pq.write_table(pa.table({"id": ["a"], "image": [b"\xff"]}), path)
    with pytest.raises(LmrError) as caught:
        source.read(1)
    assert str(caught.value) == f"{path} has changed: it had a row 2, and has 1"


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["id", "id"])
    pq.write_table(table, tmp_path / "t.parquet")
    assert error_of(tmp_path / "t.parquet") == "t.parquet has two columns 'id'; keep one of them"


def test_more_rows_than_a_file_can_hold_are_refused(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": pa.nulls(2_000_000, pa.binary())}), path)
    size = path.stat().st_size
    assert error_of(path) == f"t.parquet is damaged: it says that it has 2,000,000 rows, in {size:,} bytes"


def test_columns_of_any_type_lie_beside_ids(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "id": pa.array(["a"]),
        "landmark_id": pa.array(["x"]),
        "date": pa.array([1], pa.timestamp("ns")),
        "size": pa.array([{"w": 1, "h": [2]}]),
        "tags": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read_manifest(tmp_path / "t.parquet").image_id.tolist() == ["a"]


@pytest.mark.parametrize(
    "values",
    [
        ["a" * 3_000_000, "b"],  # pages that shrink to nothing
        ["a" * 3_000, *["b" * 3_000] * 999],  # a dictionary of two
        [["a"] * 400_000, ["b"]],  # few bits a value
    ],
)
def test_a_small_file_that_unpacks_to_a_large_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[str] | list[list[str]]
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("retrieval.data.parquet._FREE_TEXT_BYTES", 2_000_000)
    path = tmp_path / "a.parquet"
    rows = range(len(values))
    pq.write_table(pa.table({"id": [str(row) for row in rows], "caption": values}), path, compression="zstd")
    if isinstance(values[0], str):  # also as a type that keeps its dictionary
        kept = pa.table({"id": [str(row) for row in rows], "caption": pa.array(values).dictionary_encode()})
        pq.write_table(kept, tmp_path / "kept.parquet", compression="zstd")
        assert "kept.parquet unpacks to more than" in error_of(tmp_path / "kept.parquet")
    limit = (2_000_000 + 40 * path.stat().st_size) / 1e6
    assert limit < 2.8
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    assert str(caught.value) == (
        f"{path} unpacks to more than {limit:,.0f} MB of text; if it really is a table, give it as a csv file"
    )
    monkeypatch.undo()
    assert len(read_manifest(path)) == len(values)


def test_rows_that_share_a_long_text_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("retrieval.data.parquet._MAX_BATCH_BYTES", 1 << 20)
    long = [random.Random(seed).randbytes(10_000).hex() for seed in range(2)]
    labels = [*["x"] * 300, *(long * 200)]
    pq.write_table(pa.table({"id": [f"i{n}" for n in range(700)], "landmark_id": labels}), tmp_path / "t.parquet")
    batches = list(ParquetTable(tmp_path / "t.parquet").batches())
    assert max(map(len, batches)) == (1 << 20) // 20_000
    assert [row[1] for rows in batches for row in rows] == labels


def test_the_longest_text_of_a_dictionary_within_lists_counts_for_all_of_them(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "images": [["x" * 900, "y"], ["y"] * 3], "n": [1, 2]}), path)
    assert list(longest_in_dictionaries(str(path), ["id", "images", "n"], 0)) == [(1, 1), (900, 5)]


def class_labels(features: object) -> dict[bytes, bytes]:
    """What the data sets library of Hugging Face writes into the metadata of a schema."""
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def test_numbers_of_classes_are_read_as_their_names(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": bytes([i + 1]), "path": f"{i}.jpg"} for i in range(4)]
    table = pa.table({"image": images, "label": pa.array([1, 0, None, -1], pa.int64()), "year": [1, 0, 1, 0]})
    label = {"names": ["Hawa Mahal", "Tower"], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label, "year": {"dtype": "int64", "_type": "Value"}}
    path = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(table.replace_schema_metadata(class_labels(features)), path)
    said: list[str] = []
    manifest = read_manifest(path, Recorder(said))
    assert labels(manifest) == ["Tower", "Hawa_Mahal", "", ""]
    assert manifest.names == {"Hawa_Mahal": "Hawa Mahal"}
    assert manifest.columns["year"].tolist() == ["1", "0", "1", "0"]
    assert ImageSource(manifest, None).read(3) == bytes([4])
    assert said[0] == f"{path}: label read as the names of its 2 classes"


_NAMED = {"names": ["Hawa Mahal", "Tower"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("classes", "feature", "expected"),
    [
        ([[1, 0], []], {"feature": _NAMED, "_type": "Sequence"}, [["Tower", "Hawa_Mahal"], []]),
        ([[1, 0], []], [_NAMED], [["Tower", "Hawa_Mahal"], []]),
        ([1, 0], _NAMED, [["Tower"], ["Hawa_Mahal"]]),
    ],
)
def test_classes_of_an_image_are_read_as_their_names(
    tmp_path: Path, classes: list[Any], feature: Any, expected: list[list[str]]
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": ["a", "b"], "landmarks": classes, "Usage": ["Public", "Public"]})
    pq.write_table(table.replace_schema_metadata(class_labels({"landmarks": feature})), tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert [[manifest.landmarks[code] for code in manifest.truths(row)] for row in range(2)] == expected


def test_a_number_that_is_no_class_is_named_by_its_row(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": ["a", "b", "c"], "label": [0, 2, -7]})
    features = {"label": {"names": ["Mill", "Tower"], "_type": "ClassLabel"}}
    pq.write_table(table.replace_schema_metadata(class_labels(features)), tmp_path / "t.parquet")
    assert error_of(tmp_path / "t.parquet").splitlines() == [
        "t.parquet: 2 bad rows; correct or remove, nothing of the file was used",
        "t.parquet:2: label is 2, and the file names 2 classes, from 0 on",
        "t.parquet:3: label is -7, and the file names 2 classes, from 0 on",
    ]
    table = pa.table({"id": ["a", "b"], "label": [[0], [0, 2]]})
    pq.write_table(table.replace_schema_metadata(class_labels({"label": [features["label"]]})), tmp_path / "t.parquet")
    assert error_of(tmp_path / "t.parquet").endswith("label is 0 2, and the file names 2 classes, from 0 on")


def test_classes_of_one_name_and_parts_that_name_other_classes_are_refused(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    for number, names in enumerate([["Mill", "Tower"], ["Tower", "Mill"]]):
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = pa.table({"id": [f"{number}"], "label": [0]}).replace_schema_metadata(class_labels(features))
        pq.write_table(table, parts / f"part-{number}.parquet")
    with pytest.raises(LmrError) as error:
        read_manifest(parts)
    assert str(error.value) == (
        f"{parts}/part-1.parquet names other classes than {parts}/part-0.parquet; give the part files of one table"
    )
    features = {"label": {"names": ["Mill", "Tower", "Mill"], "_type": "ClassLabel"}}
    pq.write_table(table.replace_schema_metadata(class_labels(features)), tmp_path / "t.parquet")
    assert error_of(tmp_path / "t.parquet") == ("t.parquet: two classes of label are called 'Mill'; rename one of them")


@pytest.mark.parametrize("features", [[], {"label": 3}, {"label": {"_type": "ClassLabel", "names": None}}, None])
def test_other_descriptions_leave_numbers_as_they_are(tmp_path: Path, features: object) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": ["a"], "label": [4]}).replace_schema_metadata(class_labels(features))
    pq.write_table(table, tmp_path / "t.parquet")
    assert labels(read_manifest(tmp_path / "t.parquet")) == ["4"]


def test_train_and_test_of_a_data_set_are_not_read_as_one_table(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name in ("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"):
        pq.write_table(pa.table({"id": [name]}), tmp_path / f"{name}.parquet")
    assert (
        error_of(tmp_path)
        == f"{tmp_path.name} holds the parts test, train of a data set; give each a folder of its own"
    )
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert len(read_manifest(tmp_path)) == 2


def test_a_label_that_is_a_list_is_several_landmarks(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image_id": ["a", "b"], "landmark_id": [["x", "y z"], ["z"]]}), path)
    found = read_manifest(path)
    assert found.landmarks == ("x", "y_z", "z")
    assert (found.landmark.tolist(), found.more_landmarks) == ([0, 2], {0: (1,)})
    assert found.names == {"y_z": "y z"}
    nested = [[["a", "b"], ["c"]], [["z"]]]
    pq.write_table(pa.table({"image_id": ["a", "b"], "landmark_id": nested}), path)
    assert error_of(path).startswith("a.parquet: landmark_id holds lists of list<")
    pq.write_table(pa.table({"image_id": ["a", "b"], "landmark_id": [[0.0, 1.0], [1.0, 0.0]]}), path)
    assert error_of(path) == "a.parquet: landmark_id holds lists of double, not labels"
