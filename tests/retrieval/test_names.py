"""Names of landmarks from the files that hold them."""

from pathlib import Path

import pytest
from recorder import Recorder

from retrieval.data.names import Name, of_no_landmark, read_names, shown_name
from retrieval.errors import LmrError

ADDRESS = "http://commons.wikimedia.org/wiki/Category:"


def write(folder: Path, text: str) -> Path:
    path = folder / "names.csv"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        read_names(path)
    return str(caught.value).replace(str(path), path.name)


def test_wikimedia_categories_become_a_name_and_an_address(tmp_path: Path) -> None:
    text = f"landmark_id,category\n1,{ADDRESS}Hawa_Mahal\n007,{ADDRESS}Ch%C3%A2teau_d%27If\n"
    assert read_names(write(tmp_path, text)) == {
        "1": Name("Hawa Mahal", ADDRESS + "Hawa_Mahal"),
        "007": Name("Château d'If", ADDRESS + "Ch%C3%A2teau_d%27If"),
    }


def test_the_hierarchical_file_gives_the_same_names(tmp_path: Path) -> None:
    text = (
        "landmark_id,category,supercategory,hierarchical_label,natural_or_human_made\n"
        f"1,{ADDRESS}Hawa_Mahal,palace,palace / castle,human-made\n"
    )
    assert read_names(write(tmp_path, text)) == {"1": Name("Hawa Mahal", ADDRESS + "Hawa_Mahal")}


def test_class_descriptions_are_read_with_and_without_a_header(tmp_path: Path) -> None:
    rows = '/m/011k07,Tortoise\n/m/01j5ks,"Cat, small"\n'
    expected = {"/m/011k07": Name("Tortoise"), "/m/01j5ks": Name("Cat, small")}
    assert read_names(write(tmp_path, rows)) == expected
    assert read_names(write(tmp_path, "LabelName,DisplayName\n" + rows)) == expected


def test_a_plain_table_may_have_an_address(tmp_path: Path) -> None:
    text = "name,address,landmark_id\nHawa Mahal,https://x/y,1\nLouvre,,2\n"
    assert read_names(write(tmp_path, text)) == {"1": Name("Hawa Mahal", "https://x/y"), "2": Name("Louvre")}


def test_bad_rows_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "landmark_id,name\n1,a\n,b\n1,c\n2,\n3\n")
    assert error_of(path) == (
        "names.csv: 4 bad rows; correct or remove, nothing of the file was used\n"
        "names.csv:3: landmark_id is missing\n"
        "names.csv:4: landmark_id 1 is also on line 2\n"
        "names.csv:5: name is missing\n"
        "names.csv:6: 1 field, the header has 2"
    )


def test_a_class_twice_without_a_header_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "/m/1,Cat\n/m/1,Dog\n")
    assert error_of(path).splitlines()[1] == "names.csv:2: /m/1 /m/1 is also on line 1"


def test_a_manifest_holds_no_names(tmp_path: Path) -> None:
    message = "names.csv holds no names; `names` takes landmark_id,name[,address] or landmark_id,category"
    assert error_of(write(tmp_path, "id,landmark_id\na,1\n")) == message


def test_labels_of_names_are_read_as_those_of_manifests(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("landmark_id,name\nParus major,Great Tit\n")
    assert read_names(path) == {"Parus_major": Name("Great Tit")}


def test_names_of_no_landmark_are_counted_and_the_first_named() -> None:
    source, known = Path("names.csv"), Path("train.h5")
    assert of_no_landmark(["a", "b"], ["b", "a", "c"], source, known) == ""
    assert (
        of_no_landmark(["a", "b"], ["a"], source, known) == "names.csv: 1 of 2 names is of no landmark of train.h5: b"
    )
    assert of_no_landmark(["a", "b", "c", "d"], [], source, known) == (
        "names.csv: 4 of 4 names are of no landmark of train.h5: a, b, c, …"
    )


def test_a_name_with_decomposed_letters_is_the_name_of_its_composed_label() -> None:
    assert shown_name("Schlo\u00df_K\u00f6ln", "Schlo\u00df Ko\u0308ln") == "Schlo\u00df Ko\u0308ln"
    assert shown_name("9633", "Schlo\u00df Ko\u0308ln") == "Schlo\u00df Ko\u0308ln (9633)"


def test_columns_may_be_separated_by_tabs(tmp_path: Path) -> None:
    path = write(tmp_path, "landmark_id\tname\n1\tCastle, old\n")
    said: list[str] = []
    assert read_names(path, Recorder(said)) == {"1": Name("Castle, old")}
    assert said == [f"{path}: columns separated by tabs"]
