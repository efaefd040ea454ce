"""Label and box files of Open Images, the class hierarchy, blank cells, further columns."""

import json

import pytest

from retrieval.data.columns import count_blanks, read_column
from retrieval.data.formats import recognise_manifest
from retrieval.data.open_images import read_hierarchy, read_label_rows
from retrieval.data.tables.opening import open_table
from retrieval.errors import LmrError

LABELS = "ImageID,Source,LabelName,Confidence\n"
BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf,IsInside\n"


def rows_of(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    table = open_table(path)
    assert table is not None
    return read_label_rows(table, recognise_manifest(table.header, table.source))


def test_rows_are_kept_as_they_are(tmp_path):
    rows = rows_of(tmp_path, LABELS + "b,v,/m/2,1\na,v,/m/1,0.5\nb,v,,1\nb,v,/m/1,0\n")
    assert rows.image_id.tolist() == ["b", "a"]
    assert rows.labels == ("/m/2", "/m/1")
    assert rows.image.tolist() == [0, 1, 0, 0]
    assert rows.label.tolist() == [0, 1, -1, 1]
    assert rows.confidence.tolist() == [1, 0.5, 1, 0]
    assert (rows.area, rows.flags, rows.subset) == (None, {}, None)
    assert rows.images().image_id.tolist() == ["b", "a"]


def test_a_blank_label_does_not_move_the_others(tmp_path):
    rows = rows_of(tmp_path, LABELS + "a,v,,1\na,v,/m/1,1\nb,v,/m/2,1\n")
    assert rows.labels == ("/m/1", "/m/2")
    assert rows.label.tolist() == [-1, 0, 1]


def test_boxes_have_areas_and_flags(tmp_path):
    rows = rows_of(tmp_path, BOXES + "a,x,/m/1,1,0.25,0.75,0,0.5,1,-1\na,x,/m/1,1,0.5,0.25,0,1,0,0\n")
    assert rows.area is not None
    assert rows.area.tolist() == [0.25, 0]  # edges the wrong way round cover nothing
    assert {name: values.tolist() for name, values in rows.flags.items()} == {
        "IsGroupOf": [True, False],
        "IsInside": [False, False],
    }


def test_the_subset_of_a_image_is_that_of_its_first_row(tmp_path):
    rows = rows_of(tmp_path, "ImageID,LabelName,Confidence,Subset\na,x,1,train\nb,x,1,test\na,y,1,test\n")
    assert rows.subset is not None
    assert rows.subset.tolist() == ["train", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LABELS + "a,v,/m/1,high\n", "labels.csv:2: Confidence is 'high', not a number from 0 to 1"),
        (LABELS + "a,v,/m/1,nan\n", "labels.csv:2: Confidence is 'nan', not a number from 0 to 1"),
        (LABELS + "a,v,/m/1,1\n,v,/m/1,1\n", "labels.csv:3: id is missing"),
        (LABELS + "a,v,/m/1\n", "labels.csv:2: 3 fields, the header has 4"),
        (LABELS + "a,v,two words,1\n", "labels.csv:2: landmark_id 'two words' holds white space"),
        (BOXES + "a,x,/m/1,1,0,1,0,2,0,0\n", "labels.csv:2: YMax is '2', not a number from 0 to 1"),
        (BOXES + "a,x,/m/1,1,left,1,0,1,0,0\n", "labels.csv:2: XMin is 'left', not a number from 0 to 1"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, text, message):
    with pytest.raises(LmrError) as error:
        rows_of(tmp_path, text)
    assert str(error.value) == (
        f"{tmp_path}/labels.csv: 1 bad row; correct or remove, nothing of the file was used\n{tmp_path}/{message}"
    )


def test_a_file_of_a_header_alone_is_refused(tmp_path):
    with pytest.raises(LmrError) as error:
        rows_of(tmp_path, LABELS)
    assert str(error.value) == (f"{tmp_path}/labels.csv holds a header and no pictures; add a row for each label")


def test_blank_cells_are_counted_by_column(tmp_path):
    (tmp_path / "t.csv").write_text("id,url,landmark_id\na,None,1\nb,,\nc,http://x,2\n")
    table = open_table(tmp_path / "t.csv")
    assert table is not None
    found = count_blanks(table)
    assert (found.n_rows, found.blanks) == (3, {"id": 0, "url": 2, "landmark_id": 1})
    texts = read_column(table, "URL")
    assert texts is not None
    assert texts.tolist() == ["None", "", "http://x"]
    assert read_column(table, "subset") is None


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("id,Subset,subset\na,x,y\n")
    table = open_table(tmp_path / "t.csv")
    assert table is not None
    with pytest.raises(LmrError) as error:
        read_column(table, "Subset")
    assert str(error.value) == f"{tmp_path}/t.csv: there are 2 columns Subset; keep one of them"


def test_a_label_may_be_at_several_places_and_a_part_is_no_kind(tmp_path):
    tree = {
        "LabelName": "all",
        "Subcategory": [
            {"LabelName": "pet", "Subcategory": [{"LabelName": "dog"}]},
            {"LabelName": "animal", "Subcategory": [{"LabelName": "dog"}, {"LabelName": "bird"}]},
        ],
        "Part": [{"LabelName": "tail"}],
    }
    (tmp_path / "h.json").write_text(json.dumps(tree))
    hierarchy = read_hierarchy(tmp_path / "h.json")
    assert hierarchy.below("all") == {"all", "pet", "animal", "dog", "bird"}
    assert hierarchy.below("animal") == {"animal", "dog", "bird"}
    assert hierarchy.below("tail") == {"tail"}
    assert set(hierarchy.children) == {"all", "pet", "animal", "dog", "bird", "tail"}


def test_a_hierarchy_that_goes_in_circles_ends(tmp_path):
    tree = {"LabelName": "a", "Subcategory": [{"LabelName": "b", "Subcategory": [{"LabelName": "a"}]}]}
    (tmp_path / "h.json").write_text(json.dumps(tree))
    assert read_hierarchy(tmp_path / "h.json").below("b") == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "{path} is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
         'a hierarchy is {{"LabelName": ..., "Subcategory": [...]}}'),
        ("[1]", '{path} is not a hierarchy: [1] has no LabelName; it is {{"LabelName": ..., "Subcategory": [...]}}'),
        ('{"LabelName": "a", "Subcategory": 3}',
         '{path}: Subcategory of a is not a list; it is {{"LabelName": ..., "Subcategory": [...]}}'),
        ('{"LabelName": "a", "Subcategories": []}',
         "{path}: a has 'Subcategories'; known are LabelName, Part, Subcategory"),
    ],
)  # fmt: skip
def test_what_is_no_hierarchy_is_named(tmp_path, text, message):
    path = tmp_path / "h.json"
    path.write_text(text)
    with pytest.raises(LmrError) as error:
        read_hierarchy(path)
    assert str(error.value) == message.format(path=path)


def test_a_missing_hierarchy_is_named(tmp_path):
    with pytest.raises(LmrError, match=r"h.json: there is no such file$"):
        read_hierarchy(tmp_path / "h.json")
