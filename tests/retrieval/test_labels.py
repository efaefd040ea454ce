"""Labels as other programs write them, and labels of two files that cannot meet."""

import pytest

from retrieval.data.labels import require_meeting, spelling_of
from retrieval.errors import LmrError

BLANK = ["", "None", "nan", "NaN", "null", "NULL", "NA", "N/A", "<NA>", "#N/A", "-1", "-1.0"]


def read(*labels: str) -> list[str]:
    spelling = spelling_of(labels)
    return [spelling.of(label) for label in labels]


def problem(asked: list[str], known: list[str]) -> str:
    with pytest.raises(LmrError) as caught:
        require_meeting(asked, known, ("val.csv", "train.csv"))
    return str(caught.value)


@pytest.mark.parametrize("blank", BLANK)
def test_words_for_a_blank_cell_are_no_landmark(blank: str) -> None:
    assert read("7", blank) == ["7", ""]
    assert read("Petra", blank) == ["Petra", ""]


def test_whole_numbers_lose_their_point_and_zero() -> None:
    assert read("7.0", "12", "nan", "3.00") == ["7", "12", "", "3"]


def test_numbers_with_a_fraction_or_beside_texts_stay_as_they_are() -> None:
    assert read("7.0", "7.5") == ["7.0", "7.5"]
    assert read("7.0", "Petra") == ["7.0", "Petra"]


def test_minus_one_is_a_landmark_among_others_below_zero() -> None:
    assert read("-1", "-2", "5") == ["-1", "-2", "5"]


def test_letters_are_composed() -> None:
    assert read("Cafe\u0301", "Caf\u00e9") == ["Caf\u00e9", "Caf\u00e9"]


def test_what_is_read_otherwise_is_told_with_its_number_of_cells() -> None:
    spelling = spelling_of(["7.0", "nan", "NA", "8.0"])
    assert spelling.notes("t.csv", {"nan": 2000, "NA": 1}.__getitem__) == [
        "t.csv: 2,001 cells NA, nan read as no landmark",
        "t.csv: 7.0 read as 7, and so all labels that end in .0; "
        "pandas makes them of whole numbers beside blank cells, astype('Int64') does not",
    ]


@pytest.mark.parametrize(
    ("here", "there", "difference"),
    [
        ("7.0", "7", "the .0"),
        ("007", "7", "zeros at the beginning"),
        ("petra", "Petra", "capital letters"),
        ("Hawa Mahal", "Hawa_Mahal", "white space, _ and -"),
        ("Cafe\u0301", "Caf\u00e9", "the form of the letters in Unicode"),
        ("hawa mahal", "Hawa_Mahal", "how they are written"),
    ],
)
def test_labels_that_would_meet_if_spelt_alike_are_refused(here: str, there: str, difference: str) -> None:
    assert problem([here, "both"], [there, "both"]) == (
        f"val.csv says {here!r}, train.csv says {there!r}: the same but for {difference}; "
        "spell them alike, or give `allow_disjoint` if they are different landmarks"
    )


def test_of_several_labels_that_one_may_mean_the_first_is_named() -> None:
    known = [f"pe{mark}tra" for mark in ("--", "-", "_", "__", "-_", "_-")]
    assert problem(["pe tra"], known).startswith("val.csv says 'pe tra', train.csv says 'pe--tra': the same but for")


def test_two_files_without_a_common_label_are_refused() -> None:
    assert problem(["a", "b", "c", "d"], ["x"]) == (
        "none of the 4 landmarks of val.csv (a, b, c, …) is among the 1 of train.csv (x); "
        "give files that belong together, or give `allow_disjoint` if that is meant"
    )


@pytest.mark.parametrize(
    ("asked", "known"),
    [(["a", "b"], ["b", "c"]), (["", ""], ["a"]), (["a"], []), (["petra", "Petra"], ["petra", "Petra"])],
)
def test_labels_that_meet_or_are_not_there_pass(asked: list[str], known: list[str]) -> None:
    require_meeting(asked, known, ("val.csv", "train.csv"))
