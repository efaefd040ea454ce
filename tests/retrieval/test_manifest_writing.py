"""Manifests written and read again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.manifest_lines import manifest_lines, solution_lines
from retrieval.data.parquet import EmbeddedImages

COLUMNS = ("path", "url", "kind", "usage")


def objects(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def small(**parts: object) -> Manifest:
    """Two images of landmarks and one of none."""
    landmark = np.array([1, -1, 0], dtype=np.int32)
    given = {"image_id": objects("a", "b", "c"), "landmark": landmark, "landmarks": ("mill", "tower"), **parts}
    return Manifest(source="small.csv", **given)


def read_again(manifest: Manifest, folder: Path) -> Manifest:
    path = folder / "again.csv"
    path.write_text("".join(manifest_lines(manifest)), encoding="utf-8", newline="")
    return read_manifest(path)


def content(manifest: Manifest) -> dict[str, object]:
    """All that a manifest says, with labels as text."""
    columns = {name: getattr(manifest, name) for name in COLUMNS}
    return {
        "image_id": manifest.image_id.tolist(),
        "truths": [[manifest.landmarks[code] for code in manifest.truths(i)] for i in range(len(manifest))],
        "has_labels": manifest.has_labels,
        **{name: None if values is None else values.tolist() for name, values in columns.items()},
    }


def test_columns_that_are_there_are_written_in_order():
    manifest = small(path=objects("x/a.jpg", "", "c,d.jpg"), kind=objects("p", 'say "q"', ""))
    assert "".join(manifest_lines(manifest)) == (
        "image_id,landmark_id,path,kind\n"
        "a,tower,x/a.jpg,p\n"
        'b,,,"say ""q"""\n'
        'c,mill,"c,d.jpg",\n'
    )  # fmt: skip


def test_without_labels_there_is_no_column_of_labels():
    landmark = np.full(3, -1, dtype=np.int32)
    manifest = small(landmark=landmark, landmarks=(), has_labels=False, url=objects("u", "v", "w"))
    assert "".join(manifest_lines(manifest)) == "image_id,url\na,u\nb,v\nc,w\n"


def test_rows_with_several_landmarks_keep_all_of_them(tmp_path):
    manifest = small(more_landmarks={0: (0,)})
    assert "".join(manifest_lines(manifest)) == (
        "image_id,landmarks,Usage\na,tower mill,Public\nb,,Public\nc,mill,Public\n"
    )
    again = read_again(manifest, tmp_path)
    assert content(again) == content(replace(manifest, usage=objects("Public", "Public", "Public")))


def test_a_solution_has_the_columns_that_score_reads():
    usage = objects("Public", "Private", "Ignored")
    manifest = small(usage=usage, kind=objects("x", "y", "z"), more_landmarks={0: (0,)})
    assert "".join(solution_lines(manifest)) == (
        "id,landmarks,Usage,kind\na,tower mill,Public,x\nb,,Private,y\nc,mill,Ignored,z\n"
    )


def test_a_solution_without_usage_is_a_callers_mistake():
    with pytest.raises(ValueError, match="a solution needs the usage of each row"):
        "".join(solution_lines(small()))


@pytest.mark.parametrize("lines", [manifest_lines, solution_lines])
def test_images_inside_another_file_cannot_be_named(lines):
    held = EmbeddedImages("pictures.parquet", "image", np.arange(3))
    with pytest.raises(ValueError, match="holds the pictures themselves"):
        "".join(lines(small(content=held)))


TEXT = st.text(st.sampled_from("ab ,\"'é\r\n\t;"), max_size=4)
IDS = st.lists(st.text(st.sampled_from("ab,\"'é;/"), min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@given(st.data(), IDS)
def test_what_is_written_reads_back_as_it_was(tmp_path_factory, data, ids):
    n = len(ids)
    labels = data.draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n))
    columns = {name: data.draw(st.none() | st.lists(TEXT, min_size=n, max_size=n)) for name in ("path", "url", "kind")}
    usage = data.draw(st.none() | st.lists(st.sampled_from(["Public", "Private", "Ignored"]), min_size=n, max_size=n))
    more = {i: (1 - label,) for i, label in enumerate(labels) if label >= 0 and usage and data.draw(st.booleans())}
    manifest = Manifest(
        source="x.csv",
        image_id=objects(*ids),
        landmark=np.array(labels, dtype=np.int32),
        landmarks=("m", "t,1"),
        more_landmarks=more,
        usage=objects(*usage) if usage else None,
        **{name: None if values is None else objects(*values) for name, values in columns.items()},
    )
    assert content(read_again(manifest, tmp_path_factory.getbasetemp())) == content(manifest)


def test_many_rows_are_all_written():
    ids = np.array([f"{i:05d}" for i in range(40_000)], dtype=object)
    manifest = Manifest(source="x.csv", image_id=ids, landmark=np.zeros(40_000, dtype=np.int32), landmarks=("m",))
    assert "".join(manifest_lines(manifest)).splitlines()[1:] == [f"{i:05d},m" for i in range(40_000)]
