"""Parquet manifests and embedded pictures; skipped where pyarrow is not installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.source import PictureSource
from retrieval.manifest import Manifest, read_manifest


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


def test_embedded_pictures_are_read_by_row(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": bytes([i]) if i else None, "path": None} for i in range(5)]
    pq.write_table(pa.table({"image": pictures, "label": [0, 1, 2, 3, 4]}), tmp_path / "t.parquet", row_group_size=2)
    manifest = read_manifest(tmp_path / "t.parquet").select(np.array([4, 1, 0]))
    assert manifest.image_id.tolist() == ["00000004", "00000001", "00000000"]
    assert labels(manifest) == ["4", "1", "0"]
    source = PictureSource(manifest, None)
    assert [source.read(row) for row in range(2)] == [b"\4", b"\1"]
    assert source.where(0) == ""
    with pytest.raises(UnreadableError) as caught:
        source.read(2)
    assert str(caught.value) == f"no picture in row 1 of {tmp_path / 't.parquet'}"


def test_a_file_of_nothing_but_pictures_is_a_manifest(tmp_path: Path) -> None:
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
def test_an_image_column_of_file_names_is_the_path_of_each_picture(tmp_path: Path, kind: str) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = pa.array(["b.jpg", "a.jpg"]).cast(getattr(pa, kind)())
    pq.write_table(pa.table({"image": names, "label": [7.0, float("nan")]}), tmp_path / "t.parquet")
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "b.jpg").write_bytes(b"B")
    said: list[str] = []
    manifest = read_manifest(tmp_path / "t.parquet", on_warning=said.append)
    assert (manifest.image_id.tolist(), labels(manifest)) == (["b", "a"], ["7", ""])
    assert [PictureSource(manifest, None).read(row) for row in range(2)] == [b"B", b"A"]
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
