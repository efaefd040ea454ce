"""Numbers of things in sentences."""

import pytest

from retrieval.words import agreeing, counted, none_can, plural


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (1, "picture", "1 picture"),
        (0, "picture", "0 pictures"),
        (2, "landmark query", "2 landmark queries"),
        (1, "landmark query", "1 landmark query"),
        (2000, "key", "2,000 keys"),
        (3, "box", "3 boxes"),
        (4, "epoch", "4 epochs"),
    ],
)
def test_one_thing_is_in_the_singular_and_all_others_are_not(n: int, noun: str, text: str) -> None:
    assert counted(n, noun) == text


def test_of_a_share_the_whole_decides() -> None:
    assert counted(1, "picture", of=4) == "1 of 4 pictures"
    assert counted(1, "picture", of=1) == "1 of 1 picture"
    assert counted(0, "copy", of=12345) == "0 of 12,345 copies"


def test_a_vowel_before_the_y_keeps_it() -> None:
    assert (plural("day"), plural("query")) == ("days", "queries")
    assert (plural("epoch"), plural("match")) == ("epochs", "matches")


def test_the_verb_goes_with_the_number() -> None:
    assert [agreeing(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]


def test_where_nothing_can_the_only_thing_is_said_to_be_the_only_one() -> None:
    assert none_can(3, "picture") == "none of the 3 pictures can"
    assert none_can(1, "picture") == "the only picture cannot"
    assert none_can(1, "picture", can="could", whose="its") == "its only picture could not"
