"""Manifests of JSON: records a line or in an array, COCO as iNaturalist has it; all that is wrong named by its line."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder

from retrieval.data.header.mapping import parse_columns
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.tables import json_text
from retrieval.data.tables.opening import open_table
from retrieval.errors import LmrError

FIRST = "1 bad row; correct or remove, nothing of the file was used\n"


def write(folder: Path, content: Any, *, indent: int | None = None) -> Path:
    path = folder / "t.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=indent))
    return path


def read(folder: Path, content: Any) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    path = write(folder, content)
    manifest = read_manifest(path, Recorder(said))
    return manifest, [line.replace(str(path), "t.json") for line in said]


def problem(folder: Path, content: Any, *, indent: int | None = None) -> str:
    path = write(folder, content, indent=indent)
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), "t.json")


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "a", "landmark_id": 7}\n\n{"id": "b"}\n{"kind": "x", "id": "c", "landmark_id": null}',
        '[{"id": "a", "landmark_id": 7}, {"id": "b"}, {"kind": "x", "id": "c", "landmark_id": null}]',
        '[\n{"id": "a",\n"landmark_id": "7"\n},{"id":"b"},{"kind":"x","id":"c"}\n]\n',
        '{\n"id": "a",\n"landmark_id": 7}\n{"id": "b"} {"id": "c", "kind": "x", "landmark_id": NaN}',
        '\ufeff{"id": "a", "landmark_id": 7.0}\n{"id": "b"}\n{"id": "c", "kind": "x"}\n',
    ],
)
def test_records_are_read_a_line_each_in_an_array_and_one_behind_the_other(tmp_path: Path, text: str) -> None:
    manifest, _ = read(tmp_path, text)
    assert manifest.image_id.tolist() == ["a", "b", "c"]
    assert labels(manifest) == ["7", "", ""]
    assert manifest.kind is not None
    assert manifest.kind.tolist() == ["", "", "x"]


def test_what_a_record_says_beside_is_kept_as_it_is_written(tmp_path: Path) -> None:
    record = (
        '{"path": "a.jpg", "class": "Tower", "lat": 48.8580, "by": {"name": "Ann", "years": [1890, 1901]}, "on": true}'
    )
    manifest, said = read(tmp_path, f"[{record}]")
    kept = {name: texts.tolist() for name, texts in manifest.columns.items()}
    assert kept == {"lat": ["48.8580"], "by.name": ["Ann"], "by.years": ["1890 1901"], "on": ["true"]}
    assert said == [
        "t.json: class taken as landmark_id",
        "t.json: kept for the answers: lat, by.name, by.years, on",
    ]


def test_the_queries_of_met_have_their_artworks_and_others_none(tmp_path: Path) -> None:
    manifest, said = read(tmp_path, [{"path": "test_met/1.jpg", "MET_id": 37}, {"path": "test_other/2.jpg"}])
    assert (labels(manifest), said) == (["37", ""], ["t.json: MET_id taken as landmark_id"])


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a"}\n{"id": "b"}\n'))
    assert read_manifest(tmp_path / "t.jsonl.gz").image_id.tolist() == ["a", "b"]


def test_a_broken_line_does_not_hide_what_is_wrong_with_others(tmp_path: Path) -> None:
    text = '{"id": "a"}\n{"id" "b"}\n["c"]\n{"id": "d", "id": "e"}\n{"id": "\\ud800"}\n{"id": "a"}\n{"id":'
    assert problem(tmp_path, text).splitlines() == [
        "t.json: 6 bad rows; correct or remove, nothing of the file was used",
        "t.json:2: not JSON: expecting ':' delimiter at \"b\"}",
        't.json:3: ["c"] where an object is expected, such as {"path": ..., "label": ...}',
        "t.json:4: the key 'id' is there twice",
        "t.json:5: id holds half of a character (a lone surrogate)",
        "t.json:6: id a is also on line 1",
        "t.json:7: not JSON: it ends too early",
    ]


@pytest.mark.parametrize(("indent", "first", "second"), [(None, 1, 3), (1, 2, 8)])
def test_records_of_an_array_are_named_by_line_or_where_they_share_one_by_number(
    tmp_path: Path, indent: int | None, first: int, second: int
) -> None:
    records = [{"id": "a"}, {"id": "b"}, {"id": "a"}]
    expected = f"t.json: {FIRST}t.json:{second}: id a is also on line {first}"
    assert problem(tmp_path, records, indent=indent) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "a"}{"id": "b"}]', f"t.json: {FIRST}t.json:2: not JSON: {{ where , or ] is expected"),
        ('[\n{"id": "a"},\n{"id": "b"', f"t.json: {FIRST}t.json:3: not JSON: it ends too early"),
        ('[{"id": "a"},\n', f"t.json: {FIRST}t.json:2: not JSON: it ends too early"),
        ("[]", "t.json holds no records; a manifest has one for each picture"),
        ("[{}]", "t.json holds no records; a manifest has one for each picture"),
        (
            '{"data": [{"id": "a"}]}',
            "t.json: no known manifest has the header 'data'; the nearest is 'id' (test.csv); `column` path=NAME takes "
            "another name",
        ),
        (
            json.dumps([{f"k{i}": i for i in range(1001)}]),
            "t.json: its records have more than 1,000 keys; it is no table",
        ),
        ('[{"id": "a", "x": ' + "[" * 100_000, f"t.json: {FIRST}t.json:1: not JSON: nested too deep"),
        (
            '{"LabelName": "/m/0bl9f", "Subcategory": []}',
            "t.json is JSON, Open Images' class hierarchy; give the csv file of labels as the table",
        ),
    ],
)
def test_what_is_no_table_is_refused_in_one_line_or_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert problem(tmp_path, text) == message


def test_bytes_that_are_no_letters_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b'{"id": "a"}\n{"id": "\xff"}\n')
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}:2: not UTF-8 (byte 0xff); save the file as UTF-8"


def test_values_longer_than_what_is_read_at_once_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "_PIECE", 5)
    monkeypatch.setattr(json_text, "_CUT", 16)
    records = [{"id": f"{i:030d}", "landmark_id": 10**i, "kind": 'a"b\\'} for i in range(9)]
    manifest, _ = read(tmp_path, records)
    assert manifest.image_id.tolist() == [record["id"] for record in records]
    assert labels(manifest) == [str(record["landmark_id"]) for record in records]


def test_a_value_without_an_end_takes_a_bounded_part_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "MAX_CHARACTERS", 1 << 20)
    text = '[{"id": "' + "a" * (1 << 23)
    assert problem(tmp_path, text) == f"t.json: {FIRST}t.json:1: a value of more than 1 MiB; this is no table"


def test_many_records_on_one_line_are_read_in_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": f"{i:08d}", "note": "x" * 1000} for i in range(6000)])
    tracemalloc.start()
    try:
        table = open_table(path)
        assert table is not None
        n_rows = sum(map(len, table.batches()))
        assert (n_rows, tracemalloc.get_traced_memory()[1] < path.stat().st_size) == (6000, True)
    finally:
        tracemalloc.stop()


def coco(**lists: Any) -> dict[str, Any]:
    images = [{"id": 5, "file_name": "b/5.jpg", "latitude": 1.50}, {"id": 6, "file_name": "c/6.jpg"}]
    return {"info": {"year": 2021}, "images": images, **lists}


BIRDS = [{"id": 0, "name": "Corvus corax"}, {"id": 1, "name": "Pica pica"}]


@pytest.mark.parametrize("is_backwards", [False, True])
def test_images_of_inaturalist_have_their_category_and_its_name(tmp_path: Path, is_backwards: bool) -> None:
    shown = [{"id": 1, "image_id": 6, "category_id": 0}, {"id": 2, "image_id": 5, "category_id": 1}]
    content = coco(annotations=shown, categories=BIRDS)
    manifest, said = read(tmp_path, dict(reversed(content.items())) if is_backwards else content)
    assert manifest.image_id.tolist() == ["5", "6"]
    assert manifest.path is not None
    assert manifest.path.tolist() == ["b/5.jpg", "c/6.jpg"]
    assert (labels(manifest), dict(manifest.names)) == (["1", "0"], {"0": "Corvus corax", "1": "Pica pica"})
    assert {name: texts.tolist() for name, texts in manifest.columns.items()} == {"lat": ["1.5", ""]}
    assert said[0] == "t.json: file_name taken as path, category_id taken as landmark_id"


def test_an_image_with_several_categories_has_all_of_them(tmp_path: Path) -> None:
    shown = [{"image_id": 6, "category_id": code} for code in (1, 0, 1)]
    manifest, _ = read(tmp_path, coco(annotations=shown))
    assert labels(manifest) == ["", "1"]
    assert [[manifest.landmarks[code] for code in manifest.truths(row)] for row in range(2)] == [[], ["1", "0"]]


def test_images_of_coco_without_annotations_have_no_labels(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "b/5.jpg", "license": 0, "rights_holder": "Ann"}]
    manifest, _ = read(tmp_path, {"images": images})
    assert (manifest.image_id.tolist(), manifest.has_labels) == (["5"], False)


def test_lists_of_coco_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    shown = [{"image_id": 9, "category_id": 0}, {"image_id": 5, "category_id": 7}, {"image_id": 5}]
    assert problem(tmp_path, coco(annotations=shown, categories=BIRDS)) == (
        f"t.json: {FIRST}t.json:3: annotations: category_id is missing"
    )
    assert problem(tmp_path, coco(annotations=shown[:2], categories=BIRDS)).splitlines() == [
        "t.json: 2 bad rows; correct or remove, nothing of the file was used",
        "t.json:1: annotations: image_id 9 is no image of it",
        "t.json:2: annotations: category_id 7 is no category of it",
    ]
    assert problem(tmp_path, {"images": [{"id": 5}], "annotations": [{"image_id": 5}, 3]}) == (
        "t.json: 2 bad rows; correct or remove, nothing of the file was used\n"
        "t.json:1: annotations: category_id is missing\n"
        't.json:2: annotations: 3 where an object is expected, such as {"path": ..., "label": ...}'
    )


def test_a_category_of_coco_with_two_names_is_refused(tmp_path: Path) -> None:
    twice = [{"id": 7, "name": "wren"}, {"id": 7, "name": "tit"}, {"id": 7, "name": "wren"}]
    assert problem(tmp_path, coco(annotations=[{"image_id": 5, "category_id": 7}], categories=twice)) == (
        f"t.json: {FIRST}t.json:2: categories: id 7 is there with another name"
    )


def test_a_file_of_coco_that_is_cut_short_is_refused_by_its_line(tmp_path: Path) -> None:
    assert problem(tmp_path, '{"images": [\n{"id": 5},\n{"id"') == (
        "t.json:3: not JSON: it ends too early; nothing of the file was used"
    )
    assert problem(tmp_path, '{"annotations": [{"image_id": 1, "category_id": 1}]}') == (
        "t.json is one JSON object, and has no list images as COCO does; give records"
    )


def test_a_label_that_is_a_list_is_several_landmarks(tmp_path: Path) -> None:
    records = [
        {"image_id": "a b", "label": ["Eiffel Tower", None, "b"], "note": ["one two", "three"], "path": "my pic.jpg"},
        {"image_id": "b", "label": "Eiffel Tower", "note": "four five", "path": ["other pic.jpg"]},
        {"image_id": "c", "label": ["b"]},
        {"image_id": "d", "label": []},
        {"image_id": "e", "label": [" ", "-1", "b", "b"]},
    ]
    found, said = read(tmp_path, records)
    assert found.landmarks == ("Eiffel_Tower", "b")
    assert (found.landmark.tolist(), found.more_landmarks) == ([0, 0, 1, -1, 1], {0: (1,)})
    assert found.names == {"Eiffel_Tower": "Eiffel Tower"}
    assert found.columns["note"].tolist() == ["one two three", "four five", "", "", ""]
    assert found.path is not None
    assert (found.image_id[0], *found.path.tolist()[:2]) == ("a b", "my pic.jpg", "other pic.jpg")
    assert said[0] == "t.json: label taken as landmarks, as it holds lists"


def test_labels_in_lists_of_one_are_as_labels_without(tmp_path: Path) -> None:
    found, _ = read(tmp_path, [{"path": "a.jpg", "label": ["Old Mill"]}, {"path": "b.jpg", "label": "Old Mill"}])
    assert (found.landmarks, found.names) == (("Old_Mill",), {"Old_Mill": "Old Mill"})
    separated, _ = read(tmp_path, [{"path": "a.jpg", "label": ["Old\x1fMill"]}])
    assert separated.landmarks == ("Old_Mill",)
    numbers, _ = read(tmp_path, [{"path": "a.jpg", "label": [7]}, {"path": "b.jpg", "label": [8]}])
    assert numbers.landmarks == ("7", "8")


def test_lists_of_an_object_within_are_labels_too(tmp_path: Path) -> None:
    path = write(tmp_path, [{"path": "a.jpg", "by": {"who": ["A b", "c"]}}, {"path": "b.jpg", "by": {"who": "A b"}}])
    found = read_manifest(path, names=parse_columns(("landmark_id=by.who",)))
    assert (found.landmarks, found.landmark.tolist()) == (("A_b", "c"), [0, 0])


def test_landmarks_may_be_lists_and_texts_of_several(tmp_path: Path) -> None:
    records = [
        {"image_id": "a", "landmarks": ["A b", "c"], "Usage": "Public"},
        {"image_id": "b", "landmarks": "c d", "Usage": "Public"},
    ]
    found, _ = read(tmp_path, records)
    assert (found.landmarks, found.landmark.tolist()) == (("A_b", "c", "d"), [0, 1])
    assert found.more_landmarks == {0: (1,), 1: (2,)}


def test_names_stand_beside_lists_of_one(tmp_path: Path) -> None:
    records = [
        {"path": "a.jpg", "label": ["1"], "title": "Old Mill"},
        {"path": "b.jpg", "label": ["1", "2"], "title": "Two"},
        {"path": "c.jpg", "label": ["1"], "title": "Mill"},
    ]
    path = write(tmp_path, records)
    assert read_manifest(path).names == {}
    columns = parse_columns(("name=title",))
    with pytest.raises(LmrError, match="landmark_id 1 is called 'Mill', on line 1 'Old Mill'"):
        read_manifest(write(tmp_path, "\n".join(map(json.dumps, records))), names=columns)
    assert read_manifest(write(tmp_path, records[:2]), names=columns).names == {"1": "Old Mill"}


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ([["a", "b"], ["c"]], 'label holds ["a", "b"] in a list, where a label is expected'),
        ([{"n": "x"}], 'label holds {"n": "x"} in a list, where a label is expected'),
        (["a\0b", "c"], "landmark_id"),
    ],
)
def test_lists_of_what_is_no_label_are_bad_rows(tmp_path: Path, label: list[Any], problem: str) -> None:
    with pytest.raises(LmrError) as caught:
        read(tmp_path, [{"path": "a.jpg", "label": label}])
    assert problem in str(caught.value)


def test_lists_of_a_table_of_another_form_are_as_they_were(tmp_path: Path) -> None:
    found, _ = read(tmp_path, [{"landmark_id": "1", "images": ["a", "b"]}, {"landmark_id": "2", "images": "c d"}])
    assert (found.image_id.tolist(), found.landmark.tolist()) == (["a", "b", "c", "d"], [0, 0, 1, 1])
